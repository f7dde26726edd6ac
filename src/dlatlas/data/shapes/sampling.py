"""Drawing scenes.

Factors come from uniform draws of a CPU generator and IEEE arithmetic only, so that a seed gives the same scenes on
every machine; each scene uses the same number of draws, so that the first scenes of a larger sample are those of a
smaller one.
"""

import math

import torch
from torch import Tensor

from dlatlas.data.shapes.joint import Joint
from dlatlas.data.shapes.scenes import Scenes
from dlatlas.data.shapes.vocabulary import OBJECT_FACTORS, SIZE_RADII
from dlatlas.ops import validate
from dlatlas.typed import typed

MOST_OBJECTS = 4
CANDIDATES = 16
KIND_DRAWS = 6
PLACE_DRAWS = 2 + 2 * CANDIDATES
CROWDING = {1: 1.0, 2: 0.80, 3: 0.70, 4: 0.62}
"""Radii shrink by this factor in scenes with that many slots, so that the objects find room beside each other."""
PERIODS = (0.60, 0.80)
DEPTHS = (0.1, 0.9)


@typed
def sample(
    n: int,
    *,
    generator: torch.Generator,
    joint: Joint | None = None,
    objects: tuple[int, int] = (1, 1),
    spread: float = 1.0,
    rotation: float = 25.0,
    overlap: float = 0.2,
    tint: float = 0.05,
) -> Scenes:
    """Draw scenes.

    The background comes from its marginal, and each object independently from the joint distribution given the
    background.

    Parameters
    ----------
    n
        Number of scenes.
    generator
        A CPU generator.
    joint
        Distribution of the named factors; uniform by default.
    objects
        Smallest and largest number of objects in a scene, between 1 and 4; all numbers are equally likely.
    spread
        How far objects stray from the centre: 0 puts them there, 1 lets them reach the border.
    rotation
        Largest turn away from upright, in degrees.
    overlap
        How near two objects may be: their centres are at least (1 - overlap) times the sum of their radii apart, if one
        of 16 places allows it, and else as far apart as the best of these.
    tint
        Largest deviation of a colour channel from the palette.

    Returns
    -------
    Scenes
        With ``batch`` (n,) and as many slots as the largest number of objects.
    """
    fewest, most = objects
    validate.at_least("n", n, 1)
    validate.in_range("objects[1]", most, 1, MOST_OBJECTS)
    validate.in_range("objects[0]", fewest, 1, most)
    validate.in_range("tint", tint, 0.0, 1.0)
    _validate_arrangement(spread, rotation, overlap)
    draws = torch.rand(n, 2 + most * (KIND_DRAWS + PLACE_DRAWS), generator=generator, dtype=torch.float64)
    scene, kind, place = draws.split([2, most * KIND_DRAWS, most * PLACE_DRAWS], dim=1)
    blank = _unplaced(joint or Joint(), scene, kind.unflatten(1, (most, KIND_DRAWS)), fewest, tint)
    return _arranged(blank, place.unflatten(1, (most, PLACE_DRAWS)), spread, rotation, overlap)


@typed
def rearrange(
    scenes: Scenes,
    *,
    generator: torch.Generator,
    spread: float = 1.0,
    rotation: float = 25.0,
    overlap: float = 0.2,
) -> Scenes:
    """Give the same objects new places, turns and exact sizes: another view of the same things.

    Parameters
    ----------
    scenes
        Scenes whose named factors, colours and depths stay as they are.
    generator, spread, rotation, overlap
        As for `sample`.
    """
    _validate_arrangement(spread, rotation, overlap)
    draws = torch.rand(*scenes.present.shape, PLACE_DRAWS, generator=generator, dtype=torch.float64)
    return _arranged(scenes, draws, spread, rotation, overlap)


def _validate_arrangement(spread: float, rotation: float, overlap: float) -> None:
    validate.in_range("spread", spread, 0.0, 1.0)
    validate.in_range("rotation", rotation, 0.0, 180.0)
    validate.in_range("overlap", overlap, 0.0, 1.0)


def _unplaced(joint: Joint, scene: Tensor, kind: Tensor, fewest: int, tint: float) -> Scenes:
    """Scenes whose objects have all factors but those of their place, from draws (n, 2) and (n, k, KIND_DRAWS)."""
    n, most, _ = kind.shape
    count = fewest + (scene[:, 1] * (most - fewest + 1)).long()
    # Each object has its own layer of depths, so that the order of the slots is the order of occlusion.
    depth = _between(*DEPTHS, (torch.arange(most, 0, -1) - kind[..., 1]) / most)
    return Scenes(
        present=torch.arange(most) < count[:, None],
        **_named_factors(joint, scene[:, 0], kind[..., 0]),
        position=torch.full((n, most, 2), 0.5),
        radius=torch.zeros(n, most),
        angle=torch.zeros(n, most),
        period=_between(*PERIODS, kind[..., 2]).float(),
        depth=depth.float(),
        tint=(tint * (2 * kind[..., 3:6] - 1)).float(),
    )


def _named_factors(joint: Joint, scene: Tensor, kind: Tensor) -> dict[str, Tensor]:
    """Backgrounds (n,) from one draw a scene, and the factors (n, k) of objects from one draw each."""
    background = _invert(joint.marginal("background"), scene)
    cell = torch.zeros_like(kind, dtype=torch.long)
    for ground in background.unique():
        chosen = background == ground
        cell[chosen] = _invert(joint.table[..., ground].flatten(), kind[chosen])
    indices = torch.unravel_index(cell, joint.table.shape[:-1])
    return {"background": background, **dict(zip(OBJECT_FACTORS, indices, strict=True))}


def _invert(weights: Tensor, u: Tensor) -> Tensor:
    """Indices drawn in proportion to the weights, by the inverse of the distribution function at u in [0, 1)."""
    cumulative = weights.cumsum(0)
    return torch.searchsorted(cumulative, u * cumulative[-1], right=True)


def _arranged(scenes: Scenes, draws: Tensor, spread: float, rotation: float, overlap: float) -> Scenes:
    """The scenes with radius, angle and position from draws ``(*batch, k, PLACE_DRAWS)``."""
    low, high = torch.tensor(list(SIZE_RADII.values()), dtype=torch.float64)[scenes.size.cpu()].unbind(-1)
    radius = CROWDING[scenes.slots] * _between(low, high, draws[..., 0])
    angle = math.radians(rotation) * (2 * draws[..., 1] - 1)
    reach = spread * (0.5 - radius)[..., None, None]
    candidates = 0.5 + reach * (2 * draws[..., 2:].unflatten(-1, (CANDIDATES, 2)) - 1)
    position = _place(candidates, radius, scenes.present.cpu(), overlap)
    chosen = {"position": position, "radius": radius, "angle": angle}
    return scenes.replace(**{name: value.float().to(scenes.device) for name, value in chosen.items()})


def _place(candidates: Tensor, radius: Tensor, present: Tensor, overlap: float) -> Tensor:
    """Choose one of the places ``(*batch, k, candidates, 2)`` for each object, one object after the other."""
    first_wins = torch.arange(CANDIDATES, 0, -1)
    places: list[Tensor] = []
    for slot in range(radius.shape[-1]):
        options = candidates[..., slot, :, :]
        room = torch.full(options.shape[:-1], math.inf, dtype=options.dtype)
        for other, place in enumerate(places):
            apart = (options - place[..., None, :]).square().sum(-1).sqrt()
            needed = (1 - overlap) * (radius[..., slot] + radius[..., other])
            room = torch.where(present[..., other, None], torch.minimum(room, apart - needed[..., None]), room)
        fits = room >= 0
        best = torch.where(fits.any(-1), (first_wins * fits).argmax(-1), room.argmax(-1))
        places.append(options.gather(-2, best[..., None, None].expand(*best.shape, 1, 2)).squeeze(-2))
    return torch.stack(places, -2)


def _between(low: Tensor | float, high: Tensor | float, u: Tensor) -> Tensor:
    return low + (high - low) * u
