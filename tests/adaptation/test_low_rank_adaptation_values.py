"""Facts about SVFit and SALT."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlatlas.adaptation.low_rank_adaptation import adapt, trainable_parameters
from dlatlas.adaptation.low_rank_adaptation_svd import singular_vectors, svd_split
from dlatlas.adaptation.low_rank_adaptation_values import SALT, SVFit, rank_for_energy, salt_weight, svfit_best_fit
from tests.examples import Example, Make


def salt_arguments(make: Make, **extra) -> dict:
    return {
        "U": make.normal(5, 4),
        "s": make.uniform(4, low=0.5, high=2.0),
        "Vt": make.normal(4, 6),
        "a": make.normal(3),
        "c": make.normal(3),
        "X": make.normal(1, 2),
        "Y": make.normal(2, 1),
        **extra,
    }


SALT_TENSORS = ("U", "s", "Vt", "a", "c", "X", "Y")
EXAMPLES = [
    Example(rank_for_energy, lambda make: {"s": make.uniform(5).sort(descending=True).values}, vmap=False),
    Example(
        svfit_best_fit,
        lambda make: {"W": make.normal(5, 4), "W_target": make.normal(5, 4), "r": 3},
        differentiable=("W", "W_target"),
    ),
    Example(salt_weight, salt_arguments, differentiable=SALT_TENSORS),
    Example(salt_weight, lambda make: salt_arguments(make, relu=False), differentiable=SALT_TENSORS),
]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


class TestRankForEnergy:
    @pytest.mark.parametrize(("keep", "rank"), [(0.5, 1), (0.64, 1), (0.65, 2), (0.99, 2), (0.995, 3), (1.0, 3)])
    def test_counts_squares(self, keep, rank):
        # Squares 64, 35, 1: shares 0.64, 0.99, 1 (tested on either side of the steps, not on them).
        s = doubles(64.2, 35, 0.8).sqrt()
        assert rank_for_energy(s, keep=keep) == rank

    def test_zeros_at_the_end_hold_nothing(self):
        assert rank_for_energy(doubles(2, 1, 0, 0), keep=1.0) == 2

    def test_refuses(self):
        for keep in (0.0, 1.1):
            with pytest.raises(ValueError, match="keep must"):
                rank_for_energy(doubles(2, 1), keep=keep)
        with pytest.raises(ValueError, match="largest of s"):
            rank_for_energy(doubles(0, 0))
        with pytest.raises(ValueError, match="step down"):
            rank_for_energy(doubles(1, 2))
        with pytest.raises(ValueError, match="s must lie"):
            rank_for_energy(doubles(1, -2))


class TestSVFit:
    def test_gradient_is_the_projection_on_each_direction(self):
        layer = nn.Linear(4, 5).double()
        x, target = torch.randn(7, 4).double(), torch.randn(7, 5).double()
        adapted = adapt(nn.ModuleDict({"0": layer}), lambda W: SVFit(W, 3), ["0"])
        loss = ((adapted["0"](x) - target) ** 2).mean()
        loss.backward()
        dense = layer(x)
        ((dense - target) ** 2).mean().backward()
        U, _, V, _ = svd_split(layer.weight.detach(), 3)
        got = adapted["0"].parametrizations.weight[0].sigma.grad
        torch.testing.assert_close(got, torch.einsum("mi,mn,ni->i", U, layer.weight.grad, V))
        assert trainable_parameters(adapted) == 3

    def test_warns_of_ties(self):
        for W in (torch.eye(3), torch.diag(torch.tensor([2.0, 1.0, 0.0]))):
            with pytest.warns(UserWarning, match="not unique"):
                SVFit(W, 3)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            SVFit(torch.diag(torch.tensor([3.0, 2.0, 1.0])), 3)

    def test_refuses(self):
        with pytest.raises(ValueError, match=r"r must lie in \[1, 3\]"):
            SVFit(torch.randn(3, 4), 4)
        with pytest.raises(ValueError, match="must be finite"):
            SVFit(torch.full((2, 2), torch.nan), 1)


class TestBestFit:
    @settings(deadline=None, max_examples=30)
    @given(r=st.integers(1, 4), seed=st.integers(0, 100))
    def test_residual_is_that_of_the_formula_and_the_smallest(self, r, seed):
        g = torch.Generator().manual_seed(seed)
        W, target = torch.randn(2, 5, 4, generator=g, dtype=torch.float64)
        U, _, V, residual = svd_split(W, r)
        sigma, norm = svfit_best_fit(W, target, r)
        step = target - W
        expected = step.square().sum() - torch.einsum("mi,mn,ni->i", U, step, V).square().sum()
        torch.testing.assert_close(norm.square(), expected)
        nearby = sigma + 0.01 * torch.randn(20, r, generator=g, dtype=torch.float64)
        others = residual + torch.einsum("mi,ki,ni->kmn", U, nearby, V) - target
        assert (torch.linalg.matrix_norm(others) >= norm).all()

    def test_exact_for_diagonal_targets(self):
        W = torch.randn(5, 4, dtype=torch.float64)
        U, _, Vt = singular_vectors(W)
        t = doubles(1, -2, 3, 0.5)
        sigma, norm = svfit_best_fit(W, (U * t) @ Vt, 4)
        torch.testing.assert_close(sigma, t)
        assert norm < 1e-12


class TestSalt:
    def test_hand_case(self):
        eye, s = torch.eye(3).double(), doubles(3, 2, 1)
        X, Y = torch.eye(2).double(), doubles([0.1, -0.2], [0.3, -1.5])
        W, penalty = salt_weight(eye, s, eye, doubles(2), doubles(0.5), X, Y)
        torch.testing.assert_close(W, doubles([6.5, 0, 0], [0, 2.1, 0], [0, 0.3, 0]))
        torch.testing.assert_close(penalty, doubles(3.5).squeeze() + Y.norm())
        unclipped, _ = salt_weight(eye, s, eye, doubles(2), doubles(0.5), X, Y, relu=False)
        torch.testing.assert_close(unclipped, doubles([6.5, 0, 0], [0, 2.1, -0.2], [0, 0.3, -0.5]))

    def test_neutral_values_change_nothing(self):
        W = torch.randn(5, 7, dtype=torch.float64)
        U, s, Vt = singular_vectors(W)
        a, c = torch.ones(3).double().requires_grad_(), torch.zeros(3).double().requires_grad_()
        same, penalty = salt_weight(U, s, Vt, a, c, torch.zeros(2, 4).double(), torch.randn(4, 2).double())
        torch.testing.assert_close(same, W)
        assert penalty == 0
        assert all(torch.isfinite(g).all() for g in torch.autograd.grad(penalty, (a, c)))

    @pytest.mark.parametrize("shape", [(6, 8), (6, 2, 2, 2)], ids=["matrix", "kernel"])
    def test_all_values_is_scale_and_shift(self, shape):
        W = torch.randn(shape, dtype=torch.float64)
        adapter = SALT(W, 6, r=3)
        a, c = torch.rand(6).double() + 0.5, torch.rand(6).double()
        with torch.no_grad():
            adapter.a.copy_(a)
            adapter.c.copy_(c)
        U, s, Vt = singular_vectors(W.flatten(1))
        torch.testing.assert_close(adapter(W), ((U * (a * s + c)) @ Vt).reshape(shape))

    @pytest.mark.parametrize(("k", "r"), [(0, 2), (3, 2), (6, 1)])
    def test_number_of_parameters(self, k, r):
        adapter = SALT(torch.randn(6, 8), k, r)
        assert trainable_parameters(adapter) == 2 * k + 2 * (6 - k) * r

    def test_refuses(self):
        with pytest.raises(ValueError, match=r"k must lie in \[0, 3\]"):
            SALT(torch.randn(3, 4), 4)
        with pytest.raises(ValueError, match="r must be at least 1"):
            SALT(torch.randn(3, 4), 2, r=0)
        with pytest.raises(ValueError, match="must be finite"):
            SALT(torch.full((3, 4), torch.inf), 2)
        with pytest.raises(ValueError, match="add up to the 3 singular values, got 1 and 1"):
            salt_weight(
                torch.eye(3),
                torch.ones(3),
                torch.eye(3),
                torch.ones(1),
                torch.ones(1),
                torch.ones(1, 1),
                torch.ones(1, 1),
            )
