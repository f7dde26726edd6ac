"""Facts about the best linear network under Barlow Twins."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.linalg import hadamard

from dlatlas.ops.spectra import effective_rank
from dlatlas.selfsup.redundancy_reduction import barlow_twins
from dlatlas.selfsup.redundancy_reduction_linear import canonical_correlations, critical_weight, direction_shares
from tests.examples import Example

EXAMPLES = [
    Example(
        canonical_correlations,
        lambda make: {"x1": make.normal(9, 3), "x2": make.normal(9, 3)},
        differentiable=("x1", "x2"),
    ),
    Example(
        direction_shares,
        lambda make: {"rho": make.uniform(6, low=0.1), "width": 8, "lam": 0.1},
        differentiable=("rho",),
    ),
    Example(critical_weight, lambda make: {"rho": make.uniform(4, low=0.1), "width": 8}, differentiable=("rho",)),
]
double = {"dtype": torch.float64}


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def two_views(rho, generator, n=40):
    """Two views (n, k) with uncorrelated columns of variance one, related to their twins by rho exactly."""
    k = len(rho)
    noise = torch.cat([torch.ones(n, 1, **double), torch.randn(n, 2 * k, generator=generator, **double)], 1)
    a = math.sqrt(n) * torch.linalg.qr(noise).Q[:, 1:]
    return a[:, :k], rho * a[:, :k] + (1 - rho**2).sqrt() * a[:, k:]


def price(s, rho, width, lam):
    """The objective of the shares, for one feature."""
    c = (rho * s).sum()
    return (1 - c) ** 2 + lam * (width * (rho * s).square().sum() - c**2)


def correlations(seed, k=5):
    return 0.05 + 0.95 * torch.rand(k, generator=torch.Generator().manual_seed(seed), **double)


def best_of_all_sets(rho, width, lam):
    """Solve the linear conditions of optimality for every number of open directions; keep the best that is allowed."""
    r = rho.sort(descending=True).values
    allowed = []
    for j in range(1, len(r) + 1):
        system = torch.zeros(j + 1, j + 1, **double)
        system[:j, :j] = (1 - lam) * torch.outer(r[:j], r[:j]) + lam * width * torch.diag(r[:j] ** 2)
        system[:j, j] = system[j, :j] = 1
        solved = torch.linalg.solve(system, torch.cat([r[:j], torch.ones(1, **double)]))[:j]
        if (solved >= 0).all():
            allowed.append(price(solved, r[:j], width, lam))
    return min(allowed)


class TestCanonicalCorrelations:
    def test_are_those_that_were_put_in(self, generator):
        rho = torch.tensor([0.9, 0.5, 0.1], **double)
        x1, x2 = two_views(rho, generator)
        torch.testing.assert_close(canonical_correlations(x1, x2), rho)

    def test_do_not_see_units_or_rotations(self, generator):
        rho = torch.tensor([0.9, 0.5, 0.1], **double)
        x1, x2 = two_views(rho, generator)
        A, shift = torch.randn(3, 3, generator=generator, **double), 7.0
        torch.testing.assert_close(canonical_correlations(x1 @ A + shift, x2 @ A + shift), rho)

    def test_equal_views(self, generator):
        x = torch.randn(8, 3, generator=generator, **double)
        torch.testing.assert_close(canonical_correlations(x, x), torch.ones(3, **double))

    def test_bound_every_linear_feature(self, generator):
        x1, x2 = torch.randn(2, 30, 4, generator=generator, **double)
        views = (
            torch.cat([x1, x2]),
            torch.cat([x2, x1]),
        )  # symmetric, so that the correlations of features are those of M
        rho = canonical_correlations(x1, x2)
        for w in torch.randn(50, 4, generator=generator, **double):
            found = torch.corrcoef(torch.stack([view @ w for view in views]))[0, 1]
            assert rho[-1] - 1e-12 <= found <= rho[0] + 1e-12

    def test_refuses_too_few_rows_and_views_of_different_shape(self, generator):
        x = torch.randn(3, 3, generator=generator, **double)
        with pytest.raises(ValueError, match="rows must be at least 4, got 3"):
            canonical_correlations(x, x)
        with pytest.raises(TypeCheckError):
            canonical_correlations(x, x[:, :2])


class TestDirectionShares:
    @settings(deadline=None)
    @given(seed=st.integers(0, 1000), lam=st.floats(1e-3, 1), width=st.integers(2, 64))
    def test_are_the_best_of_all_sets_of_open_directions(self, seed, lam, width):
        rho = correlations(seed)
        s = direction_shares(rho, width=width, lam=lam)
        assert s.min() >= 0
        assert s.sum().item() == pytest.approx(1)
        assert price(s, rho, width, lam).item() == pytest.approx(best_of_all_sets(rho, width, lam).item(), rel=1e-9)

    @pytest.mark.parametrize("lam", [0.01, 0.1, 1.0])
    def test_no_share_can_be_moved_with_profit(self, lam):
        rho = correlations(3)
        s = direction_shares(rho, width=8, lam=lam)
        at_best = price(s, rho, 8, lam)
        for k in range(len(rho)):
            towards = torch.eye(len(rho), **double)[k]
            assert price(s + 1e-4 * (towards - s), rho, 8, lam) >= at_best

    @pytest.mark.parametrize(("rho1", "rho2"), [(0.95, 0.6), (0.7, 0.05)])
    @pytest.mark.parametrize("lam", [0.001, 0.1, 1.0])
    def test_two_features_open_like_a_fan(self, rho1, rho2, lam):
        opening = lam * rho1 * (rho1 + rho2) - (1 - rho1) * (rho1 - rho2)
        expected = max(0.0, opening / ((rho1 - rho2) ** 2 + lam * (rho1 + rho2) ** 2))
        got = direction_shares(torch.tensor([rho1, rho2], **double), width=2, lam=lam)[1]
        assert got.item() == pytest.approx(expected)

    @pytest.mark.parametrize("lam", [0.01, 0.1, 1.0])
    def test_signs_of_a_hadamard_matrix_reach_the_bound(self, lam, generator):
        rho, width = correlations(5, k=4), 8
        s = direction_shares(rho, width=width, lam=lam)
        W = torch.tensor(hadamard(width)[:, :4], **double) * s.sqrt()
        loss = barlow_twins(*(x @ W.mT for x in two_views(rho, generator)), lam=lam)
        torch.testing.assert_close(loss, width * price(s, rho, width, lam))

    @pytest.mark.parametrize("lam", [0.01, 0.1, 1.0])
    def test_no_linear_network_does_better(self, lam, generator):
        rho, width = correlations(6, k=4), 8
        views = two_views(rho, generator)
        bound = width * price(direction_shares(rho, width=width, lam=lam), rho, width, lam)
        for start in torch.randn(4, width, 4, generator=generator, **double):
            W = start.requires_grad_()
            descent = torch.optim.LBFGS([W], max_iter=300, line_search_fn="strong_wolfe", tolerance_change=0)

            def closure(W=W, descent=descent):
                descent.zero_grad()
                loss = barlow_twins(*(x @ W.mT for x in views), lam=lam)
                loss.backward()
                return loss

            descent.step(closure)
            assert closure() >= bound - 1e-9

    def test_order_does_not_matter_and_equal_directions_share_alike(self):
        s = direction_shares(torch.tensor([0.3, 0.9, 0.6, 0.9], **double), width=64, lam=0.05)
        t = direction_shares(torch.tensor([0.9, 0.9, 0.6, 0.3], **double), width=64, lam=0.05)
        torch.testing.assert_close(s, t[[3, 0, 2, 1]])
        assert s[1].item() == pytest.approx(s[3].item())

    def test_more_weight_opens_more_directions(self):
        rho = torch.linspace(0.95, 0.1, 20, **double)
        ranks = [effective_rank(direction_shares(rho, width=64, lam=lam)).item() for lam in (1e-5, 1e-3, 1e-2, 1e-1)]
        assert ranks[0] == 1
        assert ranks == sorted(ranks)
        assert ranks[-1] > 5

    def test_refuses(self):
        rho = torch.tensor([0.9, 0.5], **double)
        for settings_, match in (
            ({"width": 0, "lam": 0.1}, "width must be at least 1, got 0"),
            ({"width": 2, "lam": 0.0}, "lam must be greater than 0"),
            ({"width": 2, "lam": 1.5}, "lam must lie in"),
        ):
            with pytest.raises(ValueError, match=match):
                direction_shares(rho, **settings_)
        for wrong in (torch.tensor([0.9, 0.0]), torch.tensor([1.1, 0.5])):
            with pytest.raises(ValueError, match="rho must lie in"):
                direction_shares(wrong, width=2, lam=0.1)


class TestCriticalWeight:
    @pytest.mark.parametrize("width", [2, 7, 64])
    def test_is_where_the_second_direction_opens(self, width):
        rho = torch.tensor([0.6, 0.95, 0.3], **double)
        at = critical_weight(rho, width=width).item()
        assert direction_shares(rho, width=width, lam=0.999 * at)[0] == 0
        assert direction_shares(rho, width=width, lam=1.001 * at)[0] > 0

    def test_two_features(self):
        got = critical_weight(torch.tensor([0.8, 0.5], **double), width=2)
        assert got.item() == pytest.approx(0.2 * 0.3 / (0.8 * 1.3))

    def test_refuses(self):
        with pytest.raises(ValueError, match="number of directions must be at least 2, got 1"):
            critical_weight(torch.tensor([0.9]), width=2)
        with pytest.raises(ValueError, match="width must be at least 2, got 1"):
            critical_weight(torch.tensor([0.9, 0.5]), width=1)
        with pytest.raises(ValueError, match="rho must lie in"):
            critical_weight(torch.tensor([0.9, -0.5]), width=2)
