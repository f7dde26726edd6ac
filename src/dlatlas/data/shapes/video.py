"""Scenes in motion."""

import math

import torch
from jaxtyping import Int
from torch import Tensor

from dlatlas.data.shapes.scenes import Scenes
from dlatlas.ops import validate
from dlatlas.typed import typed

MOTIONS = ("rest", "drift", "swing", "orbit", "spin", "pulse")
ORBIT_RADII = (0.10, 0.25)
PULSE = 0.4


@typed
def animate(
    scenes: Scenes, frames: int, *, generator: torch.Generator, motion: str | Int[Tensor, "*batch k"] = "drift"
) -> Scenes:
    """Move the objects of each scene along smooth paths; they hide each other where they cross.

    The first frame is the scene itself. In the time of the video an object can ``drift`` along a line to a second
    place, ``swing`` there and back, go once around on an ``orbit`` (which may carry it a little over the border),
    ``spin`` once on the spot, ``pulse`` once in size, or ``rest``.

    Parameters
    ----------
    scenes
        The first frames, with leading dimensions ``batch``.
    frames
        Number of frames.
    generator
        A CPU generator.
    motion
        One of ``MOTIONS`` for all objects, or an index into them for each.

    Returns
    -------
    Scenes
        With leading dimensions ``(*batch, frames)``.
    """
    validate.at_least("frames", frames, 1)
    kind = _kinds(scenes, motion)[..., None, :]
    draws = torch.rand(*scenes.present.shape, 3, generator=generator, dtype=torch.float64).float().to(scenes.device)
    still = _repeated(scenes, frames)
    time = torch.linspace(0, 1, frames, device=scenes.device)[:, None]
    turn, sign = 2 * math.pi * time, torch.where(draws[..., 2] < 0.5, -1.0, 1.0)[..., None, :]
    there_and_back = (1 - torch.cos(turn)) / 2
    reach = (0.5 - scenes.radius)[..., None]
    way = (0.5 + reach * (2 * draws[..., :2] - 1) - scenes.position)[..., None, :, :]

    def only(name: str) -> Tensor:
        return (kind == MOTIONS.index(name)).float()

    progress = only("drift") * time + only("swing") * there_and_back
    around = only("orbit")[..., None] * _around(still.position, turn, sign)
    return still.replace(
        position=still.position + progress[..., None] * way + around,
        angle=still.angle + only("spin") * sign * turn,
        radius=still.radius * (1 - PULSE * only("pulse") * there_and_back),
    )


def _kinds(scenes: Scenes, motion: str | Tensor) -> Tensor:
    if isinstance(motion, str):
        validate.one_of("motion", motion, MOTIONS)
        return torch.full_like(scenes.shape, MOTIONS.index(motion))
    validate.labels("motion", motion, len(MOTIONS))
    if motion.shape != scenes.shape.shape:
        raise ValueError(f"motion must have shape {tuple(scenes.shape.shape)}, got {tuple(motion.shape)}")
    return motion


def _repeated(scenes: Scenes, frames: int) -> Scenes:
    """Every scene for a number of frames, along a new dimension after the leading ones."""
    at = len(scenes.batch)
    return scenes.map(lambda tensor: torch.stack([tensor] * frames, at))


def _around(position: Tensor, turn: Tensor, sign: Tensor) -> Tensor:
    """Way from the start of a circle that bends towards the centre of the image."""
    inwards = 0.5 - position
    distance = inwards.norm(dim=-1, keepdim=True)
    spoke = inwards / distance.clamp(min=1e-6) * distance.clamp(*ORBIT_RADII)
    cos, sin = torch.cos(turn)[..., None], torch.sin(sign * turn)[..., None]
    perpendicular = torch.stack([-spoke[..., 1], spoke[..., 0]], -1)
    return spoke - cos * spoke - sin * perpendicular
