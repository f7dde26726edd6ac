"""The words of the shapes world: every value of every named factor, and what it looks like.

No word names two values, so that a value can be referred to without its factor.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from dlatlas.data.shapes.geometry import OUTLINES
from dlatlas.data.shapes.textures import TONES

RGB = tuple[float, float, float]

PALETTE: dict[str, RGB] = {
    "red": (0.86, 0.16, 0.18),
    "orange": (0.96, 0.54, 0.10),
    "yellow": (0.98, 0.86, 0.20),
    "green": (0.15, 0.62, 0.27),
    "cyan": (0.20, 0.78, 0.84),
    "blue": (0.16, 0.34, 0.80),
    "purple": (0.49, 0.20, 0.64),
    "pink": (0.97, 0.53, 0.72),
    "brown": (0.54, 0.33, 0.17),
    "white": (0.98, 0.98, 0.97),
}


class Ground(NamedTuple):
    """A background: two colours, the texture that mixes them, and its period as a fraction of the image."""

    first: RGB
    second: RGB
    texture: str
    period: float


def _flat(rgb: RGB) -> Ground:
    return Ground(rgb, rgb, "plain", 1.0)


GROUNDS: dict[str, Ground] = {
    "paper": _flat((0.85, 0.83, 0.78)),
    "mist": _flat((0.69, 0.73, 0.76)),
    "sand": _flat((0.80, 0.71, 0.55)),
    "moss": _flat((0.50, 0.57, 0.44)),
    "slate": _flat((0.33, 0.38, 0.44)),
    "night": _flat((0.11, 0.12, 0.19)),
    "dusk": Ground((0.30, 0.27, 0.42), (0.72, 0.56, 0.55), "gradient", 1.0),
    "boards": Ground((0.70, 0.62, 0.53), (0.62, 0.54, 0.45), "stripes", 0.25),
    "tiles": Ground((0.62, 0.66, 0.70), (0.52, 0.56, 0.61), "checks", 0.25),
    "pebbles": Ground((0.40, 0.43, 0.42), (0.50, 0.53, 0.51), "dots", 0.16),
}

SIZE_RADII: dict[str, tuple[float, float]] = {
    "small": (0.16, 0.20),
    "medium": (0.24, 0.28),
    "large": (0.33, 0.39),
}
"""Range of the radius of a lone object, as a fraction of the image's side."""

SHAPES = tuple(OUTLINES)
COLOURS = tuple(PALETTE)
TEXTURES = tuple(TONES)
SIZES = tuple(SIZE_RADII)
BACKGROUNDS = tuple(GROUNDS)

FACTORS: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "texture": TEXTURES,
    "size": SIZES,
    "background": BACKGROUNDS,
}
"""Values of the named factors. The first four belong to an object, the background to the scene."""

OBJECT_FACTORS = ("shape", "colour", "texture", "size")

_FACTOR_OF = {value: factor for factor, values in FACTORS.items() for value in values}


def factor_of(value: str) -> str:
    """The factor that a value belongs to."""
    if value not in _FACTOR_OF:
        raise ValueError(f"unknown value {value!r}; the known values are {_listing(FACTORS)}")
    return _FACTOR_OF[value]


def values_of(factor: str) -> tuple[str, ...]:
    """The values that a factor can take."""
    if factor not in FACTORS:
        raise ValueError(f"factor must be one of {', '.join(FACTORS)}; got {factor!r}")
    return FACTORS[factor]


def index_of(factor: str, value: str) -> int:
    """Position of a value among the values of its factor."""
    values = values_of(factor)
    if value not in values:
        raise ValueError(f"{factor} must be one of {', '.join(values)}; got {value!r}")
    return values.index(value)


def palette(device: torch.device) -> Tensor:
    """Colours of objects, (colours, 3)."""
    return torch.tensor(list(PALETTE.values()), device=device)


def _listing(factors: Mapping[str, tuple[str, ...]]) -> str:
    return "; ".join(f"{factor}: {', '.join(values)}" for factor, values in factors.items())
