"""From scenes to pixels."""

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.data.shapes.geometry import OUTLINES
from dlatlas.data.shapes.scenes import Scenes
from dlatlas.data.shapes.textures import TONES
from dlatlas.data.shapes.vocabulary import GROUNDS, Ground, palette
from dlatlas.ops import validate
from dlatlas.typed import typed

SMALLEST = 8
CHUNK = {"cpu": 2**17, "cuda": 2**26}
"""Pixels that are rendered at once: as many as stay in a core's cache, or as fill a GPU."""
GREY = (0.299, 0.587, 0.114)


@typed
def render(scenes: Scenes, size: int = 32) -> Float[Tensor, "*batch 3 h w"]:
    r"""Draw the scenes.

    Each object covers a pixel at signed distance d (in pixels) by :math:`\alpha = \mathrm{smoothstep}(1/2 - d)`, and is
    laid over what is behind it: :math:`I \leftarrow (1 - \alpha) I + \alpha C`, from the farthest object to the
    nearest.

    The image is differentiable in the positions, radii, angles, periods and tints.

    Parameters
    ----------
    scenes
        What to draw.
    size
        Side of the image in pixels, at least 8.

    Returns
    -------
    Tensor
        RGB images in [0, 1].
    """
    validate.at_least("size", size, SMALLEST)
    flat, grounds = scenes.flat(), _grounds(size, scenes.device)
    images = flat.position.new_empty(len(flat), 3, size, size)
    for rows in _chunks(flat, size):
        images[rows] = _draw(flat[rows], size, grounds)
    return images.reshape(*scenes.batch, 3, size, size)


@typed
def silhouettes(scenes: Scenes, size: int = 32) -> Float[Tensor, "*batch k h w"]:
    """Share of each pixel that each object covers, hidden parts included.

    Parameters
    ----------
    scenes, size
        As for `render`.
    """
    validate.at_least("size", size, SMALLEST)
    flat = scenes.flat()
    cover = flat.position.new_empty(len(flat), flat.slots, size, size)
    for rows in _chunks(flat, size):
        cover[rows] = _coverage(flat[rows], size)
    return cover.reshape(*scenes.present.shape, size, size)


def _chunks(scenes: Scenes, size: int) -> list[slice]:
    at_once = max(1, CHUNK.get(scenes.device.type, CHUNK["cuda"]) // (scenes.slots * size**2))
    return [slice(start, start + at_once) for start in range(0, len(scenes), at_once)]


def _draw(scenes: Scenes, size: int, grounds: Tensor) -> Tensor:
    image = grounds[scenes.background]
    cover, tone = _coverage(scenes, size), _tones(scenes, size)
    first = (palette(scenes.device)[scenes.colour] + scenes.tint).clamp(0, 1)[..., None, None]
    step = _second_colour(first) - first
    for slot in range(scenes.slots):
        paint = torch.addcmul(first[:, slot], step[:, slot], tone[:, slot, None])
        image = torch.lerp(image, paint, cover[:, slot, None])
    return image


def _second_colour(first: Tensor) -> Tensor:
    """A pale version of dark colours and a dark version of pale ones."""
    luminance = (first * torch.tensor(GREY, device=first.device)[:, None, None]).sum(-3, keepdim=True)
    return torch.where(luminance > 0.75, 0.7 * first**2, 0.35 * first + 0.65)


def _coverage(scenes: Scenes, size: int) -> Tensor:
    """Smoothstep of the signed distances over one pixel, (n, k, h, w)."""
    radius, shape = scenes.radius.flatten(), scenes.shape.flatten()
    cover = radius.new_zeros(*shape.shape, size, size)
    for index, rows in _groups(shape, scenes.present.flatten() & (radius > 0)):
        u, v = _object_coordinates(scenes, rows, size)
        distance = list(OUTLINES.values())[index](u, v)
        share = (0.5 - distance * (radius[rows] * size)[:, None, None]).clamp(0, 1)
        cover[rows] = share * share * (3 - 2 * share)
    return cover.unflatten(0, scenes.present.shape)


def _tones(scenes: Scenes, size: int) -> Tensor:
    """Share of the second colour, (n, k, h, w)."""
    radius, texture = scenes.radius.flatten(), scenes.texture.flatten()
    tones = radius.new_zeros(*texture.shape, size, size)
    for index, rows in _groups(texture, scenes.present.flatten() & (radius > 0) & (texture > 0)):
        u, v = _object_coordinates(scenes, rows, size)
        pixel = 1 / (radius[rows] * size)[:, None, None]
        tones[rows] = list(TONES.values())[index](u, v, scenes.period.flatten()[rows][:, None, None], pixel)
    return tones.unflatten(0, scenes.present.shape)


def _groups(kind: Tensor, wanted: Tensor) -> list[tuple[int, Tensor]]:
    """Kinds that occur, each with the rows where it does: every formula runs once, on the objects that need it."""
    return [(int(index), ((kind == index) & wanted).nonzero().flatten()) for index in kind[wanted].unique()]


def _object_coordinates(scenes: Scenes, rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Pixel centres in the frame of each object: u to its right and v to its top, in units of its radius."""
    pixels = (torch.arange(size, device=scenes.device) + 0.5) / size
    x, y = scenes.position.flatten(0, 1)[rows, :, None].unbind(1)
    radius, angle = scenes.radius.flatten()[rows, None], scenes.angle.flatten()[rows, None]
    x, y = (pixels - x) / radius, (y - pixels) / radius
    cos, sin = torch.cos(angle), torch.sin(angle)
    u = (cos * x)[:, None, :] + (sin * y)[:, :, None]
    v = (-sin * x)[:, None, :] + (cos * y)[:, :, None]
    return u, v


def _grounds(size: int, device: torch.device) -> Tensor:
    """Images of all backgrounds, (backgrounds, 3, h, w)."""
    across = 2 * (torch.arange(size, device=device) + 0.5) / size - 1
    u, v = across.expand(size, size), -across[:, None].expand(size, size)
    return torch.stack([_ground(ground, u, v, size) for ground in GROUNDS.values()])


def _ground(ground: Ground, u: Tensor, v: Tensor, size: int) -> Tensor:
    first, second = (torch.tensor(rgb, device=u.device)[:, None, None] for rgb in (ground.first, ground.second))
    period, pixel = (torch.tensor(length, device=u.device) for length in (2 * ground.period, 2 / size))
    return torch.lerp(first, second, TONES[ground.texture](u, v, period, pixel))
