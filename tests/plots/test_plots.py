"""What the figures show is what they were given, and it can be read."""

from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgb
from scipy import stats

from dlatlas import plots

WHITE, DARK = "#ffffff", "#14181e"
SEEDS, POINTS = 6, 5


@pytest.fixture(autouse=True)
def _styled():
    with mpl.rc_context():
        mpl.use("Agg")
        plots.use_style()
        yield
        plt.close("all")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def draw(ax):
    ax.figure.canvas.draw()
    return ax


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def scipy_interval(values):
    return stats.t.interval(0.95, len(values) - 1, loc=values.mean(0), scale=stats.sem(values))


def luminance(color):
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("background", [WHITE, DARK])
@pytest.mark.parametrize("role", plots.COLORS)
def test_colors_stand_out_on_both_backgrounds(role, background):
    assert contrast(plots.COLORS[role], background) >= 3


# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
COLOR_VISION = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def oklab(color, vision):
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(vision) @ linear, 0, 1)
    to_cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(to_lab) @ np.cbrt(np.array(to_cones) @ seen)


@pytest.mark.parametrize("vision", COLOR_VISION.values(), ids=COLOR_VISION.keys())
def test_colors_differ_in_every_color_vision(vision):
    """Three times the just noticeable difference of 0.02 in OKLab, for every pair."""
    for a, b in combinations(sorted(set(plots.COLORS.values())), 2):
        assert np.linalg.norm(oklab(a, vision) - oklab(b, vision)) > 0.06, (a, b)


def test_figures_are_transparent_and_light():
    ax = draw(plots.arms({"a": [1.0, 2.0]}))
    assert ax.figure.get_facecolor()[3] == 0
    assert ax.get_facecolor()[3] == 0
    assert not ax.spines["top"].get_visible()
    assert not ax.spines["right"].get_visible()
    assert to_hex(ax.xaxis.label.get_color()) == plots.COLORS["text"]
    assert 6.4 <= ax.figure.get_figwidth() <= 7.2


def test_curves_draw_mean_and_interval(rng):
    x, values = np.arange(POINTS), rng.normal(size=(SEEDS, POINTS))
    ax = draw(plots.curves(x, {"one": values, "two": torch.tensor(values + 1)}))
    assert len(ax.lines) == len(ax.collections) == 2
    assert legend_texts(ax) == ["one", "two"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), values.mean(0))
    low, high = scipy_interval(values)
    band = ax.collections[0].get_paths()[0].vertices
    for point in range(POINTS):
        heights = band[band[:, 0] == point, 1]
        np.testing.assert_allclose([heights.min(), heights.max()], [low[point], high[point]])


def test_points_draw_mean_and_interval(rng):
    x, values = np.arange(POINTS), rng.normal(size=(SEEDS, POINTS))
    ax = draw(plots.points(x, torch.tensor(values), label="measured", marker="D"))
    (bars,) = ax.containers
    dots, _, (lines,) = bars.lines
    assert bars.get_label() == "measured"
    assert dots.get_marker() == "D"
    np.testing.assert_allclose(dots.get_ydata(), values.mean(0))
    ends = np.stack([segment[:, 1] for segment in lines.get_segments()], 1)
    np.testing.assert_allclose(ends, np.stack(scipy_interval(values)))


def test_traces_draw_every_seed_and_the_median(rng):
    values = rng.normal(size=(SEEDS, POINTS))
    ax = draw(plots.traces(torch.arange(POINTS), {"one": values}))
    assert len(ax.lines) == 1 + SEEDS
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.median(values, axis=0))
    np.testing.assert_allclose([line.get_ydata() for line in ax.lines[1:]], values)
    assert len({line.get_color() for line in ax.lines}) == 1
    assert legend_texts(ax) == ["one"]


def test_arms_draw_seeds_mean_and_interval(rng):
    values = {"method": rng.normal(size=SEEDS), "baseline": torch.tensor(rng.normal(size=SEEDS))}
    ax = draw(plots.arms(values))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["method", "baseline"]
    assert ax.yaxis_inverted()
    for row, (container, seeds) in enumerate(zip(ax.containers, values.values(), strict=True)):
        mean, _, (bar,) = container.lines
        assert mean.get_xydata().tolist() == [[pytest.approx(float(np.mean(np.asarray(seeds)))), row]]
        np.testing.assert_allclose(bar.get_segments()[0][:, 0], scipy_interval(np.asarray(seeds)))
    np.testing.assert_allclose(ax.lines[0].get_xdata(), values["method"])


def test_scaling_finds_the_exponent(rng):
    x = np.array([16.0, 64, 256, 1024])
    values = 3 * x ** rng.normal(-0.5, 0.02, size=(SEEDS, 1))
    ax = draw(plots.scaling(x, {"method": values}))
    exponents = np.log(values[:, -1] / values[:, 0]) / np.log(64)
    low, high = scipy_interval(exponents)
    assert legend_texts(ax) == [f"method: slope {exponents.mean():.2f} ± {(high - low) / 2:.2f}".replace("-", "−")]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    fit = ax.lines[0].get_ydata()
    np.testing.assert_allclose(np.log(fit[-1] / fit[0]) / np.log(64), exponents.mean())
    np.testing.assert_allclose(fit[0], np.exp(np.log(values[:, 0]).mean()))
    assert len(ax.lines) == 1 + SEEDS


def test_colors_can_be_chosen_by_name(rng):
    values = rng.uniform(1, 2, size=(SEEDS, POINTS))
    color = plots.COLORS["baseline"]
    for figure in (plots.curves, plots.traces, plots.scaling):
        ax = figure(np.arange(1, POINTS + 1), {"one": values}, colors={"one": color})
        assert {line.get_color() for line in ax.lines} == {color}
    assert plots.arms({"one": values[:, 0]}, colors={"one": color}).lines[0].get_color() == color
    assert plots.points(np.arange(POINTS), values, color=color).lines[0].get_color() == color


def test_predicted_vs_measured_draws_the_diagonal_once(rng):
    predicted, measured = rng.normal(size=POINTS), torch.tensor(rng.normal(size=(SEEDS, POINTS)))
    ax = plots.predicted_vs_measured(predicted, measured, label="seeds")
    draw(plots.predicted_vs_measured(predicted, predicted, label="itself", ax=ax))
    diagonal, points, itself = ax.lines
    assert diagonal.get_slope() == 1
    np.testing.assert_allclose(points.get_xdata(), np.tile(predicted, SEEDS))
    np.testing.assert_allclose(points.get_ydata(), measured.flatten())
    np.testing.assert_allclose(itself.get_ydata(), predicted)
    assert ax.get_aspect() == 1
    assert legend_texts(ax) == ["seeds", "itself"]


def test_heatmap_shows_the_matrix_and_its_scale(rng):
    matrix = rng.normal(size=(4, 7))
    ax = draw(plots.heatmap(matrix, label="kernel", vmin=-3, vmax=3))
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), matrix)
    assert image.get_clim() == (-3, 3)
    assert image.colorbar.ax.get_ylabel() == "kernel"
    assert ax.yaxis_inverted()


@pytest.mark.parametrize("shape", [(5, 8, 6), (5, 1, 8, 6), (5, 3, 8, 6)])
def test_image_grid_places_images_in_reading_order(shape):
    images = torch.rand(shape)
    ax = draw(plots.image_grid(images, columns=3, titles=list("abcde")))
    assert len(ax.images) == 5
    assert [text.get_text() for text in ax.texts] == list("abcde")
    lefts, rights, bottoms, tops = np.array([image.get_extent() for image in ax.images]).T
    assert lefts[0] == lefts[3] < lefts[1] == lefts[4] < lefts[2]
    assert tops[0] == tops[1] == tops[2] < bottoms[0] < tops[3] == tops[4]
    np.testing.assert_allclose(rights - lefts, 6)
    np.testing.assert_allclose(bottoms - tops, 8)
    expected = images[4].permute(1, 2, 0) if shape[1] == 3 else images[4].reshape(8, 6)
    np.testing.assert_allclose(ax.images[4].get_array(), expected)
    assert len({image.get_clim() for image in ax.images}) == 1


def test_figures_draw_on_the_axes_given(rng):
    values = rng.uniform(1, 2, size=(SEEDS, POINTS))
    x = np.arange(1, POINTS + 1)
    calls = (
        lambda ax: plots.curves(x, {"one": values}, ax=ax),
        lambda ax: plots.traces(x, {"one": values}, ax=ax),
        lambda ax: plots.scaling(x, {"one": values}, ax=ax),
        lambda ax: plots.arms({"one": values[:, 0]}, ax=ax),
        lambda ax: plots.points(x, values, ax=ax),
        lambda ax: plots.predicted_vs_measured(x, values, ax=ax),
        lambda ax: plots.heatmap(values, ax=ax),
        lambda ax: plots.image_grid(values[None], ax=ax),
    )
    figure, grid = plt.subplots(1, len(calls))
    for call, ax in zip(calls, grid, strict=True):
        assert call(ax) is ax
    assert plt.get_fignums() == [figure.number]


def test_tensors_that_need_gradients_are_drawn():
    values = torch.rand(SEEDS, POINTS, requires_grad=True)
    draw(plots.curves(range(POINTS), {"one": values}))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.curves(range(5), {"loss": np.ones((3, 4))}), r"loss must have shape \(S, 5\).*got \(3, 4\)"),
        (lambda: plots.curves(range(5), {"loss": np.ones((1, 5))}), r"loss .* at least 2 seeds, got \(1, 5\)"),
        (
            lambda: plots.traces(range(2), {"loss": [[1, np.nan], [1, 2]]}),
            "loss must be finite, got 1 infinite or undefined",
        ),
        (lambda: plots.arms({"method": np.ones((3, 2))}), r"method must have shape \(S\).*got \(3, 2\)"),
        (
            lambda: plots.scaling([1, 2], {"error": [[1, 0], [1, 2]]}),
            "error must be positive on logarithmic axes, got 0",
        ),
        (lambda: plots.scaling([0, 2], {"error": [[1, 1], [1, 2]]}), "x must be positive on logarithmic axes, got 0"),
        (lambda: plots.heatmap(np.ones(3)), r"values must be a matrix, got shape \(3,\)"),
        (lambda: plots.predicted_vs_measured(np.ones(3), np.ones(2)), "matching shapes, got .3,. and .2,."),
        (lambda: plots.image_grid(np.ones((2, 4, 8, 8))), r"images must have shape .* got \(2, 4, 8, 8\)"),
        (lambda: plots.image_grid(2 * np.ones((2, 3, 8, 8))), r"colour images must lie in \[0, 1\], got 2.0 to 2.0"),
        (lambda: plots.image_grid(np.ones((2, 8, 8)), titles=["a"]), "one entry for each of the 2 images, got 1"),
        (lambda: plots.image_grid(np.ones((0, 8, 8))), "images must not be empty"),
        (lambda: plots.image_grid(np.ones((2, 8, 8)), columns=0), "columns must be at least 1, got 0"),
    ],
)
def test_senseless_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_named_values_are_the_only_ticks_of_a_logarithmic_axis():
    ax = plt.subplots()[1]
    ax.set(xscale="log", xlim=(10, 500))
    plots.label_values(ax.xaxis, (20, 80, 320.5))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["20", "80", "320.5"]
    assert list(ax.xaxis.get_minorticklocs()) == []
