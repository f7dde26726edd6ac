"""Facts of the kernel regression that a wide denoiser does."""

import math

import pytest
import torch

from dlatlas.models.score import denoiser_input
from dlatlas.ops.kernels import kernel_flow
from dlatlas.theory.diffusion_theory_kernel import (
    denoiser_ntk,
    descent_smoother,
    predicted_risk,
    rademacher_stopping_step,
    weighted_descent,
)
from tests.examples import Example, Make


def descent(make: Make) -> dict:
    x, x_test = make.normal(6, 4), make.normal(3, 4)
    K = x @ x.mT + torch.eye(6, dtype=make.dtype, device=make.device)
    w = make.uniform(6, low=0.5, high=1.5)
    return {"K_train": K, "K_test": x_test @ x.mT, "w": w, "eta": 1e-2, "steps": [0, 3, 20]}


EXAMPLES = [
    Example(denoiser_ntk, lambda make: {"z1": make.normal(4, 3), "z2": make.normal(5, 3)}, differentiable=("z1", "z2")),
    Example(
        weighted_descent,
        lambda make: {**descent(make), "y": make.normal(6, 2)},
        differentiable=("K_train", "K_test", "w", "y"),
    ),
    Example(descent_smoother, descent, differentiable=("K_train", "K_test", "w")),
    Example(
        predicted_risk,
        lambda make: {
            "A": make.normal(2, 3, 5),
            "target": make.normal(5, 2),
            "target_test": make.normal(3, 2),
            "noise": make.uniform(5),
        },
        differentiable=("A", "target", "target_test", "noise"),
    ),
    Example(
        rademacher_stopping_step,
        lambda make: {"eigenvalues": make.uniform(8), "sigma": 0.5, "eta": 0.1, "largest": 200},
    ),
]


def example(function, seed=0):
    make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(seed))
    return next(e for e in EXAMPLES if e.function is function).arguments(make)


class TestKernelDescent:
    def test_kernel_is_the_mean_over_units(self):
        g = torch.Generator().manual_seed(0)
        z = denoiser_input(torch.rand(4, generator=g), torch.randn(4, 2, generator=g), radius=1.0).double()
        w = torch.randn(400_000, 4, generator=g, dtype=torch.float64)
        active = (z @ w.mT > 0).double()
        torch.testing.assert_close(denoiser_ntk(z, z), z @ z.mT * (active @ active.mT) / len(w), atol=0.02, rtol=0)

    def test_is_the_loop(self):
        given = example(weighted_descent)
        f, f_test = torch.zeros(6, 2).double(), torch.zeros(3, 2).double()
        seen = []
        for k in range(21):
            if k in given["steps"]:
                seen.append(f_test)
            pull = given["w"][:, None] * (f - given["y"])
            f, f_test = f - 1e-2 * given["K_train"] @ pull, f_test - 1e-2 * given["K_test"] @ pull
        torch.testing.assert_close(weighted_descent(**given), torch.stack(seen))

    def test_limits_are_zero_flow_and_interpolation(self):
        given = example(weighted_descent)
        small = weighted_descent(**{**given, "eta": 1e-6, "steps": [0, 2_000_000, 10**9]})
        assert small[0].abs().max() == 0
        zero = torch.zeros(6, 2).double(), torch.zeros(3, 2).double()
        root = given["w"].sqrt()
        weighted = root[:, None] * given["K_train"] * root, given["K_test"] * root, root[:, None] * given["y"]
        torch.testing.assert_close(small[1], kernel_flow(*weighted, *zero, 2e6, eta=1e-6)[1], atol=1e-4, rtol=1e-4)
        exact = given["K_test"] @ torch.linalg.solve(given["K_train"], given["y"])
        torch.testing.assert_close(small[2], exact, atol=1e-6, rtol=1e-6)

    def test_smoother_and_risk(self):
        given = example(weighted_descent)
        y = given.pop("y")
        A = descent_smoother(**given)
        torch.testing.assert_close(A @ y, weighted_descent(**given, y=y))
        noise = torch.linspace(0.1, 0.6, 6).double()
        bias, variance = predicted_risk(A, y, torch.zeros(3, 2).double(), noise)
        g = torch.Generator().manual_seed(0)
        labels = y + (noise / 2).sqrt()[:, None] * torch.randn(40_000, 6, 2, generator=g, dtype=torch.float64)
        sampled = torch.einsum("mn,rnd->rmd", A[2], labels).square().sum(-1).mean(0)
        torch.testing.assert_close((bias + variance)[2], sampled, rtol=0.03, atol=1e-4)

    def test_refuses_an_unstable_rate(self):
        given = example(weighted_descent)
        with pytest.raises(ValueError, match="eta times the largest"):
            weighted_descent(**{**given, "eta": 10.0})


class TestStopping:
    def test_is_the_definition(self):
        eigenvalues = torch.tensor([4.0, 1.0, 0.2, 0.01], dtype=torch.float64)
        sigma, eta, n = 0.3, 0.02, 4
        last = 0
        for k in range(1, 500):
            time = eta * n * k
            complexity = math.sqrt(sum(min(v / n, 1 / time) for v in eigenvalues.tolist()) / n)
            if complexity <= 1 / (2 * math.e * sigma * time):
                last = k
        assert 1 < last < 499
        got = rademacher_stopping_step(eigenvalues, sigma=sigma, eta=eta, largest=500)
        assert got.item() == last

    def test_more_noise_stops_earlier(self):
        eigenvalues = torch.logspace(1, -3, 20, dtype=torch.float64)
        steps = [rademacher_stopping_step(eigenvalues, sigma=s, eta=0.01, largest=5000).item() for s in (0.1, 0.3, 1.0)]
        assert steps[0] > steps[1] > steps[2]
