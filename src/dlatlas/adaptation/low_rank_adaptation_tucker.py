"""Adapters for weights with any number of axes: Tucker decompositions and FLoRA."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dlatlas.adaptation.low_rank_adaptation import AdditiveAdapter
from dlatlas.adaptation.low_rank_adaptation_svd import singular_vectors
from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def tucker_compose(core: Float[Tensor, "..."], factors: Sequence[Float[Tensor, "_ _"]]) -> Float[Tensor, "..."]:
    r"""Multiply a core tensor by one matrix along each of its axes.

    .. math:: T = G \times_1 A_1 \cdots \times_N A_N, \qquad
        T_{i_1 \dots i_N} = \sum_{j_1 \dots j_N} G_{j_1 \dots j_N} \prod_n (A_n)_{i_n j_n}

    Parameters
    ----------
    core
        G, with N axes of lengths :math:`r_n`.
    factors
        The N matrices :math:`A_n` :math:`(d_n, r_n)`.

    Returns
    -------
    Tensor
        T, with N axes of lengths :math:`d_n`.

    Raises
    ------
    ValueError
        When there is not one factor for each axis, or its second axis has another length.

    References
    ----------
    flora-tucker
    """
    widths = tuple(A.shape[1] for A in factors)
    if widths != tuple(core.shape):
        raise ValueError(f"factors must have {tuple(core.shape)} columns, one factor an axis of the core, got {widths}")
    for A in factors:
        # The product takes the first axis away and puts the new one last: after N of them the order is the old one.
        core = torch.tensordot(core, A, dims=([0], [1]))
    return core


@typed
def hosvd(T: Float[Tensor, "..."], ranks: Sequence[int]) -> tuple[Float[Tensor, "..."], list[Float[Tensor, "_ _"]]]:
    r"""Truncated higher-order singular value decomposition.

    .. math:: T \approx G \times_1 A_1 \cdots \times_N A_N, \qquad G = T \times_1 A_1^\top \cdots \times_N A_N^\top

    where :math:`A_n` holds the :math:`r_n` leading left singular vectors of the unfolding of T along the axis n. The
    error is at most :math:`\sqrt N` times the smallest that these ranks allow.

    Parameters
    ----------
    T
        A tensor with N axes of lengths :math:`d_n`.
    ranks
        :math:`r_n`, from 1 to :math:`d_n`.

    Returns
    -------
    tuple
        G, with axes of lengths :math:`r_n`, and the list of orthonormal :math:`A_n` :math:`(d_n, r_n)`.

    Raises
    ------
    ValueError
        When there is not one rank for each axis, one is out of range, or T has an infinite or undefined entry.

    References
    ----------
    flora-tucker
    """
    _check_ranks(T.shape, ranks)
    factors = [singular_vectors(_unfold(T, axis))[0][:, :r] for axis, r in enumerate(ranks)]
    return tucker_compose(T, [A.mT for A in factors]), factors


class FLoRA(AdditiveAdapter):
    r"""A Tucker decomposition as the update: a core with as many axes as the weight, and one factor an axis.

    .. math:: W = W_0 + c\; G \times_1 A_1 \cdots \times_N A_N, \qquad G = 0 \text{ at the start}

    Parameters
    ----------
    weight
        :math:`W_0`, with N axes of lengths :math:`d_n`.
    ranks
        :math:`r_n`, from 1 to :math:`d_n`.
    scale
        c, positive.

    Raises
    ------
    ValueError
        When there is not one rank for each axis, one is out of range, or the scale is not positive.

    References
    ----------
    flora-tucker
    """

    def __init__(self, weight: Tensor, ranks: Sequence[int], *, scale: float = 1.0):
        super().__init__()
        _check_ranks(weight.shape, ranks)
        validate.positive("scale", scale)
        self.scale = scale
        self.core = nn.Parameter(weight.new_zeros(tuple(ranks)))
        self.factors = nn.ParameterList(
            nn.init.kaiming_normal_(weight.new_empty(d, r), a=math.sqrt(3))
            for d, r in zip(weight.shape, ranks, strict=True)
        )

    def delta(self) -> Tensor:
        return self.scale * tucker_compose(self.core, list(self.factors))


def _unfold(T: Tensor, axis: int) -> Tensor:
    return T.movedim(axis, 0).flatten(1)


def _check_ranks(shape: Sequence[int], ranks: Sequence[int]) -> None:
    if len(ranks) != len(shape):
        raise ValueError(f"ranks must have one entry for each of the {len(shape)} axes, got {tuple(ranks)}")
    for axis, (d, r) in enumerate(zip(shape, ranks, strict=True)):
        validate.in_range(f"ranks[{axis}]", r, 1, d)
