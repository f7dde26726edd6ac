"""The figure style of the book: one file that reads on white and on the dark theme."""

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib_inline.backend_inline import set_matplotlib_formats

# Contrast of at least 3 on white and on the dark background; told apart in every common form of colour blindness.
BLUE, VERMILION, GREEN, PURPLE, OLIVE = "#1a76cc", "#c94a0a", "#10a47c", "#cf6fb0", "#a99400"
GREY = "#767676"

COLORS = {
    "method": BLUE,
    "baseline": VERMILION,
    "second baseline": GREEN,
    "third baseline": PURPLE,
    "fourth baseline": OLIVE,
    "train": PURPLE,
    "test": GREEN,
    "theory": GREY,
    "text": GREY,
}

_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": GREY,
    "axes.labelsize": 10.5,
    "axes.prop_cycle": cycler(color=[BLUE, VERMILION, GREEN, PURPLE, OLIVE]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": GREY,
    "axes.titlesize": 11,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "figure.edgecolor": "none",
    "figure.facecolor": "none",
    "figure.figsize": (6.6, 3.6),
    "font.size": 10,
    "grid.alpha": 0.22,
    "grid.color": GREY,
    "grid.linewidth": 0.7,
    "image.cmap": "viridis",
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "legend.labelcolor": GREY,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "patch.edgecolor": "none",
    "savefig.dpi": 200,
    "savefig.edgecolor": "none",
    "savefig.facecolor": "none",
    "text.color": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
}


def use_style() -> None:
    """Draw all later figures in the style of the book, and sharply in notebooks."""
    mpl.rcParams.update(_STYLE)
    if get_ipython() is not None:
        set_matplotlib_formats("retina")


def axes_or_new(ax: Axes | None) -> Axes:
    """Give the Axes to draw on: the given one, or that of a new figure."""
    return plt.subplots()[1] if ax is None else ax


def label_values(axis: Axis, values: Sequence[float]) -> None:
    """Name these values on a logarithmic axis, and no others.

    Parameters
    ----------
    axis
        ``ax.xaxis`` or ``ax.yaxis``.
    values
        Where the ticks are.
    """
    axis.set_ticks(values, [f"{value:g}" for value in values])
    axis.set_ticks([], minor=True)
