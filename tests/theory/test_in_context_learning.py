"""Facts that the methods of theory/in_context_learning must satisfy: the optimal step and its risk."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from dlatlas.data.in_context import icl_regression_batch
from dlatlas.models.in_context import LinearSelfAttention
from dlatlas.theory.in_context_learning import (
    gd_step_predictor,
    one_step_risk_limit,
    optimal_eta,
    optimal_step,
    ridge_predictor,
    ridge_risk_limit,
    step_risk,
)
from tests.examples import Example, Make


def covariance(make: Make, d: int = 3) -> torch.Tensor:
    root = make.normal(d, d)
    return root @ root.mT + torch.eye(d, dtype=make.dtype, device=make.device)


def prompt(make: Make) -> dict:
    return {"X": make.normal(4, 6, 3), "y": make.normal(4, 6), "xq": make.normal(4, 3)}


def task(make: Make) -> dict:
    return {"n": 5, "Sig_x": covariance(make), "Sig_w": covariance(make), "s2": 0.3}


EXAMPLES = [
    Example(optimal_eta, lambda make: {"n": 10, "d": 5, "s2": 0.25}, vmap=False),
    Example(gd_step_predictor, lambda make: {**prompt(make), "eta": 0.1}, differentiable=("X", "y", "xq")),
    Example(
        gd_step_predictor,
        lambda make: {**prompt(make), "eta": 0.1, "precond": covariance(make)},
        differentiable=("X", "y", "xq", "precond"),
    ),
    Example(ridge_predictor, lambda make: {**prompt(make), "lam": 0.4}, differentiable=("X", "y", "xq")),
    Example(optimal_step, task, differentiable=("Sig_x", "Sig_w")),
    Example(
        step_risk,
        lambda make: {"B": make.normal(3, 3), **task(make), "Sig_query": covariance(make)},
        differentiable=("B", "Sig_x", "Sig_w", "Sig_query"),
    ),
    Example(
        one_step_risk_limit,
        lambda make: {"gamma": make.uniform(4, low=0.1, high=3), "rho": 0.1},
        differentiable=("gamma",),
    ),
    Example(
        ridge_risk_limit,
        lambda make: {"gamma": make.uniform(4, low=0.1, high=3), "rho": 0.1},
        differentiable=("gamma",),
    ),
]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def random_covariance(generator, d=3):
    root = normal(generator, d, d)
    return root @ root.mT / d + 0.3 * torch.eye(d, dtype=torch.float64)


def identity(d):
    return torch.eye(d, dtype=torch.float64)


class TestOptimalStep:
    def test_known_values(self):
        eta = optimal_eta(10, 5, 0.25)
        assert eta == pytest.approx(1 / 16.25)
        risk = step_risk(eta * identity(5), 10, identity(5), identity(5), 0.25)
        assert risk.item() == pytest.approx(5.25 - 50 / 16.25)
        assert risk.item() == pytest.approx(2.173077, abs=1e-6)

    def test_isotropic_prompts_give_a_multiple_of_the_identity(self):
        B = optimal_step(10, identity(5), identity(5), 0.25)
        torch.testing.assert_close(B, optimal_eta(10, 5, 0.25) * identity(5))

    def test_tasks_that_undo_the_covariance_give_the_inverse_with_the_same_rate(self, generator):
        Sig = random_covariance(generator)
        inverse = torch.linalg.inv(Sig)
        torch.testing.assert_close(optimal_step(7, Sig, inverse, 0.5), optimal_eta(7, 3, 0.5) * inverse)

    @settings(deadline=None, max_examples=30)
    @given(seed=st.integers(0, 1000), n=st.integers(1, 30), s2=st.floats(0, 3))
    def test_the_gradient_of_the_risk_vanishes_there(self, seed, n, s2):
        generator = torch.Generator().manual_seed(seed)
        Sig_x, Sig_w = random_covariance(generator), random_covariance(generator)
        B = optimal_step(n, Sig_x, Sig_w, s2)
        gradient = torch.func.grad(step_risk)(B, n, Sig_x, Sig_w, s2)
        assert gradient.abs().max() < 1e-8 * n * (1 + s2)

    def test_risk_is_the_mean_squared_error_of_prompts(self, generator):
        Sig_x, Sig_w = random_covariance(generator), random_covariance(generator)
        B = 0.05 * normal(generator, 3, 3)
        X, y, xq, yq = icl_regression_batch(200_000, 6, 3, noise=0.4, Sig_x=Sig_x, Sig_w=Sig_w, generator=generator)
        errors = (gd_step_predictor(X, y, xq, 1.0, B.float()) - yq).square()
        expected = step_risk(B, 6, Sig_x, Sig_w, 0.4).item()
        assert errors.mean().item() == pytest.approx(expected, abs=5 * (errors.std() / len(errors) ** 0.5).item())

    def test_risk_with_a_shifted_query(self, generator):
        Sig_x, Sig_w, Sig_query = (random_covariance(generator) for _ in range(3))
        B = 0.05 * normal(generator, 3, 3)
        X, y, xq, _ = icl_regression_batch(200_000, 6, 3, noise=0, Sig_x=Sig_x, Sig_w=Sig_w, generator=generator)
        w = torch.linalg.lstsq(X, y[..., None]).solution[..., 0]
        xq = torch.randn(len(X), 3, generator=generator) @ torch.linalg.cholesky(Sig_query).float().mT
        errors = (gd_step_predictor(X, y, xq, 1.0, B.float()) - (xq * w).sum(-1)).square()
        expected = step_risk(B, 6, Sig_x, Sig_w, 0.0, Sig_query).item()
        assert errors.mean().item() == pytest.approx(expected, abs=5 * (errors.std() / len(errors) ** 0.5).item())

    def test_refuses(self):
        with pytest.raises(ValueError, match="n must be at least 1"):
            optimal_eta(0, 5, 0.1)
        with pytest.raises(ValueError, match="s2 must be at least 0"):
            optimal_eta(3, 5, -0.1)
        with pytest.raises(ValueError, match="smallest eigenvalue of Sig_x must lie"):
            optimal_step(3, -identity(2), identity(2), 0.1)
        with pytest.raises(ValueError, match="smallest eigenvalue of Sig_w must lie"):
            step_risk(identity(2), 3, identity(2), torch.zeros(2, 2, dtype=torch.float64), 0.1)
        with pytest.raises(ValueError, match="s2 must lie"):
            optimal_step(3, identity(2), identity(2), -0.1)


class TestPredictors:
    def test_the_layer_of_the_theorem_is_one_step(self, generator):
        layer = LinearSelfAttention(3).double()
        with torch.no_grad():
            layer.u.copy_(torch.eye(4)[3])
            layer.M.copy_(0.07 * torch.diag(torch.tensor([1.0, 1, 1, 0])))
        X, y, xq = normal(generator, 5, 8, 3), normal(generator, 5, 8), normal(generator, 5, 3)
        torch.testing.assert_close(layer(X, y, xq), gd_step_predictor(X, y, xq, 0.07))

    def test_one_step_is_the_gradient(self, generator):
        X, y, xq = normal(generator, 8, 3), normal(generator, 8), normal(generator, 3)
        gradient = torch.func.grad(lambda w: (X @ w - y).square().sum() / 2)(torch.zeros(3, dtype=torch.float64))
        torch.testing.assert_close(gd_step_predictor(X, y, xq, 0.07), -0.07 * gradient @ xq)

    def test_a_rotation_of_all_inputs_changes_nothing(self, generator):
        X, y, xq = normal(generator, 5, 8, 3), normal(generator, 5, 8), normal(generator, 5, 3)
        Q = torch.linalg.qr(normal(generator, 3, 3)).Q
        torch.testing.assert_close(gd_step_predictor(X @ Q, y, xq @ Q, 0.07), gd_step_predictor(X, y, xq, 0.07))
        torch.testing.assert_close(ridge_predictor(X @ Q, y, xq @ Q, 0.3), ridge_predictor(X, y, xq, 0.3))

    def test_ridge_without_penalty_interpolates(self, generator):
        X, w, xq = normal(generator, 8, 3), normal(generator, 3), normal(generator, 3)
        torch.testing.assert_close(ridge_predictor(X, X @ w, xq, 1e-12), xq @ w)

    def test_ridge_with_a_large_penalty_is_one_step(self, generator):
        X, y, xq = normal(generator, 5, 8, 3), normal(generator, 5, 8), normal(generator, 5, 3)
        torch.testing.assert_close(1e9 * ridge_predictor(X, y, xq, 1e9), gd_step_predictor(X, y, xq, 1.0))

    def test_refuses(self, generator):
        X, y, xq = normal(generator, 8, 3), normal(generator, 8), normal(generator, 3)
        with pytest.raises(TypeCheckError):
            gd_step_predictor(X, y[:-1], xq, 0.1)
        with pytest.raises(ValueError, match="lam must be greater than 0"):
            ridge_predictor(X, y, xq, 0.0)


class TestLimits:
    @pytest.mark.parametrize("gamma", [0.5, 2.0, 6.0])
    def test_one_step_at_a_large_dimension(self, gamma):
        d, rho = 4000, 0.05
        n, s2 = int(gamma * d), rho * d
        exact = (d + s2 - n * d * optimal_eta(n, d, s2)) / d
        limit = one_step_risk_limit(torch.tensor(gamma, dtype=torch.float64), rho)
        assert limit.item() == pytest.approx(exact, abs=1e-3)

    @pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
    def test_ridge_at_a_large_dimension(self, gamma, generator):
        d, rho = 600, 0.05
        X = normal(generator, int(gamma * d), d)
        trace = torch.linalg.inv(X.mT @ X / d + rho * identity(d)).trace() / d
        limit = ridge_risk_limit(torch.tensor(gamma, dtype=torch.float64), rho)
        assert limit.item() == pytest.approx(rho + rho * trace.item(), rel=0.01)

    def test_ridge_is_never_worse(self):
        gamma = torch.linspace(0, 20, 200, dtype=torch.float64)
        assert (ridge_risk_limit(gamma, 0.1) <= one_step_risk_limit(gamma, 0.1) + 1e-12).all()

    def test_refuses(self):
        with pytest.raises(ValueError, match="gamma must lie"):
            one_step_risk_limit(torch.tensor(-1.0), 0.1)
        with pytest.raises(ValueError, match="rho must be greater than 0"):
            ridge_risk_limit(torch.tensor(1.0), 0.0)
