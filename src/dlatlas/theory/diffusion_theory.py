"""Score estimation as regression: from scores to posterior means, and the exact mean of a Gaussian mixture."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def ou_coeffs(t: Float[Tensor, "*n"]) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    r"""Signal factor and noise variance of the Ornstein-Uhlenbeck process :math:`dX = -\frac12 X\,dt + dB`.

    .. math:: X_t = a_t X_0 + \sqrt{h_t}\, Z, \qquad a_t = e^{-t/2}, \quad h_t = 1 - e^{-t}

    Parameters
    ----------
    t
        Times, greater than 0: at 0 there is no noise, and the score of a data set does not exist.

    Returns
    -------
    tuple of Tensor
        :math:`a_t` and :math:`h_t`.

    Raises
    ------
    ValueError
        For a time that is not positive.

    References
    ----------
    ntk-score-estimation
    """
    validate.in_range("t", t, torch.finfo(t.dtype).tiny, math.inf)
    return torch.exp(-t / 2), -torch.expm1(-t)


@typed
def score_from_mean(mean: Float[Tensor, "n d"], x: Float[Tensor, "n d"], t: Float[Tensor, "n"]) -> Float[Tensor, "n d"]:
    r"""Score that belongs to a posterior mean (Tweedie's formula).

    .. math:: \nabla \log p_t(x) = \frac{a_t\, \mathbb E[X_0 \mid X_t = x] - x}{h_t}

    Parameters
    ----------
    mean
        :math:`\mathbb E[X_0 \mid X_t = x]`, or an estimate of it.
    x, t
        Points and their times, see `ou_coeffs`.

    Returns
    -------
    Tensor
        The score, (n, d).

    Raises
    ------
    ValueError
        For a time that is not positive.

    References
    ----------
    ntk-score-estimation
    """
    a, h = ou_coeffs(t[:, None])
    return (a * mean - x) / h


@typed
def mean_from_score(
    score: Float[Tensor, "n d"], x: Float[Tensor, "n d"], t: Float[Tensor, "n"]
) -> Float[Tensor, "n d"]:
    r"""Posterior mean that belongs to a score: the inverse of `score_from_mean`.

    .. math:: \mathbb E[X_0 \mid X_t = x] = \frac{x + h_t \nabla \log p_t(x)}{a_t}

    Parameters
    ----------
    score
        :math:`\nabla \log p_t(x)`.
    x, t
        Points and their times, see `ou_coeffs`.

    Returns
    -------
    Tensor
        The posterior mean, (n, d).

    Raises
    ------
    ValueError
        For a time that is not positive.

    References
    ----------
    ntk-score-estimation
    """
    a, h = ou_coeffs(t[:, None])
    return (x + h * score) / a


@typed
def dsm_regression_set(
    x0: Float[Tensor, "n d"], u: Float[Tensor, "n"], z: Float[Tensor, "n d"], *, T0: float = 0.05, T: float = 1.0
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n d"], Float[Tensor, "n"]]:
    r"""Turn denoising score matching into a regression of clean samples on noised ones.

    .. math:: t_j = T_0 + u_j (T - T_0), \qquad X_j = a_{t_j} X_{0,j} + \sqrt{h_{t_j}}\, Z_j, \qquad
        w_j = \frac{a_{t_j}^2}{h_{t_j}^2}

    so that :math:`\lVert s(t_j, X_j) - \nabla \log p_{t_j|0}(X_j | X_{0,j}) \rVert^2
    = w_j \lVert f(t_j, X_j) - X_{0,j} \rVert^2` for the score s that belongs to f.

    Parameters
    ----------
    x0
        Clean samples :math:`X_{0,j}`, the targets; centred and of unit order, as the noise is.
    u
        Uniform draws from [0, 1].
    z
        Standard normal draws :math:`Z_j`.
    T0, T
        First and last time, :math:`0 < T_0 < T`.

    Returns
    -------
    tuple of Tensor
        Times (n,), noised samples (n, d), weights (n,).

    Raises
    ------
    ValueError
        For times in the wrong order or not positive, draws outside [0, 1], or a coordinate of the data whose mean or
        deviation is beyond ten, so that the noise would be nothing to it.

    References
    ----------
    ntk-score-estimation
    """
    validate.positive("T0", T0)
    validate.positive("T - T0", T - T0)
    validate.in_range("u", u, 0.0, 1.0)
    validate.in_range("mean of x0", x0.mean(0), -10.0, 10.0)
    validate.in_range("root mean square of x0", x0.square().mean(0).sqrt(), 0.0, 10.0)
    t = T0 + u * (T - T0)
    a, h = ou_coeffs(t)
    return t, a[:, None] * x0 + h.sqrt()[:, None] * z, (a / h).square()


@typed
def mixture_posterior(
    x: Float[Tensor, "n d"],
    s: Float[Tensor, "n"],
    g: Float[Tensor, "n"],
    means: Float[Tensor, "K d"],
    covs: Float[Tensor, "K d d"],
    weights: Float[Tensor, "K"],
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n"]]:
    r"""Mean and total variance of a Gaussian mixture given a scaled and noised sample.

    .. math:: x = s\,x_0 + g\,\epsilon, \qquad x_0 \sim \sum_k \pi_k\, \mathcal N(\mu_k, \Sigma_k)

    .. math:: \mathbb E[x_0 \mid x] = \sum_k w_k m_k, \qquad
        m_k = \mu_k + s \Sigma_k (s^2 \Sigma_k + g^2 I)^{-1} (x - s \mu_k), \qquad
        w_k \propto \pi_k\, \mathcal N(x;\, s\mu_k,\, s^2 \Sigma_k + g^2 I)

    .. math:: \operatorname{tr} \operatorname{Cov}[x_0 \mid x] = \sum_k w_k \bigl( \lVert m_k \rVert^2
        + g^2 \operatorname{tr} \Sigma_k (s^2 \Sigma_k + g^2 I)^{-1} \bigr) - \lVert \mathbb E[x_0 \mid x] \rVert^2

    Covariances may be singular: with :math:`\Sigma_k = 0` the components are the points of a data set.

    Parameters
    ----------
    x
        Noised samples.
    s, g
        Scale and noise deviation of each sample; g greater than 0.
    means, covs, weights
        :math:`\mu_k`, :math:`\Sigma_k` (positive semi-definite) and :math:`\pi_k`.

    Returns
    -------
    tuple of Tensor
        Posterior means (n, d), and traces of the posterior covariances (n,).

    Raises
    ------
    ValueError
        For a noise that is not positive or a covariance with a negative eigenvalue.

    References
    ----------
    ntk-score-estimation, diffusion-subspace-clustering, kinetic-optimal-paths
    """
    validate.in_range("g", g, torch.finfo(g.dtype).tiny, math.inf)
    spectrum, basis = torch.linalg.eigh(covs)
    validate.in_range("eigenvalues of covs", spectrum, -1e-5 * float(_largest(spectrum)), math.inf)
    spectrum = spectrum.clamp_min(0)
    # In the eigenbasis of each covariance everything is diagonal: (n, K, d).
    off = torch.einsum("kde,nkd->nke", basis, x[:, None] - s[:, None, None] * means)
    total = s.square()[:, None, None] * spectrum + g.square()[:, None, None]
    log_joint = weights.log() - (off.square() / total + total.log()).sum(-1) / 2
    w = log_joint.softmax(1)
    gain = s[:, None, None] * spectrum / total
    component = means + torch.einsum("kde,nke->nkd", basis, gain * off)
    mean = torch.einsum("nk,nkd->nd", w, component)
    within = (g.square()[:, None, None] * spectrum / total).sum(-1)
    between = (component - mean[:, None]).square().sum(-1)
    return mean, (w * (within + between)).sum(1)


@typed
def gmm_posterior_mean(
    x: Float[Tensor, "n d"],
    t: Float[Tensor, "n"],
    means: Float[Tensor, "K d"],
    covs: Float[Tensor, "K d d"],
    weights: Float[Tensor, "K"],
) -> Float[Tensor, "n d"]:
    r"""Exact target of score regression for a Gaussian mixture: `mixture_posterior` at the times of the process.

    .. math:: f^*(t, x) = \mathbb E[X_0 \mid X_t = x], \qquad X_t = a_t X_0 + \sqrt{h_t}\, Z

    Parameters
    ----------
    x, t
        Points and their times, see `ou_coeffs`.
    means, covs, weights
        Of the mixture, see `mixture_posterior`.

    Returns
    -------
    Tensor
        Posterior means (n, d).

    Raises
    ------
    ValueError
        As `ou_coeffs` and `mixture_posterior`.

    References
    ----------
    ntk-score-estimation
    """
    a, h = ou_coeffs(t)
    return mixture_posterior(x, a, h.sqrt(), means, covs, weights)[0]


def _largest(spectrum: Tensor) -> Tensor | float:
    """Scale of the eigenvalues, or 1 where the tensor has no values to look at."""
    if torch._C._functorch.is_functorch_wrapped_tensor(spectrum):
        return 1.0
    return spectrum.detach().abs().amax()
