"""Data that are drawn or come with scikit-learn: sizes, exact facts, reproducibility, refused input."""

import jaxtyping
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_breast_cancer, load_digits

from dlatlas.data.digits import digits
from dlatlas.data.mixtures import GaussianMixture, gaussian_mixture
from dlatlas.data.modular import OPERATIONS, equation_tokens, modular_arithmetic, one_hot_pairs
from dlatlas.data.split import Split, random_split, standardise
from dlatlas.data.tabular import add_noise_columns, breast_cancer
from dlatlas.data.teacher_student import (
    FourierTeacher,
    LinearTeacher,
    QuadraticTeacher,
    TwoLayerTeacher,
    circle,
    fourier_teacher,
    gaussian_inputs,
    linear_teacher,
    quadratic_teacher,
    sphere_inputs,
    two_layer_teacher,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


DRAWS = {
    "digits": lambda g: digits(train=1000, generator=g),
    "breast_cancer": lambda g: breast_cancer(train=400, generator=g),
    "noise columns": lambda g: add_noise_columns(breast_cancer(train=400, generator=g), 2, generator=g),
    "modular": lambda g: modular_arithmetic(7, train_fraction=0.4, generator=g),
    "mixture": lambda g: gaussian_mixture(classes=3, dims=4, separation=3, generator=g).sample(20, generator=g),
    "gaussian": lambda g: (gaussian_inputs(5, 3, generator=g),),
    "sphere": lambda g: (sphere_inputs(5, 3, generator=g),),
    "linear": lambda g: (linear_teacher(3, generator=g).beta,),
    "quadratic": lambda g: (quadratic_teacher(3, generator=g).beta,),
    "two-layer": lambda g: (two_layer_teacher(3, 4, generator=g)(torch.ones(2, 3)),),
    "fourier": lambda g: (fourier_teacher((1, 2), generator=g).cosine,),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_the_generator_decides_everything(draw):
    first = draw(seeded(1))
    torch.rand(3)  # the global random state must not matter
    assert all(torch.equal(a, b) for a, b in zip(first, draw(seeded(1)), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, draw(seeded(2)), strict=True))


def test_split_keeps_every_sample_once_with_its_label():
    x, y = torch.arange(20.0)[:, None], torch.arange(20)
    split = random_split(x, y, 15, generator=seeded())
    assert len(split.x_train) == 15
    assert torch.equal(torch.cat([split.x_train, split.x_test]).flatten().sort().values, x.flatten())
    assert torch.equal(split.x_train.flatten().long(), split.y_train)
    assert torch.equal(split.x_test.flatten().long(), split.y_test)


@pytest.mark.parametrize("train", [0, 20, -1])
def test_a_split_that_leaves_nothing_is_refused(train):
    with pytest.raises(ValueError, match=f"train must be at least 1 and less than the 20 samples, got {train}"):
        random_split(torch.zeros(20, 1), torch.zeros(20), train, generator=seeded())


def test_labels_of_another_length_are_refused():
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'y'"):
        random_split(torch.zeros(20, 1), torch.zeros(19), 5, generator=seeded())


def test_standardised_training_data_have_mean_zero_and_variance_one():
    split = breast_cancer(train=400, generator=seeded())
    moved = standardise(split)
    torch.testing.assert_close(moved.x_train.mean(0), torch.zeros(30), atol=1e-5, rtol=0)
    torch.testing.assert_close(moved.x_train.var(0, correction=0), torch.ones(30), atol=1e-4, rtol=0)
    mean, deviation = split.x_train.mean(0), split.x_train.std(0, correction=0)
    torch.testing.assert_close(moved.x_test * deviation + mean, split.x_test)


def test_constant_columns_are_centred_only():
    x = torch.full((4, 1), 3.0)
    moved = standardise(Split(x, torch.zeros(4), x + 1, torch.zeros(4)))
    assert (moved.x_train == 0).all()
    assert (moved.x_test == 1).all()


def test_digits_are_those_of_scikit_learn():
    split = digits(train=1500, generator=seeded())
    pixels, labels = load_digits(return_X_y=True)
    images = torch.cat([split.x_train, split.x_test]) * 16
    ours = sorted(zip(images.tolist(), torch.cat([split.y_train, split.y_test]).tolist(), strict=True))
    assert ours == sorted(zip(pixels.tolist(), labels.tolist(), strict=True))
    assert split.x_train.shape == (1500, 64)
    assert split.x_train.min() == 0
    assert split.x_train.max() == 1


def test_digit_classes_are_numbered_in_the_order_given():
    split = digits(train=300, classes=(8, 3), generator=seeded())
    pixels, labels = load_digits(return_X_y=True)
    eights = {tuple(row) for row in pixels[labels == 8].tolist()}
    images = (torch.cat([split.x_train, split.x_test]) * 16).tolist()
    for image, label in zip(images, torch.cat([split.y_train, split.y_test]), strict=True):
        assert (tuple(image) in eights) == (label == 0)
    assert len(images) == ((labels == 8) | (labels == 3)).sum()


@pytest.mark.parametrize("classes", [(), (3, 3), (3, 10), (-1, 2)])
def test_senseless_digit_classes_are_refused(classes):
    with pytest.raises(ValueError, match="classes must be distinct digits from 0 to 9, got"):
        digits(train=10, classes=classes, generator=seeded())


def test_breast_cancer_is_that_of_scikit_learn():
    split = breast_cancer(train=400, generator=seeded())
    measurements, labels = load_breast_cancer(return_X_y=True)
    torch.testing.assert_close(
        torch.cat([split.x_train, split.x_test]).sum(0), torch.tensor(measurements, dtype=torch.float32).sum(0)
    )
    assert torch.cat([split.y_train, split.y_test]).sum() == labels.sum()


def test_noise_columns_are_appended_and_say_nothing():
    split = breast_cancer(train=400, generator=seeded())
    noisy = add_noise_columns(split, 15, generator=seeded(1))
    assert torch.equal(noisy.x_train[:, :30], split.x_train)
    assert noisy.x_test.shape == (169, 45)
    for column in noisy.x_train[:, 30:].T:
        assert stats.kstest(column.numpy(), "norm").pvalue > 1e-4
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        add_noise_columns(split, 0, generator=seeded())


def two_classes(distance, prior=0.5):
    means = torch.tensor([[0.0, 0.0], [distance, 0.0]], dtype=torch.float64)
    return GaussianMixture(means, torch.ones(2).double(), torch.tensor([prior, 1 - prior], dtype=torch.float64))


def test_posterior_is_bayes_rule():
    mixture = GaussianMixture(
        torch.randn(4, 3).double(), torch.tensor([0.5, 1.0, 2.0]).double(), torch.rand(4).double().softmax(0)
    )
    x = torch.randn(6, 3).double()
    joint = torch.stack(
        [
            prior * torch.distributions.Normal(mean, mixture.deviations).log_prob(x).sum(1).exp()
            for prior, mean in zip(mixture.priors, mixture.means, strict=True)
        ],
        dim=1,
    )
    torch.testing.assert_close(mixture.posterior(x), joint / joint.sum(1, keepdim=True))
    assert torch.equal(mixture.bayes_labels(x), joint.argmax(1))


@pytest.mark.parametrize("distance", [1.0, 3.0])
def test_bayes_error_of_two_classes(distance):
    """Equal priors: the error is Φ(-distance / 2)."""
    mixture = two_classes(distance)
    x, y = mixture.sample(40_000, generator=seeded())
    error = (mixture.bayes_labels(x) != y).double().mean().item()
    expected = stats.norm.cdf(-distance / 2)
    assert abs(error - expected) < 4 * (expected * (1 - expected) / 40_000) ** 0.5


def test_sample_has_the_means_deviations_and_priors():
    mixture = GaussianMixture(
        torch.tensor([[0.0, 5.0], [-3.0, 1.0]]), torch.tensor([0.5, 2.0]), torch.tensor([0.2, 0.8])
    )
    x, y = mixture.sample(20_000, generator=seeded())
    assert abs((y == 0).float().mean() - 0.2) < 0.015
    for label in (0, 1):
        torch.testing.assert_close(x[y == label].mean(0), mixture.means[label], atol=0.12, rtol=0)
        torch.testing.assert_close(x[y == label].std(0), mixture.deviations, atol=0.1, rtol=0)


def test_drawn_mixture_has_the_separation_and_the_imbalance():
    mixture = gaussian_mixture(classes=400, dims=50, separation=3.0, imbalance=100.0, generator=seeded())
    distances = torch.pdist(mixture.means)
    assert abs(distances.square().mean().sqrt() - 3) < 0.1
    torch.testing.assert_close(mixture.priors[0] / mixture.priors[-1], torch.tensor(100.0))
    ratios = mixture.priors[1:] / mixture.priors[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(399), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, "classes must be at least 2, got 1"),
        ({"dims": 0}, "dims must be at least 1, got 0"),
        ({"separation": 0.0}, "separation must be greater than 0, got 0.0"),
        ({"imbalance": 0.5}, "imbalance must be at least 1, got 0.5"),
    ],
)
def test_senseless_mixtures_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gaussian_mixture(**{"classes": 3, "dims": 2, "separation": 1.0, "generator": seeded()} | arguments)


@pytest.mark.parametrize(
    ("deviations", "priors", "message"),
    [
        (torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]), "deviations must be 2 positive numbers"),
        (torch.ones(3), torch.tensor([0.5, 0.5]), "deviations must be 2 positive numbers"),
        (torch.ones(2), torch.tensor([0.5, 0.6]), "priors must be 2 probabilities that sum to one"),
        (torch.ones(2), torch.tensor([1.5, -0.5]), "priors must be 2 probabilities that sum to one"),
    ],
)
def test_senseless_mixture_parameters_are_refused(deviations, priors, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(torch.zeros(2, 2), deviations, priors)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_modular_table_is_complete_and_right(operation):
    split = modular_arithmetic(7, operation=operation, train_fraction=0.4, generator=seeded())
    python = {
        "add": int.__add__,
        "subtract": int.__sub__,
        "multiply": int.__mul__,
        "sum_of_squares": lambda a, b: a * a + b * b,
    }
    pairs, results = torch.cat([split.x_train, split.x_test]), torch.cat([split.y_train, split.y_test])
    assert len(split.x_train) == round(0.4 * 49)
    assert {tuple(p) for p in pairs.tolist()} == {(a, b) for a in range(7) for b in range(7)}
    assert results.tolist() == [python[operation](a, b) % 7 for a, b in pairs.tolist()]


def test_one_hot_pairs():
    expected = [[0, 1, 0, 0, 0, 1], [1, 0, 0, 1, 0, 0]]
    assert one_hot_pairs(torch.tensor([[1, 2], [0, 0]]), 3).tolist() == expected


def test_equation_tokens_end_in_the_equals_sign():
    assert equation_tokens(torch.tensor([[1, 2], [0, 0]]), 3).tolist() == [[1, 2, 3], [0, 0, 3]]


@pytest.mark.parametrize("encode", [one_hot_pairs, equation_tokens])
def test_numbers_beyond_the_modulus_are_refused(encode):
    with pytest.raises(ValueError, match=r"pairs must lie in \[0, 2\], got 3"):
        encode(torch.tensor([[1, 3]]), 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modulus": 1}, "modulus must be at least 2, got 1"),
        ({"operation": "divide"}, "operation must be one of add, .*; got 'divide'"),
        ({"train_fraction": 1.2}, r"train_fraction must lie in \[0, 1\], got 1.2"),
        ({"train_fraction": 0.0}, "train must be at least 1 and less than the 49 samples, got 0"),
    ],
)
def test_senseless_modular_tasks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        modular_arithmetic(**{"modulus": 7, "train_fraction": 0.4, "generator": seeded()} | arguments)


def test_circle_has_equal_angles():
    points = circle(12, radius=2.0)
    torch.testing.assert_close(points.norm(dim=1), torch.full((12,), 2.0))
    torch.testing.assert_close(points[0], torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(points @ points[3], 4 * torch.cos(torch.arange(-3, 9) * torch.pi / 6), atol=1e-6, rtol=0)


def test_sphere_inputs_have_the_radius_and_no_preferred_direction():
    points = sphere_inputs(20_000, 3, radius=2.0, generator=seeded())
    torch.testing.assert_close(points.norm(dim=1), torch.full((20_000,), 2.0))
    torch.testing.assert_close(points.T @ points / 20_000, 4 / 3 * torch.eye(3), atol=0.05, rtol=0)


def test_gaussian_inputs_have_the_deviation():
    points = gaussian_inputs(2000, 10, deviation=0.3, generator=seeded())
    assert stats.kstest(points.flatten().numpy() / 0.3, "norm").pvalue > 1e-4


def test_teachers_are_their_formulas():
    x, beta = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([3.0, -1.0])
    torch.testing.assert_close(LinearTeacher(beta)(x), torch.tensor([1.0, 1.0]) / 2**0.5)
    torch.testing.assert_close(QuadraticTeacher(beta)(x), torch.tensor([0.5, 0.5]))
    teacher = TwoLayerTeacher(torch.tensor([[1.0, 1.0]]), torch.tensor([2.0]), torch.relu)
    torch.testing.assert_close(teacher(x), torch.tensor([2 * 3 / 2**0.5, 0.0]))
    wave = FourierTeacher(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]))
    angles = torch.tensor([0.3, -2.0])
    points = torch.stack([angles.cos(), angles.sin()], dim=1)
    torch.testing.assert_close(wave(points), angles.cos() + 2 * (3 * angles).sin())


def test_drawn_directions_have_squared_norm_d():
    assert linear_teacher(9, generator=seeded()).beta.square().sum().item() == pytest.approx(9, rel=1e-6)
    assert quadratic_teacher(9, generator=seeded()).beta.square().sum().item() == pytest.approx(9, rel=1e-6)


def test_fourier_teacher_has_unit_mean_square_on_the_circle():
    values = fourier_teacher((1, 2, 5), generator=seeded())(circle(64))
    assert values.square().mean().item() == pytest.approx(1, rel=1e-5)
    assert values.mean().item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_inputs(3, 2, deviation=0.0, generator=seeded()), "deviation must be greater than 0"),
        (lambda: sphere_inputs(3, 2, radius=-1.0, generator=seeded()), "radius must be greater than 0"),
        (lambda: circle(0), "n must be at least 1"),
        (lambda: fourier_teacher((), generator=seeded()), "number of frequencies must be at least 1"),
        (lambda: fourier_teacher((0, 1), generator=seeded()), "smallest of frequencies must be at least 1"),
    ],
)
def test_senseless_teachers_and_inputs_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
