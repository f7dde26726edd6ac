"""Random hidden weights from a bounded box: features, the ridgelet transform, and the floor that a bound leaves."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def random_net_features(
    x: Float[Tensor, "n d"],
    n_units: int,
    lam: float,
    act: Callable[[Tensor], Tensor] = torch.tanh,
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n units"]:
    r"""Hidden layer with weights and biases drawn from a box, and frozen.

    .. math:: s(a_j \cdot x - b_j), \qquad (a_j, b_j) \sim \mathrm{U}\bigl([-\lambda, \lambda]^{d + 1}\bigr)

    The box has a meaning only together with the range of the inputs. Calls with a generator cannot be mapped by
    ``vmap``.

    Parameters
    ----------
    x
        Inputs.
    n_units
        Number of units :math:`N`.
    lam
        Half width :math:`\lambda` of the box.
    act
        Activation :math:`s`.
    generator
        Source of the weights.

    Returns
    -------
    Tensor
        (n, N).

    Raises
    ------
    ValueError
        For no units, a box that is not positive, or inputs that are not finite.

    References
    ----------
    bandlimited-random-weights
    """
    validate.at_least("n_units", n_units, 1)
    validate.positive("lam", lam)
    validate.finite("x", x)
    box = torch.rand(x.shape[1] + 1, n_units, generator=generator, dtype=torch.float64).to(x)
    box = lam * (2 * box - 1)
    return act(x @ box[:-1] - box[-1])


@typed
def ridgelet(
    f: Inexact[Tensor, " points"],
    a_grid: Float[Tensor, " A"],
    b_grid: Float[Tensor, " B"],
    rho: Callable[[Tensor], Tensor],
    x_grid: Float[Tensor, " points"],
) -> Inexact[Tensor, "A B"]:
    r"""Ridgelet transform of a function of one variable, by the trapezoidal rule.

    .. math:: R[f](a, b) = \int f(x)\, \overline{\rho(a x - b)}\, dx

    Parameters
    ----------
    f, x_grid
        Values of the function, and the increasing points where they were taken.
    a_grid, b_grid
        Slopes and offsets.
    rho
        The ridgelet function :math:`\rho`.

    Returns
    -------
    Tensor
        (A, B).

    Raises
    ------
    ValueError
        For fewer than two points, or points that do not increase.

    References
    ----------
    bandlimited-random-weights
    """
    validate.at_least("number of points", len(x_grid), 2)
    steps = x_grid.diff()
    validate.in_range("steps of x_grid", steps, torch.finfo(x_grid.dtype).tiny, math.inf)
    zero = steps.new_zeros(1)
    weights = (torch.cat([steps, zero]) + torch.cat([zero, steps])) / 2
    values = rho(a_grid[:, None, None] * x_grid - b_grid[:, None])
    return values.conj() @ (weights * f)


@typed
def bandlimit_floor(fhat: Inexact[Tensor, " w"], freqs: Float[Tensor, " w"], lam: float) -> Float[Tensor, ""]:
    r"""Smallest squared error of a superposition of waves :math:`e^{i\omega x}` with :math:`|\omega| \le \lambda`.

    .. math:: \inf_g \lVert f - S[g] \rVert^2 = \frac{1}{2\pi} \int_{|\omega| > \lambda} |\hat f(\omega)|^2\, d\omega,
        \qquad \hat f(\omega) = \int f(x)\, e^{-i \omega x}\, dx

    Parameters
    ----------
    fhat, freqs
        Fourier transform on an even grid of frequencies :math:`\omega`, in radians per unit of :math:`x`.
    lam
        Bandlimit :math:`\lambda`, at least 0.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ValueError
        For a negative bandlimit, or fewer than two frequencies.

    References
    ----------
    bandlimited-random-weights
    """
    validate.at_least("lam", lam, 0.0)
    validate.at_least("number of frequencies", len(freqs), 2)
    outside = freqs.abs() > lam
    return torch.where(outside, fhat.abs().square(), 0.0).sum() * (freqs[1] - freqs[0]) / (2 * math.pi)


@typed
def box_filter(
    shat: Callable[[Tensor], Tensor],
    rhohat: Callable[[Tensor], Tensor],
    ratio: Float[Tensor, " k"],
    *,
    largest: float = 12.0,
    points: int = 4001,
) -> Float[Tensor, " k"]:
    r"""What is left of a wave of frequency :math:`\nu` when the ridgelet spectrum is cut at :math:`|a| \le \lambda`.

    .. math:: T\Bigl(\frac{\nu}{\lambda}\Bigr) = \int_{|\omega| \ge |\nu|/\lambda}
        \frac{\hat s(\omega)\, \overline{\hat\rho(\omega)}}{|\omega|}\, d\omega, \qquad T(0) = ((s, \rho))

    for a real even integrand, by the midpoint rule.

    Parameters
    ----------
    shat, rhohat
        Fourier transforms of the activation and of the ridgelet function, with :math:`\int f e^{-i\omega x} dx`.
    ratio
        :math:`\nu/\lambda`.
    largest, points
        Where the integral is cut, and the number of points.

    Returns
    -------
    Tensor
        (k,).

    Raises
    ------
    ValueError
        For a cut that is not positive or no points.

    References
    ----------
    bandlimited-random-weights
    """
    validate.positive("largest", largest)
    validate.at_least("points", points, 1)
    start = ratio.abs().clamp(max=largest)
    steps = (torch.arange(points, dtype=ratio.dtype, device=ratio.device) + 0.5) / points
    omega = start[:, None] + (largest - start)[:, None] * steps
    values = shat(omega) * rhohat(omega).conj() / omega
    return 2 * values.mean(-1) * (largest - start)
