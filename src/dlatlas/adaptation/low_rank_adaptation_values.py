"""Adapters that keep the singular vectors of a weight and train the matrix between them: SVFit and SALT."""

import warnings

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dlatlas.adaptation.low_rank_adaptation import Adapter, AdditiveAdapter
from dlatlas.adaptation.low_rank_adaptation_svd import singular_vectors, svd_split
from dlatlas.ops import validate
from dlatlas.typed import typed

# Singular values nearer to each other, in units of the largest, leave their vectors undetermined.
SMALLEST_GAP = 1e-8


@typed
def rank_for_energy(s: Float[Tensor, " q"], *, keep: float = 0.99) -> int:
    r"""Fewest leading singular values that hold a share of the squared Frobenius norm.

    .. math:: \min \Bigl\{ r : \sum_{i \le r} s_i^2 \ge \text{keep} \cdot \sum_i s_i^2 \Bigr\}

    The result is a Python integer, a size, so this cannot run under ``torch.vmap``.

    Parameters
    ----------
    s
        Singular values, decreasing, not all zero.
    keep
        The share, in (0, 1].

    Returns
    -------
    int
        r, from 1 to q.

    Raises
    ------
    ValueError
        When the share is out of range, all values are zero, or they are negative or not in decreasing order.

    References
    ----------
    svfit
    """
    validate.positive("keep", keep)
    validate.in_range("keep", keep, 0.0, 1.0)
    validate.in_range("s", s, 0.0, torch.inf)
    validate.positive("largest of s", s.max().item())
    validate.at_least("smallest step down in s", -s.diff().max().item() if len(s) > 1 else 0.0, 0.0)
    share = s.double().square().cumsum(0)
    return int((share < keep * share[-1]).sum()) + 1


class SVFit(AdditiveAdapter):
    r"""Train the r leading singular values of a weight, and freeze all singular vectors.

    .. math:: W = W_{\text{res}} + U_r \operatorname{diag}(\sigma) V_r^\top, \qquad \sigma = s_r \text{ at the start}

    A kernel (out, in, h, w) is read as the matrix (out, in h w).

    Parameters
    ----------
    weight
        :math:`W_0`, whose leading singular values must be different; a warning says where they are not.
    r
        Number of singular values, from 1 to min(m, n).

    Raises
    ------
    ValueError
        When r is out of range, or the weight has an infinite or undefined entry.

    References
    ----------
    svfit
    """

    def __init__(self, weight: Tensor, r: int):
        super().__init__()
        U, s, V, _ = svd_split(weight.flatten(1), r)
        _warn_of_ties(s)
        self.shape = weight.shape
        self.register_buffer("U", U.clone())
        self.register_buffer("Vt", V.mT.clone())
        self.sigma = nn.Parameter(s.clone())

    def delta(self) -> Tensor:
        return ((self.U * self.sigma) @ self.Vt).reshape(self.shape)


@typed
def svfit_best_fit(
    W: Float[Tensor, "m n"], W_target: Float[Tensor, "m n"], r: int
) -> tuple[Float[Tensor, " r"], Float[Tensor, ""]]:
    r"""Best that training r singular values of W can do for a target matrix.

    .. math:: \sigma_i = u_i^\top W_* v_i, \qquad \min_\sigma \lVert W(\sigma) - W_* \rVert_F^2
        = \lVert W_* - W \rVert_F^2 - \sum_{i \le r} \bigl( u_i^\top (W_* - W) v_i \bigr)^2

    Parameters
    ----------
    W, W_target
        The weight whose singular vectors are kept, and the target :math:`W_*`.
    r
        Number of trained singular values, from 1 to min(m, n).

    Returns
    -------
    tuple
        :math:`\sigma` (r), and the norm (not squared) of what is left.

    Raises
    ------
    ValueError
        When r is out of range, or W has an infinite or undefined entry.

    References
    ----------
    svfit
    """
    U, _, V, residual = svd_split(W, r)
    sigma = ((U.mT @ W_target) * V.mT).sum(-1)
    return sigma, torch.linalg.matrix_norm(residual + (U * sigma) @ V.mT - W_target)


@typed
def salt_weight(
    U: Float[Tensor, "m q"],
    s: Float[Tensor, " q"],
    Vt: Float[Tensor, "q n"],
    a: Float[Tensor, " k"],
    c: Float[Tensor, " k"],
    X: Float[Tensor, "rest r"],
    Y: Float[Tensor, "r rest"],
    *,
    relu: bool = True,
) -> tuple[Float[Tensor, "m n"], Float[Tensor, ""]]:
    r"""Scale and shift the leading singular values, and add a low-rank matrix to the block of the others.

    .. math:: \Sigma' = \begin{bmatrix} \operatorname{diag}(a \odot s_{\le k} + c) & 0 \\
        0 & \operatorname{diag}(s_{> k}) + X Y \end{bmatrix}, \qquad W' = U \max(\Sigma', 0) V^\top

    The maximum is taken entry by entry, off the diagonal too.

    Parameters
    ----------
    U, s, Vt
        Thin singular value decomposition of the weight.
    a, c
        Scales and shifts (k) of the k largest singular values.
    X, Y
        Factors (q - k, r) and (r, q - k).
    relu
        Whether to take the maximum with zero.

    Returns
    -------
    tuple
        :math:`W'` (m, n), and the penalty :math:`\lVert (a - 1) \odot s_{\le k} + c \rVert + \lVert X Y \rVert_F`.

    Raises
    ------
    ValueError
        When k and the size of X do not add up to q.

    References
    ----------
    salt
    """
    k, q, rest = len(a), len(s), len(X)
    if k + rest != q:
        raise ValueError(f"scales and rows of X must add up to the {q} singular values, got {k} and {rest}")
    low_rank = X @ Y
    leading = F.pad(torch.diag_embed(a * s[:k] + c), (0, rest, 0, rest))
    middle = leading + F.pad(torch.diag_embed(s[k:]) + low_rank, (k, 0, k, 0))
    return U @ (middle.relu() if relu else middle) @ Vt, _salt_penalty(s, a, c, low_rank)


class SALT(Adapter):
    r"""`salt_weight` as an adapter: scale and shift k singular values, low rank for the others.

    A kernel (out, in, h, w) is read as the matrix (out, in h w). The factors of the low-rank part start small, not
    zero, so the first weight differs a little from the given one.

    Parameters
    ----------
    weight
        :math:`W_0`, with q singular values.
    k
        How many are scaled and shifted, from 0 to q: at q this is all of them, at 0 a LoRA between the vectors.
    r
        Rank of the rest, at least 1.

    Raises
    ------
    ValueError
        When k or r is out of range, or the weight has an infinite or undefined entry.

    References
    ----------
    salt
    """

    def __init__(self, weight: Tensor, k: int, r: int = 8):
        super().__init__()
        U, s, Vt = singular_vectors(weight.flatten(1))
        validate.in_range("k", k, 0, len(s))
        validate.at_least("r", r, 1)
        for name, buffer in (("U", U), ("s", s), ("Vt", Vt)):
            self.register_buffer(name, buffer.clone())
        rest = len(s) - k
        self.a, self.c = nn.Parameter(s.new_ones(k)), nn.Parameter(s.new_zeros(k))
        self.X = nn.Parameter(0.01 * torch.randn(rest, r, dtype=s.dtype, device=s.device))
        self.Y = nn.Parameter(0.01 * torch.randn(r, rest, dtype=s.dtype, device=s.device))

    def forward(self, frozen: Tensor) -> Tensor:
        return salt_weight(self.U, self.s, self.Vt, self.a, self.c, self.X, self.Y)[0].reshape(frozen.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        # The weight is kept whole; what it contributes is in the decomposition.
        return weight

    def penalty(self) -> Float[Tensor, ""]:
        """Give the penalty of `salt_weight`; that of the model is the sum over its layers."""
        return _salt_penalty(self.s, self.a, self.c, self.X @ self.Y)


def _salt_penalty(s: Tensor, a: Tensor, c: Tensor, low_rank: Tensor) -> Tensor:
    return torch.linalg.vector_norm((a - 1) * s[: len(a)] + c) + torch.linalg.matrix_norm(low_rank)


def _warn_of_ties(s: Tensor) -> None:
    gaps = -s.diff(append=s.new_zeros(1)) / s[0]
    if gaps.min() < max(SMALLEST_GAP, 4 * torch.finfo(s.dtype).eps):
        warnings.warn("the weight has equal or zero singular values, whose vectors are not unique", stacklevel=3)
