"""Facts about Tucker decompositions and FLoRA."""

import math
from itertools import product

import pytest
import torch
from torch import nn

from dlatlas.adaptation.low_rank_adaptation import adapt, trainable_parameters
from dlatlas.adaptation.low_rank_adaptation_tucker import FLoRA, hosvd, tucker_compose
from tests.examples import Example

EXAMPLES = [
    # A list of factors is no tensor argument for the generic test; TestTucker maps over stacked factors.
    Example(
        tucker_compose,
        lambda make: {
            "core": make.normal(2, 3, 2),
            "factors": [make.normal(d, r) for d, r in ((4, 2), (5, 3), (3, 2))],
        },
        differentiable=("core",),
        vmap=False,
    ),
    Example(hosvd, lambda make: {"T": make.normal(4, 5, 3), "ranks": (2, 3, 2)}, differentiable=("T",)),
]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def random_factors(dims, ranks):
    return [torch.randn(d, r, dtype=torch.float64) for d, r in zip(dims, ranks, strict=True)]


class TestTucker:
    def test_equals_the_sum(self):
        dims, ranks = (4, 3, 2, 5), (2, 3, 1, 2)
        core, factors = torch.randn(ranks, dtype=torch.float64), random_factors(dims, ranks)
        T = tucker_compose(core, factors)
        for i in product(*map(range, dims)):
            total = 0.0
            for j in product(*map(range, ranks)):
                total += core[j] * math.prod(A[a, b] for A, a, b in zip(factors, i, j, strict=True))
            assert T[i].item() == pytest.approx(total.item())
        torch.testing.assert_close(T, torch.einsum("abcd,oa,ib,hc,wd->oihw", core, *factors))

    def test_matrices(self):
        core, (left, right) = torch.randn(2, 3).double(), random_factors((4, 5), (2, 3))
        torch.testing.assert_close(tucker_compose(core, [left, right]), left @ core @ right.T)

    def test_maps_over_seeds(self):
        core, A, B = torch.randn(3, 2, 2), torch.randn(3, 4, 2), torch.randn(3, 5, 2)
        together = torch.vmap(lambda G, A, B: tucker_compose(G, [A, B]))(core, A, B)
        torch.testing.assert_close(together, A @ core @ B.mT)

    def test_refuses_factors_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"factors must have \(2, 3\) columns"):
            tucker_compose(torch.randn(2, 3), [torch.randn(4, 2), torch.randn(4, 2)])
        with pytest.raises(ValueError, match="one factor an axis"):
            tucker_compose(torch.randn(2, 3), [torch.randn(4, 2)])


class TestHosvd:
    def test_exact_at_the_true_ranks(self):
        dims, ranks = (5, 4, 3, 3), (2, 3, 2, 1)
        T = tucker_compose(torch.randn(ranks).double(), random_factors(dims, ranks))
        core, factors = hosvd(T, ranks)
        assert core.shape == ranks
        torch.testing.assert_close(tucker_compose(core, factors), T)
        for A in factors:
            torch.testing.assert_close(A.T @ A, torch.eye(A.shape[1]).double(), atol=1e-12, rtol=0)

    def test_error_is_bounded_by_the_cut_singular_values(self):
        T, ranks = torch.randn(5, 4, 3).double(), (2, 3, 2)
        core, factors = hosvd(T, ranks)
        cut = sum(
            torch.linalg.svdvals(T.movedim(axis, 0).flatten(1))[r:].square().sum() for axis, r in enumerate(ranks)
        )
        error = (tucker_compose(core, factors) - T).square().sum()
        assert 0 < error <= cut

    def test_of_a_matrix_is_the_truncated_svd(self):
        W = torch.randn(5, 4).double()
        core, factors = hosvd(W, (2, 2))
        s = torch.linalg.svdvals(W)
        assert (tucker_compose(core, factors) - W).norm().item() == pytest.approx(s[2:].norm().item())

    @pytest.mark.parametrize("ranks", [(2, 2), (0, 2, 2), (2, 5, 2)])
    def test_refuses_ranks(self, ranks):
        with pytest.raises(ValueError, match="ranks"):
            hosvd(torch.randn(3, 4, 5), ranks)


class TestFLoRA:
    def test_only_the_core_moves_first(self):
        conv = nn.Conv2d(3, 4, 3).double()
        x = torch.randn(2, 3, 6, 6).double()
        adapted = adapt(nn.ModuleDict({"0": conv}), lambda W: FLoRA(W, (2, 2, 1, 2), scale=4.0), ["0"])
        adapted["0"](x).square().sum().backward()
        conv(x).square().sum().backward()
        adapter = adapted["0"].parametrizations.weight[0]
        expected = 4.0 * tucker_compose(conv.weight.grad, [A.detach().T for A in adapter.factors])
        torch.testing.assert_close(adapter.core.grad, expected)
        for A in adapter.factors:
            assert torch.equal(A.grad, torch.zeros_like(A))
        assert trainable_parameters(adapted) == 2 * 2 * 1 * 2 + 4 * 2 + 3 * 2 + 3 * 1 + 3 * 2

    def test_identity_factors_leave_the_core(self):
        adapter = FLoRA(torch.zeros(3, 2, 2), (3, 2, 2), scale=2.0)
        core = torch.randn(3, 2, 2)
        with torch.no_grad():
            adapter.core.copy_(core)
            for A in adapter.factors:
                A.copy_(torch.eye(len(A)))
        torch.testing.assert_close(adapter.delta(), 2 * core)

    def test_rank_of_a_matrix_update(self):
        adapter = FLoRA(torch.zeros(6, 5).double(), (2, 2))
        nn.init.normal_(adapter.core)
        assert torch.linalg.matrix_rank(adapter.delta()) == 2

    def test_factors_start_at_the_scale_of_their_width(self):
        adapter = FLoRA(torch.zeros(4000, 9), (16, 2))
        # Kaiming with a² = 3: standard deviation (2 / (1 + 3) / r)^(1/2).
        assert adapter.factors[0].std().item() == pytest.approx((0.5 / 16) ** 0.5, rel=0.02)

    @pytest.mark.parametrize("ranks", [(2, 2, 2), (2, 2, 0, 2), (2, 2, 4, 2), (5, 2, 2, 2)])
    def test_refuses_ranks(self, ranks):
        with pytest.raises(ValueError, match="ranks"):
            FLoRA(torch.zeros(4, 3, 3, 3), ranks)

    def test_refuses_a_scale_that_is_not_positive(self):
        with pytest.raises(ValueError, match="scale must be greater than 0"):
            FLoRA(torch.zeros(4, 3), (2, 2), scale=0.0)
