"""Networks that read a data set and a query, and answer the query."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dlatlas.models.inputs import check_shape
from dlatlas.models.transformer import Block
from dlatlas.ops.validate import at_least
from dlatlas.typed import typed

# A standard deviation of zero would make the likelihood of one exact hit infinite.
SMALLEST_SIGMA = 1e-3


class LinearSelfAttention(nn.Module):
    r"""One layer of self-attention without softmax that answers a query from examples.

    .. math:: f = \sum_{i=1}^n (u^\top v_i)(q^\top M v_i), \qquad v_i = (x_i, y_i), \quad q = (x_q, 0)

    The label slot of the query is zero by construction, so the answer cannot leak into it.

    Parameters
    ----------
    d
        Dimension of the inputs.
    scale
        Standard deviation of the initial parameters u (d + 1) and M (d + 1, d + 1).

    Raises
    ------
    ValueError
        If ``d`` is not positive.
    """

    def __init__(self, d: int, *, scale: float = 0.1) -> None:
        super().__init__()
        at_least("d", d, 1)
        self.d = d
        self.u = nn.Parameter(scale * torch.randn(d + 1))
        self.M = nn.Parameter(scale * torch.randn(d + 1, d + 1))

    @typed
    def forward(
        self, X: Float[Tensor, "B n d"], y: Float[Tensor, "B n"], xq: Float[Tensor, "B d"]
    ) -> Float[Tensor, "B"]:
        """Give the answer for every prompt."""
        check_shape("X", X, self.d)
        v = torch.cat([X, y[..., None]], dim=-1)
        q = F.pad(xq, (0, 1))
        keys = (v @ (q @ self.M)[..., None])[..., 0]
        return ((v @ self.u) * keys).sum(-1)


class ICLTransformer(nn.Module):
    r"""Causal transformer that gives a mean and a standard deviation for every label of a sequence.

    Token t holds :math:`(x_t, x_{t-1}, y_{t-1})`: the query of step t and the example before it. So the output at t
    depends on :math:`x_t` and on the examples 1, ..., t - 1, and not on :math:`y_t`. There are no positions: the mask
    alone tells how many examples came before. The standard deviation is a softplus plus 0.001.

    Parameters
    ----------
    d
        Dimension of the inputs.
    width, layers, heads
        Width of the tokens, number of blocks, heads in each.

    Raises
    ------
    ValueError
        If a size is not positive or ``heads`` does not divide ``width``.
    """

    def __init__(self, d: int, *, width: int = 24, layers: int = 2, heads: int = 2) -> None:
        super().__init__()
        at_least("d", d, 1)
        at_least("layers", layers, 1)
        self.d = d
        self.embedding = nn.Linear(2 * d + 1, width)
        self.blocks = nn.Sequential(*(Block(width, heads, causal=True, expansion=2) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 2)

    @typed
    def forward(
        self, X: Float[Tensor, "B T d"], y: Float[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
        """Give means and standard deviations (B, T) of the labels, each from what came before it."""
        check_shape("X", X, self.d)
        before = F.pad(torch.cat([X, y[..., None]], dim=-1)[..., :-1, :], (0, 0, 1, 0))
        mean, raw = self.head(self.norm(self.blocks(self.embedding(torch.cat([X, before], dim=-1))))).unbind(-1)
        return mean, F.softplus(raw) + SMALLEST_SIGMA
