"""Dynamics of the generalisation error: linear students, their Marchenko-Pastur limit, and when to stop."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.theory.generalisation_dynamics_bias import (
    fit_scaled_ncx2,
    inductive_bias,
    posterior_errors,
    posterior_moments,
    saddlepoint_bias,
    sankaran_tail,
)
from dlatlas.theory.generalisation_dynamics_properties import (
    fgsm,
    label_sharpness,
    mle_dimension,
    nearest_neighbour_distance,
    representation_dimension,
    twonn_dimension,
)
from dlatlas.typed import typed

__all__ = [
    "fgsm",
    "final_test_error",
    "fit_scaled_ncx2",
    "gradient_flow_linear",
    "inductive_bias",
    "label_sharpness",
    "linear_dynamics",
    "linear_dynamics_limit",
    "marchenko_pastur_expect",
    "mle_dimension",
    "nearest_neighbour_distance",
    "optimal_ridge",
    "optimal_stopping_time",
    "posterior_errors",
    "posterior_moments",
    "representation_dimension",
    "saddlepoint_bias",
    "sankaran_tail",
    "twonn_dimension",
]


@typed
def gradient_flow_linear(
    X: Float[Tensor, "N P"], y: Float[Tensor, "P *outputs"], w0: Float[Tensor, "N *outputs"], t: Float[Tensor, " T"]
) -> Float[Tensor, "T N *outputs"]:
    r"""Weights of a linear student under gradient flow on the squared loss, exactly.

    .. math:: \tau \dot w = X (y - X^\top w), \qquad
        w(t) = e^{-A t / \tau} w_0 + A^{+} (I - e^{-A t / \tau})\, X y, \qquad A = X X^\top

    by the eigendecomposition of :math:`A`. Directions that no sample reaches keep their initial weights.

    Parameters
    ----------
    X
        Inputs, one column a sample; the theory of this chapter takes entries of variance 1/N.
    y
        Targets, (P,) or (P, c).
    w0
        Initial weights, (N,) or (N, c).
    t
        Times in units of :math:`\tau`, at least 0; infinity gives the limit of training.

    Returns
    -------
    Tensor
        The weights at each time, (T, N) or (T, N, c).

    Raises
    ------
    ValueError
        For a negative time.

    References
    ----------
    generalisation-error-dynamics
    """
    validate.in_range("t", t, 0.0, math.inf)
    N = X.shape[0]
    eigs, modes = torch.linalg.eigh(X @ X.mT)
    active = _nonzero(eigs)
    rate = torch.where(active, eigs, 1.0)
    decay = torch.where(active, torch.exp(-rate * t[:, None]), 1.0)[..., None]
    start = modes.mT @ w0.reshape(N, -1)
    goal = (modes.mT @ (X @ y.reshape(X.shape[1], -1))) / rate[:, None]
    return (modes @ (decay * start + (1 - decay) * goal)).reshape(-1, *w0.shape)


@typed
def linear_dynamics(
    eigs: Float[Tensor, " N"], t: Float[Tensor, " T"], *, samples: int, s_w: float, s_0: float, s_e: float
) -> tuple[Float[Tensor, " T"], Float[Tensor, " T"]]:
    r"""Training and test error of a linear student over time, for one set of inputs.

    .. math:: E_t(t) &= \frac1P \Bigl[ \sum_{\lambda_i > 0} (\lambda_i S + \sigma_e^2)\, e^{-2 \lambda_i t / \tau}
        + (P - r)\, \sigma_e^2 \Bigr] \\
        E_g(t) &= \frac1N \sum_i \Bigl[ S e^{-2 \lambda_i t / \tau}
        + \frac{\sigma_e^2}{\lambda_i} \bigl(1 - e^{-\lambda_i t / \tau}\bigr)^2 \Bigr] + \sigma_e^2

    with :math:`S = \sigma_w^2 + \sigma_0^2` and the number r of eigenvalues that are not zero: exact averages over the
    teacher, the noise and the initial weights. A zero eigenvalue adds S to the sum of the test error at all times.

    Parameters
    ----------
    eigs
        All N eigenvalues :math:`\lambda_i` of :math:`X X^\top`, zeros included.
    t
        Times in units of :math:`\tau`, at least 0; infinity is allowed.
    samples
        P.
    s_w, s_0, s_e
        Standard deviations of the teacher's weights, of the initial weights and of the noise on the labels.

    Returns
    -------
    tuple of Tensor
        :math:`E_t` and :math:`E_g`, (T,) each.

    Raises
    ------
    ValueError
        For no samples, negative times or standard deviations, or a clearly negative eigenvalue.

    References
    ----------
    generalisation-error-dynamics
    """
    validate.at_least("samples", samples, 1)
    _check_model(t, s_w, s_0, s_e)
    tolerance = eigs.shape[0] * torch.finfo(eigs.dtype).eps
    validate.in_range("smallest of eigs over the largest", eigs.min() / eigs.max(), -10 * tolerance, 1.0)
    active = _nonzero(eigs)
    eigs = torch.where(active, eigs, 0.0)
    signal, noise = _mode_errors(eigs, t[:, None], s_w**2 + s_0**2, s_e**2)
    residual = torch.where(active, (eigs * (s_w**2 + s_0**2) + s_e**2) * _decay(eigs, 2 * t[:, None]), 0.0)
    unreachable = (samples - active.sum()) * s_e**2
    return (residual.sum(1) + unreachable) / samples, (signal + noise).mean(1) + s_e**2


@typed
def marchenko_pastur_expect(
    fn: Callable[[Tensor], Tensor], a: Float[Tensor, ""], *, nodes: int = 1000
) -> Float[Tensor, "*shape"]:
    r"""Mean of a function over the eigenvalues of :math:`X X^\top` for infinitely many dimensions.

    .. math:: \langle f \rangle = (1 - a)_+ f(0)
        + \int_{\lambda_-}^{\lambda_+} f(\lambda)\,
        \frac{\sqrt{(\lambda_+ - \lambda)(\lambda - \lambda_-)}}{2 \pi \lambda}\, d\lambda, \qquad
        \lambda_\pm = (\sqrt a \pm 1)^2

    With :math:`\lambda = 1 + a + 2 \sqrt a \sin\theta` the integrand becomes
    :math:`f(\lambda)\, 4 a \cos^2\theta / (2 \pi \lambda)`, a smooth periodic function of :math:`\theta`, for which the
    midpoint rule converges faster than any power.

    Parameters
    ----------
    fn
        From eigenvalues (q,) to values (q, ...), finite at 0 where :math:`a < 1`.
    a
        Load :math:`a = P / N`, samples per dimension.
    nodes
        Points q of the midpoint rule.

    Returns
    -------
    Tensor
        The mean, of the shape that ``fn`` gives to one eigenvalue.

    Raises
    ------
    ValueError
        For a load that is not positive, or fewer than two nodes.

    References
    ----------
    generalisation-error-dynamics
    """
    validate.in_range("a", a, torch.finfo(a.dtype).tiny, math.inf)
    validate.at_least("nodes", nodes, 2)
    theta = math.pi * ((torch.arange(nodes, dtype=a.dtype, device=a.device) + 0.5) / nodes - 0.5)
    eigs = 1 + a + 2 * a.sqrt() * theta.sin()
    weights = 2 * a * theta.cos().square() / (nodes * eigs)
    bulk = torch.tensordot(weights, fn(eigs), dims=1)
    return bulk + (1 - a).clamp(min=0) * fn(torch.zeros_like(eigs[:1]))[0]


@typed
def linear_dynamics_limit(
    t: Float[Tensor, " T"], a: Float[Tensor, ""], *, s_w: float, s_0: float, s_e: float
) -> tuple[Float[Tensor, " T"], Float[Tensor, " T"]]:
    r"""Training and test error of a linear student for :math:`N, P \to \infty` at the load :math:`a = P / N`.

    .. math:: E_g(t) = \Bigl\langle S e^{-2 \lambda t / \tau}
        + \frac{\sigma_e^2}{\lambda} (1 - e^{-\lambda t / \tau})^2 \Bigr\rangle + \sigma_e^2

    and :math:`E_t` likewise, with the mean of `marchenko_pastur_expect`.

    Parameters
    ----------
    t, s_w, s_0, s_e
        As for `linear_dynamics`.
    a
        Load.

    Returns
    -------
    tuple of Tensor
        :math:`E_t` and :math:`E_g`, (T,) each.

    Raises
    ------
    ValueError
        As `linear_dynamics` and `marchenko_pastur_expect`.

    References
    ----------
    generalisation-error-dynamics
    """
    _check_model(t, s_w, s_0, s_e)
    S = s_w**2 + s_0**2

    def test(eigs: Tensor) -> Tensor:
        return sum(_mode_errors(eigs[:, None], t, S, s_e**2))

    def residual(eigs: Tensor) -> Tensor:
        return torch.where(eigs[:, None] > 0, (eigs[:, None] * S + s_e**2) * _decay(eigs[:, None], 2 * t), 0.0)

    train = (marchenko_pastur_expect(residual, a) + (a - 1).clamp(min=0) * s_e**2) / a
    return train, marchenko_pastur_expect(test, a) + s_e**2


@typed
def final_test_error(a: Float[Tensor, "*shape"], *, s_w: float, s_0: float, s_e: float) -> Float[Tensor, "*shape"]:
    r"""Test error of a linear student at the end of training, in the limit of infinitely many dimensions.

    .. math:: E_g(\infty) = \begin{cases} (1 - a)\, S + \sigma_e^2 \bigl(1 + \frac{a}{1 - a}\bigr) & a < 1 \\
        \sigma_e^2 \bigl(1 + \frac{1}{a - 1}\bigr) & a > 1 \end{cases}, \qquad S = \sigma_w^2 + \sigma_0^2

    Parameters
    ----------
    a
        Loads, positive and not 1, where the error has no limit.
    s_w, s_0, s_e
        As for `linear_dynamics`.

    Returns
    -------
    Tensor
        One error a load.

    Raises
    ------
    ValueError
        For a load that is not positive or is 1.

    References
    ----------
    generalisation-error-dynamics
    """
    validate.in_range("a", a, torch.finfo(a.dtype).tiny, math.inf)
    validate.in_range("distance of a from 1", (a - 1).abs(), torch.finfo(a.dtype).tiny, math.inf)
    below = (1 - a) * (s_w**2 + s_0**2) + s_e**2 / (1 - a)
    return torch.where(a < 1, below, s_e**2 * a / (a - 1))


@typed
def optimal_stopping_time(eigs: Float[Tensor, "*N"], *, s_w: float, s_0: float, s_e: float) -> Float[Tensor, "*N"]:
    r"""Time at which each mode of a linear student should stop.

    .. math:: e^{-\lambda_i t_i / \tau} = \frac{\sigma_e^2}{\lambda_i S + \sigma_e^2}
        \quad\Longleftrightarrow\quad
        t_i = \frac{\tau}{\lambda_i} \log\Bigl( 1 + \frac{\lambda_i S}{\sigma_e^2} \Bigr)

    Parameters
    ----------
    eigs
        Eigenvalues :math:`\lambda_i > 0`.
    s_w, s_0, s_e
        As for `linear_dynamics`, with :math:`S = \sigma_w^2 + \sigma_0^2` and noise greater than zero.

    Returns
    -------
    Tensor
        One time a mode, in units of :math:`\tau`.

    Raises
    ------
    ValueError
        For an eigenvalue that is not positive, or no noise.

    References
    ----------
    generalisation-error-dynamics
    """
    validate.in_range("eigs", eigs, torch.finfo(eigs.dtype).tiny, math.inf)
    validate.positive("s_e", s_e)
    return torch.log1p(eigs * (s_w**2 + s_0**2) / s_e**2) / eigs


@typed
def optimal_ridge(*, s_w: float, s_0: float, s_e: float) -> float:
    r"""Best weight :math:`\gamma` of the penalty :math:`\frac\gamma2 \lVert w - w_0 \rVert^2`.

    .. math:: \gamma = \frac{\sigma_e^2}{\sigma_w^2 + \sigma_0^2}

    It moves each mode by the share :math:`\lambda_i / (\lambda_i + \gamma)`, as stopping it at its own best time does.
    It takes plain numbers, so there is nothing to map with ``torch.func.vmap``.

    Parameters
    ----------
    s_w, s_0, s_e
        As for `linear_dynamics`.

    Returns
    -------
    float
        The penalty for the loss :math:`\frac12 \lVert y - X^\top w \rVert^2`, summed over samples.

    Raises
    ------
    ValueError
        For a teacher without weights, or a negative standard deviation.

    References
    ----------
    generalisation-error-dynamics
    """
    validate.positive("s_w", s_w)
    validate.at_least("s_0", s_0, 0.0)
    validate.at_least("s_e", s_e, 0.0)
    return s_e**2 / (s_w**2 + s_0**2)


def _mode_errors(eigs: Tensor, t: Tensor, signal: float, noise: float) -> tuple[Tensor, Tensor]:
    """Error from what a mode has not learnt yet, and from the noise that it has learnt."""
    rate = torch.where(eigs > 0, eigs, 1.0)
    learnt = torch.where(eigs > 0, torch.expm1(-rate * t).square() / rate, 0.0)
    return signal * _decay(eigs, 2 * t), noise * learnt


def _decay(eigs: Tensor, t: Tensor) -> Tensor:
    # A mode of eigenvalue zero stands still, also in the limit of infinite time, where 0 * inf would be undefined.
    return torch.where(eigs > 0, torch.exp(-torch.where(eigs > 0, eigs, 1.0) * t), 1.0)


def _nonzero(eigs: Tensor) -> Tensor:
    return eigs > eigs.shape[-1] * torch.finfo(eigs.dtype).eps * eigs.amax(-1, keepdim=True)


def _check_model(t: Tensor, s_w: float, s_0: float, s_e: float) -> None:
    validate.in_range("t", t, 0.0, math.inf)
    for name, value in (("s_w", s_w), ("s_0", s_0), ("s_e", s_e)):
        validate.at_least(name, value, 0.0)
