"""Maximum likelihood for a law without a density: a generator plus Gaussian noise, fitted to perturbed data."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def mixture_generator_loglik(
    x: Float[Tensor, "n D"], f_of_z: Float[Tensor, "M D"], s: Float[Tensor, ""]
) -> Float[Tensor, "n"]:
    r"""Log-likelihood of samples under a generator with Gaussian noise, summed over a grid of its latent variable.

    .. math:: \log p_{f,s}(x) = \log \frac1M \sum_{m=1}^M \exp\!\left( -\frac{\lVert x - f(z_m) \rVert^2}{2 s^2} \right)
        - D \log\bigl( s \sqrt{2\pi} \bigr)

    Parameters
    ----------
    x
        Samples.
    f_of_z
        Generator :math:`f` at M points of equal weight: a grid, or quasi-random.
    s
        Standard deviation of the noise, greater than 0.

    Returns
    -------
    Tensor
        One log-likelihood a sample, (n,).

    Raises
    ------
    ValueError
        For a noise that is not positive.

    References
    ----------
    perturbed-likelihood-singular
    """
    validate.in_range("s", s, torch.finfo(s.dtype).tiny, math.inf)
    M, D = f_of_z.shape
    squared = x.square().sum(1)[:, None] - 2 * x @ f_of_z.mT + f_of_z.square().sum(1)
    log_noise = D * (s.log() + math.log(2 * math.pi) / 2)
    return torch.logsumexp(-squared / (2 * s.square()), 1) - math.log(M) - log_noise


@typed
def perturbed_objective(
    x: Float[Tensor, "n D"],
    noise: Float[Tensor, "n D"],
    f_of_z: Float[Tensor, "M D"],
    log_s: Float[Tensor, ""],
    *,
    st: float,
    s_bounds: tuple[float, float],
) -> Float[Tensor, ""]:
    r"""Mean negative log-likelihood of data with noise added on purpose.

    .. math:: -\frac1n \sum_i \log p_{f,s}\bigl( X_i + \tilde s\, \epsilon'_i \bigr), \qquad
        s = \min(\max(e^{\log s},\, s_{\min}),\, s_{\max})

    Minimised over f and s; the estimate of the law is that of :math:`\hat f(Z)`, without the noise.

    Parameters
    ----------
    x
        Data, standardised.
    noise
        Standard normal draws :math:`\epsilon'_i`, made once for a fit.
    f_of_z, log_s
        Generator on its grid, and logarithm of the noise of the model.
    st
        :math:`\tilde s`, the deviation of the perturbation; 0 is ordinary maximum likelihood.
    s_bounds
        :math:`s_{\min}` and :math:`s_{\max}`. The lower one must not exceed :math:`\tilde s` where that is positive,
        since a bound above the noise would hide what the noise does.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ValueError
        For a negative perturbation, bounds that are not positive and increasing, a lower bound above a positive
        perturbation, or data whose root mean square is beyond ten.

    References
    ----------
    perturbed-likelihood-singular
    """
    low, high = s_bounds
    validate.at_least("st", st, 0.0)
    validate.positive("lower bound of s", low)
    validate.at_least("upper bound of s", high, low)
    if st > 0:
        validate.in_range("lower bound of s", low, 0.0, st)
    validate.in_range("root mean square of x", x.square().mean().sqrt(), 0.0, 10.0)
    s = log_s.exp().clamp(low, high)
    return -mixture_generator_loglik(x + st * noise, f_of_z, s).mean()


@typed
def degenerate_bound(s: Float[Tensor, "*n"], *, M: int, D: int) -> Float[Tensor, "*n"]:
    r"""Least mean log-likelihood of a generator that has memorised M samples: it grows without limit as s falls.

    .. math:: \frac1M \sum_i \log p_{f,s}(X_i) \ge -\log M - D \log\bigl( s \sqrt{2\pi} \bigr)

    Parameters
    ----------
    s
        Standard deviations of the noise, greater than 0.
    M, D
        Number of samples, which are the values of the generator, and their dimension.

    Returns
    -------
    Tensor
        The bound for each s.

    Raises
    ------
    ValueError
        For a noise that is not positive or sizes below 1.

    References
    ----------
    perturbed-likelihood-singular
    """
    validate.at_least("M", M, 1)
    validate.at_least("D", D, 1)
    validate.in_range("s", s, torch.finfo(s.dtype).tiny, math.inf)
    return -math.log(M) - D * (s.log() + math.log(2 * math.pi) / 2)
