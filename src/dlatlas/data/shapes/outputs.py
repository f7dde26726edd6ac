"""What is known about a scene: labels, attributes, masks, boxes, depth, counts, keypoints."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dlatlas.data.shapes.geometry import TIPS
from dlatlas.data.shapes.render import silhouettes
from dlatlas.data.shapes.scenes import Scenes
from dlatlas.data.shapes.vocabulary import FACTORS, OBJECT_FACTORS, SHAPES
from dlatlas.ops import validate
from dlatlas.typed import typed

ATTRIBUTES = tuple(value for factor in OBJECT_FACTORS for value in FACTORS[factor])
"""Meaning of the columns of `attributes`."""

LANDMARKS = 1 + max(len(tips) for tips in TIPS.values())


class Keypoints(NamedTuple):
    """Landmarks of objects: the centre, then the tips clockwise from the top of the upright shape.

    Parameters
    ----------
    position
        (x, y) as fractions of the image's side, ``(*batch, k, landmarks, 2)``.
    exists
        Which landmarks the object has, ``(*batch, k, landmarks)``.
    visible
        Which of them lie in the image and are not hidden by a nearer object, ``(*batch, k, landmarks)``.
    """

    position: Tensor
    exists: Tensor
    visible: Tensor


@typed
def labels(scenes: Scenes, *factors: str) -> Int[Tensor, "*batch"]:
    """Class of scenes with one object: the value of a factor, or of several as one number in row-major order.

    Parameters
    ----------
    scenes
        Scenes with a single slot.
    factors
        Names of factors, for example ``"shape", "colour"``.
    """
    if scenes.slots != 1:
        raise ValueError(f"scenes must have one slot for a class label, got {scenes.slots}")
    if not factors:
        raise ValueError("factors must name at least one factor, got none")
    label = torch.zeros_like(scenes.background)
    for factor in factors:
        validate.one_of("factors", factor, tuple(FACTORS))
        value = scenes.background if factor == "background" else getattr(scenes, factor)[..., 0]
        label = label * len(FACTORS[factor]) + value
    return label


@typed
def attributes(scenes: Scenes) -> Float[Tensor, "*batch k attributes"]:
    """Indicators of ``ATTRIBUTES`` for each object, zero in empty slots; their maximum describes the scene."""
    parts = [torch.nn.functional.one_hot(getattr(scenes, factor), len(FACTORS[factor])) for factor in OBJECT_FACTORS]
    return (torch.cat(parts, -1) * scenes.present[..., None]).float()


@typed
def counts(scenes: Scenes, factor: str) -> Int[Tensor, "*batch values"]:
    """How many objects have each value of a factor; the sum over the values is ``scenes.count``.

    Parameters
    ----------
    scenes
        Any scenes.
    factor
        ``"shape"``, ``"colour"``, ``"texture"`` or ``"size"``.
    """
    validate.one_of("factor", factor, OBJECT_FACTORS)
    one_hot = torch.nn.functional.one_hot(getattr(scenes, factor), len(FACTORS[factor]))
    return (one_hot * scenes.present[..., None]).sum(-2)


@typed
def instance_masks(scenes: Scenes, size: int = 32) -> Bool[Tensor, "*batch k h w"]:
    """Pixels in which each object is seen: mostly covered by it, and by no nearer one.

    Parameters
    ----------
    scenes, size
        As for `render`.
    """
    covered = silhouettes(scenes, size) > 0.5
    nearer = covered.flip(-3).cumsum(-3).flip(-3) - covered.long()
    return covered & (nearer == 0)


@typed
def semantic_mask(scenes: Scenes, size: int = 32, factor: str = "shape") -> Int[Tensor, "*batch h w"]:
    """Value of a factor in every pixel plus one, and 0 in the background.

    Parameters
    ----------
    scenes, size
        As for `render`.
    factor
        ``"shape"``, ``"colour"``, ``"texture"`` or ``"size"``.
    """
    validate.one_of("factor", factor, OBJECT_FACTORS)
    values = 1 + getattr(scenes, factor)[..., None, None]
    return (instance_masks(scenes, size) * values).sum(-3)


@typed
def depth_map(scenes: Scenes, size: int = 32) -> Float[Tensor, "*batch h w"]:
    """Distance of what is seen in every pixel; the background is at 1.

    Parameters
    ----------
    scenes, size
        As for `render`.
    """
    return 1 - (instance_masks(scenes, size) * (1 - scenes.depth[..., None, None])).sum(-3)


@typed
def boxes(masks: Bool[Tensor, "*batch h w"]) -> Float[Tensor, "*batch 4"]:
    """Smallest boxes (left, top, right, bottom) around masks, as fractions of the image; all zero for an empty mask.

    Boxes of what is seen come from `instance_masks`, boxes of whole objects from ``silhouettes(scenes, size) > 0.5``.

    Parameters
    ----------
    masks
        True inside.
    """
    left, right = _extent(masks.any(-2))
    top, bottom = _extent(masks.any(-1))
    return torch.stack([left, top, right, bottom], -1)


@typed
def keypoints(scenes: Scenes, size: int = 32) -> Keypoints:
    """Landmarks of all objects.

    Parameters
    ----------
    scenes, size
        As for `render`; the size matters to what is hidden only.
    """
    upright = torch.tensor([_landmarks(shape) for shape in SHAPES], device=scenes.device)
    local = upright[scenes.shape]
    exists = local.isfinite().all(-1) & scenes.present[..., None]
    u, v = local.nan_to_num(0.0).unbind(-1)
    cos, sin = torch.cos(scenes.angle)[..., None], torch.sin(scenes.angle)[..., None]
    offset = torch.stack([cos * u - sin * v, -(sin * u + cos * v)], -1)
    position = scenes.position[..., None, :] + scenes.radius[..., None, None] * offset
    inside = ((position >= 0) & (position < 1)).all(-1)
    return Keypoints(position, exists, exists & inside & ~_hidden(scenes, position, size))


def _landmarks(shape: str) -> list[tuple[float, float]]:
    points = [(0.0, 0.0), *TIPS[shape]]
    return points + [(math.nan, math.nan)] * (LANDMARKS - len(points))


def _hidden(scenes: Scenes, position: Tensor, size: int) -> Tensor:
    """Whether a nearer object covers the pixel of a point, ``(*batch, k, points)``."""
    covered = silhouettes(scenes, size) > 0.5
    nearer = covered.flip(-3).cumsum(-3).flip(-3) - covered.long()
    column, row = (position * size).long().clamp(0, size - 1).unbind(-1)
    return nearer.flatten(-2).gather(-1, row * size + column) > 0


def _extent(line: Tensor) -> tuple[Tensor, Tensor]:
    """First and last edge of the True entries along the last dimension."""
    size = line.shape[-1]
    ahead = torch.arange(size, 0, -1, device=line.device) * line
    first = (size - ahead.amax(-1)) * line.any(-1)
    last = (torch.arange(1, size + 1, device=line.device) * line).amax(-1)
    return first / size, last / size
