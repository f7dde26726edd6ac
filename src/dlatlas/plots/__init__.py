"""One figure style and the standard figures. Every figure takes an optional Axes and returns the Axes it drew on."""

from dlatlas.plots.comparisons import arms, predicted_vs_measured
from dlatlas.plots.images import heatmap, image_grid
from dlatlas.plots.lines import curves, points, scaling, traces
from dlatlas.plots.style import COLORS, label_values, use_style

__all__ = [
    "COLORS",
    "arms",
    "curves",
    "heatmap",
    "image_grid",
    "label_values",
    "points",
    "predicted_vs_measured",
    "scaling",
    "traces",
    "use_style",
]
