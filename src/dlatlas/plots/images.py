"""Figures of matrices and pictures."""

from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from dlatlas.ops.validate import at_least
from dlatlas.plots.arrays import to_array
from dlatlas.plots.style import axes_or_new


def heatmap(values: ArrayLike | torch.Tensor, *, label: str = "", ax: Axes | None = None, **imshow: Any) -> Axes:
    """Draw a matrix as colours, row 0 on top, with a colour bar.

    Parameters
    ----------
    values
        Matrix (rows, columns).
    label
        What the colours mean, with units: the label of the colour bar.
    ax
        Axes to draw on; a new figure when not given.
    **imshow
        Passed to ``Axes.imshow``: ``cmap``, ``vmin``, ``vmax``, ``extent``, ``aspect``.

    Returns
    -------
    Axes
        The Axes; label its axes.

    Raises
    ------
    ValueError
        If the values are not a matrix or not finite.
    """
    matrix = to_array("values", values)
    if matrix.ndim != 2:
        raise ValueError(f"values must be a matrix, got shape {matrix.shape}")
    ax = axes_or_new(ax)
    bar = ax.figure.colorbar(ax.imshow(matrix, **imshow), ax=ax, label=label)
    bar.outline.set_visible(False)
    ax.grid(visible=False)
    return ax


def image_grid(
    images: ArrayLike | torch.Tensor, *, columns: int = 8, titles: list[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw images side by side, in reading order.

    Parameters
    ----------
    images
        Grey images (n, height, width) or (n, 1, height, width), scaled together from their smallest to their largest
        value, or colour images (n, 3, height, width) in [0, 1].
    columns
        Images in a row.
    titles
        A line above each image.
    ax
        Axes to draw on; a new figure of fitting height when not given.

    Returns
    -------
    Axes
        The Axes, without ticks.

    Raises
    ------
    ValueError
        If the images have another shape, a value is not finite, or there is not one title an image.
    """
    pictures = _channels_last(to_array("images", images))
    if len(pictures) == 0:
        raise ValueError("images must not be empty")
    at_least("columns", columns, 1)
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"titles must have one entry for each of the {len(pictures)} images, got {len(titles)}")
    grid = _Grid(len(pictures), min(columns, len(pictures)), *pictures.shape[1:3], titled=titles is not None)
    ax = grid.new_axes() if ax is None else ax
    for index, picture in enumerate(pictures):
        left, right, bottom, top = grid.extent(index)
        ax.imshow(picture, extent=(left, right, bottom, top), cmap="gray", vmin=pictures.min(), vmax=pictures.max())
        if titles is not None:
            ax.text((left + right) / 2, top, titles[index], ha="center", va="bottom", fontsize="small")
    ax.set(xlim=(0, grid.width), ylim=(grid.height, 0), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


@dataclass(frozen=True)
class _Grid:
    """Places of images in one Axes, in units of their pixels, y growing downwards."""

    images: int
    columns: int
    image_height: int
    image_width: int
    titled: bool

    @property
    def _gap(self) -> float:
        return 0.08 * self.image_width

    @property
    def _headroom(self) -> float:
        """Space above an image: a line of text, or the gap."""
        return 0.28 * self.image_width if self.titled else self._gap

    @property
    def width(self) -> float:
        return self.columns * (self.image_width + self._gap)

    @property
    def height(self) -> float:
        return -(-self.images // self.columns) * (self.image_height + self._headroom)

    def extent(self, index: int) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of an image."""
        row, column = divmod(index, self.columns)
        left = column * (self.image_width + self._gap) + self._gap / 2
        top = row * (self.image_height + self._headroom) + self._headroom
        return left, left + self.image_width, top + self.image_height, top

    def new_axes(self) -> Axes:
        """Make a figure that the grid fills, at most as high as it is wide."""
        width = plt.rcParams["figure.figsize"][0]
        return plt.subplots(figsize=(width, width * min(self.height / self.width, 1)))[1]


def _channels_last(images: NDArray) -> NDArray:
    """Give grey images (n, height, width) and colour images (n, height, width, 3)."""
    if images.ndim == 4 and images.shape[1] == 1:
        return images[:, 0]
    if images.ndim == 4 and images.shape[1] == 3:
        if images.min() < 0 or images.max() > 1:
            raise ValueError(f"colour images must lie in [0, 1], got {images.min()} to {images.max()}")
        return np.moveaxis(images, 1, -1)
    if images.ndim == 3:
        return images
    shapes = "(n, height, width), (n, 1, height, width) or (n, 3, height, width)"
    raise ValueError(f"images must have shape {shapes}, got {images.shape}")
