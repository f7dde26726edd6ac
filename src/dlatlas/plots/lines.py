"""Figures of a quantity against another: over training, over sizes."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from dlatlas.ops.intervals import Interval, mean_interval
from dlatlas.plots.arrays import to_array, to_seed_array
from dlatlas.plots.style import axes_or_new

Values = ArrayLike | torch.Tensor
NO_COLORS: Mapping[str, str] = MappingProxyType({})


def curves(
    x: Values, arms: Mapping[str, Values], *, ax: Axes | None = None, colors: Mapping[str, str] = NO_COLORS
) -> Axes:
    """Draw the mean over seeds of each arm, with its 95% interval (Student's t) as a band.

    Parameters
    ----------
    x
        Positions (T,), such as training steps.
    arms
        Name of each arm and its values (S, T), one row a seed.
    ax
        Axes to draw on; a new figure when not given.
    colors
        Colour of each arm by name; the colours of the style in order for those not named.

    Returns
    -------
    Axes
        The Axes, with a legend; label its axes.

    Raises
    ------
    ValueError
        If the shapes do not fit, there is one seed only, or a value is not finite.
    """
    ax = axes_or_new(ax)
    x = to_array("x", x)
    for name, values in arms.items():
        interval = mean_interval(to_seed_array(name, values, *x.shape))
        line = _line(ax, x, interval.mean, name, colors.get(name))
        ax.fill_between(x, interval.low, interval.high, color=line.get_color(), alpha=0.2, linewidth=0)
    ax.legend()
    return ax


def points(
    x: Values,
    values: Values,
    *,
    ax: Axes | None = None,
    label: str | None = None,
    color: str | None = None,
    marker: str = "o",
) -> Axes:
    """Draw the mean over seeds at each x as a dot, its 95% interval as a bar: measurements beside a predicted curve.

    Parameters
    ----------
    x
        Positions (m,).
    values
        Values (S, m).
    ax
        Axes to draw on; a new figure when not given. Several calls may share one.
    label
        Name of these points in the legend.
    color
        Their colour; the next of the style when not given.
    marker
        Their form, a marker of matplotlib: ``"D"``, a diamond, tells means from the dots of seeds.

    Returns
    -------
    Axes
        The Axes; label its axes, and call ``legend`` when all is drawn.

    Raises
    ------
    ValueError
        If the shapes do not fit, there is one seed only, or a value is not finite.
    """
    ax = axes_or_new(ax)
    x = to_array("x", x)
    interval = mean_interval(to_seed_array("values", values, *x.shape))
    ax.errorbar(x, interval.mean, interval.reach, fmt=marker, capsize=3, label=label, color=color)
    return ax


def traces(
    x: Values, arms: Mapping[str, Values], *, ax: Axes | None = None, colors: Mapping[str, str] = NO_COLORS
) -> Axes:
    """Draw every seed of each arm as a faint line and their median as a strong one.

    For quantities that jump, where seeds differ in when and a mean would show a slope that no seed has.

    Parameters
    ----------
    x, arms, ax, colors
        See `curves`.

    Returns
    -------
    Axes
        The Axes, with a legend; label its axes.

    Raises
    ------
    ValueError
        If the shapes do not fit, there is one seed only, or a value is not finite.
    """
    ax = axes_or_new(ax)
    x = to_array("x", x)
    for name, values in arms.items():
        seeds = to_seed_array(name, values, *x.shape)
        line = _line(ax, x, np.median(seeds, axis=0), name, colors.get(name))
        ax.plot(x, seeds.T, color=line.get_color(), alpha=0.4, linewidth=0.8, zorder=1.5)
    ax.legend()
    return ax


def scaling(
    x: Values, arms: Mapping[str, Values], *, ax: Axes | None = None, colors: Mapping[str, str] = NO_COLORS
) -> Axes:
    r"""Draw power laws on logarithmic axes, with the exponent of each arm and its 95% interval in the legend.

    .. math:: y \approx c\, x^a

    The exponent a is the least-squares slope of log y on log x, fitted for every seed; the line has their mean.

    Parameters
    ----------
    x
        Sizes (m,), positive and not all equal.
    arms
        Name of each arm and its values (S, m), positive, one row a seed.
    ax, colors
        See `curves`.

    Returns
    -------
    Axes
        The Axes, with a legend; label its axes.

    Raises
    ------
    ValueError
        If the shapes do not fit, there is one seed only, or a value is not finite and positive.
    """
    ax = axes_or_new(ax)
    x = _positive("x", to_array("x", x))
    for name, values in arms.items():
        seeds = _positive(name, to_seed_array(name, values, *x.shape))
        exponents, intercepts = np.polyfit(np.log(x), np.log(seeds).T, 1)
        exponent = mean_interval(exponents)
        fit = np.exp(intercepts.mean()) * x**exponent.mean
        line = _line(ax, x, fit, f"{name}: {_described(exponent)}", colors.get(name))
        ax.plot(x, seeds.T, "o", color=line.get_color(), alpha=0.6, markeredgewidth=0)
    ax.set(xscale="log", yscale="log")
    ax.legend()
    return ax


def _line(ax: Axes, x: NDArray, y: NDArray, label: str, color: str | None) -> Line2D:
    (line,) = ax.plot(x, y, label=label, color=color)
    return line


def _described(exponent: Interval) -> str:
    return f"slope {exponent.mean:.2f} ± {exponent.reach:.2f}".replace("-", "−")


def _positive(name: str, values: NDArray) -> NDArray:
    if not (values > 0).all():
        raise ValueError(f"{name} must be positive on logarithmic axes, got {values.min()}")
    return values
