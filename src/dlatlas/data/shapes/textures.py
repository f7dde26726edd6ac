"""Textures: how the two colours of a surface mix from point to point.

A tone maps coordinates, the period of the pattern and the side of a pixel (all in the same unit) to a share of the
second colour in [0, 1]. Edges inside a pattern are blended over one pixel, and a pattern finer than the pixels fades to
its mean.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Tone = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

DOT = 0.31


def plain(u: Tensor, v: Tensor, period: Tensor, pixel: Tensor) -> Tensor:
    """The first colour everywhere."""
    return torch.zeros_like(u)


def stripes(u: Tensor, v: Tensor, period: Tensor, pixel: Tensor) -> Tensor:
    """Bands along v."""
    wave = 2 * math.pi / period
    return (0.5 + torch.sin(wave * u) / (wave * pixel)).clamp(0, 1)


def dots(u: Tensor, v: Tensor, period: Tensor, pixel: Tensor) -> Tensor:
    """Discs on a square lattice."""
    u, v = u - period * torch.round(u / period), v - period * torch.round(v / period)
    return (0.5 + (DOT * period - torch.sqrt(u * u + v * v)) / pixel).clamp(0, 1)


def checks(u: Tensor, v: Tensor, period: Tensor, pixel: Tensor) -> Tensor:
    """A chessboard."""
    wave = 2 * math.pi / period
    return (0.5 + torch.sin(wave * u) * torch.sin(wave * v) / (wave * pixel)).clamp(0, 1)


def gradient(u: Tensor, v: Tensor, period: Tensor, pixel: Tensor) -> Tensor:
    """From the first colour at v = 1 to the second at v = -1."""
    return (0.5 - 0.5 * v).clamp(0, 1)


TONES: dict[str, Tone] = {"plain": plain, "stripes": stripes, "dots": dots, "checks": checks, "gradient": gradient}
