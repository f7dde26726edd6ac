"""What Barlow Twins asks of a linear network: how its features share the directions that two views have in common."""

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def canonical_correlations(x1: Float[Tensor, "n d"], x2: Float[Tensor, "n d"]) -> Float[Tensor, "d"]:
    r"""Correlation between two views along each direction in which they are related, largest first.

    .. math:: \rho_k = k\text{-th eigenvalue of } M = \Sigma^{-1/2}\, \Gamma\, \Sigma^{-1/2}

    Both views have the same distribution, so both estimate the covariance :math:`\Sigma` of a view, and the covariance
    :math:`\Gamma` between the views is made symmetric.

    Parameters
    ----------
    x1, x2
        Two views; row i of both comes from the same image. There are more rows than columns, and no column is a
        combination of others.

    Returns
    -------
    Tensor
        :math:`\rho` (d,) in [-1, 1]; a negative value is noise of the sample, since those of two views that are
        independent given the image are not negative.

    Raises
    ------
    ValueError
        When there are no more rows than columns.

    References
    ----------
    barlow-twins
    """
    n, d = x1.shape
    validate.at_least("rows", n, d + 1)
    mean = (x1.mean(0) + x2.mean(0)) / 2
    a, b = x1 - mean, x2 - mean
    within, between = a.mT @ a + b.mT @ b, a.mT @ b
    root = torch.linalg.cholesky(within)
    half = torch.linalg.solve_triangular(root, between + between.mT, upper=False)
    return torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, half.mT, upper=False)).flip(0)


@typed
def direction_shares(rho: Float[Tensor, "k"], *, width: int, lam: float) -> Float[Tensor, "k"]:
    r"""How the features of the best linear network are shared out among the directions of two views.

    .. math:: s = \arg\min_{s \ge 0,\, \sum_k s_k = 1} (1 - c)^2 + \lambda \Bigl( d \sum_k \rho_k^2 s_k^2 - c^2 \Bigr),
        \qquad c = \sum_k \rho_k s_k

    The solution fills the directions like water, up to a level :math:`\nu`:

    .. math:: s_k = \frac{\max(0,\; g \rho_k - \nu)}{\lambda\, d\, \rho_k^2}, \qquad g = 1 - (1 - \lambda)\, c

    Parameters
    ----------
    rho
        Canonical correlations :math:`\rho` in (0, 1], in any order, see `canonical_correlations`.
    width
        Number d of features.
    lam
        Weight :math:`\lambda` in (0, 1] of the redundancy term.

    Returns
    -------
    Tensor
        Shares s (k,), which sum to one: s_k is the mean over the features of their squared component along direction
        k, and the eigenvalues of their correlations are :math:`d\, s_k`.

    Raises
    ------
    ValueError
        When a correlation or the weight is outside its range, or the width is not positive.

    References
    ----------
    barlow-twins
    """
    validate.at_least("width", width, 1)
    validate.positive("lam", lam)
    validate.in_range("lam", lam, 0, 1)
    validate.in_range("rho", rho, torch.finfo(rho.dtype).eps, 1)
    weight = lam * width
    r, order = rho.sort(descending=True)
    # With the first j directions open, s sums to one and c is what g says: two linear equations for g and the level.
    j = torch.arange(1, len(rho) + 1, dtype=rho.dtype, device=rho.device)
    P, Q = (1 / r).cumsum(0), (1 / r.square()).cumsum(0)
    g = (1 - (1 - lam) * P / Q) / (1 + (1 - lam) * (j - P.square() / Q) / weight)
    level = (g * P - weight) / Q
    last = (g * r > level).sum(0, keepdim=True) - 1
    filled = (g.gather(0, last) * r - level.gather(0, last)).clamp(min=0) / (weight * r.square())
    return filled.gather(0, order.argsort())


@typed
def critical_weight(rho: Float[Tensor, "k"], *, width: int) -> Float[Tensor, ""]:
    r"""Weight of the redundancy term below which all features of the best linear network are the same.

    .. math:: \lambda_c = \frac{(1 - \rho_1)(\rho_1 - \rho_2)}{\rho_1 \bigl( (d - 1)\, \rho_1 + \rho_2 \bigr)}

    Parameters
    ----------
    rho
        Canonical correlations in (0, 1], two or more, in any order; the two largest count.
    width
        Number d of features, at least 2.

    Returns
    -------
    Tensor
        :math:`\lambda_c`, a scalar.

    Raises
    ------
    ValueError
        When there is one direction or one feature only, or a correlation lies outside (0, 1].

    References
    ----------
    barlow-twins
    """
    validate.at_least("number of directions", len(rho), 2)
    validate.at_least("width", width, 2)
    validate.in_range("rho", rho, torch.finfo(rho.dtype).eps, 1)
    first, second = rho.topk(2).values
    return (1 - first) * (first - second) / (first * ((width - 1) * first + second))
