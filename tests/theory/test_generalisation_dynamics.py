"""Facts that the methods of theory/generalisation_dynamics must satisfy: linear students over time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlatlas.theory.generalisation_dynamics import (
    final_test_error,
    gradient_flow_linear,
    linear_dynamics,
    linear_dynamics_limit,
    marchenko_pastur_expect,
    optimal_ridge,
    optimal_stopping_time,
)
from tests.examples import Example

MODEL = {"s_w": 1.2, "s_0": 0.3, "s_e": 0.8}

EXAMPLES = [
    Example(
        gradient_flow_linear,
        lambda make: {
            "X": make.normal(4, 6),
            "y": make.normal(6),
            "w0": make.normal(4),
            "t": make.uniform(3),
        },
        differentiable=("X", "y", "w0", "t"),
    ),
    Example(
        linear_dynamics,
        lambda make: {"eigs": make.uniform(5, low=0.1), "t": make.uniform(3), "samples": 7, **MODEL},
        differentiable=("eigs", "t"),
    ),
    Example(
        marchenko_pastur_expect,
        lambda make: {"fn": torch.square, "a": make.uniform(1, low=0.2, high=3)[0]},
        differentiable=("a",),
    ),
    Example(
        linear_dynamics_limit,
        lambda make: {"t": make.uniform(3), "a": make.uniform(1, low=0.2, high=3)[0], **MODEL},
        differentiable=("t", "a"),
    ),
    Example(final_test_error, lambda make: {"a": make.uniform(4, low=0.2, high=0.9), **MODEL}, differentiable=("a",)),
    Example(optimal_stopping_time, lambda make: {"eigs": make.uniform(4, low=0.2), **MODEL}, differentiable=("eigs",)),
    Example(optimal_ridge, lambda make: dict(MODEL), vmap=False),
]


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def inputs(N, P, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, P, generator=generator, dtype=torch.float64) / math.sqrt(N)


def euler_moments(X, t, S, noise, steps=20_000):
    """Errors averaged over teacher, start and noise, by small steps of the two linear maps that make up the weights."""
    N, P = X.shape
    from_start, from_noise = torch.eye(N, dtype=X.dtype), torch.zeros(N, P, dtype=X.dtype)
    A = X @ X.T
    for _ in range(steps):
        from_start = from_start - t / steps * A @ from_start
        from_noise = from_noise - t / steps * (A @ from_noise - X)
    test = (S * from_start.square().sum() + noise * from_noise.square().sum()) / N + noise
    residual = torch.eye(P, dtype=X.dtype) - X.T @ from_noise
    train = (S * (X.T @ from_start).square().sum() + noise * residual.square().sum()) / P
    return train, test


class TestOneDataSet:
    @pytest.mark.parametrize(("N", "P"), [(6, 3), (3, 7), (4, 4)])
    def test_second_moments_are_those_of_small_steps(self, N, P):
        X = inputs(N, P)
        train, test = linear_dynamics(torch.linalg.eigvalsh(X @ X.T), doubles(1.5), samples=P, **MODEL)
        expected = euler_moments(X, 1.5, MODEL["s_w"] ** 2 + MODEL["s_0"] ** 2, MODEL["s_e"] ** 2)
        torch.testing.assert_close(torch.stack([train[0], test[0]]), torch.stack(expected), rtol=1e-3, atol=0)

    def test_start_and_end(self):
        X = inputs(5, 3)
        eigs = torch.linalg.eigvalsh(X @ X.T)
        train, test = linear_dynamics(eigs, doubles(0, math.inf), samples=3, **MODEL)
        start = MODEL["s_w"] ** 2 + MODEL["s_0"] ** 2
        assert test[0].item() == pytest.approx(start + MODEL["s_e"] ** 2)
        assert train[1].item() == pytest.approx(0, abs=1e-12)
        moving = eigs[2:]
        end = (2 * start + MODEL["s_e"] ** 2 * (1 / moving).sum()) / 5 + MODEL["s_e"] ** 2
        assert test[1].item() == pytest.approx(end.item())

    def test_flow_keeps_the_frozen_subspace_and_fits_the_rest(self):
        X, y, w0 = inputs(6, 4), doubles(1, -2, 0.5, 3), torch.arange(6, dtype=torch.float64)
        start, end = gradient_flow_linear(X, y, w0, doubles(0, math.inf))
        torch.testing.assert_close(start, w0)
        torch.testing.assert_close(X.T @ end, y)
        shortest = w0 + torch.linalg.pinv(X.T) @ (y - X.T @ w0)
        torch.testing.assert_close(end, shortest)

    def test_flow_solves_its_equation(self):
        X, y = inputs(4, 5), doubles(1, -2, 0.5, 3, 1)
        before, at, after = gradient_flow_linear(X, y, doubles(1, 0, -1, 2), doubles(0.7 - 1e-5, 0.7, 0.7 + 1e-5))
        torch.testing.assert_close((after - before) / 2e-5, X @ (y - X.T @ at), rtol=1e-6, atol=1e-8)

    def test_flow_of_several_outputs_is_column_by_column(self):
        X, y, w0 = inputs(4, 5), inputs(5, 2, 1), inputs(4, 2, 2)
        together = gradient_flow_linear(X, y, w0, doubles(0.4))
        alone = gradient_flow_linear(X, y[:, 1], w0[:, 1], doubles(0.4))
        torch.testing.assert_close(together[..., 1], alone)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="t must"):
            gradient_flow_linear(inputs(3, 3), torch.ones(3).double(), torch.ones(3).double(), doubles(-1))
        with pytest.raises(ValueError, match="samples"):
            linear_dynamics(doubles(1, 2), doubles(1), samples=0, **MODEL)
        with pytest.raises(ValueError, match="eigs"):
            linear_dynamics(doubles(-1, 2), doubles(1), samples=2, **MODEL)
        with pytest.raises(ValueError, match="s_0"):
            linear_dynamics(doubles(1, 2), doubles(1), samples=2, s_w=1.0, s_0=-1.0, s_e=1.0)


class TestLimit:
    @settings(max_examples=30, deadline=None)
    @given(st.floats(0.05, 0.9) | st.floats(1.1, 6))
    def test_moments(self, load):
        a = doubles(load)[0]
        powers = [
            marchenko_pastur_expect(f, a).item()
            for f in (torch.ones_like, lambda e: e, torch.square, lambda e: torch.where(e > 0, 1 / e, 0.0))
        ]
        inverse = load / (1 - load) if load < 1 else 1 / (load - 1)
        assert powers == pytest.approx([1, load, load + load**2, inverse], rel=1e-6)

    def test_mean_of_a_vector(self):
        a = doubles(0.5)[0]
        got = marchenko_pastur_expect(lambda e: torch.stack([e, 2 * e], -1), a)
        torch.testing.assert_close(got, doubles(0.5, 1.0))

    @pytest.mark.parametrize("load", [0.5, 1.0, 2.0])
    def test_large_data_sets_come_near(self, load):
        t = doubles(0.3, 2.0, 10.0)
        X = inputs(400, int(400 * load))
        finite = linear_dynamics(torch.linalg.eigvalsh(X @ X.T), t, samples=X.shape[1], **MODEL)
        limit = linear_dynamics_limit(t, doubles(load)[0], **MODEL)
        for f, p in zip(finite, limit, strict=True):
            torch.testing.assert_close(f, p, rtol=0.03, atol=0.003)

    @pytest.mark.parametrize("load", [0.3, 0.8, 1.3, 4.0])
    def test_end_of_training(self, load):
        a = doubles(load)[0]
        _, test = linear_dynamics_limit(doubles(math.inf), a, **MODEL)
        torch.testing.assert_close(test[0], final_test_error(a, **MODEL))

    def test_root_law_at_load_one(self):
        t = doubles(1e3, 4e3)
        _, test = linear_dynamics_limit(t, doubles(1)[0], s_w=0.0, s_0=0.0, s_e=1.0)
        torch.testing.assert_close(
            test, 0.5 + 2 * (2 - math.sqrt(2)) / math.sqrt(math.pi) * t.sqrt(), rtol=1e-3, atol=0
        )

    def test_overtraining_peaks_at_load_one(self):
        t = torch.cat([doubles(0), torch.logspace(-2, 3, 200, dtype=torch.float64)])

        def overtraining(load):
            test = linear_dynamics_limit(t, doubles(load)[0], **MODEL)[1]
            return (test[-1] - test.min()).item()

        assert overtraining(1.0) > 5 * max(overtraining(0.5), overtraining(2.0))
        assert overtraining(0.5) > overtraining(0.1)
        assert overtraining(2.0) > overtraining(4.0)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="a must"):
            marchenko_pastur_expect(torch.ones_like, doubles(0)[0])
        with pytest.raises(ValueError, match="nodes"):
            marchenko_pastur_expect(torch.ones_like, doubles(1)[0], nodes=1)
        with pytest.raises(ValueError, match="distance of a from 1"):
            final_test_error(doubles(0.5, 1.0), **MODEL)


class TestStopping:
    def test_no_other_time_is_better_for_a_mode(self):
        eigs = doubles(0.2, 1.0, 3.0)
        best = optimal_stopping_time(eigs, **MODEL)
        for e, when in zip(eigs, best, strict=True):
            times = when * doubles(0.9, 1.0, 1.1)
            _, test = linear_dynamics(e[None], times, samples=1, **MODEL)
            assert test.argmin() == 1

    def test_ridge_shrinks_as_the_best_times_do(self):
        eigs = doubles(0.2, 1.0, 3.0)
        gamma = optimal_ridge(**MODEL)
        assert gamma == pytest.approx(0.64 / 1.53)
        torch.testing.assert_close(torch.exp(-eigs * optimal_stopping_time(eigs, **MODEL)), gamma / (eigs + gamma))

    def test_best_ridge_solution_beats_its_neighbours(self):
        X = inputs(8, 10)
        eigs = torch.linalg.eigvalsh(X @ X.T)

        def error(gamma):
            return ((1.53 * gamma**2 + 0.64 * eigs) / (eigs + gamma) ** 2).mean()

        best = optimal_ridge(**MODEL)
        assert error(best) < min(error(0.9 * best), error(1.1 * best))

    def test_bad_input(self):
        with pytest.raises(ValueError, match="eigs"):
            optimal_stopping_time(doubles(0.0), **MODEL)
        with pytest.raises(ValueError, match="s_e"):
            optimal_stopping_time(doubles(1.0), s_w=1.0, s_0=0.0, s_e=0.0)
        with pytest.raises(ValueError, match="s_w"):
            optimal_ridge(s_w=0.0, s_0=0.0, s_e=1.0)
