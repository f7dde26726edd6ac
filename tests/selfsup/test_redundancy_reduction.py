"""Facts that the methods of selfsup/redundancy_reduction must satisfy."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy import stats
from torch import nn

from dlatlas.ops.spectra import effective_rank
from dlatlas.selfsup.redundancy_reduction import (
    barlow_twins,
    brownian_loss,
    centroid_loss,
    cross_correlation,
    mix_views,
    mixed_barlow_twins,
    projector,
    spectral_spread_loss,
)
from tests.examples import Example, Make


def unit(tensor: torch.Tensor) -> torch.Tensor:
    return F.normalize(tensor, dim=-1)


def pair(make: Make) -> dict:
    return {"z1": make.normal(7, 4), "z2": make.normal(7, 4)}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def mixed_arguments(make: Make) -> dict:
    perm = torch.randperm(7, generator=make.generator).to(make.device)
    return {"zA": make.normal(7, 4), "zB": make.normal(7, 4), "zM": make.normal(7, 4), "perm": perm, "a": 0.3}


EXAMPLES = [
    Example(cross_correlation, pair, differentiable=("z1", "z2")),
    Example(cross_correlation, lambda make: {**pair(make), "eps": 0.1}, differentiable=("z1", "z2")),
    Example(barlow_twins, pair, differentiable=("z1", "z2")),
    Example(projector, lambda make: {"d_in": 5, "width": 3}, vmap=False),
    Example(
        mix_views,
        lambda make: {"x1": make.normal(6, 3), "x2": make.normal(6, 3), "generator": seeded()},
        differentiable=("x1", "x2"),
        vmap=False,
    ),
    Example(mixed_barlow_twins, mixed_arguments, differentiable=("zA", "zB", "zM")),
    Example(
        centroid_loss,
        lambda make: {"p": unit(make.normal(5, 3, 4)), "t": unit(make.normal(5, 3, 4))},
        differentiable=("p",),
    ),
    Example(
        brownian_loss,
        lambda make: {"p": unit(make.normal(5, 3, 4)), "generator": seeded()},
        differentiable=("p",),
        vmap=False,
    ),
    Example(spectral_spread_loss, lambda make: {"z": unit(make.normal(6, 4))}, differentiable=("z",)),
]
FOUR_ROWS = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class TestBarlowTwins:
    def test_known_values(self):
        twice = FOUR_ROWS[:, [0, 0]]
        for z1, z2, expected in ((FOUR_ROWS, FOUR_ROWS, 0.0), (FOUR_ROWS, -FOUR_ROWS, 8.0), (twice, twice, 0.01)):
            assert barlow_twins(z1, z2).item() == pytest.approx(expected, abs=1e-12)

    @settings(deadline=None)
    @given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100))
    def test_does_not_see_units_of_the_features(self, seed, scale, shift):
        g = torch.Generator().manual_seed(seed)
        z1, z2, scales = normal(g, 9, 4), normal(g, 9, 4), torch.rand(4, generator=g, dtype=torch.float64) + 0.1
        torch.testing.assert_close(barlow_twins(z1 * scale * scales + shift, z2), barlow_twins(z1, z2))

    def test_equals_a_double_loop_over_numpy_correlations(self, generator):
        z1, z2, lam = normal(generator, 20, 5), normal(generator, 20, 5), 0.3
        expected = 0.0
        for i in range(5):
            for j in range(5):
                c = np.corrcoef(z1[:, i], z2[:, j])[0, 1]
                expected += (1 - c) ** 2 if i == j else lam * c**2
        assert barlow_twins(z1, z2, lam=lam).item() == pytest.approx(expected)

    def test_both_branches_learn(self, generator):
        z = [normal(generator, 8, 3).requires_grad_() for _ in range(2)]
        gradients = torch.autograd.grad(barlow_twins(*z), z)
        assert all(gradient.abs().max() > 1e-3 for gradient in gradients)
        # Standardisation removes the mean and the scale of a feature, so no gradient points along either.
        for gradient, embedding in zip(gradients, z, strict=True):
            assert gradient.sum(0).abs().max() < 1e-12
            assert (gradient * embedding.detach()).sum(0).abs().max() < 1e-12

    @pytest.mark.parametrize(("n", "d"), [(4, 6), (5, 10)])
    def test_a_batch_smaller_than_the_embedding_leaves_redundancy(self, n, d, generator):
        """Equal views: the correlations have rank n - 1 at most, so their squares sum to d²/(n - 1) at least."""
        floor = d * (d - n + 1) / (n - 1)
        for _ in range(5):
            z = normal(generator, n, d)
            assert barlow_twins(z, z, lam=1.0) >= floor - 1e-9

    def test_redundancy_of_equal_views_is_a_participation_ratio(self, generator):
        z = normal(generator, 30, 6)
        C = cross_correlation(z, z)
        expected = 36 / effective_rank(torch.linalg.eigvalsh(C), order=2) - 6
        torch.testing.assert_close(barlow_twins(z, z, lam=1.0), expected)

    def test_entries_are_correlations(self, generator):
        C = cross_correlation(normal(generator, 6, 9), 100 + 0.01 * normal(generator, 6, 9))
        assert C.abs().max() <= 1 + 1e-9

    def test_eps_gives_a_constant_feature_no_correlation(self, generator):
        z = normal(generator, 6, 3)
        constant = torch.cat([z[:, :2], torch.ones(6, 1, dtype=torch.float64)], 1)
        assert cross_correlation(z, constant, eps=1e-6)[:, 2].abs().max() == 0

    @pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3e4])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("n", [3, 97, 256])
    def test_refuses_a_constant_feature(self, value, dtype, n, generator):
        z = normal(generator, n, 3).to(dtype)
        collapsed = z.clone()
        collapsed[:, 1] = value
        with pytest.raises(ValueError, match="relative deviation of a column of z2 must lie in"):
            barlow_twins(z, collapsed)

    def test_refuses_a_single_row_a_negative_weight_and_views_of_different_shape(self, generator):
        z = normal(generator, 4, 3)
        with pytest.raises(ValueError, match="rows of z1 must be at least 2, got 1"):
            barlow_twins(z[:1], z[:1])
        with pytest.raises(ValueError, match="lam must be at least 0"):
            barlow_twins(z, z, lam=-0.1)
        with pytest.raises(ValueError, match="eps must be at least 0"):
            cross_correlation(z, z, eps=-1.0)
        for other in (z[:3], z[:, :2]):
            with pytest.raises(TypeCheckError):
                barlow_twins(z, other)


class TestProjector:
    def test_layers(self):
        kinds = [type(layer) for layer in projector(5, 7)]
        block = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
        assert kinds == [*block, *block, nn.Linear]
        assert [type(layer) for layer in projector(5, 7, layers=1)] == [nn.Linear]

    @pytest.mark.parametrize("layers", [1, 2, 4])
    def test_shapes(self, layers, generator):
        assert projector(5, 7, layers=layers)(normal(generator, 6, 5).float()).shape == (6, 7)

    @pytest.mark.parametrize("sizes", [(0, 3, 1), (3, 0, 1), (3, 3, 0)])
    def test_refuses(self, sizes):
        with pytest.raises(ValueError, match="must be at least 1, got 0"):
            projector(*sizes)


class TestMixing:
    def test_mixtures_follow_the_formula(self, generator):
        x1, x2 = normal(generator, 8, 2, 3), normal(generator, 8, 2, 3)
        xm, perm, a = mix_views(x1, x2, generator=generator)
        assert sorted(perm.tolist()) == list(range(8))
        expected = torch.stack([a * x1[i] + (1 - a) * x2[perm[i]] for i in range(8)])
        torch.testing.assert_close(xm, expected)

    def test_coefficients_are_uniform(self, generator):
        x = torch.zeros(2, 1)
        drawn = [mix_views(x, x, generator=generator)[2].item() for _ in range(2000)]
        assert stats.kstest(drawn, "uniform").pvalue > 0.01

    def test_vmap_draws_for_every_call(self):
        x = torch.zeros(6, 5, 1)
        _, perm, a = torch.vmap(mix_views, randomness="different")(x, x)
        assert len(a.unique()) == 6
        assert len(perm.unique(dim=0)) > 1

    def test_nothing_to_pay_without_a_mixture(self, generator):
        zA, zB = normal(generator, 9, 4), normal(generator, 9, 4)
        perm = torch.randperm(9, generator=generator)
        assert mixed_barlow_twins(zA, zB, zA, perm, 1.0)[1].item() == 0
        assert mixed_barlow_twins(zA, zB, zB, torch.arange(9), 0.0)[1].item() == 0
        assert mixed_barlow_twins(zA, zB, zB[perm], perm, 0.0)[1].item() == pytest.approx(0, abs=1e-20)

    def test_first_term_is_barlow_twins(self, generator):
        zA, zB, zM = (normal(generator, 9, 4) for _ in range(3))
        perm = torch.randperm(9, generator=generator)
        loss, penalty = mixed_barlow_twins(zA, zB, zM, perm, 0.4, r=0.0)
        torch.testing.assert_close(loss, barlow_twins(zA, zB, lam=1 / 128))
        assert penalty.item() == 0

    def test_equals_the_four_matrices(self, generator):
        zA, zB, zM = (normal(generator, 9, 4) for _ in range(3))
        perm, a = torch.randperm(9, generator=generator), 0.3
        expected = 0
        for view in (zA, zB):
            target = a * cross_correlation(zA, view) + (1 - a) * cross_correlation(zB[perm], view)
            expected += (cross_correlation(zM, view) - target).square().sum()
        got = mixed_barlow_twins(zA, zB, zM, perm, a, lam=0.1, r=3.0)[1]
        torch.testing.assert_close(got, 0.3 * expected)

    def test_targets_carry_gradient(self, generator):
        z = [normal(generator, 9, 4).requires_grad_() for _ in range(3)]
        perm = torch.randperm(9, generator=generator)
        for gradient in torch.autograd.grad(mixed_barlow_twins(*z, perm, 0.3)[1], z):
            assert gradient.abs().max() > 1e-4

    def test_refuses(self, generator):
        z = normal(generator, 5, 3)
        perm = torch.arange(5)
        with pytest.raises(ValueError, match="a must lie in"):
            mixed_barlow_twins(z, z, z, perm, 1.2)
        with pytest.raises(ValueError, match="a must lie in"):
            mixed_barlow_twins(z, z, z, perm, torch.tensor(-0.1, dtype=torch.float64))
        with pytest.raises(ValueError, match="distance of perm to a permutation"):
            mixed_barlow_twins(z, z, z, torch.tensor([0, 1, 2, 3, 3]), 0.5)
        with pytest.raises(ValueError, match="distance of perm to a permutation"):
            mixed_barlow_twins(z, z, z, perm + 1, 0.5)
        with pytest.raises(ValueError, match="rows must be at least 3"):
            mixed_barlow_twins(z[:2], z[:2], z[:2], perm[:2], 0.5)
        with pytest.raises(ValueError, match="r must be at least 0"):
            mixed_barlow_twins(z, z, z, perm, 0.5, r=-1.0)
        with pytest.raises(ValueError, match="relative deviation of a column of zM"):
            mixed_barlow_twins(z, z, torch.ones_like(z), perm, 0.5)


class TestCentroid:
    def test_bounds(self, generator):
        views = unit(normal(generator, 5, 1, 4)).expand(-1, 3, -1)
        assert centroid_loss(views, views).item() == pytest.approx(0, abs=1e-12)
        assert centroid_loss(-views, views).item() == pytest.approx(4)

    def test_is_a_squared_distance(self, generator):
        p, t = unit(normal(generator, 5, 3, 4)), unit(normal(generator, 5, 3, 4))
        total = 0.0
        for views, targets in zip(p, t, strict=True):
            centroid = sum(targets) / sum(targets).norm()
            total += sum((view - centroid).square().sum() for view in views)
        torch.testing.assert_close(centroid_loss(p, t), total / 15)

    def test_targets_receive_no_gradient(self, generator):
        p, t = (unit(normal(generator, 5, 3, 4)).requires_grad_() for _ in range(2))
        _, gradient = torch.autograd.grad(centroid_loss(p, t), (p, t), allow_unused=True)
        assert gradient is None

    def test_one_view_is_the_loss_of_byol(self, generator):
        p, t = unit(normal(generator, 5, 1, 4)), unit(normal(generator, 5, 1, 4))
        torch.testing.assert_close(centroid_loss(p, t), (2 - 2 * F.cosine_similarity(p, t, dim=-1)).mean())

    def test_refuses(self, generator):
        p = unit(normal(generator, 5, 2, 4))
        with pytest.raises(ValueError, match="norm of a row of p"):
            centroid_loss(2 * p, p)
        with pytest.raises(ValueError, match="norm of a row of t"):
            centroid_loss(p, 2 * p)
        with pytest.raises(ValueError, match="length of the mean of the targets"):
            centroid_loss(p, torch.stack([p[:, 0], -p[:, 0]], 1))


class TestBrownian:
    def test_is_odd(self, generator):
        p = unit(normal(generator, 6, 2, 5))
        there, back = (brownian_loss(q, generator=seeded()) for q in (p, -p))
        assert abs((there + back).item()) < 1e-15
        assert there.abs() > 1e-3

    def test_one_force_an_image_of_length_one_share(self, generator):
        p = unit(normal(generator, 6, 3, 5)).requires_grad_()
        (force,) = torch.autograd.grad(brownian_loss(p, generator=generator), p)
        torch.testing.assert_close(force, force[:, :1].expand_as(force))
        torch.testing.assert_close(force.norm(dim=-1), torch.full((6, 3), 1 / 18, dtype=torch.float64))
        assert (F.normalize(force[:, 0], dim=-1) @ F.normalize(force[:, 0], dim=-1).mT).triu(1).abs().max() < 0.999

    def test_no_drift(self, generator):
        p = unit(normal(generator, 1, 1, 3)).expand(20_000, 1, 3).requires_grad_()
        (force,) = torch.autograd.grad(brownian_loss(p, generator=generator), p)
        mean, error = 20_000 * force.mean(0), 20_000 * force.std(0) / math.sqrt(20_000)
        assert (mean.abs() < 4 * error).all()

    def test_refuses(self, generator):
        with pytest.raises(ValueError, match="norm of a row of p"):
            brownian_loss(normal(generator, 4, 2, 3))


class TestSpectralSpread:
    def test_zero_for_orthonormal_rows_and_for_tight_frames(self):
        for n, d in ((3, 7), (7, 7)):
            assert spectral_spread_loss(torch.eye(n, d, dtype=torch.float64)).item() == pytest.approx(0, abs=1e-12)
        angles = 2 * math.pi * torch.arange(5, dtype=torch.float64) / 5
        assert spectral_spread_loss(torch.stack([angles.cos(), angles.sin()], 1)).item() == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize(("n", "d"), [(2, 5), (6, 4)])
    def test_largest_for_equal_rows(self, n, d, generator):
        z = unit(normal(generator, 1, d)).expand(n, d)
        assert spectral_spread_loss(z).item() == pytest.approx(1 - 1 / math.sqrt(min(n, d)))

    def test_is_the_effective_rank_of_order_one_half(self, generator):
        z = unit(normal(generator, 9, 4))
        rank = effective_rank(torch.linalg.svdvals(z).square(), order=0.5)
        torch.testing.assert_close(spectral_spread_loss(z), 1 - (rank / 4).sqrt())

    def test_leaves_collapse_at_first_order(self, generator):
        """Moving by t along a direction of rank two changes the loss by a multiple of t, not of t²."""
        z = unit(normal(generator, 1, 5)).expand(8, 5)
        step = normal(generator, 8, 5)
        collapsed = spectral_spread_loss(z)
        gains = [collapsed - spectral_spread_loss(unit(z + t * step)) for t in (1e-4, 2e-4)]
        assert (gains[1] / gains[0]).item() == pytest.approx(2, abs=0.01)

    def test_refuses(self, generator):
        with pytest.raises(ValueError, match="rows of z must be at least 2, got 1"):
            spectral_spread_loss(unit(normal(generator, 1, 4)))
        with pytest.raises(ValueError, match="norm of a row of z"):
            spectral_spread_loss(normal(generator, 3, 4))
