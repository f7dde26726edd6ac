"""Rounding weights to few levels."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def quantize_blockwise(
    W: Float[Tensor, "..."], *, bits: int = 4, block: int = 64, levels: str = "nf"
) -> Float[Tensor, "..."]:
    r"""Round to the nearest of :math:`2^{\text{bits}}` levels, scaled by the largest entry of each block.

    .. math:: Q(w) = c \cdot \arg\min_{q \in \text{levels}} |w / c - q|, \qquad c = \max_{w \in \text{block}} |w|

    Parameters
    ----------
    W
        Any shape; blocks are runs of its entries in order, the last one shorter where the number does not divide.
    bits
        From 2 to 8.
    block
        Entries in a block, at least 1.
    levels
        ``"nf"``, quantiles of a normal distribution (with four bits: NF4), or ``"uniform"``, equal steps; both with 0,
        and -1 to 1. The uniform ones leave one of the codes unused to be symmetric.

    Returns
    -------
    Tensor
        The rounded W.

    Raises
    ------
    ValueError
        When a setting is out of range, or W has an infinite or undefined entry.

    References
    ----------
    pissa
    """
    validate.in_range("bits", bits, 2, 8)
    validate.at_least("block", block, 1)
    validate.one_of("levels", levels, ("nf", "uniform"))
    validate.finite("W", W)
    blocks = F.pad(W.flatten(), (0, -W.numel() % block)).unflatten(0, (-1, block))
    scale = blocks.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(W.dtype).tiny)
    table = (_normal_levels(bits) if levels == "nf" else _uniform_levels(bits)).to(W)
    nearest = torch.bucketize(blocks / scale, (table[1:] + table[:-1]) / 2)
    return (scale * table[nearest]).flatten()[: W.numel()].reshape(W.shape)


def _normal_levels(bits: int) -> Tensor:
    """Quantiles of a normal distribution at equal steps of probability, more on the positive side, scaled to 1."""
    half = 2 ** (bits - 1)
    # The outermost probability lies half a step from the end, averaged over the two sides.
    end = 1 - (1 / (4 * half) + 1 / (4 * half - 2)) / 2
    positive = torch.special.ndtri(torch.linspace(0.5, end, half + 1, dtype=torch.float64))
    negative = -torch.special.ndtri(torch.linspace(end, 0.5, half, dtype=torch.float64))
    return torch.cat([negative[:-1], positive]) / positive[-1]


def _uniform_levels(bits: int) -> Tensor:
    return torch.linspace(-1, 1, 2**bits - 1, dtype=torch.float64)
