"""Facts about linear self-attention under gradient flow (theory/in_context_learning)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlatlas.data.in_context import icl_regression_batch, prompt_tokens
from dlatlas.theory.in_context_learning import gd_step_predictor, optimal_step
from dlatlas.theory.in_context_learning_dynamics import lsa_forward, lsa_gamma, lsa_limit, lsa_population_loss
from tests.examples import Example, Make


def covariance(make: Make, d: int = 3) -> torch.Tensor:
    root = make.normal(d, d)
    return root @ root.mT + torch.eye(d, dtype=make.dtype, device=make.device)


def layer_arguments(make: Make) -> dict:
    E = prompt_tokens(make.normal(4, 6, 3), make.normal(4, 6), make.normal(4, 3))
    return {"E": E, "W_PV": make.normal(4, 4), "W_KQ": make.normal(4, 4), "N": 6}


EXAMPLES = [
    Example(lsa_gamma, lambda make: {"Lam": covariance(make), "N": 8}, differentiable=("Lam",)),
    Example(lsa_forward, layer_arguments, differentiable=("E", "W_PV", "W_KQ")),
    Example(
        lsa_population_loss,
        lambda make: {"u": make.normal(1)[0], "U": make.normal(3, 3), "Lam": covariance(make), "N": 8},
        differentiable=("u", "U", "Lam"),
    ),
    Example(lsa_limit, lambda make: {"Lam": covariance(make), "N": 8}, differentiable=("Lam",)),
    Example(lsa_limit, lambda make: {"Lam": covariance(make), "N": 8, "imbalance": -0.7}, differentiable=("Lam",)),
]

LAM = torch.diag(torch.tensor([2.0, 1, 0.5, 0.25], dtype=torch.float64))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class TestGamma:
    def test_known_values(self):
        expected = torch.diag(torch.tensor([2.71875, 1.59375, 1.03125, 0.75], dtype=torch.float64))
        torch.testing.assert_close(lsa_gamma(LAM, 8), expected)
        assert lsa_gamma(torch.ones(1, 1), 1).item() == 3

    def test_its_inverse_regresses_tasks_on_prompt_moments(self, generator):
        X, y, _, _ = icl_regression_batch(200_000, 8, 4, noise=0, Sig_x=LAM, generator=generator)
        h = (y[:, None] @ X)[:, 0] / 8
        w = torch.linalg.lstsq(X, y[..., None]).solution[..., 0]
        fitted = torch.linalg.lstsq(h, w).solution.double().diag() * lsa_gamma(LAM, 8).diag()
        assert (fitted - 1).abs().max() < 0.02

    def test_is_the_optimal_step_of_isotropic_tasks(self):
        B = optimal_step(8, LAM, torch.eye(4, dtype=torch.float64), 0.0)
        torch.testing.assert_close(B, torch.linalg.inv(8 * lsa_gamma(LAM, 8)))

    def test_refuses(self):
        with pytest.raises(ValueError, match="N must be at least 1"):
            lsa_gamma(LAM, 0)
        with pytest.raises(ValueError, match="smallest eigenvalue of Lam must lie"):
            lsa_gamma(-LAM, 4)


class TestForward:
    def test_is_the_lower_right_entry_of_the_output(self, generator):
        E, W_PV, W_KQ = normal(generator, 4, 7), normal(generator, 4, 4), normal(generator, 4, 4)
        E[-1, -1] = 0
        output = E + W_PV @ E @ (E.mT @ W_KQ @ E) / 6
        torch.testing.assert_close(lsa_forward(E, W_PV, W_KQ, N=6), output[-1, -1])

    def test_the_limit_is_a_preconditioned_step(self, generator):
        X, y, xq = normal(generator, 5, 12, 4), normal(generator, 5, 12), normal(generator, 5, 4)
        expected = gd_step_predictor(X, y, xq, 1 / 12, torch.linalg.inv(lsa_gamma(LAM, 8)))
        torch.testing.assert_close(lsa_forward(prompt_tokens(X, y, xq), *lsa_limit(LAM, 8), N=12), expected)

    def test_one_dimension_one_example(self):
        one = torch.ones(1, 1, dtype=torch.float64)
        E = torch.tensor([[2.0, 5.0], [3.0, 0.0]], dtype=torch.float64)
        assert lsa_forward(E, *lsa_limit(one, 1), N=1).item() == pytest.approx(5 * 3 * 2 / 3)

    def test_divides_by_what_it_is_told(self, generator):
        E = prompt_tokens(normal(generator, 12, 4), normal(generator, 12), normal(generator, 4))
        weights = lsa_limit(LAM, 8)
        torch.testing.assert_close(lsa_forward(E, *weights, N=8), 1.5 * lsa_forward(E, *weights, N=12))

    def test_refuses_a_query_that_holds_its_label(self, generator):
        E = prompt_tokens(normal(generator, 6, 4), normal(generator, 6), normal(generator, 4))
        E[-1, -1] = 0.3
        with pytest.raises(ValueError, match="label slot of the query must lie"):
            lsa_forward(E, *lsa_limit(LAM, 8), N=6)


class TestFlow:
    def test_loss_is_that_of_the_layer(self, generator):
        u, U = torch.tensor(0.7, dtype=torch.float64), 0.3 * normal(generator, 4, 4)
        X, y, xq, yq = icl_regression_batch(200_000, 8, 4, noise=0, Sig_x=LAM, generator=generator)
        W_PV, W_KQ = torch.zeros(5, 5), torch.zeros(5, 5)
        W_PV[-1, -1], W_KQ[:4, :4] = u.float(), U.float().mT
        losses = (lsa_forward(prompt_tokens(X, y, xq), W_PV, W_KQ, N=8) - yq).square() / 2
        expected = lsa_population_loss(u, U, LAM, 8).item()
        assert losses.mean().item() == pytest.approx(expected, abs=5 * (losses.std() / len(losses) ** 0.5).item())

    @settings(deadline=None, max_examples=30)
    @given(N=st.integers(1, 50), imbalance=st.floats(-3, 3))
    def test_the_limit_is_stationary_and_has_the_imbalance(self, N, imbalance):
        W_PV, W_KQ = lsa_limit(LAM, N, imbalance)
        u, U = W_PV[-1, -1], W_KQ[:4, :4].mT
        gradients = torch.func.grad(lsa_population_loss, argnums=(0, 1))(u, U, LAM, N)
        assert max(g.abs().max() for g in gradients) < 1e-10
        assert (u**2 - U.square().sum()).item() == pytest.approx(imbalance, abs=1e-9)

    def test_balanced_limit_is_the_theorem(self):
        inverse = torch.linalg.inv(lsa_gamma(LAM, 8))
        scale = torch.trace(inverse @ inverse) ** 0.25
        W_PV, W_KQ = lsa_limit(LAM, 8)
        torch.testing.assert_close(W_PV[-1, -1], scale)
        torch.testing.assert_close(W_KQ[:4, :4], inverse / scale)
        assert W_PV.count_nonzero() == 1
        assert W_KQ[-1].count_nonzero() == W_KQ[:, -1].count_nonzero() == 0

    def test_the_flow_conserves_the_imbalance(self, generator):
        u, U = normal(generator, 1)[0], normal(generator, 4, 4)
        du, dU = torch.func.grad(lsa_population_loss, argnums=(0, 1))(u, U, LAM, 8)
        torch.testing.assert_close(u * du, (U * dU).sum())
