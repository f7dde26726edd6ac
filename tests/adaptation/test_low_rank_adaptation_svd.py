"""Facts about PiSSA and SORSA."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlatlas.adaptation.low_rank_adaptation import adapt
from dlatlas.adaptation.low_rank_adaptation_svd import (
    SORSA,
    PiSSA,
    orthonormal_penalty,
    singular_vectors,
    svd_drift,
    svd_split,
)
from tests.examples import Example, Make


def factors(make: Make) -> list:
    return [(make.normal(2, 5), make.normal(4, 2)), (make.normal(3, 3), make.normal(6, 3))]


EXAMPLES = [
    Example(svd_split, lambda make: {"W": make.normal(5, 4), "r": 2}, differentiable=("W",)),
    Example(singular_vectors, lambda make: {"W": make.normal(5, 4)}, differentiable=("W",)),
    # A list of pairs is no tensor argument for the generic test; TestPenalty maps over stacked factors.
    Example(orthonormal_penalty, lambda make: {"factors": factors(make)}, vmap=False),
    Example(
        svd_drift,
        lambda make: {"W0": make.normal(5, 4), "Wt": make.normal(5, 4), "k": 3},
        differentiable=("W0", "Wt"),
    ),
]

BAD_WEIGHTS = [torch.tensor([[1.0, torch.nan], [0.0, 1.0]]), torch.tensor([[1.0, torch.inf], [0.0, 1.0]])]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


class TestSplit:
    @settings(deadline=None, max_examples=40)
    @given(m=st.integers(1, 7), n=st.integers(1, 7), data=st.data())
    def test_parts_make_the_whole(self, m, n, data):
        r = data.draw(st.integers(1, min(m, n)))
        W = torch.randn(m, n, dtype=torch.float64, generator=torch.Generator().manual_seed(m * 10 + n))
        U, s, V, residual = svd_split(W, r)
        torch.testing.assert_close((U * s) @ V.T + residual, W)
        torch.testing.assert_close(U.T @ U, torch.eye(r).double(), atol=1e-12, rtol=0)
        torch.testing.assert_close(V.T @ V, torch.eye(r).double(), atol=1e-12, rtol=0)
        expected = torch.linalg.svdvals(W)
        torch.testing.assert_close(s, expected[:r])
        # Eckart and Young: what is left has the remaining singular values.
        torch.testing.assert_close(torch.linalg.svdvals(residual)[: len(expected) - r], expected[r:])

    def test_signs_are_definite(self):
        W = torch.randn(6, 4, dtype=torch.float64)
        U, s, Vt = singular_vectors(W)
        assert (U.gather(0, U.abs().argmax(0, keepdim=True)) > 0).all()
        torch.testing.assert_close((U * s) @ Vt, W)

    @pytest.mark.parametrize("bad", BAD_WEIGHTS, ids=["nan", "inf"])
    def test_refuses_weights_that_are_not_finite(self, bad):
        for call in (lambda: svd_split(bad, 1), lambda: PiSSA(bad, 1), lambda: SORSA(bad, 1)):
            with pytest.raises(ValueError, match="W must be finite, got 1"):
                call()

    def test_refuses_ranks_out_of_range(self):
        for r in (0, 4):
            with pytest.raises(ValueError, match=r"r must lie in \[1, 3\]"):
                svd_split(torch.randn(3, 5), r)
            with pytest.raises(ValueError, match=r"r must lie in \[1, 3\]"):
                PiSSA(torch.randn(3, 5), r)


class TestPiSSA:
    def test_known_split(self):
        W = torch.diag(doubles(4, 1))
        adapter = PiSSA(W, 1)
        torch.testing.assert_close(adapter.B.detach(), doubles([2], [0]))
        torch.testing.assert_close(adapter.A.detach(), doubles([2, 0]))
        torch.testing.assert_close(adapter.right_inverse(W), torch.diag(doubles(0, 1)))

    def test_first_gradient_is_that_of_the_formula(self):
        layer = nn.Linear(4, 5).double()
        x, target = torch.randn(7, 4).double(), torch.randn(7, 5).double()
        adapted = adapt(nn.ModuleDict({"0": layer}), lambda W: PiSSA(W, 2), ["0"])["0"]
        ((adapted(x) - target) ** 2).sum().backward()
        adapter = adapted.parametrizations.weight[0]
        G = 2 * (adapted(x) - target).T @ x
        torch.testing.assert_close(adapter.A.grad, (adapter.B.T @ G).detach())
        torch.testing.assert_close(adapter.B.grad, (G @ adapter.A.T).detach())
        assert adapter.A.grad.norm() > 0.1

    @pytest.mark.parametrize("shape", [(6, 5), (4, 3, 3, 3)], ids=["matrix", "kernel"])
    def test_converts_to_lora(self, shape):
        W = torch.randn(shape, dtype=torch.float64)
        model = nn.ModuleDict({"0": nn.Module()})
        model["0"].weight = nn.Parameter(W.clone())
        layer = adapt(model, lambda W: PiSSA(W, 2), ["0"])["0"]
        adapter = layer.parametrizations.weight[0]
        with torch.no_grad():
            adapter.A += torch.randn_like(adapter.A)
            adapter.B += torch.randn_like(adapter.B)
        A, B = adapter.to_lora()
        delta = (layer.weight - W).detach()
        matrix = delta if delta.dim() == 2 else delta.transpose(1, 2).reshape(12, 9)
        torch.testing.assert_close(B @ A, matrix)
        assert A.shape[0] == B.shape[1] == 4
        assert torch.linalg.matrix_rank(matrix, rtol=1e-10) == 4


class TestPenalty:
    def test_hand_case(self):
        assert orthonormal_penalty([(doubles([2, 0]), doubles([1], [0]))]).item() == pytest.approx(1.5)

    def test_is_a_mean_over_all_factors(self):
        first, second = (torch.randn(2, 5), torch.randn(4, 2)), (torch.randn(3, 3), torch.randn(6, 3))
        apart = (orthonormal_penalty([first]) + orthonormal_penalty([second])) / 2
        torch.testing.assert_close(orthonormal_penalty([first, second]), apart)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_zero_with_zero_gradient_at_the_start(self, dtype):
        adapter = SORSA(torch.randn(20, 30, dtype=dtype), 8)
        penalty = adapter.penalty()
        penalty.backward()
        assert penalty.item() == 0
        assert torch.equal(adapter.A.grad, torch.zeros_like(adapter.A))
        assert torch.equal(adapter.B.grad, torch.zeros_like(adapter.B))

    def test_sees_small_departures(self):
        Q = torch.linalg.qr(torch.randn(9, 4, dtype=torch.float64)).Q
        assert orthonormal_penalty([(1.0001 * Q.T, Q)]).item() == pytest.approx((1.0001**2 - 1) * 2 / 2, rel=1e-6)

    @given(c=st.floats(0.2, 5).filter(lambda c: abs(c - 1) > 0.05))
    @settings(deadline=None, max_examples=25)
    def test_fixes_the_scale_that_the_weight_leaves_free(self, c):
        adapter = SORSA(torch.randn(6, 5, dtype=torch.float64), 3)
        weight = adapter.delta().detach()
        with torch.no_grad():
            adapter.B *= c
            adapter.S /= c
        torch.testing.assert_close(adapter.delta().detach(), weight)
        assert adapter.penalty().item() == pytest.approx(abs(c**2 - 1) * 3**0.5 / 2)

    def test_maps_over_seeds(self):
        A, B = torch.randn(4, 2, 5), torch.randn(4, 6, 2)
        together = torch.vmap(lambda A, B: orthonormal_penalty([(A, B)]))(A, B)
        torch.testing.assert_close(
            together, torch.stack([orthonormal_penalty([pair]) for pair in zip(A, B, strict=True)])
        )

    def test_refuses(self):
        with pytest.raises(ValueError, match="number of layers must be at least 1"):
            orthonormal_penalty([])
        with pytest.raises(ValueError, match="norm of a factor"):
            orthonormal_penalty([(torch.zeros(2, 5), torch.randn(4, 2))])
        with pytest.raises(ValueError, match="factor of rank 3 must be at least 3, got 2"):
            orthonormal_penalty([(torch.randn(3, 2), torch.randn(4, 3))])


class TestSORSA:
    def test_alpha_scales_the_component_not_the_weight(self):
        W = torch.randn(6, 5, dtype=torch.float64)
        adapter = SORSA(W, 2, alpha=6)
        U, s, V, _ = svd_split(W, 2)
        torch.testing.assert_close(adapter.delta(), 3 * (U * s) @ V.T)
        torch.testing.assert_close(adapter(adapter.right_inverse(W)), W)

    def test_refuses(self):
        with pytest.raises(ValueError, match="alpha must be greater than 0"):
            SORSA(torch.randn(3, 5), 2, alpha=-1)
        with pytest.raises(ValueError, match=r"r must lie in \[1, 3\]"):
            SORSA(torch.randn(3, 5), 4)


class TestDrift:
    def test_nothing_moved(self):
        W = torch.randn(6, 5, dtype=torch.float64)
        for value in svd_drift(W, W, 5):
            assert value.abs() < 1e-12

    def test_scaling_moves_values_only(self):
        W = torch.diag(doubles(3, 2, 1))
        values, directions = svd_drift(W, 1.5 * W, 2)
        assert values.item() == pytest.approx(0.5 * 2.5)
        assert directions.abs() < 1e-12

    def test_turning_one_side_by_an_angle(self):
        W, angle = torch.diag(doubles(3, 2)), torch.tensor(0.3, dtype=torch.float64)
        turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
        values, directions = svd_drift(W, turn @ W, 2)
        assert values.abs() < 1e-12
        # Left vectors turn, right ones do not: 1 - (cos + 1) / 2.
        assert directions.item() == pytest.approx((1 - angle.cos().item()) / 2)

    def test_refuses(self):
        with pytest.raises(ValueError, match=r"r must lie in \[1, 4\]"):
            svd_drift(torch.randn(4, 5), torch.randn(4, 5), 5)
