"""Attention over pairs of keys: exact, by low-rank polynomials, and what the polynomials cost."""

import math
from itertools import combinations_with_replacement

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed

# Logits of the exact attention that are held at once: they fit into a cache.
BLOCK = 2**16


@typed
def khatri_rao(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "nm d"]:
    r"""Column-wise Kronecker product.

    .. math:: (A \oslash B)_{(j, l), c} = A_{jc} B_{lc}

    Parameters
    ----------
    a, b
        Matrices with the same number of columns d.

    Returns
    -------
    Tensor
        (n m, d); the row of the pair (j, l) is j m + l.

    References
    ----------
    kronecker-attention
    """
    return (a[:, None] * b).flatten(0, 1)


@typed
def tensor_attention(
    q: Float[Tensor, "i d"],
    k1: Float[Tensor, "j d"],
    k2: Float[Tensor, "l d"],
    v1: Float[Tensor, "j e"],
    v2: Float[Tensor, "l e"],
) -> Float[Tensor, "i e"]:
    r"""Attention over pairs of keys.

    .. math:: o_i = \sum_{j, l} \operatorname{softmax}_{(j, l)} \Bigl( \frac1d \sum_c Q_{ic} K^1_{jc} K^2_{lc} \Bigr)
        \, (V^1_j \odot V^2_l)

    The softmax is taken with the largest logit of a row subtracted. Time grows with the product of the three lengths,
    memory with that of the last two: a few queries are answered at a time.

    Parameters
    ----------
    q, k1, k2
        Queries and two sets of keys, of width d.
    v1, v2
        Values of the two sets of keys, of width e.

    Returns
    -------
    Tensor
        (i, e).

    References
    ----------
    kronecker-attention
    """
    at_once = max(1, BLOCK // (len(k1) * len(k2)))
    return torch.cat([_attend_to_pairs(few, k1, k2, v1, v2) for few in q.split(at_once)])


@typed
def monomial_features(x: Float[Tensor, "n d"], degree: int) -> Float[Tensor, "n r"]:
    r"""All monomials of d variables up to a degree.

    .. math:: x^m = \prod_c x_c^{m_c}, \qquad |m| = \sum_c m_c \le g, \qquad r = \binom{d + g}{g}

    Parameters
    ----------
    x
        Points (n, d).
    degree
        Largest degree g.

    Returns
    -------
    Tensor
        (n, r), by degree, and in lexicographic order of the variables within a degree.

    Raises
    ------
    ValueError
        When the degree is negative.

    References
    ----------
    kronecker-attention
    """
    return _monomials(torch.cat([torch.ones_like(x[:, :1]), x], dim=1), degree)


@typed
def taylor_features(x: Float[Tensor, "n d"], degree: int) -> Float[Tensor, "n r"]:
    r"""Monomials with the weights that the Taylor polynomial of the exponential gives them.

    .. math:: \frac{x^m}{m!\, d^{|m|}}, \qquad\text{so that}\qquad
        \sum_{|m| \le g} \frac{x^m y^m}{m!\, d^{|m|}} = \sum_{h \le g} \frac{1}{h!} \Bigl( \frac{x^\top y}{d} \Bigr)^h

    Parameters
    ----------
    x
        Points (n, d).
    degree
        Degree g of the polynomial.

    Returns
    -------
    Tensor
        (n, r), in the order of `monomial_features`.

    Raises
    ------
    ValueError
        When the degree is negative.

    References
    ----------
    kronecker-attention
    """
    return monomial_features(x, degree) * _taylor_weights(x.shape[1], degree).to(x)


@typed
def tensor_attention_lowrank(
    q: Float[Tensor, "i d"],
    k1: Float[Tensor, "j d"],
    k2: Float[Tensor, "l d"],
    v1: Float[Tensor, "j e"],
    v2: Float[Tensor, "l e"],
    degree: int,
) -> Float[Tensor, "i e"]:
    r"""Attention over pairs of keys with a polynomial in the place of the exponential, in linear time.

    .. math:: o = \operatorname{diag}(U_1 (u_2 \odot u_3))^{-1}\; U_1 \bigl[ (U_2^\top V_1) \odot (U_3^\top V_2) \bigr]

    where row i of :math:`U_1` holds :math:`Q_i^m / (m!\, d^{|m|})`, row j of :math:`U_2` holds the monomials of
    :math:`K^1_j` and row l of :math:`U_3` those of :math:`K^2_l`, and :math:`u_2, u_3` are the column sums.

    Parameters
    ----------
    q, k1, k2, v1, v2
        See `tensor_attention`.
    degree
        Degree g of the Taylor polynomial of the exponential.

    Returns
    -------
    Tensor
        (i, e).

    Raises
    ------
    ValueError
        When the degree is negative, or a row of the polynomial attention has a sum that is not positive: the entries
        are too large for the degree.

    References
    ----------
    kronecker-attention
    """
    U1 = taylor_features(q, degree)
    U2, U3 = monomial_features(k1, degree), monomial_features(k2, degree)
    total = U1 @ (U2.sum(0) * U3.sum(0))
    validate.in_range("row sums of the polynomial attention", total, torch.finfo(total.dtype).tiny, torch.inf)
    # Column e of the middle factor is the product of two r-vectors: (U2 (.) U3)^T (V1 (.) V2) never has n^2 rows.
    return U1 @ ((U2.mT @ v1) * (U3.mT @ v2)) / total[:, None]


@typed
def taylor_remainder(s: Float[Tensor, "*batch"], degree: int) -> Float[Tensor, "*batch"]:
    r"""Largest error of the Taylor polynomial of the exponential on an interval.

    .. math:: \max_{|x| \le s} \Bigl| e^x - \sum_{h \le g} \frac{x^h}{h!} \Bigr| \le \frac{s^{g+1} e^s}{(g + 1)!}

    Parameters
    ----------
    s
        Half lengths of the intervals, not negative; :math:`B^3` where all entries are at most B.
    degree
        Degree g.

    Returns
    -------
    Tensor
        ``(*batch)``.

    Raises
    ------
    ValueError
        When s or the degree is negative.

    References
    ----------
    kronecker-attention
    """
    validate.in_range("s", s, 0, torch.inf)
    validate.at_least("degree", degree, 0)
    return torch.exp(torch.xlogy(s.new_tensor(degree + 1.0), s) + s - math.lgamma(degree + 2))


@typed
def lowrank_error_bound(s: Float[Tensor, "*batch"], degree: int) -> Float[Tensor, "*batch"]:
    r"""Bound on the error of `tensor_attention_lowrank`, in units of the largest entry of a value.

    .. math:: \lVert \tilde o - o \rVert_\infty \le \frac{2 \epsilon}{1 - \epsilon}
        \lVert V_1 \oslash V_2 \rVert_\infty, \qquad \epsilon = \frac{s^{g+1} e^s}{(g+1)!} \Big/ e^{-s}

    where the smallest row mean of the exact attention matrix has been replaced by :math:`e^{-s}`. Infinite where
    :math:`\epsilon \ge 1`.

    Parameters
    ----------
    s
        Largest logit, at most :math:`B^3`.
    degree
        Degree g.

    Returns
    -------
    Tensor
        ``(*batch)``.

    Raises
    ------
    ValueError
        When s or the degree is negative.

    References
    ----------
    kronecker-attention
    """
    epsilon = taylor_remainder(s, degree) * s.exp()
    return torch.where(epsilon < 1, 2 * epsilon / (1 - epsilon).clamp(min=torch.finfo(s.dtype).eps), torch.inf)


@typed
def least_degree(s: float, error: float) -> int:
    r"""Smallest degree for which `lowrank_error_bound` is at most a given error.

    .. math:: g(s, \epsilon) = \min \Bigl\{ g : \frac{s^{g+1} e^{2s}}{(g+1)!} \le \frac{\epsilon}{2 + \epsilon} \Bigr\}

    Parameters
    ----------
    s
        Largest logit, at most :math:`B^3`.
    error
        Allowed error :math:`\epsilon`, relative to the largest value.

    Returns
    -------
    int
        The degree g.

    Raises
    ------
    ValueError
        When s or the error is not positive.

    References
    ----------
    kronecker-attention
    """
    validate.positive("s", s)
    validate.positive("error", error)
    allowed, degree = math.log(error / (2 + error)), 0
    while (degree + 1) * math.log(s) + 2 * s - math.lgamma(degree + 2) > allowed:
        degree += 1
    return degree


@typed
def match3_labels(x: Int[Tensor, "*batch n"], modulus: int) -> Int[Tensor, "*batch n"]:
    r"""Which tokens are part of a triple that sums to zero.

    .. math:: y_i = 1 \iff x_i + x_j + x_l \equiv 0 \pmod M \text{ for some } j, l

    Parameters
    ----------
    x
        Residues ``(*batch, n)``.
    modulus
        The modulus M.

    Returns
    -------
    Tensor
        0 or 1, ``(*batch, n)``.

    Raises
    ------
    ValueError
        When the modulus is below 2.

    References
    ----------
    kronecker-attention
    """
    validate.at_least("modulus", modulus, 2)
    pairs = ((x[..., :, None] + x[..., None, :]) % modulus).flatten(-2)
    return (pairs[..., None, :] == (-x % modulus)[..., :, None]).any(-1).to(x.dtype)


@typed
def match3_head(angles: Float[Tensor, " n"], sharpness: float) -> Float[Tensor, " n"]:
    r"""Solve triple detection with one head of tensor attention and a threshold.

    .. math:: o_i = \sum_{j, l} \operatorname{softmax}_{(j, l)} \bigl( \beta \cos(\alpha_i + \alpha_j + \alpha_l) \bigr)
        \cos(\alpha_i + \alpha_j + \alpha_l)

    The cosine of a sum of three angles is a sum of four products, so queries and keys have four dimensions, and so have
    the values, which hold :math:`\cos` and :math:`\sin` of :math:`\alpha_j + \alpha_l`.

    Parameters
    ----------
    angles
        Angles :math:`\alpha_i = 2 \pi x_i / M` of the residues :math:`x_i` modulo M.
    sharpness
        Inverse temperature :math:`\beta`.

    Returns
    -------
    Tensor
        (n). For large :math:`\beta` it is 1 where there is a triple and at most :math:`\cos(2\pi/M)` elsewhere.

    Raises
    ------
    ValueError
        When the sharpness is not positive.

    References
    ----------
    kronecker-attention
    """
    validate.positive("sharpness", sharpness)
    c, s = angles.cos(), angles.sin()
    q = 4 * sharpness * torch.stack([c, -c, -s, -s], dim=1)
    k1, k2 = torch.stack([c, s, c, s], dim=1), torch.stack([c, s, s, c], dim=1)
    cos_cos, sin_sin, cos_sin, sin_cos = tensor_attention(q, k1, k2, k1, k2).unbind(1)
    return c * (cos_cos - sin_sin) - s * (cos_sin + sin_cos)


def _attend_to_pairs(q: Tensor, k1: Tensor, k2: Tensor, v1: Tensor, v2: Tensor) -> Tensor:
    """Attention of a few queries; the Kronecker products of keys and of values are never written down."""
    logits = (q[:, None] * k1 / q.shape[-1]) @ k2.mT
    weights = logits.flatten(1).softmax(-1).view_as(logits)
    return ((weights @ v2) * v1).sum(1)


def _taylor_weights(d: int, degree: int) -> Tensor:
    # Variable 0 is the constant 1 that fills a monomial up to the degree; it has no factorial of its own.
    exponents = _count(_multisets(d + 1, degree), d)
    return torch.exp(-torch.lgamma(exponents + 1).sum(-1) - exponents.sum(-1) * math.log(d))


def _multisets(variables: int, size: int) -> Tensor:
    """All multisets of the variables 0, 1, ... of one size, as sorted rows; those with most zeros first."""
    validate.at_least("degree", size, 0)
    rows = list(combinations_with_replacement(range(variables), size))
    return torch.tensor(rows, dtype=torch.long).reshape(len(rows), size)


def _count(multisets: Tensor, d: int) -> Tensor:
    """How often each multiset holds the variables 1, ..., d, (r, d)."""
    return (multisets[:, :, None] == torch.arange(1, d + 1)).sum(1).double()


def _monomials(x: Tensor, degree: int) -> Tensor:
    """Products of the columns of x over all multisets of that size, one column of x at a time."""
    multisets = _multisets(x.shape[1], degree).to(x.device)
    features = torch.ones_like(x[:, :1]).expand(-1, len(multisets))
    for chosen in multisets.unbind(1):
        features = features * x[:, chosen]
    return features
