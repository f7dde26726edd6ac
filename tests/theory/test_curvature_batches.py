"""Facts that the methods of theory/curvature must satisfy: curvature of minibatches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlatlas.theory.curvature_batches import (
    covariance_edge,
    effective_batch,
    fit_noise,
    lanczos_momentum,
    max_stable_rate,
    spiked_edge,
    spiked_overlap,
    stable_rate,
)
from tests.examples import Example, Make

LIMIT = 0.7


def below_limit(rates: torch.Tensor) -> torch.Tensor:
    return rates < LIMIT


def spikes(make: Make) -> dict:
    return {"lam": make.uniform(6, low=0.1, high=2.0), "noise": make.uniform(6, low=0.1, high=2.0)}


EXAMPLES = [
    Example(effective_batch, lambda make: {"B": 8.0, "N": 64.0}, vmap=False),
    Example(spiked_edge, spikes, differentiable=("lam", "noise")),
    Example(spiked_overlap, spikes, differentiable=("lam", "noise")),
    Example(
        covariance_edge,
        lambda make: {"lam": make.uniform(6, low=1.5, high=9.0), "ratio": make.uniform(6, low=0.1, high=9.0), "s": 1.0},
        differentiable=("lam", "ratio"),
    ),
    Example(
        fit_noise,
        lambda make: {
            "measured": spiked_edge(torch.ones(4).to(make.uniform(1)), 2 / (4 * make.uniform(4, low=1.0, high=9.0))),
            "lam": make.uniform(1, low=0.9, high=1.0)[0],
            "b": make.uniform(4, low=1.0, high=9.0),
        },
    ),
    Example(stable_rate, lambda make: {"lam": make.uniform(5, low=0.5), "momentum": 0.9}, differentiable=("lam",)),
    Example(
        lanczos_momentum,
        lambda make: {"top": make.uniform(5, low=2.0, high=9.0), "bulk": make.uniform(5, low=0.1)},
        differentiable=("top", "bulk"),
    ),
    Example(
        max_stable_rate,
        lambda make: {
            "stable": below_limit,
            "low": make.uniform(4, low=0.01, high=0.1),
            "high": make.uniform(4, low=1.0, high=3.0),
        },
    ),
]


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def spiked_matrix(size, lam, w, seed):
    g = torch.Generator().manual_seed(seed)
    E = torch.randn(size, size, generator=g, dtype=torch.float64)
    A = (E + E.mT) * math.sqrt(w / (2 * size))
    A[0, 0] += lam
    return torch.linalg.eigh(A)


class TestSpike:
    @pytest.mark.parametrize("w", [0.1, 0.5, 1.0, 3.0])
    def test_is_the_edge_of_random_matrices(self, w):
        values, vectors = zip(*[spiked_matrix(500, 1.0, w, seed) for seed in range(8)], strict=True)
        top = torch.stack(values)[:, -1].mean()
        torch.testing.assert_close(top, spiked_edge(doubles(1.0), w)[0], rtol=0.03, atol=0)
        if abs(w - 1) > 0.3:
            overlap = torch.stack(vectors)[:, 0, -1].square().mean()
            torch.testing.assert_close(overlap, spiked_overlap(doubles(1.0), w)[0], rtol=0, atol=0.08)

    @settings(max_examples=30, deadline=None)
    @given(st.floats(0.01, 10))
    def test_branches_meet_at_the_threshold(self, w):
        threshold = doubles(math.sqrt(w))
        for lam in (threshold * (1 + 1e-9), threshold * (1 - 1e-9)):
            torch.testing.assert_close(spiked_edge(lam, w), 2 * threshold, rtol=1e-8, atol=0)
            assert spiked_overlap(lam, w).item() < 1e-8

    def test_above_and_below(self):
        torch.testing.assert_close(spiked_edge(doubles(2.0, 0.5), 1.0), doubles(2.5, 2.0))
        torch.testing.assert_close(spiked_overlap(doubles(2.0, 0.5), 1.0), doubles(0.75, 0.0))

    def test_full_batch_adds_nothing(self):
        assert effective_batch(64, 64) == math.inf
        lam = doubles(0.0, 0.4, 3.0)
        assert torch.equal(spiked_edge(lam, 5 / effective_batch(64, 64)), lam)
        assert 1 / effective_batch(8, 64) == pytest.approx(1 / 8 - 1 / 64)

    def test_gradient_at_zero_is_finite(self):
        lam = doubles(0.0, 0.5).requires_grad_()
        (slope,) = torch.autograd.grad(spiked_edge(lam, 1.0).sum(), lam)
        assert torch.isfinite(slope).all()

    def test_bad_input(self):
        with pytest.raises(ValueError, match="lam"):
            spiked_edge(doubles(-1.0), 1.0)
        with pytest.raises(ValueError, match="noise"):
            spiked_overlap(doubles(1.0), -0.1)
        for B in (0, 65):
            with pytest.raises(ValueError, match="B must lie"):
                effective_batch(B, 64)


class TestCovariance:
    @pytest.mark.parametrize(("ratio", "spike"), [(0.5, 6.0), (2.0, 6.0), (20.0, 4.0), (20.0, 12.0)])
    def test_is_the_edge_of_sample_covariances(self, ratio, spike):
        g, tops = torch.Generator().manual_seed(0), []
        for _ in range(6):
            rows = torch.randn(round(600 / ratio), 600, generator=g, dtype=torch.float64)
            rows[:, 0] *= math.sqrt(spike)
            tops.append(torch.linalg.svdvals(rows)[0] ** 2 / len(rows))
        predicted = covariance_edge(doubles(spike), doubles(ratio), 1.0)[0]
        torch.testing.assert_close(torch.stack(tops).mean(), predicted, rtol=0.08, atol=0)

    def test_branches_meet(self):
        threshold = 1.5 * (1 + math.sqrt(3.0))
        for lam in (threshold * (1 + 1e-9), threshold * (1 - 1e-9)):
            edge = covariance_edge(doubles(lam), doubles(3.0), 1.5)
            assert edge.item() == pytest.approx(1.5 * (1 + math.sqrt(3.0)) ** 2, rel=1e-7)

    def test_grows_linearly_where_the_noise_rules(self):
        ratios = doubles(1e4, 2e4)
        small, large = covariance_edge(torch.full_like(ratios, 2.0), ratios, 1.0)
        assert math.log2(large / small) == pytest.approx(1, abs=0.01)
        symmetric = spiked_edge(torch.full_like(ratios, 2.0), ratios)
        assert math.log2(symmetric[1] / symmetric[0]) == pytest.approx(0.5)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="s must be"):
            covariance_edge(doubles(1.0), doubles(1.0), 0.0)
        with pytest.raises(ValueError, match="ratio"):
            covariance_edge(doubles(1.0), doubles(-1.0), 1.0)


class TestFit:
    @settings(max_examples=20, deadline=None)
    @given(st.floats(0.05, 200))
    def test_finds_the_constant_that_made_the_data(self, constant):
        lam, b = torch.tensor(1.3, dtype=torch.float64), doubles(2.0, 8.0, 32.0, 128.0)
        measured = spiked_edge(lam.expand(4), constant / b)
        assert fit_noise(measured, lam, b).item() == pytest.approx(constant, rel=2e-3)

    def test_no_noise(self):
        lam, b = torch.tensor(1.3, dtype=torch.float64), doubles(2.0, 8.0)
        assert fit_noise(lam.expand(2), lam, b).item() == pytest.approx(0, abs=1e-4)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="measured"):
            fit_noise(doubles(1.0, -1.0), torch.tensor(1.0, dtype=torch.float64), doubles(1.0, 2.0))


class TestRates:
    @pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
    def test_heavy_ball_diverges_just_above(self, momentum):
        limit = stable_rate(doubles(4.0), momentum=momentum).item()

        def distance(rate, steps=20_000):
            x, v = 1.0, 0.0
            for _ in range(steps):
                v = momentum * v + 4 * x
                x -= rate * v
                if abs(x) > 1e6:
                    break
            return abs(x)

        assert distance(0.995 * limit) < 1
        assert distance(1.005 * limit) > 1e3

    def test_plain_descent_on_a_quadratic(self):
        assert stable_rate(doubles(4.0)).item() == 0.5

    def test_momentum_rule_is_optimal_on_a_quadratic(self):
        """The rule with its own rate makes both ends of the spectrum contract like the root of the momentum."""
        top, bulk = 9.0, 1.0
        rho = lanczos_momentum(doubles(top), doubles(bulk)).item()
        eta = (2 / (math.sqrt(top) + math.sqrt(bulk))) ** 2
        for lam in (top, bulk, 4.0):
            step = torch.tensor([[1 + rho - eta * lam, -rho], [1, 0]], dtype=torch.float64)
            assert torch.linalg.eigvals(step).abs().max().item() == pytest.approx(math.sqrt(rho), abs=1e-6)

    @pytest.mark.parametrize(("points", "rounds"), [(1, 14), (7, 5)])
    def test_section_search_finds_the_limit(self, points, rounds):
        limits = doubles(0.02, 0.5, 7.0)
        found = max_stable_rate(
            lambda r: r < limits, torch.full_like(limits, 0.01), torch.full_like(limits, 10.0),
            points=points, rounds=rounds,
        )  # fmt: skip
        torch.testing.assert_close(found, limits, rtol=1e-3, atol=0)

    def test_section_search_stops_at_the_first_failure(self):
        """Stable again at larger rates does not count."""
        found = max_stable_rate(lambda r: (r < 0.1) | (r > 1.0), doubles(0.01), doubles(10.0), points=15, rounds=4)
        assert found.item() == pytest.approx(0.1, rel=1e-3)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="low"):
            max_stable_rate(below_limit, doubles(0.0), doubles(1.0))
        with pytest.raises(ValueError, match="high / low"):
            max_stable_rate(below_limit, doubles(1.0), doubles(1.0))
        with pytest.raises(ValueError, match="points"):
            max_stable_rate(below_limit, doubles(0.1), doubles(1.0), points=0)
        with pytest.raises(ValueError, match="momentum"):
            stable_rate(doubles(1.0), momentum=1.0)
        with pytest.raises(ValueError, match="top / bulk"):
            lanczos_momentum(doubles(1.0), doubles(2.0))
