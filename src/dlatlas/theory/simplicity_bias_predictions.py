"""Shortcut bias without training: of linear rules, of linear models on their way, and of kernel regression."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.ops.kernel_ridge import effective_ridge
from dlatlas.typed import typed


@typed
def linear_reliance(w: Float[Tensor, "*rules 2"]) -> Float[Tensor, "*rules"]:
    r"""Reliance of the rule :math:`\operatorname{sign}(w_s z_s + w_c z_c)` on a square that is infinitely fine.

    .. math:: R = \begin{cases} \tfrac12 \bigl(1 - w_c/w_s\bigr) & w_s \ge w_c \ge 0 \\
        -\tfrac12 \bigl(1 - w_s/w_c\bigr) & w_c \ge w_s \ge 0 \end{cases}

    and by reflection for negative weights.

    Parameters
    ----------
    w
        Weights :math:`(w_s, w_c)` of the latent features, not both zero.

    Returns
    -------
    Tensor
        Between -1/2 and 1/2 for weights of equal sign.

    Raises
    ------
    ValueError
        When both weights are zero.

    References
    ----------
    shortcut-availability
    """
    a, b = w.abs().unbind(-1)
    validate.in_range("larger weight", torch.maximum(a, b), torch.finfo(w.dtype).tiny, math.inf)
    ratio = torch.minimum(a, b) / torch.maximum(a, b)
    leading, trailing = 0.5 - ratio / 4, ratio / 4
    shares = torch.stack([torch.where(a >= b, leading, trailing), torch.where(a >= b, trailing, leading)], dim=-1)
    signed = w.sign() * shares
    return signed[..., 0] - signed[..., 1]


@typed
def linear_flow(
    mu: Float[Tensor, " 2"], alpha: Float[Tensor, " 2"], times: Float[Tensor, " times"]
) -> Float[Tensor, "times 2"]:
    r"""Weights of the latent features in a linear model under gradient flow on the squared loss of the population.

    .. math:: \dot u = D^2 (\mu - S u), \qquad u(t) = D \bigl(I - e^{-D S D t}\bigr) (D S D)^{-1} D \mu, \qquad
        S = I + \mu \mu^\top, \quad D = \operatorname{diag}(\alpha)

    Parameters
    ----------
    mu
        Means :math:`(\mu_s, \mu_c)`.
    alpha
        Amplifications, greater than zero.
    times
        Steps times learning rate, at least 0, for the loss :math:`\frac12 E (f - y)^2`; infinity gives the end.

    Returns
    -------
    Tensor
        :math:`u(t)`, one row a time. It starts along :math:`D^2 \mu` and ends along :math:`\mu`, whatever D is.

    Raises
    ------
    ValueError
        For amplifications that are not positive or negative times.

    References
    ----------
    shortcut-availability
    """
    validate.in_range("alpha", alpha, torch.finfo(alpha.dtype).tiny, math.inf)
    validate.in_range("times", times, 0.0, math.inf)
    second_moment = torch.diag(alpha.square()) + torch.outer(alpha * mu, alpha * mu)
    rates, modes = torch.linalg.eigh(second_moment)
    learnt = -torch.expm1(-rates * times[:, None]) / rates
    return alpha * ((learnt * (modes.mT @ (alpha * mu))) @ modes.mT)


@typed
def population_regression(
    K: Float[Tensor, "q q"],
    K_test: Float[Tensor, "m q"],
    weights: Float[Tensor, " q"],
    target: Float[Tensor, " q"],
    *,
    n: int,
    ridge: float,
) -> Float[Tensor, " m"]:
    r"""Mean prediction of kernel regression on :math:`n` random samples, from the kernel as an integral operator.

    .. math:: \bar f = T (T + \kappa)^{-1} f^*, \qquad (T f)(x) = \sum_q w_q\, k(x, x_q) f(x_q), \qquad
        \sum_i \frac{\lambda_i}{\lambda_i + \kappa} + \frac{\delta}{\kappa} = n

    Parameters
    ----------
    K, K_test
        The kernel between quadrature nodes, and between test points and nodes.
    weights
        Quadrature weights :math:`w_q`, greater than zero.
    target
        Regression function :math:`f^*` at the nodes.
    n
        Number of samples.
    ridge
        :math:`\delta`, as in `dlatlas.ops.kernel_ridge.ridge_predict`.

    Returns
    -------
    Tensor
        :math:`\bar f` at the test points, (m,).

    Raises
    ------
    ValueError
        For weights that are not positive, no samples or a negative ridge.

    References
    ----------
    shortcut-availability
    """
    validate.in_range("weights", weights, torch.finfo(weights.dtype).tiny, math.inf)
    root = weights.sqrt()
    eigenvalues, modes = torch.linalg.eigh(root[:, None] * K * root)
    # Below rounding an eigenvalue stands for zero: the kernel does not span its mode, and nothing is learnt there.
    spanned = eigenvalues > len(weights) * torch.finfo(K.dtype).eps * eigenvalues.max()
    eigenvalues = torch.where(spanned, eigenvalues, torch.zeros_like(eigenvalues))
    kappa = effective_ridge(eigenvalues, torch.ones_like(eigenvalues), n=n, ridge=ridge)
    learnt = torch.where(spanned, (modes.mT @ (root * target)) / (eigenvalues + kappa), torch.zeros_like(eigenvalues))
    return K_test @ (root * (modes @ learnt))
