"""Power laws: their values, and fits with standard errors and intervals."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


class PowerLawFit(NamedTuple):
    """A fitted power law, with the standard errors of its two constants.

    Attributes
    ----------
    scale, exponent
        The constants c and a, scalars.
    log_scale_error, exponent_error
        Standard errors of log c and of a, scalars; zero where the points lie on the law.
    """

    scale: Tensor
    exponent: Tensor
    log_scale_error: Tensor
    exponent_error: Tensor


@typed
def power_law(
    x: Float[Tensor, "*n"],
    scale: float | Float[Tensor, ""],
    exponent: float | Float[Tensor, ""],
    offset: float | Float[Tensor, "*#n"] = 0.0,
) -> Float[Tensor, "*n"]:
    r"""Value of a power law.

    .. math:: y = y_0 + (c / x)^a

    Parameters
    ----------
    x
        Sizes, positive.
    scale, exponent
        c and a. The scale has the unit of x: it is the size at which the law is one above its offset.
    offset
        :math:`y_0`, what is left at infinite size.

    Returns
    -------
    Tensor
        y, of the shape of x.

    Raises
    ------
    ValueError
        When a size is not positive.

    References
    ----------
    scaling-laws-part-one
    """
    validate.in_range("x", x, torch.finfo(x.dtype).tiny, torch.inf)
    return offset + (scale / x) ** exponent


@typed
def fit_power_law(
    x: Float[Tensor, " n"], y: Float[Tensor, " n"], offset: float | Float[Tensor, " #n"] | None = None
) -> PowerLawFit:
    r"""Fit a power law by least squares of log y on log x.

    .. math:: \log (y_i - y_0) = a \log c - a \log x_i + \epsilon_i

    The standard errors suppose independent :math:`\epsilon_i` of equal variance, estimated with n - 2 degrees of
    freedom. That of :math:`\log c` follows by the delta method: a small change of the line turns about the centre of
    the points, so an extrapolated scale is less certain than the exponent.

    Parameters
    ----------
    x, y
        Sizes and values, n at least 3, the sizes not all equal.
    offset
        :math:`y_0`, known: one number, or one a point. Zero when not given.

    Returns
    -------
    PowerLawFit
        c, a, and their standard errors.

    Raises
    ------
    ValueError
        When there are fewer than three points, sizes are not positive or all equal, or a value is not above the
        offset, where its logarithm does not exist.

    References
    ----------
    scaling-laws-part-one
    """
    n = x.shape[0]
    validate.at_least("number of points", n, 3)
    tiny = torch.finfo(y.dtype).tiny
    validate.in_range("x", x, tiny, torch.finfo(x.dtype).max)
    excess = y if offset is None else y - offset
    validate.in_range("y - offset", excess, tiny, torch.finfo(y.dtype).max)
    log_x, log_y = x.log(), excess.log()
    centre = log_x.mean()
    centred = log_x - centre
    spread = centred.square().sum()
    validate.in_range("spread of log x", spread, tiny, torch.inf)
    slope = (centred * log_y).sum() / spread
    residuals = log_y - log_y.mean() - slope * centred
    variance = residuals.square().sum() / (n - 2)
    # log c = centre + mean(log y) / a; the mean of log y and the slope have independent errors.
    exponent = -slope
    ratio = log_y.mean() / exponent
    slope_variance = variance / spread
    log_scale_variance = (variance / n + ratio.square() * slope_variance) / exponent.square()
    return PowerLawFit((centre + ratio).exp(), exponent, _root(log_scale_variance), _root(slope_variance))


@typed
def exponent_interval(fit: PowerLawFit, n: int, *, confidence: float = 0.95) -> Float[Tensor, "2"]:
    r"""Confidence interval of a fitted exponent, by Student's t distribution.

    .. math:: a \pm t_{n-2}\, \mathrm{se}(a)

    Parameters
    ----------
    fit
        From `fit_power_law`.
    n
        Number of points that were fitted, at least 3.
    confidence
        In (0, 1).

    Returns
    -------
    Tensor
        Lower and upper end, (2,).

    Raises
    ------
    ValueError
        When there are fewer than three points or the confidence is no probability.

    References
    ----------
    scaling-laws-part-one
    """
    validate.at_least("n", n, 3)
    validate.in_range("confidence", confidence, 0.0, 1.0)
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 2)) * fit.exponent_error
    return torch.stack([fit.exponent - reach, fit.exponent + reach])


def _root(value: Tensor) -> Tensor:
    """Square root whose gradient at zero is zero and not infinite: points may lie on the law exactly."""
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0).sqrt(), 0.0)
