"""Facts that features held near given ones must satisfy."""

import itertools
import math

import pytest
import torch

from dlatlas.ops.class_moments import class_covariances, class_means
from dlatlas.theory.neural_collapse import deep_linear_ufm_singular_values
from dlatlas.theory.neural_collapse_perturbation import (
    alternate_ufm,
    central_path_flow,
    nearby_features,
    ridge_classifier,
)
from tests.examples import Example, Make


def one_hot(make: Make, n: int, K: int) -> torch.Tensor:
    return torch.eye(K, dtype=make.dtype, device=make.device)[torch.arange(n, device=make.device) % K]


def near_arguments(make: Make) -> dict:
    return {"H0": make.normal(12, 5), "Y": one_hot(make, 12, 3), "lamW": 0.1, "lamH": 0.05, "beta": 0.5}


EXAMPLES = [
    Example(
        ridge_classifier,
        lambda make: {"H": make.normal(12, 5), "Y": one_hot(make, 12, 3), "lam": 0.3},
        differentiable=("H", "Y"),
    ),
    Example(
        nearby_features,
        lambda make: {
            "W": make.normal(3, 5),
            "Y": one_hot(make, 12, 3),
            "H0": make.normal(12, 5),
            "lamH": 0.1,
            "beta": 0.4,
        },
        differentiable=("W", "Y", "H0"),
    ),
    Example(alternate_ufm, lambda make: {**near_arguments(make), "iters": 5}, differentiable=("H0",)),
    Example(central_path_flow, lambda make: {**near_arguments(make), "dt": 0.05, "steps": 4}, differentiable=("H0",)),
]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def near_problem(generator):
    labels = torch.arange(15) % 3
    return normal(generator, 15, 6), torch.eye(3, dtype=torch.float64)[labels], labels


def objective(W, H, Y, H0, lamW, lamH, beta):
    n = len(Y) / Y.shape[1]
    fit = (H @ W.T - Y).square().sum() + n * lamW * W.square().sum()
    return (fit + lamH * H.square().sum() + beta * (H - H0).square().sum()) / (2 * len(Y))


class TestNearbyFeatures:
    def test_halves_are_stationary(self, generator):
        H0, Y, _ = near_problem(generator)
        W = ridge_classifier(H0, Y, 5 * 0.1)
        slope = torch.func.grad(objective)(W, H0, Y, H0, 0.1, 0.2, 0.3)
        assert slope.abs().max() < 1e-12
        H = nearby_features(W, Y, H0, 0.2, 0.3)
        slope = torch.func.grad(objective, argnums=1)(W, H, Y, H0, 0.1, 0.2, 0.3)
        assert slope.abs().max() < 1e-12

    @pytest.mark.parametrize("d", [2, 6])
    def test_system_of_the_size_of_the_features(self, generator, d):
        _, Y, _ = near_problem(generator)
        H0, W = normal(generator, 15, d), normal(generator, 3, d)
        literal = (Y @ W + 0.7 * H0) @ torch.linalg.inv(W.T @ W + 0.9 * torch.eye(d, dtype=torch.float64))
        torch.testing.assert_close(nearby_features(W, Y, H0, 0.2, 0.7), literal, atol=1e-12, rtol=0)

    def test_contraction(self, generator):
        H0, Y, labels = near_problem(generator)
        W = normal(generator, 3, 6)
        H = nearby_features(W, Y, H0, 0.2, 0.7)
        shrink = 0.7 * torch.linalg.inv(W.T @ W + 0.9 * torch.eye(6))
        before, after = (x - class_means(x, labels, 3)[labels] for x in (H0, H))
        torch.testing.assert_close(after, before @ shrink)

    def test_turns_never_raise_the_objective(self, generator):
        H0, Y, _ = near_problem(generator)
        values = [
            objective(*alternate_ufm(H0, Y, 0.1, 0.05, 0.5, iters=iters), Y, H0, 0.1, 0.05, 0.5)
            for iters in range(1, 8)
        ]
        assert all(b <= a + 1e-14 for a, b in itertools.pairwise(values))

    def test_without_a_spring_it_is_the_free_model(self, generator):
        H0, Y, _ = near_problem(generator)
        W, H = alternate_ufm(H0, Y, 0.05, 0.1, 0.0, iters=3000)
        z = torch.linalg.svdvals(H @ W.T)[:3]
        torch.testing.assert_close(z, torch.full_like(z, math.sqrt(5) * (1 - math.sqrt(0.005))), atol=1e-6, rtol=0)
        mapped = deep_linear_ufm_singular_values(
            torch.tensor([5, 5, 5]), torch.tensor([0.05 / 3, 0.1 / 15], dtype=torch.float64)
        )
        torch.testing.assert_close(z, mapped, atol=1e-6, rtol=0)

    def test_stiff_spring_to_first_order(self, generator):
        H0, Y, _ = near_problem(generator)
        W = ridge_classifier(H0, Y, 5 * 0.1)
        gradient = (H0 @ W.T - Y) @ W + 0.2 * H0
        errors = [
            (alternate_ufm(H0, Y, 0.1, 0.2, beta, iters=20)[1] - H0 + gradient / beta).norm() * beta**2
            for beta in (1e3, 1e4, 1e5)
        ]
        assert max(errors) / min(errors) < 1.05

    def test_refuses(self, generator):
        H0, Y, labels = near_problem(generator)
        with pytest.raises(ValueError, match="class means of H0"):
            alternate_ufm(H0 - class_means(H0, labels, 3)[labels], Y, 0.1, 0.1, 0.1)
        with pytest.raises(ValueError, match="lam must be greater than 0"):
            ridge_classifier(H0, Y, 0.0)
        with pytest.raises(ValueError, match=r"lamH \+ beta must be greater than 0"):
            nearby_features(normal(generator, 3, 6), Y, H0, 0.0, 0.0)
        with pytest.raises(ValueError, match="iters must be at least 1"):
            alternate_ufm(H0, Y, 0.1, 0.1, 0.1, iters=0)


class TestCentralPath:
    @pytest.mark.parametrize("lamH", [0.0, 1e-3, 0.05])
    @pytest.mark.parametrize("seed", range(4))
    def test_ratio_of_traces_falls_strictly(self, lamH, seed):
        H0, Y, labels = near_problem(torch.Generator().manual_seed(seed))
        ratios = []
        for H in central_path_flow(H0, Y, 0.05, lamH, 0.0, dt=0.05, steps=300):
            within, between = class_covariances(H, labels, 3)
            ratios.append((within.trace() / between.trace()).item())
        assert all(after < before for before, after in itertools.pairwise(ratios))

    def test_follows_the_gradient_of_the_reduced_objective(self, generator):
        """The envelope theorem: that W moves with H adds nothing."""
        H0, Y, _ = near_problem(generator)

        def reduced(H):
            return objective(ridge_classifier(H, Y, 5 * 0.05), H, Y, H0, 0.05, 0.1, 0.3)

        path = central_path_flow(H0, Y, 0.05, 0.1, 0.3, dt=0.01, steps=2)
        torch.testing.assert_close(path[2], path[1] - 0.01 * len(H0) * torch.func.grad(reduced)(path[1]))

    def test_refuses_a_time_step_that_is_not_positive(self, generator):
        H0, Y, _ = near_problem(generator)
        with pytest.raises(ValueError, match="dt must be greater than 0"):
            central_path_flow(H0, Y, 0.1, 0.1, 0.0, dt=0.0, steps=3)
