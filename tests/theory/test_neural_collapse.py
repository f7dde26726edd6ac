"""Facts that the methods of theory/neural_collapse must satisfy."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.optimize import minimize_scalar

from dlatlas.ops.class_moments import class_covariances
from dlatlas.ops.frames import orthogonal_frame, simplex_etf
from dlatlas.theory.neural_collapse import (
    UFM,
    deep_linear_ufm_singular_values,
    deep_linear_ufm_threshold,
    nc_metrics,
    nearest_mean_disagreement,
    project_three_classes,
    ufm_mixup_features,
)
from tests.examples import Example, Make


def metric_arguments(make: Make, **extra) -> dict:
    labels = torch.arange(12, device=make.device) % 3
    return {"features": make.normal(12, 5), "labels": labels, "W": make.normal(3, 5), **extra}


EXAMPLES = [
    Example(nc_metrics, metric_arguments, differentiable=("features", "W")),
    Example(
        nc_metrics,
        lambda make: metric_arguments(make, target=make.uniform(3, low=0.5, high=2.0)),
        differentiable=("features", "W", "target"),
    ),
    Example(
        nearest_mean_disagreement,
        lambda make: {
            "features": make.normal(12, 5),
            "labels": torch.arange(12, device=make.device) % 3,
            "logits": make.normal(12, 3),
        },
    ),
    Example(
        deep_linear_ufm_threshold,
        lambda make: {"samples": 20.0, "lams": make.uniform(3, low=1e-3, high=1e-2)},
        differentiable=("lams",),
    ),
    Example(
        deep_linear_ufm_singular_values,
        lambda make: {
            "n_per_class": torch.tensor([9, 4, 1], device=make.device),
            "lams": make.uniform(3, low=1e-3, high=1e-2),
        },
        differentiable=("lams",),
    ),
    Example(
        ufm_mixup_features,
        lambda make: {"W": make.normal(4, 6), "t": make.simplex(7, 4), "lamH": 0.1},
        differentiable=("W", "t"),
    ),
    Example(
        ufm_mixup_features,
        lambda make: {"W": make.normal(4, 6), "t": make.simplex(7, 4), "lamH": 0.1, "loss": "mse"},
        differentiable=("W", "t"),
    ),
    Example(
        project_three_classes,
        lambda make: {"h": make.normal(7, 6), "W": make.normal(4, 6), "classes": (3, 0, 2)},
        differentiable=("h", "W"),
    ),
]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


class TestMetrics:
    @pytest.mark.parametrize("target", ["etf", "of"])
    def test_zero_on_a_collapsed_frame(self, target):
        vectors = simplex_etf(4, 6, dtype=torch.float64) if target == "etf" else torch.eye(4, 6, dtype=torch.float64)
        labels = torch.tensor([0, 0, 0, 1, 2, 2, 3])
        shift = 3.0 if target == "etf" else 0.0
        for value in nc_metrics((vectors + shift)[labels], labels, 5 * vectors, target).values():
            assert value < 1e-12

    def test_zero_at_the_imbalanced_optimum(self):
        n, lams = torch.tensor([8, 4, 1]), doubles(0.01, 0.02)
        z = deep_linear_ufm_singular_values(n, lams)
        squared = z * math.sqrt(0.5) / n
        labels = torch.repeat_interleave(torch.arange(3), n)
        W = orthogonal_frame((z * math.sqrt(2)).sqrt(), 5)
        for value in nc_metrics(orthogonal_frame(squared.sqrt(), 5)[labels], labels, W, squared).values():
            assert value < 1e-12

    def test_nc1_is_the_trace_of_the_definition(self, generator):
        features, labels = normal(generator, 20, 6), torch.arange(20) % 4
        within, between = class_covariances(features, labels, 4)
        expected = torch.trace(within @ torch.linalg.pinv(between, hermitian=True)) / 4
        got = nc_metrics(features, labels, normal(generator, 4, 6))["nc1"]
        torch.testing.assert_close(got, expected)

    def test_nc1_does_not_depend_on_coordinates(self, generator):
        features, labels = normal(generator, 20, 6), torch.arange(20) % 4
        W, mixing = normal(generator, 4, 6), normal(generator, 6, 6)
        # The invariance is under similarity: rotations, shifts and one scale.
        rotation = torch.linalg.qr(mixing).Q
        moved = 3 * features @ rotation + 7
        torch.testing.assert_close(nc_metrics(moved, labels, W)["nc1"], nc_metrics(features, labels, W)["nc1"])

    def test_nc4_hand_case(self):
        features = torch.tensor([[0.0], [2.0], [4.0], [6.0]])
        labels = torch.tensor([0, 0, 1, 1])
        logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
        assert nearest_mean_disagreement(features, labels, logits) == 0.25

    def test_refuses_equal_class_means_empty_classes_and_unknown_targets(self):
        labels = torch.tensor([0, 0, 1, 1])
        same = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
        with pytest.raises(ValueError, match="spread of the class means"):
            nc_metrics(same, labels, torch.eye(2))
        with pytest.raises(ValueError, match="samples of the smallest class"):
            nc_metrics(torch.randn(4, 3), labels, torch.eye(3))
        with pytest.raises(ValueError, match="target must be one of etf, of"):
            nc_metrics(torch.randn(4, 2), labels, torch.eye(2), "frame")
        with pytest.raises(TypeCheckError):
            nc_metrics(torch.randn(4, 3), labels, torch.eye(2))


class TestSingularValues:
    @pytest.mark.parametrize(
        ("lams", "expected"),
        [((0.01, 0.02), (2.64458, 1.81615, 0.81615)), ((0.005, 0.01, 0.02), (2.73547, 1.89495, 0.86348))],
    )
    def test_known_values(self, lams, expected):
        got = deep_linear_ufm_singular_values(torch.tensor([8, 4, 1]), doubles(*lams))
        torch.testing.assert_close(got, doubles(*expected), atol=1e-5, rtol=0)

    @settings(deadline=None, max_examples=60)
    @given(
        sizes=st.lists(st.integers(1, 60), min_size=2, max_size=5),
        lams=st.lists(st.floats(1e-4, 0.1), min_size=2, max_size=5),
    )
    def test_minimises_the_scalar_problem(self, sizes, lams):
        M, N, c = len(lams) - 1, sum(sizes), math.prod(lams) ** (1 / len(lams))
        z = deep_linear_ufm_singular_values(torch.tensor(sizes), doubles(*lams))
        for n, z_k in zip(sizes, z.tolist(), strict=True):

            def objective(z, n=n):
                return (z - math.sqrt(n)) ** 2 / (2 * N) + (M + 1) / 2 * c * z ** (2 / (M + 1))

            best = minimize_scalar(objective, bounds=(0, math.sqrt(n)), method="bounded", options={"xatol": 1e-10})
            assert objective(z_k) <= min(objective(0.0), best.fun) + 1e-10

    def test_one_layer_is_soft_thresholding(self):
        n, lams = torch.tensor([30, 10, 1]), doubles(0.03, 0.05)
        expected = (n.sqrt() - 41 * math.sqrt(0.0015)).clamp(min=0)
        torch.testing.assert_close(deep_linear_ufm_singular_values(n, lams), expected.double(), atol=1e-6, rtol=0)

    @pytest.mark.parametrize("M", [1, 2, 3, 5])
    def test_jumps_at_the_threshold(self, M):
        lams = torch.full((M + 1,), 0.01, dtype=torch.float64)
        n_star = deep_linear_ufm_threshold(100.0, lams)
        for factor, share in ((1 - 1e-9, 0.0), (1 + 1e-9, 1 - 1 / M)):
            n = factor * n_star
            z = deep_linear_ufm_singular_values(torch.stack([n, 100 - n]), lams)[0]
            assert (z / n.sqrt()).item() == pytest.approx(share, abs=1e-6)

    def test_threshold_of_one_layer(self):
        assert deep_linear_ufm_threshold(13.0, doubles(0.01, 0.02)).item() == pytest.approx(13**2 * 2e-4)

    def test_refuses_empty_classes_and_penalties_that_are_not_positive(self):
        with pytest.raises(ValueError, match="n_per_class must lie"):
            deep_linear_ufm_singular_values(torch.tensor([3, 0]), doubles(0.1, 0.1))
        with pytest.raises(ValueError, match="lams must lie"):
            deep_linear_ufm_singular_values(torch.tensor([3, 2]), doubles(0.1, 0.0))
        with pytest.raises(ValueError, match="number of penalties must be at least 2"):
            deep_linear_ufm_threshold(5.0, doubles(0.1))


def trained(model, lams):
    optimiser = torch.optim.LBFGS(
        model.parameters(), max_iter=2000, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=0
    )

    def closure():
        optimiser.zero_grad()
        loss = model(lams)
        loss.backward()
        return loss

    optimiser.step(closure)
    return model(lams).item()


class TestUFM:
    @pytest.mark.parametrize(
        ("lams", "loss"), [((0.01, 0.02), 0.0785264), ((0.005, 0.01, 0.02), 0.0673841)], ids=["M=1", "M=2"]
    )
    @pytest.mark.parametrize("seed", [0, 1])
    def test_training_reaches_the_optimum(self, lams, loss, seed):
        torch.manual_seed(seed)
        lams = doubles(*lams)
        model = UFM((8, 4, 1), 8, len(lams) - 1).double()
        assert trained(model, lams) == pytest.approx(loss, abs=1e-7)
        z = model.optimal_singular_values(lams)
        torch.testing.assert_close(torch.linalg.svdvals(model.logits()), z, atol=1e-6, rtol=0)
        c, factors = lams.log().mean().exp(), len(lams)
        squared = c * z ** (2 / factors) / (lams[-1] * model.sizes)
        assert max(nc_metrics(model.features, model.labels, model.classifier(), squared).values()) < 1e-6

    def test_a_free_bias_makes_a_simplex(self):
        torch.manual_seed(0)
        model = UFM((5, 5, 5), 6, 1, bias=True).double()
        trained(model, doubles(0.01, 0.01))
        assert max(nc_metrics(model.features, model.labels, model.classifier(), "etf").values()) < 1e-6
        assert model.features.mean(0).norm() < 1e-6

    def test_objective_by_hand(self):
        model = UFM((1, 1), 2, 2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.eye(2))
        assert model(torch.tensor([0.1, 0.2, 0.3])).item() == pytest.approx(0.1 + 0.2 + 0.3)

    def test_refuses(self):
        with pytest.raises(ValueError, match="samples of the smallest class"):
            UFM((3, 0), 4, 1)
        with pytest.raises(ValueError, match="d must be at least 3"):
            UFM((3, 2, 1), 2, 1)
        with pytest.raises(ValueError, match="must hold 2 penalties, got 3"):
            UFM((3, 2), 4, 1)(torch.ones(3))
        with pytest.raises(ValueError, match="without bias"):
            UFM((3, 2), 4, 1, bias=True).optimal_singular_values(doubles(0.1, 0.1))


class TestMixupFeatures:
    def test_known_logits(self):
        W = 1.3 * simplex_etf(4, 6, dtype=torch.float64)
        z = ufm_mixup_features(W, doubles(0.3, 0.7, 0, 0)[None], 0.05) @ W.T
        torch.testing.assert_close(z[0], doubles(0.90737, 1.76651, -1.33694, -1.33694), atol=1e-5, rtol=0)

    @settings(deadline=None, max_examples=40)
    @given(lam=st.floats(0, 1), lamH=st.floats(1e-4, 10), m=st.floats(0.3, 4))
    def test_stationary_and_symmetric(self, lam, lamH, m):
        W = m * simplex_etf(4, 5, dtype=torch.float64)
        t = doubles([lam, 1 - lam, 0, 0], [1 - lam, lam, 0, 0])
        z = ufm_mixup_features(W, t, lamH) @ W.T
        c = m**2 * 4 / (3 * lamH)
        assert (z - c * (t - z.softmax(-1))).abs().max() < 1e-10 * max(1.0, c)
        torch.testing.assert_close(z[0, [1, 0, 2, 3]], z[1], atol=1e-9, rtol=1e-9)

    def test_any_classifier(self, generator):
        W, t = normal(generator, 5, 3), normal(generator, 6, 5).softmax(-1)
        h = ufm_mixup_features(W, t, 0.2)
        torch.testing.assert_close(0.2 * h, (t - (h @ W.T).softmax(-1)) @ W, atol=1e-10, rtol=0)

    def test_squared_loss(self, generator):
        W = 1.7 * simplex_etf(4, 6, dtype=torch.float64)
        t = normal(generator, 5, 4).softmax(-1)
        torch.testing.assert_close(ufm_mixup_features(W, t, 0.0, loss="mse") @ W.T, t - 0.25)
        h = ufm_mixup_features(W, t, 0.3, loss="mse")
        torch.testing.assert_close((h @ W.T - t) @ W + 0.3 * h, torch.zeros_like(h), atol=1e-12, rtol=0)

    def test_refuses(self):
        W = simplex_etf(3, 4)
        with pytest.raises(TypeCheckError):
            ufm_mixup_features(W, torch.tensor([0, 1]), 0.1)
        with pytest.raises(TypeCheckError):
            ufm_mixup_features(W, torch.tensor([[0, 1, 0]]), 0.1)
        with pytest.raises(ValueError, match="t must lie"):
            ufm_mixup_features(W, torch.tensor([[1.2, -0.2, 0.0]]), 0.1)
        with pytest.raises(ValueError, match="sum of a row of t"):
            ufm_mixup_features(W, torch.tensor([[0.5, 0.2, 0.0]]), 0.1)
        with pytest.raises(ValueError, match="lamH must be greater than 0"):
            ufm_mixup_features(W, torch.tensor([[1.0, 0.0, 0.0]]), 0.0)
        with pytest.raises(ValueError, match="loss must be one of"):
            ufm_mixup_features(W, torch.tensor([[1.0, 0.0, 0.0]]), 0.1, loss="hinge")


class TestProjection:
    def test_keeps_lengths_in_the_plane_of_a_simplex(self):
        W = simplex_etf(3, 7, dtype=torch.float64)
        points = project_three_classes(W, W, (1, 2, 0))
        torch.testing.assert_close(points @ points.T, W @ W.T)
        torch.testing.assert_close(points[1], doubles(1.0, 0.0))

    def test_drops_what_is_orthogonal(self):
        W = simplex_etf(4, 6, dtype=torch.float64)
        sideways = doubles(0, 0, 0, 1, 2, 3)[None]
        assert project_three_classes(sideways, W, (0, 1, 2)).abs().max() < 1e-12

    def test_refuses_repeated_and_unknown_classes(self):
        for classes in ((0, 1, 1), (0, 1, 4)):
            with pytest.raises(ValueError, match="three different ones of 0 to 3"):
                project_three_classes(torch.zeros(2, 5), simplex_etf(4, 5), classes)
