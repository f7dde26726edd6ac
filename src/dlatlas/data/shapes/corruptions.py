"""Corruptions of images, each in severities from 1 to 5.

The same generator state gives the same drops, grains and patches at every severity, so that severities differ in
strength only.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dlatlas.data.shapes.render import GREY
from dlatlas.ops import validate
from dlatlas.typed import typed

SEVERITIES = (1, 2, 3, 4, 5)


@typed
def corrupt(
    images: Float[Tensor, "*batch 3 h w"], kind: str, severity: int, *, generator: torch.Generator
) -> Float[Tensor, "*batch 3 h w"]:
    """Degrade images.

    Parameters
    ----------
    images
        RGB in [0, 1].
    kind
        One of ``CORRUPTIONS``.
    severity
        From 1 (slight) to 5 (strong).
    generator
        A CPU generator; each image gets its own draw.
    """
    validate.one_of("kind", kind, tuple(_FILTERS))
    validate.in_range("severity", severity, SEVERITIES[0], SEVERITIES[-1])
    validate.in_range("images", images, 0.0, 1.0)
    return _FILTERS[kind](images.flatten(0, -4), severity - 1, generator).clamp(0, 1).reshape(images.shape)


def _noise(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Gaussian noise."""
    deviation = (0.04, 0.08, 0.13, 0.19, 0.26)[level]
    return images + deviation * torch.randn(images.shape, generator=generator).to(images)


def _blur(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """A Gaussian window; its width is relative to 32 pixels."""
    return gaussian_blur(images, (0.5, 0.8, 1.2, 1.7, 2.4)[level] * images.shape[-1] / 32)


def _contrast(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Values draw near the mean of the image."""
    mean = images.mean((-3, -2, -1), keepdim=True)
    return torch.lerp(mean, images, (0.75, 0.55, 0.4, 0.28, 0.18)[level])


def _brightness(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Light is added."""
    return images + (0.08, 0.16, 0.24, 0.32, 0.40)[level]


def _haze(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """A veil of uneven thickness t: I (1 - t) + 0.88 t."""
    cloud = F.interpolate(_uniform(images, (1, 4, 4), generator), images.shape[-2:], mode="bicubic", align_corners=True)
    veil = (0.3, 0.42, 0.54, 0.66, 0.78)[level] * (0.75 + 0.5 * cloud.clamp(0, 1))
    return torch.lerp(images, torch.full_like(images, 0.88), veil.expand_as(images).clamp(0, 1))


def _rain(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Bright slanting streaks, and a darker sky."""
    h, w = images.shape[-2:]
    drops = (_uniform(images, (1, h, w), generator) < (0.008, 0.016, 0.026, 0.038, 0.052)[level]).to(images)
    length = max(3, round(5 * h / 32) | 1)
    streak = torch.zeros(1, 1, length, length, device=images.device, dtype=images.dtype)
    steps = torch.arange(length)
    streak[0, 0, steps, (length - 1) - (length // 4 + steps // 2)] = 1
    streaks = F.conv2d(drops, streak, padding=length // 2).clamp(0, 1)
    dim = images * (0.96, 0.92, 0.88, 0.84, 0.8)[level]
    return torch.lerp(dim, torch.full_like(images, 0.92), (0.7 * streaks).expand_as(images))


def _pixelate(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Blocks of equal colour."""
    side = max(2, round((0.5, 0.38, 0.28, 0.22, 0.16)[level] * images.shape[-1]))
    return F.interpolate(F.interpolate(images, (side, side), mode="area"), images.shape[-2:], mode="nearest")


def _occlusion(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """A grey square somewhere."""
    h, w = images.shape[-2:]
    side = (0.2, 0.28, 0.36, 0.44, 0.52)[level]
    centre = 0.2 + 0.6 * _uniform(images, (2,), generator)[..., None]
    rows, columns = ((torch.arange(length, device=images.device) + 0.5) / length for length in (h, w))
    inside = ((rows - centre[:, 0]).abs() < side / 2)[:, None, :, None] & ((columns - centre[:, 1]).abs() < side / 2)[
        :, None, None
    ]
    return images.where(~inside, 0.5)


def _sketch(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Pencil lines on paper where the colour changes; the severity is how much of the painting they replace."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    edge = (F.max_pool2d(padded, 3, 1) + F.max_pool2d(-padded, 3, 1)).amax(-3, keepdim=True)
    drawing = 0.95 - 0.85 * (2.2 * edge - 0.15).clamp(0, 1)
    return torch.lerp(images, drawing.expand_as(images), (0.4, 0.6, 0.75, 0.9, 1.0)[level])


def _colour_shift(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """The hue turns by an angle, clockwise or anticlockwise."""
    sign = torch.where(_uniform(images, (), generator) < 0.5, -1.0, 1.0)
    return turn_hue(images, sign * math.radians((25, 50, 80, 115, 150)[level]))


_FILTERS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "noise": _noise,
    "blur": _blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "haze": _haze,
    "rain": _rain,
    "pixelate": _pixelate,
    "occlusion": _occlusion,
    "sketch": _sketch,
    "colour shift": _colour_shift,
}
CORRUPTIONS = tuple(_FILTERS)


def gaussian_blur(images: Tensor, deviation: float) -> Tensor:
    """Convolve images (n, c, h, w) with a Gaussian window of a standard deviation in pixels; the border is repeated."""
    reach = min(math.ceil(3 * deviation), min(images.shape[-2:]) - 1)
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    window = torch.softmax(-0.5 * (offsets / deviation) ** 2, 0)
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate").flatten(0, 1)[:, None]
    across = F.conv2d(padded, window.reshape(1, 1, 1, -1))
    return F.conv2d(across, window.reshape(1, 1, -1, 1)).reshape(images.shape)


def turn_hue(images: Tensor, angle: Tensor) -> Tensor:
    """Turn colours (n, 3, h, w) about the grey axis, each image by its angle (n,)."""
    axis = torch.full((3, 3), 1 / 3, device=images.device, dtype=images.dtype)
    skew = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=images.device, dtype=images.dtype) / math.sqrt(3)
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    rotation = axis + cos * (torch.eye(3, device=images.device, dtype=images.dtype) - axis) + sin * skew
    return torch.einsum("nij,njhw->nihw", rotation, images)


def grey(images: Tensor) -> Tensor:
    """Luminance of images (..., 3, h, w), (..., 1, h, w)."""
    weights = torch.tensor(GREY, device=images.device, dtype=images.dtype)
    return (images * weights[:, None, None]).sum(-3, keepdim=True)


def _uniform(images: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(len(images), *shape, generator=generator).to(images)
