"""Means and variances in context: the loss, the exact Bayesian reference, and the reference without a prior."""

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def gaussian_nll(
    mu: Float[Tensor, "*shape"], sigma: Float[Tensor, "*shape"], y: Float[Tensor, "*shape"]
) -> Float[Tensor, ""]:
    r"""Mean negative log-likelihood of labels under normal predictions, without the constant.

    .. math:: \frac1n \sum_i \log \sigma_i + \frac{(y_i - \mu_i)^2}{2 \sigma_i^2}

    Parameters
    ----------
    mu, sigma
        Predicted means and standard deviations.
    y
        Labels.

    Returns
    -------
    Tensor
        A scalar, in nats; add :math:`\frac12 \log 2\pi` for the likelihood itself.

    Raises
    ------
    ValueError
        When a standard deviation is not positive.

    References
    ----------
    icl-uncertainty-quantification
    """
    validate.in_range("sigma", sigma, torch.finfo(sigma.dtype).tiny, torch.inf)
    return (sigma.log() + ((y - mu) / sigma).square() / 2).mean()


@typed
def nig_posterior_predictive(
    X: Float[Tensor, "*batch t d"],
    y: Float[Tensor, "*batch t"],
    xq: Float[Tensor, "*batch d"],
    k0: float,
    a0: float,
    b0: float,
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    r"""Mean and variance of the next label under the normal-inverse-gamma prior, given t examples.

    .. math:: V = (X^\top X + k_0 I)^{-1}, \quad m = V X^\top y, \quad
        \mathbb E = x_q^\top m, \quad
        \mathrm{Var} = \frac{b_0 + \frac12 (\lVert y - X m \rVert^2 + k_0 \lVert m \rVert^2)}{a_0 + t/2 - 1}
        (1 + x_q^\top V x_q)

    for :math:`\sigma^2 \sim \mathrm{InverseGamma}(a_0, b_0)` and
    :math:`w \mid \sigma^2 \sim \mathcal N(0, \sigma^2 I/k_0)`.

    Parameters
    ----------
    X, y, xq
        Examples, none or more, and query.
    k0, a0, b0
        Parameters of the prior; with no example :math:`a_0 > 1` is needed for the variance to exist.

    Returns
    -------
    tuple
        Mean and variance, ``(*batch,)`` each. The variance includes the noise and the uncertainty of w.

    Raises
    ------
    ValueError
        When a parameter is not positive or the variance does not exist.

    References
    ----------
    icl-uncertainty-quantification
    """
    for name, value in (("k0", k0), ("a0", a0), ("b0", b0)):
        validate.positive(name, value)
    shape = a0 + y.shape[-1] / 2
    validate.positive("a0 + t/2 - 1", shape - 1)
    precision = X.mT @ X + k0 * torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    m, leverage = _solve(precision, X, y, xq)
    residuals = y - (X @ m[..., None])[..., 0]
    b = b0 + (residuals.square().sum(-1) + k0 * m.square().sum(-1)) / 2
    return (xq * m).sum(-1), b / (shape - 1) * (1 + leverage)


@typed
def ols_predictive(
    X: Float[Tensor, "*batch t d"], y: Float[Tensor, "*batch t"], xq: Float[Tensor, "*batch d"]
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    r"""Mean and variance of the next label by least squares on t examples, without a prior.

    .. math:: \hat w = (X^\top X)^{-1} X^\top y, \quad
        \hat\sigma^2 = \frac{\lVert y - X \hat w \rVert^2}{t - d}, \quad
        \mathrm{Var} = \hat\sigma^2 (1 + x_q^\top (X^\top X)^{-1} x_q)

    Parameters
    ----------
    X, y, xq
        Examples, more than d + 2 so that the mean square of the prediction's error over the residual's exists; query.

    Returns
    -------
    tuple
        Mean and variance, ``(*batch,)`` each.

    Raises
    ------
    ValueError
        When there are too few examples.

    References
    ----------
    icl-uncertainty-quantification
    """
    t, d = X.shape[-2:]
    validate.at_least("number of examples", t, d + 3)
    w, leverage = _solve(X.mT @ X, X, y, xq)
    residuals = y - (X @ w[..., None])[..., 0]
    s2 = residuals.square().sum(-1) / (t - d)
    return (xq * w).sum(-1), s2 * (1 + leverage)


@typed
def icl_generalisation_rate(tasks: int, length: int, window: int) -> float:
    r"""Rate of the bound on the excess risk of a model with a context window, without constants and logarithms.

    .. math:: \sqrt{\frac{\min(S, T)}{n T}}

    Parameters
    ----------
    tasks, length, window
        Training tasks n, length T of their sequences, context window S.

    Returns
    -------
    float
        The rate.

    Raises
    ------
    ValueError
        When a number is not positive.

    References
    ----------
    icl-uncertainty-quantification
    """
    for name, value in (("tasks", tasks), ("length", length), ("window", window)):
        validate.at_least(name, value, 1)
    return (min(window, length) / (tasks * length)) ** 0.5


def _solve(precision: Tensor, X: Tensor, y: Tensor, xq: Tensor) -> tuple[Tensor, Tensor]:
    """Solve for the coefficients, and give the leverage of the query."""
    h = (X.mT @ y[..., None])[..., 0]
    solutions = torch.linalg.solve(precision, torch.stack([h, xq], dim=-1))
    return solutions[..., 0], (xq * solutions[..., 1]).sum(-1)
