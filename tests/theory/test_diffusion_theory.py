"""Facts that score estimation as regression must satisfy."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlatlas.theory.diffusion_theory import (
    dsm_regression_set,
    gmm_posterior_mean,
    mean_from_score,
    mixture_posterior,
    ou_coeffs,
    score_from_mean,
)
from tests.examples import Example, Make


def law(make: Make, K: int = 3, d: int = 2) -> dict:
    root = make.normal(K, d, d)
    return {"means": make.normal(K, d), "covs": root @ root.mT, "weights": make.simplex(K)}


EXAMPLES = [
    Example(ou_coeffs, lambda make: {"t": make.uniform(5, low=0.1)}, differentiable=("t",)),
    Example(
        score_from_mean,
        lambda make: {"mean": make.normal(4, 2), "x": make.normal(4, 2), "t": make.uniform(4, low=0.1)},
        differentiable=("mean", "x", "t"),
    ),
    Example(
        mean_from_score,
        lambda make: {"score": make.normal(4, 2), "x": make.normal(4, 2), "t": make.uniform(4, low=0.1)},
        differentiable=("score", "x", "t"),
    ),
    Example(
        dsm_regression_set,
        lambda make: {"x0": make.normal(5, 2), "u": make.uniform(5), "z": make.normal(5, 2)},
        differentiable=("x0", "u", "z"),
    ),
    Example(
        mixture_posterior,
        lambda make: {"x": make.normal(4, 2), "s": make.uniform(4), "g": make.uniform(4, low=0.3), **law(make)},
        differentiable=("x", "s", "g", "means", "weights"),
    ),
    Example(
        gmm_posterior_mean,
        lambda make: {"x": make.normal(4, 2), "t": make.uniform(4, low=0.3), **law(make)},
        differentiable=("x", "t", "means", "weights"),
    ),
]


def example(function, seed=0):
    make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(seed))
    return next(e for e in EXAMPLES if e.function is function).arguments(make)


class TestIdentities:
    def test_coefficients_solve_the_equation(self):
        t = torch.tensor([0.01, 0.5, 3.0], dtype=torch.float64)
        a, h = ou_coeffs(t)
        torch.testing.assert_close(a**2 + h, torch.ones_like(t))
        torch.testing.assert_close(a, (-t / 2).exp())

    @given(st.integers(0, 10_000), st.floats(0.06, 0.9))
    @settings(max_examples=20, deadline=None)
    def test_loss_identity(self, seed, T0):
        g = torch.Generator().manual_seed(seed)
        x0, z, f = torch.randn(3, 7, 2, generator=g, dtype=torch.float64)
        t, x, w = dsm_regression_set(x0, torch.rand(7, generator=g, dtype=torch.float64), z, T0=T0)
        a, h = (v[:, None] for v in ou_coeffs(t))
        conditional = -(x - a * x0) / h
        left = (score_from_mean(f, x, t) - conditional).square().sum(1)
        torch.testing.assert_close(left, w * (f - x0).square().sum(1))
        assert t.min() >= T0
        assert t.max() <= 1.0
        torch.testing.assert_close(mean_from_score(score_from_mean(f, x, t), x, t), f)

    def test_single_gaussian(self):
        x, t = torch.randn(5, 3, dtype=torch.float64), torch.rand(5, dtype=torch.float64) + 0.1
        a, h = (v[:, None] for v in ou_coeffs(t))
        covs = 0.6 * torch.eye(3, dtype=x.dtype)[None]
        mean = gmm_posterior_mean(x, t, torch.zeros(1, 3, dtype=x.dtype), covs, torch.ones(1, dtype=x.dtype))
        torch.testing.assert_close(mean, 0.6 * a * x / (0.6 * a**2 + h))
        torch.testing.assert_close(score_from_mean(mean, x, t), -x / (0.6 * a**2 + h))

    def test_score_is_the_gradient_of_the_log_density(self):
        given = example(gmm_posterior_mean)
        a, h = ou_coeffs(given["t"])

        def log_density(x):
            total = (a**2)[:, None, None, None] * given["covs"] + h[:, None, None, None] * torch.eye(2)
            normal = torch.distributions.MultivariateNormal(a[:, None, None] * given["means"], total)
            return torch.logsumexp(given["weights"].log() + normal.log_prob(x[:, None]), 1).sum()

        x = given["x"].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(log_density(x), x)
        torch.testing.assert_close(score_from_mean(gmm_posterior_mean(**given), given["x"], given["t"]), gradient)


class TestPosterior:
    def test_moments_are_those_of_the_memorised_points(self):
        x0 = torch.randn(6, 2, dtype=torch.float64)
        x, s, g = torch.randn(3, 2, dtype=x0.dtype), torch.full((3,), 0.7).double(), torch.full((3,), 0.4).double()
        mean, trace = mixture_posterior(x, s, g, x0, torch.zeros(6, 2, 2).double(), torch.full((6,), 1 / 6).double())
        p = (-(x[:, None] - 0.7 * x0).square().sum(-1) / (2 * 0.16)).softmax(1)
        torch.testing.assert_close(mean, p @ x0)
        torch.testing.assert_close(trace, p @ x0.square().sum(1) - (p @ x0).square().sum(1))

    def test_trace_is_the_derivative_of_the_mean(self):
        given = example(mixture_posterior)

        def mean_of(x):
            return mixture_posterior(
                x[None], *(given[k][:1] for k in "sg"), given["means"], given["covs"], given["weights"]
            )[0][0]

        J = torch.func.jacrev(mean_of)(given["x"][0])
        _, trace = mixture_posterior(**given)
        torch.testing.assert_close(J.trace() * given["g"][0] ** 2 / given["s"][0], trace[0])

    def test_refuses_bad_input(self):
        given = example(mixture_posterior)
        with pytest.raises(ValueError, match="g must lie"):
            mixture_posterior(**{**given, "g": torch.zeros(4).double()})
        with pytest.raises(ValueError, match="covs"):
            mixture_posterior(**{**given, "covs": -given["covs"]})


@pytest.mark.parametrize("t", [0.0, -1.0])
def test_no_time_without_noise(t):
    with pytest.raises(ValueError, match="t must lie"):
        ou_coeffs(torch.tensor([t]))


def test_data_must_have_the_scale_of_the_noise():
    u, z = torch.rand(20), torch.randn(20, 2)
    with pytest.raises(ValueError, match="mean of x0"):
        dsm_regression_set(torch.randn(20, 2) + 50, u, z)
    with pytest.raises(ValueError, match="root mean square"):
        dsm_regression_set(100 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(10, 1), u, z)
    with pytest.raises(ValueError, match="T0"):
        dsm_regression_set(torch.randn(20, 2), u, z, T0=0.0)
