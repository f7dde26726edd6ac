"""Domains: the same scenes in another style.

Some styles change the scene before it is drawn, the others are corruptions of the image.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.data.shapes.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from dlatlas.data.shapes.render import render
from dlatlas.data.shapes.scenes import Scenes
from dlatlas.data.shapes.vocabulary import BACKGROUNDS, TEXTURES
from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def shift(scenes: Scenes, kind: str, severity: int, *, generator: torch.Generator) -> Scenes:
    """Change scenes in a way that leaves shapes and colours what they are.

    Parameters
    ----------
    scenes
        Scenes to change.
    kind
        One of ``SHIFTS``. ``"texture swap"`` gives objects another texture and ``"new background"`` scenes another
        background, both with probability severity / 5; ``"shrink"`` makes objects smaller, and ``"turn"`` turns them.
    severity
        From 1 (slight) to 5 (strong).
    generator
        A CPU generator.
    """
    validate.one_of("kind", kind, tuple(_SHIFTS))
    validate.in_range("severity", severity, SEVERITIES[0], SEVERITIES[-1])
    return _SHIFTS[kind](scenes, severity, generator)


@typed
def render_style(
    scenes: Scenes, style: str, severity: int = 3, *, generator: torch.Generator, size: int = 32
) -> Float[Tensor, "*batch 3 h w"]:
    """Draw scenes in one of ``STYLES``: clean, shifted (see `shift`) or corrupted (see `corrupt`).

    Parameters
    ----------
    scenes, size
        As for `render`.
    style
        ``"clean"``, or one of ``SHIFTS`` or ``CORRUPTIONS``.
    severity
        From 1 (slight) to 5 (strong); without effect on the clean style.
    generator
        A CPU generator.
    """
    validate.one_of("style", style, STYLES)
    if style in _SHIFTS:
        return render(shift(scenes, style, severity, generator=generator), size)
    images = render(scenes, size)
    return images if style == "clean" else corrupt(images, style, severity, generator=generator)


def _swap_textures(scenes: Scenes, severity: int, generator: torch.Generator) -> Scenes:
    return scenes.replace(texture=_redrawn(scenes.texture, len(TEXTURES), severity / 5, generator))


def _new_background(scenes: Scenes, severity: int, generator: torch.Generator) -> Scenes:
    return scenes.replace(background=_redrawn(scenes.background, len(BACKGROUNDS), severity / 5, generator))


def _shrink(scenes: Scenes, severity: int, generator: torch.Generator) -> Scenes:
    return scenes.replace(radius=scenes.radius * (0.85, 0.74, 0.65, 0.57, 0.5)[severity - 1])


def _turn(scenes: Scenes, severity: int, generator: torch.Generator) -> Scenes:
    sign = torch.where(torch.rand(scenes.angle.shape, generator=generator) < 0.5, -1.0, 1.0).to(scenes.device)
    return scenes.replace(angle=scenes.angle + sign * math.radians(36 * severity))


def _redrawn(values: Tensor, number: int, probability: float, generator: torch.Generator) -> Tensor:
    """Each value is replaced with a probability by one of the others."""
    draws = torch.rand(2, *values.shape, generator=generator).to(values.device)
    other = (values + 1 + (draws[1] * (number - 1)).long()) % number
    return torch.where(draws[0] < probability, other, values)


_SHIFTS: dict[str, Callable[[Scenes, int, torch.Generator], Scenes]] = {
    "texture swap": _swap_textures,
    "new background": _new_background,
    "shrink": _shrink,
    "turn": _turn,
}
SHIFTS = tuple(_SHIFTS)
STYLES = ("clean", *SHIFTS, *CORRUPTIONS)
