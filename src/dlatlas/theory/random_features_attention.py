"""Attention with random query-key matrices: features, the kernel of infinitely many heads, and its spectrum."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from scipy.special import roots_gegenbauer
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.ops.kernels import arccos_k1
from dlatlas.typed import typed

_ROWS = 8


@typed
def rf_attention_features(
    x0: Float[Tensor, "n d"],
    keys: Float[Tensor, "n N d"],
    W: Float[Tensor, "M d1 d1"],
    *,
    act: Callable[[Tensor], Tensor] = torch.relu,
) -> Float[Tensor, "n features"]:
    r"""Features of an attention layer whose values are trained.

    .. math:: \Phi(x)_m = \frac1N \sum_{i=1}^N s\bigl(\tilde x_0^\top W_m\, \tilde x_i\bigr)\, \tilde x_i, \qquad
        \tilde x = [x; 1]

    for the heads m = 1, ..., M, one after the other, so that :math:`f(x) = \sum_m \langle v_m, \Phi(x)_m \rangle`.

    Parameters
    ----------
    x0, keys
        Query :math:`x_0`, and N keys :math:`x_i` of every sample.
    W
        Random matrices :math:`W_m`, of order d + 1. Their mean is zero in the paper's RFA, and
        :math:`\operatorname{diag}(I_d, 0)` in its biased version, BRFA.
    act
        Activation :math:`s`.

    Returns
    -------
    Tensor
        (n, M (d + 1)).

    Raises
    ------
    ValueError
        When the order of W is not d + 1.

    References
    ----------
    random-feature-attention-theory
    """
    query, key = _with_one(x0), _with_one(keys)
    if W.shape[-1] != query.shape[-1]:
        raise ValueError(f"W must have the order {query.shape[-1]}, got {W.shape[-1]}")
    left = torch.einsum("nd,mde->nme", query, W)
    scores = act(left @ key.mT)
    return (scores @ key / keys.shape[1]).flatten(1)


@typed
def rf_attention_kernel(
    x0: Float[Tensor, "n d"],
    keys: Float[Tensor, "n N d"],
    x0b: Float[Tensor, "m d"],
    keysb: Float[Tensor, "m Nb d"],
    *,
    sigma2: float,
) -> Float[Tensor, "n m"]:
    r"""Kernel of infinitely many rectified heads with entries of variance :math:`\sigma^2` and mean zero.

    .. math:: K(X, X') = \frac{1}{N N'} \sum_{i,j} \sigma^2 |A_i| |A'_j|\,
        \frac{\sin\theta_{ij} + (\pi - \theta_{ij}) \cos\theta_{ij}}{2\pi}\, \langle \tilde x_i, \tilde x'_j \rangle,
        \qquad \cos\theta_{ij} = \frac{\langle \tilde x_0, \tilde x'_0 \rangle
        \langle \tilde x_i, \tilde x'_j \rangle}{|A_i| |A'_j|}, \quad |A_i| = |\tilde x_0| |\tilde x_i|

    the mean of :math:`\langle \Phi(x)_m, \Phi(x')_m \rangle` over heads.

    Parameters
    ----------
    x0, keys, x0b, keysb
        Queries and keys of two sets of samples.
    sigma2
        :math:`\sigma^2 > 0`.

    Returns
    -------
    Tensor
        (n, m).

    Raises
    ------
    ValueError
        For a variance that is not positive.

    References
    ----------
    random-feature-attention-theory
    """
    validate.positive("sigma2", sigma2)
    query, key, queryb, keyb = (_with_one(t) for t in (x0, keys, x0b, keysb))
    # Few rows at a time: the pairs of keys of all samples at once would not fit into the cache.
    parts = zip(query.split(_ROWS), key.split(_ROWS), strict=True)
    return sigma2 / 2 * torch.cat([_kernel_rows(*part, queryb, keyb) for part in parts])


@typed
def rf_attention_spectrum(
    d: int, n_keys: int, *, sigma2: float, degree: int = 6, dtype: torch.dtype = torch.float64
) -> tuple[Float[Tensor, "a b"], Float[Tensor, "a b"], Float[Tensor, ""]]:
    r"""Eigenvalues of `rf_attention_kernel` for independent tokens, uniform on the unit sphere.

    .. math:: \Lambda_{ab} = \frac{\hat h_{ab}}{N} \;(b \ge 1), \quad \Lambda_{a0} = \hat h_{a0}, \qquad
        \hat h_{ab} = \mathrm E\, h(s, t)\, P_a(s)\, P_b(t), \qquad
        h(s, t) = \sigma^2 \cdot 2\, k_1\Bigl(\tfrac{(1 + s)(1 + t)}{4}\Bigr) (1 + t)

    with Gegenbauer polynomials, :math:`P_a(1) = 1`, and s, t distributed like one coordinate of a random token. The
    eigenfunctions are :math:`Y_a(x_0)\, N^{-1/2} \sum_i Y_b(x_i)` with spherical harmonics of degrees a and b.

    Parameters
    ----------
    d, n_keys
        Dimension, at least 3, and number N of keys.
    sigma2
        Variance :math:`\sigma^2` of the entries of the random matrices.
    degree
        Largest a and b.
    dtype
        Precision of the result; the computation is in double precision.

    Returns
    -------
    tuple of Tensor
        :math:`\Lambda_{ab}` and the number of eigenfunctions in each sector, (degree + 1, degree + 1), and the trace of
        the sectors left out.

    Raises
    ------
    ValueError
        For a dimension below 3, no keys, a negative degree, or a variance that is not positive.

    References
    ----------
    random-feature-attention-theory
    """
    validate.at_least("d", d, 3)
    validate.at_least("n_keys", n_keys, 1)
    validate.at_least("degree", degree, 0)
    validate.positive("sigma2", sigma2)
    nodes, weights = (torch.as_tensor(v, dtype=torch.float64) for v in roots_gegenbauer(80, (d - 2) / 2))
    weights = weights / weights.sum()

    def h(s: Tensor, t: Tensor) -> Tensor:
        return 2 * sigma2 * arccos_k1((1 + s) * (1 + t) / 4) * (1 + t)

    polynomials = _gegenbauer(nodes, d, degree) * weights
    sectors = polynomials @ h(nodes[:, None], nodes) @ polynomials.mT
    share = torch.full_like(sectors[0], 1 / n_keys)
    share[0] = 1.0
    sizes = torch.tensor([_harmonics(d, a) for a in range(degree + 1)], dtype=torch.float64)
    eigenvalues, multiplicities = sectors * share, torch.outer(sizes, sizes)
    one = torch.ones((), dtype=torch.float64)
    trace = (h(one, one) + (n_keys - 1) * (weights * h(one, nodes)).sum()) / n_keys
    rest = (trace - (eigenvalues * multiplicities).sum()).clamp(min=0)
    return eigenvalues.to(dtype), multiplicities.to(dtype), rest.to(dtype)


@typed
def rf_mlp_features(x: Float[Tensor, "n d"], W: Float[Tensor, "M d1"]) -> Float[Tensor, "n M"]:
    r"""Rectified random features of a vector, the baseline that sees all tokens as one.

    .. math:: \Phi(x)_m = \max\bigl(\langle w_m, [x; 1] \rangle, 0\bigr)

    Parameters
    ----------
    x, W
        Inputs (n, d), and weights (M, d + 1).

    Returns
    -------
    Tensor
        (n, M).

    Raises
    ------
    ValueError
        When the weights do not have d + 1 entries.

    References
    ----------
    random-feature-attention-theory
    """
    if W.shape[1] != x.shape[1] + 1:
        raise ValueError(f"W must have {x.shape[1] + 1} columns, got {W.shape[1]}")
    return torch.relu(_with_one(x) @ W.mT)


def _kernel_rows(query: Tensor, key: Tensor, queryb: Tensor, keyb: Tensor) -> Tensor:
    lengths = key.norm(dim=-1)[:, None, :, None] * keyb.norm(dim=-1)[:, None]
    products = torch.einsum("nid,mjd->nmij", key, keyb)
    scale = query.norm(dim=-1)[:, None] * queryb.norm(dim=-1)
    cosines = (query @ queryb.mT / scale)[..., None, None] * (products / lengths)
    return scale * (arccos_k1(cosines) * lengths * products).mean((-1, -2))


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)


def _gegenbauer(t: Tensor, d: int, degree: int) -> Tensor:
    values = [torch.ones_like(t), t]
    for a in range(1, degree):
        values.append(((2 * a + d - 2) * t * values[a] - a * values[a - 1]) / (a + d - 2))
    return torch.stack(values[: degree + 1])


def _harmonics(d: int, a: int) -> int:
    return math.comb(a + d - 1, a) - (math.comb(a + d - 3, a - 2) if a >= 2 else 0)
