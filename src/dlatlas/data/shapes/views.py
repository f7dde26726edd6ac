"""Random views of images: crops, flips and changes of colour, each image with its own draw."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dlatlas.data.shapes.corruptions import gaussian_blur, grey, turn_hue
from dlatlas.ops import validate
from dlatlas.typed import typed

HUE = 0.5
"""Turn of the hue, in radians, that goes with a jitter of 1."""


@typed
def augment(
    images: Float[Tensor, "n 3 h w"],
    *,
    generator: torch.Generator,
    crop: float = 0.4,
    flip: float = 0.5,
    jitter: float = 0.4,
    grey_out: float = 0.2,
    blur: float = 0.0,
) -> Float[Tensor, "n 3 h w"]:
    """A random view of each image.

    Parameters
    ----------
    images
        RGB in [0, 1].
    generator
        A CPU generator.
    crop
        Least share of the area that a crop keeps, in (0, 1]; crops are square and are scaled back to the full size. 1
        is no crop.
    flip
        Probability of a mirror image.
    jitter
        Largest relative change of brightness, contrast and saturation, and of the hue in units of ``HUE``, in [0, 1]. 0
        is none.
    grey_out
        Probability of losing all colour.
    blur
        Probability of a Gaussian blur, as wide as a 32nd of the image.

    Returns
    -------
    Tensor
        Images of the same size, in [0, 1].
    """
    validate.in_range("images", images, 0.0, 1.0)
    validate.positive("crop", crop)
    for name, value in (("crop", crop), ("flip", flip), ("jitter", jitter), ("grey_out", grey_out), ("blur", blur)):
        validate.in_range(name, value, 0.0, 1.0)
    u = torch.rand(10, len(images), generator=generator).to(images)[..., None, None, None]
    views = _crop(images, crop, *u[:3])
    views = torch.where(u[3] < flip, views.flip(-1), views)
    views = _jitter(views, jitter, u[4:8])
    views = torch.where(u[8] < grey_out, grey(views), views)
    # One draw decides on both: a probability of zero must not pay for the blur.
    return torch.where(u[9] < blur, gaussian_blur(views, images.shape[-1] / 32), views) if blur > 0 else views


@typed
def view_pair(
    images: Float[Tensor, "n 3 h w"], *, generator: torch.Generator, **strengths: float
) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"]]:
    """Two independent views of each image.

    Parameters
    ----------
    images, generator
        As for `augment`.
    strengths
        Keyword arguments of `augment`.
    """
    return augment(images, generator=generator, **strengths), augment(images, generator=generator, **strengths)


def _crop(images: Tensor, least: float, area: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Square windows of a random area and place, by bilinear interpolation."""
    side = torch.sqrt(1 - (1 - least) * area).flatten()
    room = 1 - side
    affine = torch.zeros(len(images), 2, 3, device=images.device, dtype=images.dtype)
    affine[:, 0, 0], affine[:, 1, 1] = side, side
    affine[:, 0, 2], affine[:, 1, 2] = room * (2 * across.flatten() - 1), room * (2 * down.flatten() - 1)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _jitter(images: Tensor, strength: float, u: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, one after the other."""
    brightness, contrast, saturation = 1 + strength * (2 * u[:3] - 1)
    images = (brightness * images).clamp(0, 1)
    images = torch.lerp(grey(images).mean((-2, -1), keepdim=True).expand_as(images), images, contrast).clamp(0, 1)
    images = torch.lerp(grey(images).expand_as(images), images, saturation).clamp(0, 1)
    return turn_hue(images, HUE * strength * (2 * u[3].flatten() - 1)).clamp(0, 1)
