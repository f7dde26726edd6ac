"""Gaussian probability paths from noise to data: what they cost in kinetic energy, and the cheapest one."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.theory.diffusion_theory import mixture_posterior
from dlatlas.typed import typed

VP_RATES = (0.1, 20.0)
# For Gaussian data the energy does not see the angle at all, and the angle may then run at any speed.
LEAST_WEIGHT = 1e-6


class Path(NamedTuple):
    r"""Factors of a Gaussian path :math:`x_t = a_t x_1 + s_t x_0` and their time derivatives, at some times.

    Attributes
    ----------
    a, s
        Factors of the data and of the noise.
    da, ds
        Their derivatives.
    """

    a: Tensor
    s: Tensor
    da: Tensor
    ds: Tensor


@typed
def cond_ot_path(t: Float[Tensor, "times"]) -> Path:
    r"""Straight lines from noise to data: the path of conditional optimal transport.

    .. math:: a_t = t, \qquad s_t = 1 - t

    Parameters
    ----------
    t
        Times in [0, 1].

    Returns
    -------
    Path
        Factors and derivatives, (times,) each.

    Raises
    ------
    ValueError
        For times outside [0, 1].

    References
    ----------
    kinetic-optimal-paths
    """
    validate.in_range("t", t, 0.0, 1.0)
    return Path(t, 1 - t, torch.ones_like(t), -torch.ones_like(t))


@typed
def cosine_path(t: Float[Tensor, "times"]) -> Path:
    r"""A quarter of a circle at constant speed.

    .. math:: a_t = \sin \tfrac{\pi t}{2}, \qquad s_t = \cos \tfrac{\pi t}{2}

    Parameters
    ----------
    t
        Times in [0, 1].

    Returns
    -------
    Path
        Factors and derivatives, (times,) each.

    Raises
    ------
    ValueError
        For times outside [0, 1].

    References
    ----------
    kinetic-optimal-paths
    """
    validate.in_range("t", t, 0.0, 1.0)
    a, s = torch.sin(math.pi * t / 2), torch.cos(math.pi * t / 2)
    return Path(a, s, math.pi / 2 * s, -math.pi / 2 * a)


@typed
def vp_path(t: Float[Tensor, "times"]) -> Path:
    r"""The variance-preserving diffusion with a linear schedule of rates, run backwards.

    .. math:: a_t = \exp\!\left( -\tfrac14 (1 - t)^2 (\beta_1 - \beta_0) - \tfrac12 (1 - t) \beta_0 \right), \qquad
        s_t = \sqrt{1 - a_t^2}, \qquad \beta_0 = 0.1, \; \beta_1 = 20

    It starts at :math:`a_0 = 0.0066` and not at 0. The derivative of s is infinite at t = 1.

    Parameters
    ----------
    t
        Times in [0, 1), below 1.

    Returns
    -------
    Path
        Factors and derivatives, (times,) each.

    Raises
    ------
    ValueError
        For times outside of the interval.

    References
    ----------
    kinetic-optimal-paths
    """
    validate.in_range("t", t, 0.0, 1 - torch.finfo(t.dtype).eps)
    low, high = VP_RATES
    left = 1 - t
    log_a = -left.square() * (high - low) / 4 - left * low / 2
    a, s = log_a.exp(), (-torch.expm1(2 * log_a)).sqrt()
    da = a * (left * (high - low) + low) / 2
    return Path(a, s, da, -a * da / s)


@typed
def energy_weight(theta: Float[Tensor, "angles"], separation: Float[Tensor, "angles"]) -> Float[Tensor, "angles"]:
    r"""Metric factor of the angle in the kinetic energy.

    .. math:: h(\theta) = \left[ \frac{\lambda(\tan\theta) - \sin^2\theta}{\cos^2\theta} \right]^{1/2}

    Parameters
    ----------
    theta
        Angles strictly between 0 and :math:`\pi/2`.
    separation
        :math:`\lambda(\tan\theta)`. Errors of Monte Carlo that lead outside [0, 1] are cut off.

    Returns
    -------
    Tensor
        One value an angle, in [0, 1].

    Raises
    ------
    ValueError
        For angles outside of the open interval.

    References
    ----------
    kinetic-optimal-paths
    """
    edge = torch.finfo(theta.dtype).eps
    validate.in_range("theta", theta, edge, math.pi / 2 - edge)
    squared = (separation - theta.sin().square()) / theta.cos().square()
    # The root has an infinite slope at zero.
    return squared.clamp(LEAST_WEIGHT**2, 1.0).sqrt()


@typed
def kinetic_energy(path: Path, separation: Float[Tensor, "times"]) -> Float[Tensor, ""]:
    r"""Kinetic energy of a Gaussian path, per dimension.

    .. math:: \frac{KE}{d} = \int_0^1 \Bigl[ \dot a^2 + \dot s^2
        - \bigl(1 - \lambda(a/s)\bigr) \frac{(\dot a s - a \dot s)^2}{s^2} \Bigr] dt

    Parameters
    ----------
    path
        At the midpoints of cells of equal length in [0, 1].
    separation
        :math:`\lambda(a_t / s_t)` at the same times.

    Returns
    -------
    Tensor
        A scalar: the midpoint rule for the integral.

    Raises
    ------
    ValueError
        For a path that reaches the data, s = 0.

    References
    ----------
    kinetic-optimal-paths
    """
    a, s, da, ds = path
    validate.in_range("s", s, torch.finfo(s.dtype).tiny, math.inf)
    turning = ((da * s - a * ds) / s).square()
    return (da.square() + ds.square() - (1 - separation) * turning).mean()


@typed
def kinetic_optimal_path(t: Float[Tensor, "times"], h: Float[Tensor, "angles"]) -> tuple[Path, Float[Tensor, ""]]:
    r"""The Gaussian path of least kinetic energy, and that energy.

    .. math:: a = R \sin\theta, \quad s = R \cos\theta, \qquad R\, e^{i \varphi} = (1 - t) + t\, e^{i \Phi}, \qquad
        \varphi = \int_0^\theta h, \quad \Phi = \int_0^{\pi/2} h, \qquad \frac{KE^*}{d} = 2 - 2 \cos\Phi

    Parameters
    ----------
    t
        Times in [0, 1] at which the path is wanted.
    h
        `energy_weight` at the midpoints of cells of equal length in :math:`[0, \pi/2]`, positive.

    Returns
    -------
    tuple
        The path at the times, and its energy per dimension.

    Raises
    ------
    ValueError
        For times outside [0, 1] or a weight that is not in (0, 1].

    References
    ----------
    kinetic-optimal-paths
    """
    validate.in_range("t", t, 0.0, 1.0)
    validate.in_range("h", h, torch.finfo(h.dtype).tiny, 1 + 1e-6)
    cell = math.pi / 2 / len(h)
    angle = torch.cat([torch.zeros_like(h[:1]), (cell * h).cumsum(0)])
    Phi = angle[-1]
    # The chord from (1, 0) to (cos Phi, sin Phi).
    p, q = 1 - t + t * Phi.cos(), t * Phi.sin()
    R, phi = torch.hypot(p, q), torch.atan2(q, p)
    dR, dphi = (p * (Phi.cos() - 1) + q * Phi.sin()) / R, Phi.sin() / R.square()
    index = ((angle[1:-1] <= phi[:, None]).sum(1)).clamp_max(len(h) - 1)
    theta = cell * index + (phi - angle[index]) / h[index]
    dtheta = dphi / h[index]
    sin, cos = theta.sin(), theta.cos()
    path = Path(R * sin, R * cos, dR * sin + R * cos * dtheta, dR * cos - R * sin * dtheta)
    return path, 2 - 2 * Phi.cos()


@typed
def mixture_velocity(
    x: Float[Tensor, "n d"],
    path: Path,
    means: Float[Tensor, "K d"],
    covs: Float[Tensor, "K d d"],
    weights: Float[Tensor, "K"],
) -> Float[Tensor, "n d"]:
    r"""Marginal velocity of a Gaussian path whose data are a Gaussian mixture.

    .. math:: u_t(x) = \mathbb E[\dot a x_1 + \dot s x_0 \mid x_t = x] = \frac{\dot s}{s}\, x
        + \Bigl( \dot a - \frac{a \dot s}{s} \Bigr)\, \mathbb E[x_1 \mid x_t = x]

    Parameters
    ----------
    x
        Points :math:`x_t`.
    path
        At one time for each point, (n,); s greater than 0.
    means, covs, weights
        Of the mixture, see `dlatlas.theory.diffusion_theory.mixture_posterior`.

    Returns
    -------
    Tensor
        Velocities (n, d).

    Raises
    ------
    ValueError
        As `dlatlas.theory.diffusion_theory.mixture_posterior`.

    References
    ----------
    kinetic-optimal-paths
    """
    a, s, da, ds = path
    mean, _ = mixture_posterior(x, a, s, means, covs, weights)
    return (ds / s)[:, None] * x + (da - a * ds / s)[:, None] * mean


@typed
def flow_matching_loss(
    velocity: Callable[[Tensor], Tensor], x0: Float[Tensor, "n d"], x1: Float[Tensor, "n d"], path: Path
) -> Float[Tensor, ""]:
    r"""Regression of a velocity on the conditional velocities of a Gaussian path.

    .. math:: \frac1n \sum_i \bigl\lVert v(x_{t_i}) - (\dot a_{t_i} x_{1,i} + \dot s_{t_i} x_{0,i}) \bigr\rVert^2,
        \qquad x_t = a_t x_1 + s_t x_0

    Its minimiser over all functions is the marginal velocity, the conditional mean of what it regresses on.

    Parameters
    ----------
    velocity
        Maps the points :math:`x_{t_i}` (n, d) to velocities (n, d). Times are known to the caller.
    x0, x1
        Noise and data.
    path
        At one time for each pair, (n,).

    Returns
    -------
    Tensor
        A scalar.

    References
    ----------
    kinetic-optimal-paths
    """
    a, s, da, ds = (factor[:, None] for factor in path)
    return (velocity(a * x1 + s * x0) - (da * x1 + ds * x0)).square().sum(1).mean()
