"""Facts of the surrogate losses: values, limits, bounds, orders, and what is refused."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import inv_boxcox

from dlatlas.classification import surrogate_losses
from dlatlas.classification.surrogate_losses import (
    box_cox_inverse,
    comp_sum_bound_gamma,
    comp_sum_bound_T,
    comp_sum_loss,
    conditional_regret,
    ens_loss,
    ensloss_gradients,
)
from tests.examples import Example

TAUS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)

EXAMPLES = [
    *(
        Example(
            comp_sum_loss,
            lambda make, tau=tau: {
                "logits": make.normal(7, 4),
                "target": make.labels(7, classes=4),
                "tau": tau,
                "reduction": "none",
            },
            differentiable=("logits",),
        )
        for tau in TAUS
    ),
    *(
        Example(
            comp_sum_bound_T,
            lambda make, tau=tau: {"beta": make.uniform(9, low=0.05, high=0.95), "tau": tau, "n_classes": 5},
            differentiable=("beta",),
        )
        for tau in TAUS
    ),
    *(
        Example(
            comp_sum_bound_gamma,
            lambda make, tau=tau: {"t": make.uniform(9, low=0.01, high=0.5), "tau": tau, "n_classes": 3},
        )
        for tau in TAUS
    ),
    *(
        Example(
            conditional_regret,
            lambda make, tau=tau: {"p": make.simplex(6, 4), "q": make.simplex(6, 4), "tau": tau},
            differentiable=("q",),
        )
        for tau in TAUS
    ),
    *(
        Example(
            box_cox_inverse,
            lambda make, lam=lam: {"x": make.uniform(8, low=-0.9, high=0.9), "lam": lam},
            differentiable=("x",),
        )
        for lam in (-1.0, 0.0, 0.5)
    ),
    Example(
        ensloss_gradients,
        lambda make: {"margins": 2 * make.normal(12), "noise": make.normal(12), "lam": 0.3},
    ),
    Example(
        ens_loss,
        lambda make: {
            "scores": 2 * make.normal(12),
            "targets": make.labels(12, classes=2),
            "noise": make.normal(12),
            "lam": -0.4,
        },
        differentiable=("scores",),
    ),
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def dirichlet(n: int, classes: int, concentration: float, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).dirichlet([concentration] * classes, size=n))


class TestCompSumLoss:
    @pytest.mark.parametrize(("tau", "value"), [(0, 3), (0.5, 2), (1, math.log(4)), (1.5, 1), (2, 0.75), (3, 0.46875)])
    def test_values_at_a_quarter(self, tau, value):
        logits = torch.tensor([[0.25, 0.75]], dtype=torch.float64).log()
        torch.testing.assert_close(comp_sum_loss(logits, torch.tensor([0]), tau=tau).item(), float(value))

    def test_definition_in_exponentials_of_score_differences(self):
        logits, target = normal(20, 5), torch.arange(20) % 5
        for tau in TAUS:
            for s, y, loss in zip(
                logits, target, comp_sum_loss(logits, target, tau=tau, reduction="none"), strict=True
            ):
                u = sum(math.exp(s[j] - s[y]) for j in range(5) if j != y)
                expected = math.log1p(u) if tau == 1 else ((1 + u) ** (1 - tau) - 1) / (1 - tau)
                assert loss.item() == pytest.approx(expected, rel=1e-10)

    def test_known_members(self):
        logits, target = normal(50, 6), torch.arange(50) % 6
        p = logits.softmax(-1)[torch.arange(50), target]
        torch.testing.assert_close(comp_sum_loss(logits, target), F.cross_entropy(logits, target))
        torch.testing.assert_close(comp_sum_loss(logits, target, tau=2), (1 - p).mean())
        torch.testing.assert_close(comp_sum_loss(logits, target, tau=0), (1 / p - 1).mean())
        torch.testing.assert_close(comp_sum_loss(logits, target, tau=1.7), ((1 - p**0.7) / 0.7).mean())

    @pytest.mark.parametrize("tau", [1 - 1e-6, 1 + 1e-6])
    def test_continuous_at_cross_entropy(self, tau):
        logits, target = normal(50, 6), torch.arange(50) % 6
        torch.testing.assert_close(
            comp_sum_loss(logits, target, tau=tau), F.cross_entropy(logits, target), atol=1e-5, rtol=0
        )

    def test_keeps_precision_where_the_target_is_almost_certain(self):
        """At p_y = 1 - 1e-12 the loss is 1e-12 for every tau; 1 - p**(tau-1) computed from p would lose four digits."""
        logits = torch.tensor([[0.0, math.log(1e-12)]], dtype=torch.float64)
        for tau in TAUS:
            assert comp_sum_loss(logits, torch.tensor([0]), tau=tau).item() == pytest.approx(1e-12, rel=1e-9)

    def test_gradient_is_cross_entropy_weighted_by_a_power_of_the_probability(self):
        logits, target = normal(8, 4).requires_grad_(), torch.arange(8) % 4
        p = logits.softmax(-1)[torch.arange(8), target].detach()
        for tau in TAUS:
            (gradient,) = torch.autograd.grad(comp_sum_loss(logits, target, tau=tau, reduction="sum"), logits)
            (plain,) = torch.autograd.grad(F.cross_entropy(logits, target, reduction="sum"), logits)
            torch.testing.assert_close(gradient, p[:, None] ** (tau - 1) * plain)

    def test_refuses(self):
        logits, target = normal(4, 3), torch.tensor([0, 1, 2, 0])
        with pytest.raises(ValueError, match="tau must be at least 0"):
            comp_sum_loss(logits, target, tau=-0.1)
        with pytest.raises(ValueError, match=r"target must lie in \[0, 2\], got 3"):
            comp_sum_loss(logits, target + 1)
        with pytest.raises(ValueError, match="pass scores, not their softmax"):
            comp_sum_loss(logits.softmax(-1), target)
        with pytest.raises(ValueError, match="number of classes must be at least 2"):
            comp_sum_loss(logits[:, :1], torch.zeros(4, dtype=torch.long))
        with pytest.raises(ValueError, match="reduction must be one of"):
            comp_sum_loss(logits, target, reduction="average")


class TestBound:
    @pytest.mark.parametrize(
        ("tau", "classes", "value"), [(1, 4, 0.130812), (0, 4, 0.133975), (1.5, 4, 0.118034), (2, 4, 0.125)]
    )
    def test_values_at_one_half(self, tau, classes, value):
        half = torch.tensor(0.5, dtype=torch.float64)
        assert comp_sum_bound_T(half, tau, classes).item() == pytest.approx(value, abs=5e-7)

    @pytest.mark.parametrize("tau", TAUS)
    @pytest.mark.parametrize("classes", [2, 4, 10])
    def test_gamma_inverts_T(self, tau, classes):
        beta = torch.linspace(0, 1, 101, dtype=torch.float64)
        back = comp_sum_bound_gamma(comp_sum_bound_T(beta, tau, classes), tau, classes)
        torch.testing.assert_close(back, beta, atol=1e-8, rtol=0)

    def test_gamma_is_one_beyond_the_range_of_T(self):
        assert comp_sum_bound_gamma(torch.tensor([5.0], dtype=torch.float64), 1.0, 3).item() == pytest.approx(1)

    @pytest.mark.parametrize("tau", [1 - 1e-6, 1 + 1e-6])
    def test_continuous_at_cross_entropy(self, tau):
        beta = torch.linspace(0, 1, 51, dtype=torch.float64)
        torch.testing.assert_close(comp_sum_bound_T(beta, tau, 7), comp_sum_bound_T(beta, 1.0, 7), atol=1e-5, rtol=0)

    def test_cross_entropy_bound_is_a_divergence(self):
        """T_1(beta) is the Kullback-Leibler divergence of ((1 + beta)/2, (1 - beta)/2) from a fair coin."""
        for beta in (0.0, 0.3, 1.0):
            expected = stats.entropy([(1 + beta) / 2, (1 - beta) / 2], [0.5, 0.5])
            assert comp_sum_bound_T(torch.tensor(beta, dtype=torch.float64), 1, 2).item() == pytest.approx(expected)

    @pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.5, 1.9, 2.0, 3.0])
    @pytest.mark.parametrize("classes", [2, 10])
    def test_simple_upper_bounds(self, tau, classes):
        t = torch.linspace(0, 1, 200, dtype=torch.float64) * comp_sum_bound_T(
            torch.ones((), dtype=torch.float64), tau, classes
        )
        if tau < 1:
            simple = (2**tau * (2 - tau) * t).sqrt()
        elif tau < 2:
            simple = (2 * classes ** (tau - 1) * t).sqrt()
        else:
            simple = (tau - 1) * classes ** (tau - 1) * t
        assert (comp_sum_bound_gamma(t, tau, classes) <= simple + 1e-9).all()

    @pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.5, 2.0])
    def test_T_is_the_smallest_regret_with_two_classes(self, tau):
        """With labels at (1 + beta)/2 and a model that cannot tell, zero-one regret beta costs just T(beta)."""
        beta = torch.linspace(0.01, 1, 30, dtype=torch.float64)
        p = torch.stack([(1 - beta) / 2, (1 + beta) / 2], -1)
        q = torch.full_like(p, 0.5)  # ties go to class 0, the wrong one
        zero_one, surrogate = conditional_regret(p, q, tau)
        torch.testing.assert_close(zero_one, beta)
        torch.testing.assert_close(surrogate, comp_sum_bound_T(beta, tau, 2), atol=1e-12, rtol=1e-9)

    @pytest.mark.parametrize("classes", [3, 4, 10])
    def test_mae_bound_is_attained_with_many_classes(self, classes):
        """With q uniform and the mass of p spread over all but one class, the regret of MAE is beta / n."""
        beta = 0.5 / (classes - 1)
        p = torch.full((1, classes), (1 + beta) / classes, dtype=torch.float64)
        p[0, 0] -= beta
        zero_one, surrogate = conditional_regret(p, torch.full_like(p, 1 / classes), 2)
        torch.testing.assert_close(zero_one.item(), beta)
        torch.testing.assert_close(surrogate.item(), beta / classes)

    @settings(max_examples=60, deadline=None)
    @given(
        classes=st.integers(2, 8),
        tau=st.floats(0, 3),
        concentration=st.sampled_from([0.2, 1.0, 20.0]),
        seed=st.integers(0, 2**16),
    )
    def test_bound_holds_for_every_pair(self, classes, tau, concentration, seed):
        p, q = dirichlet(200, classes, 1.0, seed), dirichlet(200, classes, concentration, seed + 1).clamp_min(1e-12)
        zero_one, surrogate = conditional_regret(p, q / q.sum(-1, keepdim=True), tau)
        assert (zero_one <= comp_sum_bound_gamma(surrogate.clamp_min(0), tau, classes) + 1e-6).all()

    def test_refuses(self):
        one = torch.ones((), dtype=torch.float64)
        with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\], got 1.5"):
            comp_sum_bound_T(1.5 * one, 1, 3)
        with pytest.raises(ValueError, match="t must lie in"):
            comp_sum_bound_gamma(-one, 1, 3)
        with pytest.raises(ValueError, match="tau must be at least 0"):
            comp_sum_bound_gamma(one, -1, 3)
        with pytest.raises(ValueError, match="number of classes"):
            comp_sum_bound_T(one / 2, 1, 1)


class TestConditionalRegret:
    @pytest.mark.parametrize("tau", TAUS)
    def test_bayes_risk_is_the_infimum(self, tau):
        """No member of a fine cloud of predictions beats the closed form, and the best comes close."""
        p = dirichlet(5, 3, 2.0, seed=1)
        q = dirichlet(60_000, 3, 0.6, seed=2).clamp_min(1e-9)
        q = torch.cat([q / q.sum(-1, keepdim=True), *(_near_vertex(k) for k in range(3))])
        for row in p:
            _, surrogate = conditional_regret(row.expand_as(q), q, tau)
            assert surrogate.min() > -1e-9
            assert surrogate.min() < 2e-3

    def test_cross_entropy_regret_is_kullback_leibler(self):
        p, q = dirichlet(50, 4, 1.0, seed=3), dirichlet(50, 4, 1.0, seed=4)
        torch.testing.assert_close(conditional_regret(p, q)[1], F.kl_div(q.log(), p, reduction="none").sum(-1))

    def test_zero_one_regret(self):
        p = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
        q = torch.tensor([[0.2, 0.2, 0.6]], dtype=torch.float64)
        torch.testing.assert_close(conditional_regret(p, q)[0].item(), 0.3)

    def test_refuses_rows_that_are_no_probabilities(self):
        p = dirichlet(5, 3, 1.0, seed=0)
        with pytest.raises(ValueError, match="the sum of a row of q"):
            conditional_regret(p, p / 2)
        with pytest.raises(ValueError, match=r"p must lie in \[0, 1\]"):
            conditional_regret(p - 1, p)


def _near_vertex(k: int) -> torch.Tensor:
    q = torch.full((1, 3), 1e-9, dtype=torch.float64)
    q[0, k] = 1 - 2e-9
    return q


class TestBoxCox:
    def test_against_scipy(self):
        x = torch.linspace(-0.9, 0.9, 19, dtype=torch.float64)
        for lam in (-1.0, -0.5, 0.0, 0.25, 1.0):
            torch.testing.assert_close(box_cox_inverse(x, lam), torch.from_numpy(inv_boxcox(x.numpy(), lam)))

    def test_beyond_the_domain(self):
        x = torch.tensor([-3.0, 3.0], dtype=torch.float64)
        assert box_cox_inverse(x, 1.0).tolist() == [0.0, 4.0]
        assert box_cox_inverse(x, -1.0).tolist() == [0.25, math.inf]

    def test_continuous_at_zero(self):
        x = normal(100)
        torch.testing.assert_close(box_cox_inverse(x, 1e-7), x.exp(), rtol=1e-5, atol=0)

    def test_exponent_may_be_a_mapped_tensor(self):
        x, lams = normal(5).clamp(-0.9, 0.9), torch.tensor([-1.0, 0.0, 0.7], dtype=torch.float64)
        together = torch.vmap(box_cox_inverse, in_dims=(None, 0))(x, lams)
        torch.testing.assert_close(together, torch.stack([box_cox_inverse(x, lam.item()) for lam in lams]))


class TestEnsLoss:
    @settings(max_examples=50, deadline=None)
    @given(lam=st.floats(-1, 1), seed=st.integers(0, 2**16), scale=st.sampled_from([0.1, 1.0, 10.0]))
    def test_is_the_derivative_of_a_convex_calibrated_loss(self, lam, seed, scale):
        """Non-decreasing in the margin (the tail included), negative, and never steeper than the clip."""
        z = scale * normal(40, seed=seed)
        g = ensloss_gradients(z, normal(40, seed=seed + 1), lam=lam)
        assert (g[z.argsort()].diff() >= 0).all()
        assert (g < 0).all()
        assert (g >= -1 - 1e-5).all()

    def test_permuting_the_batch_permutes_the_derivatives(self):
        z, noise, order = normal(30), normal(30, seed=1), torch.randperm(30, generator=generator(2))
        torch.testing.assert_close(ensloss_gradients(z[order], noise), ensloss_gradients(z, noise)[order])

    def test_tail_beyond_one(self):
        """With all derivatives clipped to -1 only the tail is left: -1 up to margin 1, then -1/z."""
        z = torch.tensor([-2.0, 0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
        g = ensloss_gradients(z, torch.full_like(z, 5.0))
        torch.testing.assert_close(g, torch.tensor([-1, -1, -1, -0.5, -0.25], dtype=torch.float64) - 1e-6)

    def test_gradient_of_the_loss(self):
        scores, targets, noise = normal(16).requires_grad_(), torch.arange(16) % 2, normal(16, seed=1)
        (gradient,) = torch.autograd.grad(ens_loss(scores, targets, noise), scores)
        sign = 2 * targets - 1
        torch.testing.assert_close(gradient, sign * ensloss_gradients(sign * scores.detach(), noise) / 16)

    def test_with_the_logistic_derivative_the_step_is_the_logistic_step(self, monkeypatch):
        scores, targets = normal(16).requires_grad_(), torch.arange(16) % 2
        monkeypatch.setattr(surrogate_losses, "ensloss_gradients", lambda z, noise, lam: -torch.sigmoid(-z.detach()))
        (gradient,) = torch.autograd.grad(ens_loss(scores, targets, normal(16)), scores)
        expected = F.binary_cross_entropy_with_logits(scores, targets.double())
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, scores)[0])

    def test_refuses(self):
        scores, targets, noise = normal(6), torch.tensor([0, 1, 0, 1, 0, 1]), normal(6, seed=1)
        with pytest.raises(ValueError, match=r"targets must lie in \[0, 1\], got -1"):
            ens_loss(scores, 2 * targets - 1, noise)
        with pytest.raises(ValueError, match="batch size must be at least 2"):
            ens_loss(scores[:1], targets[:1], noise[:1])
        with pytest.raises(ValueError, match=r"labels must be -1 and \+1"):
            ensloss_gradients(scores * targets, noise)
        with pytest.raises(ValueError, match="clip must be greater than 0"):
            ensloss_gradients(scores, noise, clip=0)
