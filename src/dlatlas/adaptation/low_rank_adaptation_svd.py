"""Adapters made from the leading singular components of a weight: PiSSA and SORSA."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dlatlas.adaptation.low_rank_adaptation import AdditiveAdapter, LoRA, as_matrix, as_weight
from dlatlas.ops import validate
from dlatlas.typed import typed


class SVDSplit(NamedTuple):
    r"""The leading r singular components of a matrix, and the rest."""

    U: Tensor
    s: Tensor
    V: Tensor
    residual: Tensor


@typed
def svd_split(W: Float[Tensor, "m n"], r: int) -> SVDSplit:
    r"""Split a matrix into its r leading singular components and the rest.

    .. math:: W = U \operatorname{diag}(s) V^\top + W_{\text{res}}

    Parameters
    ----------
    W, r
        The matrix (m, n), and the number of components, from 1 to min(m, n).

    Returns
    -------
    SVDSplit
        U (m, r), s (r) decreasing, V (n, r), residual (m, n). Of the two signs of a pair of vectors, the one is chosen
        that makes the largest entry of :math:`u_i` positive.

    Raises
    ------
    ValueError
        When r is out of range, or W has an infinite or undefined entry.

    References
    ----------
    pissa
    """
    validate.in_range("r", r, 1, min(W.shape))
    U, s, Vt = singular_vectors(W)
    U, s, V = U[:, :r], s[:r], Vt[:r].mT
    return SVDSplit(U, s, V, W - (U * s) @ V.mT)


@typed
def singular_vectors(
    W: Float[Tensor, "m n"],
) -> tuple[Float[Tensor, "m q"], Float[Tensor, " q"], Float[Tensor, "q n"]]:
    r"""Thin singular value decomposition with definite signs, :math:`W = U \operatorname{diag}(s) V^\top`.

    Parameters
    ----------
    W
        The matrix (m, n); q = min(m, n).

    Returns
    -------
    tuple
        U (m, q), s (q) decreasing, and :math:`V^\top` (q, n). The largest entry of each column of U is positive.

    Raises
    ------
    ValueError
        When W has an infinite or undefined entry, for which the decomposition would be silent garbage.

    References
    ----------
    pissa
    """
    validate.finite("W", W)
    U, s, Vt = torch.linalg.svd(W, full_matrices=False)
    largest = U.gather(0, U.abs().argmax(0, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0).to(W.dtype)
    return U * sign, s, Vt * sign.mT


class PiSSA(LoRA):
    r"""LoRA that starts from the principal singular components and freezes the rest.

    .. math:: W = W_{\text{res}} + B A, \qquad B = U_r \operatorname{diag}(s_r)^{1/2}, \quad
        A = \operatorname{diag}(s_r)^{1/2} V_r^\top, \quad W_{\text{res}} = W_0 - B A

    at the start, where :math:`W = W_0`.

    Parameters
    ----------
    weight, r
        As for `LoRA`.

    Raises
    ------
    ValueError
        When r is out of range, or the weight has an infinite or undefined entry.

    References
    ----------
    pissa
    """

    def __init__(self, weight: Tensor, r: int):
        super().__init__(weight, r)
        self.register_buffer("A_start", self.A.detach().clone())
        self.register_buffer("B_start", self.B.detach().clone())

    def _initial(self, matrix: Tensor, r: int) -> tuple[Tensor, Tensor]:
        U, s, V, _ = svd_split(matrix, r)
        return s.sqrt()[:, None] * V.mT, U * s.sqrt()

    def to_lora(self) -> tuple[Float[Tensor, "2r n"], Float[Tensor, "m 2r"]]:
        r"""Give the update of the original weight as a LoRA of twice the rank, with a factor of 1.

        .. math:: W_{\text{res}} + B A = W_0 + [B, -B_0] \begin{bmatrix} A \\ A_0 \end{bmatrix}

        Returns
        -------
        tuple
            The factors (2r, n) and (m, 2r), in the order A, B, detached.
        """
        A = torch.cat([self.A, self.A_start]).detach()
        return A, torch.cat([self.B, -self.B_start], dim=1).detach()


class SORSA(AdditiveAdapter):
    r"""Principal components with values and vectors trained apart, and a penalty that keeps the vectors orthonormal.

    .. math:: W = W_{\text{res}} + c\, B \operatorname{diag}(S) A, \qquad B = U_r, \quad S = s_r, \quad A = V_r^\top

    Parameters
    ----------
    weight, r
        As for `LoRA`.
    alpha
        The factor is :math:`c = \alpha / r`; r when not given, for a factor of 1.

    Raises
    ------
    ValueError
        When r is out of range, alpha is not positive, or the weight has an infinite or undefined entry.

    References
    ----------
    sorsa
    """

    def __init__(self, weight: Tensor, r: int, *, alpha: float | None = None):
        super().__init__()
        validate.positive("alpha", r if alpha is None else alpha)
        U, s, V, _ = svd_split(as_matrix(weight), r)
        self.shape, self.scale = weight.shape, 1.0 if alpha is None else alpha / r
        self.A, self.S, self.B = (nn.Parameter(factor.clone()) for factor in (V.mT, s, U))

    def delta(self) -> Tensor:
        return as_weight(self.scale * (self.B * self.S) @ self.A, self.shape)

    def penalty(self) -> Float[Tensor, ""]:
        """Give `orthonormal_penalty` of this weight alone; its mean over the layers is that of the model."""
        return orthonormal_penalty([(self.A, self.B)])


@typed
def orthonormal_penalty(factors: Sequence[tuple[Float[Tensor, "_ _"], Float[Tensor, "_ _"]]]) -> Float[Tensor, ""]:
    r"""Departure of the vector factors of SORSA from orthonormality, without squares.

    .. math:: R = \frac{1}{2L} \sum_\ell \lVert A_\ell A_\ell^\top - I_r \rVert_F
        + \lVert B_\ell^\top B_\ell - I_r \rVert_F

    Where a factor is orthonormal, R has a kink, and a departure within rounding has a gradient as large as any other.
    Such departures count as zero here, with gradient zero.

    Parameters
    ----------
    factors
        The pairs :math:`A_\ell` (r, n), :math:`B_\ell` (m, r) of L layers; the sizes may differ from layer to layer.

    Returns
    -------
    Tensor
        R, a scalar.

    Raises
    ------
    ValueError
        When there are no factors, one is zero, or r is larger than m or n.

    References
    ----------
    sorsa
    """
    validate.at_least("number of layers", len(factors), 1)
    rows = [factor for A, B in factors for factor in (A, B.mT)]
    return torch.stack([_departure(Q) for Q in rows]).mean()


@typed
def svd_drift(
    W0: Float[Tensor, "m n"], Wt: Float[Tensor, "m n"], k: int
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    r"""How far the singular values and the singular directions of a weight have moved.

    .. math:: \Delta\Sigma = \frac1k \sum_{i \le k} |\sigma_i^t - \sigma_i^0|, \qquad
        \Delta D = 1 - \frac{1}{2k} \sum_{i \le k} |\langle u_i^t, u_i^0 \rangle| + |\langle v_i^t, v_i^0 \rangle|

    Parameters
    ----------
    W0, Wt
        The weight before and after, (m, n).
    k
        How many leading components to compare, from 1 to min(m, n). Components are paired by rank.

    Returns
    -------
    tuple
        :math:`\Delta\Sigma \ge 0` and :math:`\Delta D` in [0, 1], scalars.

    Raises
    ------
    ValueError
        When k is out of range, or a weight has an infinite or undefined entry.

    References
    ----------
    sorsa
    """
    before, after = svd_split(W0, k), svd_split(Wt, k)
    overlap = (before.U * after.U).sum(0).abs() + (before.V * after.V).sum(0).abs()
    return (after.s - before.s).abs().mean(), 1 - overlap.mean() / 2


def _departure(rows: Tensor) -> Tensor:
    """Frobenius norm of Q Q' - I for Q (r, n), zero within rounding."""
    r, n = rows.shape
    validate.at_least(f"length of the vectors of a factor of rank {r}", n, r)
    validate.in_range("norm of a factor", torch.linalg.vector_norm(rows), torch.finfo(rows.dtype).tiny, math.inf)
    gap = rows @ rows.mT - torch.eye(r, dtype=rows.dtype, device=rows.device)
    rounding = 16 * r * torch.finfo(rows.dtype).eps
    return torch.linalg.vector_norm(torch.where(gap.norm() > rounding, gap, torch.zeros_like(gap)))
