"""A batch of scenes: the factors from which everything else is computed."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from dlatlas.data.shapes.vocabulary import FACTORS
from dlatlas.ops import validate

SHORTEST_PERIOD = 1e-3


@dataclass(frozen=True, eq=False)
class Scenes:
    """Scenes of up to k objects each, stacked along any leading dimensions ``batch``.

    Lengths are fractions of the image's side; x points to the right and y downwards. Objects are stored from the
    farthest to the nearest, so that each one hides those before it. A slot without an object has ``present`` False; its
    other factors mean nothing.

    Parameters
    ----------
    present
        Which slots hold an object, ``(*batch, k)``.
    shape, colour, texture, size
        Indices into ``SHAPES``, ``COLOURS``, ``TEXTURES``, ``SIZES``, ``(*batch, k)``.
    position
        Centres (x, y), ``(*batch, k, 2)``.
    radius
        Radius of the circle around the object, ``(*batch, k)``.
    angle
        Anticlockwise turn in radians, ``(*batch, k)``.
    period
        Period of the texture as a fraction of the radius, ``(*batch, k)``.
    depth
        Distance from the viewer, in (0, 1) where the background is at 1, ``(*batch, k)``.
    tint
        What is added to the RGB colour, ``(*batch, k, 3)``.
    background
        Index into ``BACKGROUNDS``, ``(*batch)``.
    """

    present: Tensor
    shape: Tensor
    colour: Tensor
    texture: Tensor
    size: Tensor
    position: Tensor
    radius: Tensor
    angle: Tensor
    period: Tensor
    depth: Tensor
    tint: Tensor
    background: Tensor

    def __post_init__(self):
        batch, objects = self.present.shape[:-1], self.present.shape[-1]
        trailing = {"position": (objects, 2), "tint": (objects, 3), "background": ()}
        for name, tensor in self.tensors().items():
            expected = (*batch, *trailing.get(name, (objects,)))
            if tensor.shape != expected:
                raise ValueError(f"{name} must have shape {expected}, got {tuple(tensor.shape)}")
        for factor in FACTORS:
            validate.labels(factor, getattr(self, factor), len(FACTORS[factor]))
        for name in ("position", "radius", "angle", "period", "depth", "tint"):
            validate.finite(name, getattr(self, name))
        validate.in_range("radius", self.radius, 0.0, math.inf)
        validate.in_range("period", self.period, SHORTEST_PERIOD, math.inf)

    def tensors(self) -> dict[str, Tensor]:
        """All factors by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def replace(self, **factors: Tensor) -> Self:
        """The same scenes with other values of some factors: a counterfactual."""
        return dataclasses.replace(self, **factors)

    def to(self, device: torch.device | str) -> Self:
        """The same scenes on another device."""
        return self.map(lambda tensor: tensor.to(device))

    def __getitem__(self, index: Any) -> Self:
        """Some of the scenes: anything that indexes the leading dimension of a tensor."""
        return self.map(lambda tensor: tensor[index])

    def __len__(self) -> int:
        return len(self.present)

    @property
    def batch(self) -> torch.Size:
        """Leading dimensions."""
        return self.present.shape[:-1]

    @property
    def slots(self) -> int:
        """Largest number of objects that a scene can hold, k."""
        return self.present.shape[-1]

    @property
    def count(self) -> Tensor:
        """Number of objects, ``(*batch)``."""
        return self.present.sum(-1)

    @property
    def device(self) -> torch.device:
        """Where the factors are."""
        return self.present.device

    def flat(self) -> Self:
        """The same scenes along one leading dimension."""
        dims = len(self.batch)
        if dims == 0:
            return self.map(lambda tensor: tensor.unsqueeze(0))
        return self.map(lambda tensor: tensor.flatten(0, dims - 1)) if dims > 1 else self

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every factor."""
        return type(self)(**{name: function(tensor) for name, tensor in self.tensors().items()})


def concatenate(*scenes: Scenes) -> Scenes:
    """Batches of scenes with the same number of slots, one after the other."""
    if len({batch.slots for batch in scenes}) != 1:
        raise ValueError(f"scenes must have equally many slots, got {[batch.slots for batch in scenes]}")
    return Scenes(**{name: torch.cat([batch.tensors()[name] for batch in scenes]) for name in scenes[0].tensors()})
