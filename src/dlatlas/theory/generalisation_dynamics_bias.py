"""Inductive bias as information: how unlikely a hypothesis that fits the training data is to generalise."""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from scipy import optimize, special
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed

Kernel = Callable[[Tensor, Tensor], Tensor]
_SERIES = 200
_BISECTIONS = 80


@typed
def posterior_moments(
    x_tr: Float[Tensor, "n d"],
    y_tr: Float[Tensor, "n c"],
    x_te: Float[Tensor, "t d"],
    kernel: Kernel,
    *,
    jitter: float = 1e-8,
) -> tuple[Float[Tensor, "t c"], Float[Tensor, "t t"]]:
    r"""Mean and covariance at test points of a Gaussian process that passes through the training data.

    .. math:: \mu = k_*^\top K^{-1} Y, \qquad \Sigma = K_{**} - k_*^\top K^{-1} k_*

    Parameters
    ----------
    x_tr, y_tr, x_te
        Training inputs, targets (n, c), and test inputs.
    kernel
        From inputs (n, d) and (m, d) to a matrix (n, m).
    jitter
        Added to the diagonal of K, against rounding.

    Returns
    -------
    tuple of Tensor
        Mean (t, c), and the covariance (t, t) that all outputs share.

    Raises
    ------
    ValueError
        For a negative jitter, or a kernel matrix that is not positive definite.

    References
    ----------
    exact-inductive-bias
    """
    validate.at_least("jitter", jitter, 0.0)
    identity = torch.eye(len(x_tr), dtype=x_tr.dtype, device=x_tr.device)
    factor, info = torch.linalg.cholesky_ex(kernel(x_tr, x_tr) + jitter * identity)
    validate.in_range("first minor of K that is not positive (0: none)", info, 0, 0)
    whitened = torch.linalg.solve_triangular(factor, kernel(x_tr, x_te), upper=False)
    mean = whitened.mT @ torch.linalg.solve_triangular(factor, y_tr, upper=False)
    return mean, kernel(x_te, x_te) - whitened.mT @ whitened


@typed
def posterior_errors(
    x_tr: Float[Tensor, "n d"],
    y_tr: Float[Tensor, "n c"],
    x_te: Float[Tensor, "t d"],
    y_te: Float[Tensor, "t c"],
    kernel: Kernel,
    noise: Float[Tensor, "m t c"],
    *,
    jitter: float = 1e-8,
) -> Float[Tensor, " m"]:
    r"""Test errors of random functions that interpolate the training data.

    .. math:: f = \mu + \Sigma^{1/2} Z, \qquad e = \frac{1}{t c} \lVert f - Y_{\mathrm{te}} \rVert_F^2

    with the moments of `posterior_moments`.

    Parameters
    ----------
    x_tr, y_tr, x_te, kernel, jitter
        As for `posterior_moments`.
    y_te
        Test targets.
    noise
        Standard normal Z, one (t, c) a function.

    Returns
    -------
    Tensor
        One error a function, (m,).

    Raises
    ------
    ValueError
        As `posterior_moments`.

    References
    ----------
    exact-inductive-bias
    """
    mean, covariance = posterior_moments(x_tr, y_tr, x_te, kernel, jitter=jitter)
    eigs, modes = torch.linalg.eigh(covariance)
    deviations = (modes * eigs.clamp(min=0).sqrt()) @ noise
    return (mean - y_te + deviations).square().mean((1, 2))


@typed
def fit_scaled_ncx2(
    e: Float[Tensor, " m"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    r"""Fit a scaled non-central chi-square distribution to a sample by maximum likelihood.

    .. math:: e \sim c\, \chi'^2_k(\lambda), \qquad
        p(e) = \frac{1}{2c} e^{-(x + \lambda)/2} \Bigl(\frac{x}{\lambda}\Bigr)^{k/4 - 1/2}
        I_{k/2 - 1}(\sqrt{\lambda x}), \quad x = e / c

    from the solution of the first three moments, by a quasi-Newton method of SciPy: it does not work under
    ``torch.func.vmap`` and has no gradient.

    Parameters
    ----------
    e
        A sample of positive errors.

    Returns
    -------
    tuple of Tensor
        Degrees of freedom k, non-centrality :math:`\lambda` and scale c.

    Raises
    ------
    ValueError
        For fewer than four errors, an error that is not positive, or errors that are all equal.

    References
    ----------
    exact-inductive-bias
    """
    validate.at_least("number of errors", len(e), 4)
    validate.in_range("e", e, torch.finfo(e.dtype).tiny, math.inf)
    sample = e.detach().double().cpu().numpy()
    validate.positive("relative variance of e", sample.var() / sample.mean() ** 2 - torch.finfo(e.dtype).eps)
    unit = sample / sample.mean()

    def loss(log_parameters: np.ndarray) -> float:
        return -_log_density(unit, *np.exp(log_parameters)).mean()

    start = np.log(_match_moments(unit))
    best = optimize.minimize(loss, start, method="L-BFGS-B", bounds=[(-7, 14), (-18, 14), (-14, 14)])
    df, nc, scale = np.exp(best.x)
    return e.new_tensor(df), e.new_tensor(nc), e.new_tensor(scale * sample.mean())


@typed
def inductive_bias(
    eps: Float[Tensor, " q"], df: Float[Tensor, ""], nc: Float[Tensor, ""], scale: Float[Tensor, ""]
) -> Float[Tensor, " q"]:
    r"""Information that is needed to reach a test error, in nats, for errors with a scaled non-central chi-square.

    .. math:: I(\epsilon) = -\log \mathrm{P}(e \le \epsilon)
        = -\log \sum_{j \ge 0} \frac{e^{-\lambda/2} (\lambda/2)^j}{j!}\,
        P\Bigl( \frac k2 + j, \frac{\epsilon}{2c} \Bigr)

    The regularised incomplete gamma function P is summed in logarithms where it would underflow, so that no second
    branch is needed. The number of terms depends on :math:`\lambda`: no ``torch.func.vmap``, and no gradient.

    Parameters
    ----------
    eps
        Target errors, greater than 0.
    df, nc, scale
        k, :math:`\lambda` and c, from `fit_scaled_ncx2`.

    Returns
    -------
    Tensor
        One value a target, at least 0.

    Raises
    ------
    ValueError
        For a target, k or c that is not positive, or a negative :math:`\lambda`.

    References
    ----------
    exact-inductive-bias
    """
    _check_tail(eps, df, nc, scale)
    half, x = nc.detach().double() / 2, (eps / (2 * scale)).detach().double()
    j = torch.arange(int(half + 12 * half.sqrt()) + 40, dtype=torch.float64, device=eps.device)
    log_poisson = torch.xlogy(j, half) - half - torch.lgamma(j + 1)
    log_cdf = torch.logsumexp(log_poisson + _log_gammainc(df.double() / 2 + j, x[:, None]), dim=1)
    return (-log_cdf).clamp(min=0).to(eps.dtype)


@typed
def sankaran_tail(
    eps: Float[Tensor, "*#q"], df: Float[Tensor, "*#q"], nc: Float[Tensor, "*#q"], scale: Float[Tensor, "*#q"]
) -> Float[Tensor, "..."]:
    r"""Approximate inductive bias far in the tail, by Sankaran's normal variable.

    .. math:: I \approx \tfrac12 z^2, \qquad
        z = \frac{\bigl(\frac{\epsilon / c}{k + \lambda}\bigr)^h - 1 - h p\,(h - 1 - \frac12 (2 - h)\, m p)}
        {h \sqrt{2 p}\, (1 + \frac12 m p)}

    with :math:`h = 1 - \frac23 \frac{(k + \lambda)(k + 3\lambda)}{(k + 2\lambda)^2}`,
    :math:`p = \frac{k + 2\lambda}{(k + \lambda)^2}` and :math:`m = (h - 1)(1 - 3h)`; 0 for positive z. The step from
    :math:`-\log \Phi(z)` to :math:`\frac12 z^2` drops :math:`\log(|z| \sqrt{2\pi})`.

    Parameters
    ----------
    eps, df, nc, scale
        As for `inductive_bias`; they broadcast.

    Returns
    -------
    Tensor
        Nats, at least 0.

    Raises
    ------
    ValueError
        As `inductive_bias`.

    References
    ----------
    exact-inductive-bias
    """
    _check_tail(eps, df, nc, scale)
    mean, second, third = df + nc, df + 2 * nc, df + 3 * nc
    h = 1 - 2 / 3 * mean * third / second.square()
    p = second / mean.square()
    m = (h - 1) * (1 - 3 * h)
    centre = 1 + h * p * (h - 1 - 0.5 * (2 - h) * m * p)
    z = ((eps / scale / mean).pow(h) - centre) / (h * (2 * p).sqrt() * (1 + 0.5 * m * p))
    return z.clamp(max=0).square() / 2


@typed
def saddlepoint_bias(
    eps: Float[Tensor, " q"], deviation: Float[Tensor, "t c"], covariance: Float[Tensor, "t t"]
) -> Float[Tensor, " q"]:
    r"""Inductive bias of a Gaussian hypothesis space from the full distribution of its error, at any depth of the tail.

    .. math:: \kappa(\theta) = \log \mathrm{E}\, e^{\theta e} = \sum_i \Bigl[
        -\frac c2 \log(1 - 2 \theta s_i) + \frac{\theta b_i^2}{1 - 2 \theta s_i} \Bigr], \qquad
        I \approx -\log \Phi\Bigl( w + \frac1w \log\frac vw \Bigr)

    with :math:`\kappa'(\theta) = \epsilon`, :math:`w = -\sqrt{2 (\theta \epsilon - \kappa)}` and
    :math:`v = \theta \sqrt{\kappa''}`. Here :math:`t c\, s_i` are the eigenvalues of the covariance and
    :math:`t c\, b_i^2` the squared components of the deviation along its eigenvectors, summed over outputs.

    Parameters
    ----------
    eps
        Target errors, greater than 0 and below the mean error.
    deviation
        Mean of the hypotheses minus the test targets, (t, c).
    covariance
        Covariance of the hypotheses at the test points, the same for all outputs.

    Returns
    -------
    Tensor
        One value a target.

    Raises
    ------
    ValueError
        For a target that is not positive, or not below the mean error.

    References
    ----------
    exact-inductive-bias
    """
    outputs, count = deviation.shape[1], deviation.numel()
    validate.in_range("eps", eps, torch.finfo(eps.dtype).tiny, math.inf)
    s, modes = torch.linalg.eigh(covariance)
    s, b2 = s.clamp(min=0) / count, (modes.mT @ deviation).square().sum(1) / count
    mean = (outputs * s + b2).sum()
    validate.in_range("eps over the mean error", eps / mean, 0.0, 1 - torch.finfo(eps.dtype).eps)

    def slope(theta: Tensor) -> Tensor:
        shrink = 1 - 2 * theta[:, None] * s
        return (outputs * s / shrink + b2 / shrink.square()).sum(1)

    theta = -_increasing_root(lambda size: -slope(-size), -eps, scale=1 / mean)
    shrink = 1 - 2 * theta[:, None] * s
    kappa = (-outputs / 2 * shrink.log() + theta[:, None] * b2 / shrink).sum(1)
    bend = (2 * outputs * (s / shrink).square() + 4 * s * b2 / shrink.pow(3)).sum(1)
    w = -(2 * (theta * eps - kappa)).clamp(min=torch.finfo(eps.dtype).tiny).sqrt()
    return -torch.special.log_ndtr(w + torch.log(theta * bend.sqrt() / w) / w)


def _increasing_root(f: Callable[[Tensor], Tensor], goal: Tensor, *, scale: Tensor) -> Tensor:
    """Positive argument at which an increasing function has a value, by bisection in the logarithm."""
    low = torch.full_like(goal, -30.0) + scale.log()
    high = torch.full_like(goal, 30.0) + scale.log()
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        below = f(middle.exp()) < goal
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return ((low + high) / 2).exp()


def _log_gammainc(a: Tensor, x: Tensor) -> Tensor:
    """Logarithm of the regularised lower incomplete gamma function, without underflow."""
    value = torch.special.gammainc(a.expand(torch.broadcast_shapes(a.shape, x.shape)), x)
    ratios = x[..., None] / (a[..., None] + torch.arange(1, _SERIES, dtype=a.dtype, device=a.device))
    series = torch.log1p(ratios.clamp(max=1).cumprod(-1).sum(-1))
    tail = a * x.log() - x - torch.lgamma(a + 1) + series
    return torch.where(value > 1e-200, value.clamp(min=1e-300).log(), tail)


def _match_moments(e: np.ndarray) -> tuple[float, float, float]:
    """Parameters with the mean and variance of a sample, and its third cumulant where one of the family has it."""
    mean, variance = e.mean(), e.var()
    third = ((e - mean) ** 3).mean()
    central = variance / (2 * mean)
    # 8 mean c^2 - 8 variance c + third = 0; nc > 0 needs c below `central`, df > 0 needs c above half of it.
    root = central * (1 - math.sqrt(max(0.0, 1 - mean * third / (2 * variance**2))))
    scale = min(max(root, 0.55 * central), 0.95 * central)
    nc = (variance / (2 * scale) - mean) / scale
    return mean / scale - nc, nc, scale


def _log_density(e: np.ndarray, df: float, nc: float, scale: float) -> np.ndarray:
    x = e / scale
    order, argument = df / 2 - 1, np.sqrt(nc * x)
    power = 0.5 * order * np.log(x / nc)
    return power - 0.5 * (np.sqrt(x) - math.sqrt(nc)) ** 2 + _log_ive(order, argument) - math.log(2 * scale)


def _log_ive(order: float, x: np.ndarray) -> np.ndarray:
    """Logarithm of exp(-x) I_order(x); by Debye's expansion for large orders, where I underflows."""
    if order < 40:
        return np.log(np.maximum(special.ive(order, x), 1e-300))
    z = x / order
    root = np.sqrt(1 + z * z)
    t = 1 / root
    first = (3 * t - 5 * t**3) / 24
    second = (81 * t**2 - 462 * t**4 + 385 * t**6) / 1152
    exponent = order * (root + np.log(z / (1 + root)))
    size = -0.5 * np.log(2 * math.pi * order * root)
    return exponent - x + size + np.log1p(first / order + second / order**2)


def _check_tail(eps: Tensor, df: Tensor, nc: Tensor, scale: Tensor) -> None:
    for name, value in (("eps", eps), ("df", df), ("scale", scale)):
        validate.in_range(name, value, torch.finfo(value.dtype).tiny, math.inf)
    validate.in_range("nc", nc, 0.0, math.inf)
