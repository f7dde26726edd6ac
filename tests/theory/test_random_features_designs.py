"""Facts that the methods of theory/random_features_designs must satisfy."""

import itertools
import math
from functools import partial

import pytest
import torch

from dlatlas.ops.kernel_ridge import weighted_lstsq
from dlatlas.theory.random_features_designs import (
    christoffel,
    condition_gram,
    gram,
    iid_failure_bound,
    projection_dpp_probability,
    sample_optimal_iid,
    sample_projection_dpp,
    sample_repeated_dpp,
    sample_volume_rescaled,
)
from tests.examples import Example, Make


def orthonormal(values):
    return torch.linalg.qr(values).Q * math.sqrt(len(values))


def basis(make: Make) -> torch.Tensor:
    return orthonormal(make.normal(7, 2))


def seeded():
    return torch.Generator().manual_seed(0)


def sampled(function, **arguments) -> Example:
    return Example(
        function, lambda make: {"phi": basis(make), "draws": 3, "generator": seeded(), **arguments}, vmap=False
    )


EXAMPLES = [
    Example(christoffel, lambda make: {"phi": basis(make)}, differentiable=("phi",)),
    Example(
        gram,
        lambda make: {"phi": basis(make), "idx": torch.tensor([[0, 3, 6], [1, 1, 2]], device=make.device)},
        differentiable=("phi",),
    ),
    Example(
        projection_dpp_probability,
        lambda make: {"phi": basis(make), "idx": torch.tensor([[0, 3], [1, 6]], device=make.device)},
        differentiable=("phi",),
    ),
    sampled(sample_optimal_iid, n=4),
    sampled(sample_projection_dpp),
    sampled(sample_volume_rescaled, n=4),
    sampled(sample_repeated_dpp, r=2),
    Example(
        condition_gram,
        lambda make: {
            "sampler": lambda draws: torch.tensor([[0, 1, 2, 3, 4, 5, 6]] * draws, device=make.device),
            "phi": basis(make),
            "draws": 2,
            "delta": 0.99,
        },
        vmap=False,
    ),
    Example(iid_failure_bound, lambda make: {"m": 3, "n": 90, "delta": 0.5}, vmap=False),
]

LINE = torch.arange(7, dtype=torch.float64)
PHI = orthonormal(torch.stack([torch.ones(7, dtype=torch.float64), LINE], 1))
U = (0.9 * LINE).sin() + LINE**2 / 9
COEFFICIENTS = PHI.T @ U / 7
BEST = (U - PHI @ COEFFICIENTS).square().mean()


def tuples(n):
    return torch.tensor(list(itertools.product(range(7), repeat=n)))


class TestEnumeration:
    def test_chain_rule_is_the_determinant(self):
        pairs = tuples(2)
        K = PHI @ PHI.T
        expected = torch.linalg.det(K[pairs[:, :, None], pairs[:, None, :]]) / 2 / 49
        probability = projection_dpp_probability(PHI, pairs)
        torch.testing.assert_close(probability, expected, atol=1e-12, rtol=0)
        assert probability.sum().item() == pytest.approx(1, abs=1e-12)
        marginal = torch.zeros(7).double().index_add(0, pairs[:, 1], probability)
        torch.testing.assert_close(marginal, PHI.square().sum(1) / 14)

    def test_interpolation_costs_m_plus_one(self):
        pairs = tuples(2)
        probability = projection_dpp_probability(PHI, pairs)
        pairs, probability = pairs[probability > 1e-12], probability[probability > 1e-12]
        fits = weighted_lstsq(PHI[pairs], U[pairs], christoffel(PHI)[pairs])
        torch.testing.assert_close((probability[:, None] * fits).sum(0), COEFFICIENTS)
        error = (probability * (fits - COEFFICIENTS).square().sum(1)).sum() + BEST
        assert (error / BEST).item() == pytest.approx(3, abs=1e-9)

    def test_volume_rescaled(self):
        fours = tuples(4)
        mass = torch.linalg.det(gram(PHI, fours)) * (1 / christoffel(PHI) / 7)[fours].prod(1)
        assert mass.sum().item() == pytest.approx(0.75, abs=1e-12)
        fours, mass = fours[mass > 1e-12], mass[mass > 1e-12] / 0.75
        fits = weighted_lstsq(PHI[fours], U[fours], christoffel(PHI)[fours])
        torch.testing.assert_close((mass[:, None] * fits).sum(0), COEFFICIENTS)
        inverse = (mass[:, None, None] * torch.linalg.inv(gram(PHI, fours))).sum(0)
        assert torch.linalg.eigvalsh(inverse)[-1] <= 4 / 3 + 1e-9


class TestSamplers:
    def frequencies(self, idx):
        return torch.bincount(idx.flatten(), minlength=7) / idx.numel()

    def test_projection_process(self):
        idx = sample_projection_dpp(PHI, draws=40_000, generator=seeded())
        flat = torch.bincount(idx[:, 0] * 7 + idx[:, 1], minlength=49) / len(idx)
        expected = projection_dpp_probability(PHI, tuples(2))
        torch.testing.assert_close(flat.double(), expected, atol=0.006, rtol=0)

    @pytest.mark.parametrize(
        "sampler",
        [partial(sample_optimal_iid, n=3), partial(sample_volume_rescaled, n=3), partial(sample_repeated_dpp, r=2)],
        ids=["iid", "volume", "repeated"],
    )
    def test_points_have_the_optimal_law(self, sampler):
        idx = sampler(PHI, draws=20_000, generator=seeded())
        for column in (idx, idx[:, :1], idx[:, -1:]):
            expected = (PHI.square().sum(1) / 14).float()
            torch.testing.assert_close(self.frequencies(column), expected, atol=0.012, rtol=0)

    def test_volume_rescaled_law(self):
        idx = sample_volume_rescaled(PHI, 3, draws=60_000, generator=seeded())
        triples = tuples(3)
        mass = torch.linalg.det(gram(PHI, triples)) * (1 / christoffel(PHI) / 7)[triples].prod(1)
        counted = torch.bincount(idx[:, 0] * 49 + idx[:, 1] * 7 + idx[:, 2], minlength=343) / len(idx)
        torch.testing.assert_close(counted.double(), mass / mass.sum(), atol=0.003, rtol=0)

    def test_blocks_of_repeated_process_are_spread(self):
        """No block of a projection process holds a point twice."""
        idx = sample_repeated_dpp(PHI, 3, draws=500, generator=seeded()).reshape(500, 3, 2)
        assert (idx[..., 0] != idx[..., 1]).all()

    def test_mean_gram_is_the_identity(self):
        G = gram(PHI, sample_repeated_dpp(PHI, 2, draws=20_000, generator=seeded()))
        torch.testing.assert_close(G.mean(0), torch.eye(2).double(), atol=0.02, rtol=0)

    def test_conditioning(self):
        sampler = partial(sample_repeated_dpp, PHI, 3, generator=seeded())
        idx = condition_gram(lambda draws: sampler(draws=draws), PHI, draws=200, delta=0.5)
        assert torch.linalg.eigvalsh(gram(PHI, idx))[:, 0].min() >= 0.5
        with pytest.raises(ValueError, match="designs below"):
            condition_gram(lambda draws: torch.zeros(draws, 3).long(), PHI, draws=2, delta=0.5, max_tries=3)

    def test_bound_holds(self):
        phi = orthonormal(torch.randn(50, 3, generator=seeded(), dtype=torch.float64))
        for n in (60, 90):
            G = gram(phi, sample_optimal_iid(phi, n, draws=2000, generator=seeded()))
            failed = (torch.linalg.eigvalsh(G)[:, 0] < 0.5).double().mean()
            assert failed <= iid_failure_bound(3, n, delta=0.5) < 1

    def test_bound_in_the_form_of_the_chernoff_inequality(self):
        expected = 3 * (math.exp(-0.4) / 0.6**0.6) ** (90 / 3)
        assert iid_failure_bound(3, 90, delta=0.4) == pytest.approx(expected)
        assert iid_failure_bound(3, 3, delta=0.4) == 1

    def test_weights_have_mean_one_under_the_optimal_law(self):
        w = christoffel(PHI)
        assert (1 / w).mean().item() == pytest.approx(1)

    def test_refuses(self):
        with pytest.raises(ValueError, match="deviation of the basis"):
            christoffel(2 * PHI)
        with pytest.raises(ValueError, match="deviation of the basis"):
            sample_projection_dpp(2 * PHI, draws=1)
        with pytest.raises(ValueError, match="n must be at least 2"):
            sample_volume_rescaled(PHI, 1, draws=1)
        with pytest.raises(ValueError, match="r must be at least 1"):
            sample_repeated_dpp(PHI, 0, draws=1)
        with pytest.raises(ValueError, match="draws must be at least 1"):
            sample_projection_dpp(PHI, draws=0)
        with pytest.raises(ValueError, match="delta must lie between"):
            iid_failure_bound(2, 3, delta=1.0)
        with pytest.raises(ValueError, match="delta must lie"):
            condition_gram(lambda draws: tuples(2)[:draws], PHI, draws=1, delta=2.0)
