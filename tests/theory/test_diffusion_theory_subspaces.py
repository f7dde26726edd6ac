"""Facts of mixtures of low-rank Gaussians."""

import math

import pytest
import torch
from torch.func import grad

from dlatlas.theory.diffusion_theory import mixture_posterior
from dlatlas.theory.diffusion_theory_subspaces import (
    jacobian_rank,
    k_subspaces,
    molrg_data,
    molrg_denoiser,
    molrg_loss,
    span_error,
    subspace_error,
)
from tests.examples import Example, Make


def frames(make: Make, *shape: int) -> torch.Tensor:
    return torch.linalg.qr(make.normal(*shape))[0]


def curved(v: torch.Tensor) -> torch.Tensor:
    return torch.stack([v[0] * v[1], v.sin().sum(), v[2] ** 2, v.prod()])


EXAMPLES = [
    Example(
        molrg_data,
        lambda make: {
            "N": 3,
            "n": 6,
            "d": 2,
            "K": 2,
            "generator": torch.Generator().manual_seed(0),
            "dtype": make.dtype,
        },
        vmap=False,
    ),
    Example(
        molrg_denoiser,
        lambda make: {
            "x": make.normal(5, 6),
            "s": make.uniform(5, low=0.5),
            "g": make.uniform(5, low=0.5),
            "U": frames(make, 2, 6, 2),
            "pi": make.simplex(2),
        },
        differentiable=("x", "s", "g", "U", "pi"),
    ),
    Example(
        molrg_loss,
        lambda make: {
            "U": frames(make, 2, 6, 2),
            "x0": make.normal(5, 6),
            "noise": make.normal(5, 6),
            "g": make.uniform(5, low=0.5),
        },
        differentiable=("U", "x0", "noise", "g"),
    ),
    Example(k_subspaces, lambda make: {"x": make.normal(9, 5), "starts": frames(make, 2, 2, 5, 2), "iters": 2}),
    Example(
        subspace_error,
        lambda make: {"U": frames(make, 2, 6, 2), "U_star": frames(make, 2, 6, 2)},
        differentiable=("U", "U_star"),
    ),
    Example(span_error, lambda make: {"N": make.uniform(4, low=0.5, high=2.5), "n": 9, "d": 3}, differentiable=("N",)),
    Example(jacobian_rank, lambda make: {"denoiser": curved, "x": make.uniform(3), "probes": make.normal(3, 4)}),
]


def setting(K=3, n=10, d=2, N=8, seed=0):
    return molrg_data(N, n, d, K, generator=torch.Generator().manual_seed(seed))


class TestData:
    def test_subspaces_are_orthonormal_and_orthogonal(self):
        x, U, labels = setting()
        joint = U.transpose(0, 1).reshape(10, 6)
        torch.testing.assert_close(joint.mT @ joint, torch.eye(6).double())
        for k in range(3):
            own = x[labels == k]
            torch.testing.assert_close(own @ U[k] @ U[k].mT, own)
            assert len(own) == 8

    def test_refuses_more_directions_than_there_are(self):
        with pytest.raises(ValueError, match="n must be at least"):
            setting(K=4, n=7)


class TestDenoiser:
    def test_is_the_mean_of_the_mixture(self):
        x, U, _ = setting()
        g = torch.Generator().manual_seed(1)
        s, noise, pi = (
            torch.rand(24, generator=g) + 0.2,
            torch.rand(24, generator=g) + 0.2,
            torch.tensor([0.5, 0.2, 0.3]),
        )
        s, noise, pi = s.double(), noise.double(), pi.double()
        y = s[:, None] * x + noise[:, None] * torch.randn(24, 10, generator=g, dtype=torch.float64)
        general, _ = mixture_posterior(y, s, noise, torch.zeros(3, 10).double(), U @ U.mT, pi)
        torch.testing.assert_close(molrg_denoiser(y, s, noise, U, pi), general)

    def test_hard_choice_is_a_projection_and_the_limit_of_little_noise(self):
        x, U, labels = setting()
        s, pi = torch.ones(24).double(), torch.full((3,), 1 / 3).double()
        little = torch.full((24,), 0.05).double()
        y = x + 1e-3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
        hard = molrg_denoiser(y, s, little, U, pi, hard=True)
        expected = torch.stack([U[k] @ U[k].mT @ v for v, k in zip(y, labels, strict=True)]) / (1 + 0.05**2)
        torch.testing.assert_close(hard, expected)
        torch.testing.assert_close(molrg_denoiser(y, s, little, U, pi), hard, atol=1e-3, rtol=0)

    def test_refuses_bad_input(self):
        x, U, _ = setting()
        one, pi = torch.ones(24).double(), torch.full((3,), 1 / 3).double()
        with pytest.raises(ValueError, match="g must lie"):
            molrg_denoiser(x, one, 0 * one, U, pi)
        with pytest.raises(ValueError, match="U"):
            molrg_denoiser(x, one, one, 2 * U, pi)


class TestLearning:
    def test_one_subspace_is_pca(self):
        """The loss averaged over the noise falls by a multiple of what PCA maximises; so do its gradients."""
        x, _, _ = setting(K=1, n=6, d=2, N=5)
        noise = math.sqrt(6) * torch.cat([torch.eye(6), -torch.eye(6)]).double().repeat(5, 1)
        level = torch.full((60,), 0.4).double()
        c = 1 / (1 + 0.4**2)

        def averaged(U):
            return molrg_loss(U, x.repeat_interleave(12, 0), noise, level)

        def closed(U):
            kept = (x @ U[0]).square().sum() / 5
            return x.square().sum(1).mean() - 2 * c * kept + c**2 * kept + c**2 * 0.4**2 * 2

        U = torch.linalg.qr(torch.randn(1, 6, 2, generator=torch.Generator().manual_seed(3)).double())[0]
        torch.testing.assert_close(averaged(U), closed(U))
        tangent = torch.eye(6).double() - U[0] @ U[0].mT
        # Only the part of the gradient that moves the subspace is the same: the other one leaves orthonormality.
        torch.testing.assert_close(tangent @ grad(averaged)(U)[0], tangent @ grad(closed)(U)[0])

    def test_clustering_recovers_with_enough_samples(self):
        x, U, _ = setting(K=2, n=12, d=3, N=15)
        starts = torch.linalg.qr(torch.randn(10, 2, 12, 3, generator=torch.Generator().manual_seed(4)).double())[0]
        assert subspace_error(k_subspaces(x, starts), U) < 1e-6

    def test_with_d_samples_any_cut_fits(self):
        x, _, _ = setting(K=2, n=12, d=3, N=3)
        for group in ([0, 1, 2], [0, 1, 4], [0, 3, 5]):
            assert torch.linalg.svdvals(x[group])[3:].sum() == 0
        x, _, _ = setting(K=2, n=12, d=3, N=4)
        assert torch.linalg.svdvals(x[[0, 1, 2, 3]])[3] < 1e-12
        assert torch.linalg.svdvals(x[[0, 1, 2, 4]])[3] > 1e-3


class TestErrors:
    def test_is_the_distance_of_projectors_in_the_best_order(self):
        _, U, _ = setting()
        assert subspace_error(U[[2, 0, 1]], U) < 1e-7
        other = torch.linalg.qr(torch.randn(3, 10, 2, generator=torch.Generator().manual_seed(5)).double())[0]
        P, Q = other @ other.mT, U @ U.mT
        best = min(
            (P[list(o)] - Q).square().sum((1, 2)).mean()
            for o in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
        )
        torch.testing.assert_close(subspace_error(other, U), best.sqrt())

    @pytest.mark.parametrize(("n", "d", "N"), [(8, 4, 2), (20, 5, 3), (6, 4, 1)])
    def test_span_error_is_that_of_a_random_completion(self, n, d, N):
        g = torch.Generator().manual_seed(6)
        truth = torch.eye(n).double()[:, :d]
        squares = []
        for _ in range(3000):
            frame = torch.cat([truth[:, :N], torch.randn(n, d - N, generator=g, dtype=torch.float64)], 1)
            Q = torch.linalg.qr(frame)[0]
            squares.append(2 * (d - (Q.mT @ truth).square().sum()))
        expected = span_error(torch.tensor(float(N)).double(), n=n, d=d) ** 2
        torch.testing.assert_close(torch.stack(squares).mean(), expected, rtol=0.03, atol=0)

    def test_span_error_vanishes_from_d_on(self):
        assert span_error(torch.tensor([3.0, 4.0, 7.0]), n=9, d=3).abs().max() == 0


class TestJacobian:
    def test_rank_of_a_projection(self):
        U = torch.linalg.qr(torch.randn(9, 3, generator=torch.Generator().manual_seed(7)).double())[0]
        x = torch.ones(9).double()
        assert jacobian_rank(lambda v: U @ U.mT @ v, x, torch.eye(9).double()) == 3
        assert jacobian_rank(lambda v: v.sin(), 0.3 * x, torch.eye(9).double(), energy=1.0) == 9
        probes = torch.randn(5, 9, generator=torch.Generator().manual_seed(8)).double()
        assert jacobian_rank(lambda v: U @ U.mT @ v, x, probes, energy=1.0) == 3
        assert jacobian_rank(lambda v: v, x, probes, energy=1.0) == 5

    def test_energy_is_of_the_squares(self):
        scales = torch.tensor([3.0, 1.0, 0.1]).double()
        ranks = [
            jacobian_rank(lambda v: scales * v, torch.ones(3).double(), torch.eye(3).double(), energy=e)
            for e in (0.89, 0.95, 0.9999)
        ]
        assert [rank.item() for rank in ranks] == [1, 2, 3]

    def test_refuses_an_energy_above_one(self):
        with pytest.raises(ValueError, match="energy"):
            jacobian_rank(curved, torch.ones(3), torch.eye(4), energy=1.5)
