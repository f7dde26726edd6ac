"""Figures that compare arms, and theory with measurement."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from dlatlas.ops.intervals import mean_interval
from dlatlas.plots.arrays import to_array, to_seed_array
from dlatlas.plots.lines import NO_COLORS, Values
from dlatlas.plots.style import COLORS, axes_or_new

# Half the height of an arm's cloud of seeds, where the distance of two arms is 1.
SPREAD = 0.22


def arms(values: Mapping[str, Values], *, ax: Axes | None = None, colors: Mapping[str, str] = NO_COLORS) -> Axes:
    """Draw one row an arm: a dot for every seed, and the mean with its 95% interval (Student's t).

    Parameters
    ----------
    values
        Name of each arm and its values (S,), one a seed; the first arm is the top row.
    ax
        Axes to draw on; a new figure when not given.
    colors
        Colour of each arm by name; the colours of the style in order for those not named.

    Returns
    -------
    Axes
        The Axes; label its x-axis.

    Raises
    ------
    ValueError
        If an arm has other than one value a seed, one seed only, or a value that is not finite.
    """
    ax = axes_or_new(ax)
    for row, (name, given) in enumerate(values.items()):
        seeds = to_seed_array(name, given)
        interval = mean_interval(seeds)
        (dots,) = ax.plot(seeds, row + _offsets(len(seeds)), "o", alpha=0.6, markeredgewidth=0, color=colors.get(name))
        ax.errorbar(interval.mean, row, xerr=interval.reach, fmt="D", color=dots.get_color(), elinewidth=2.2, capsize=4)
    ax.set_yticks(range(len(values)), list(values))
    ax.set_ylim(len(values) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    return ax


def predicted_vs_measured(
    predicted: Values, measured: Values, *, ax: Axes | None = None, label: str | None = None, color: str | None = None
) -> Axes:
    """Draw measurements against predictions, with the diagonal on which they agree.

    Parameters
    ----------
    predicted
        Predictions (m,), or (S, m) where they differ by seed.
    measured
        Measurements (m,) or (S, m).
    ax
        Axes to draw on; a new figure when not given. Several calls may share one.
    label
        Name of these points in the legend.
    color
        Their colour; the next of the style when not given.

    Returns
    -------
    Axes
        The Axes, labelled, with equal scales on both sides.

    Raises
    ------
    ValueError
        If the shapes do not fit or a value is not finite.
    """
    ax = axes_or_new(ax)
    predicted, measured = _same_shape(to_array("predicted", predicted), to_array("measured", measured))
    if not ax.has_data():
        ax.axline((0, 0), slope=1, color=COLORS["theory"], linestyle="--", linewidth=1.2)
    ax.plot(predicted.ravel(), measured.ravel(), "o", alpha=0.65, markeredgewidth=0, label=label, color=color)
    ax.set(xlabel="predicted", ylabel="measured", aspect="equal")
    if label is not None:
        ax.legend()
    return ax


def _offsets(seeds: int) -> NDArray:
    """Spread the dots of one arm over its row, so that equal values stay apart."""
    return np.linspace(-SPREAD, SPREAD, seeds)


def _same_shape(predicted: NDArray, measured: NDArray) -> tuple[NDArray, NDArray]:
    try:
        return np.broadcast_arrays(predicted, measured)
    except ValueError:
        shapes = f"{predicted.shape} and {measured.shape}"
        raise ValueError(f"predicted and measured must have matching shapes, got {shapes}") from None
