"""Facts that the methods of theory/simplicity_bias must satisfy: shortcuts."""

import pytest
import torch

from dlatlas.theory.simplicity_bias import (
    feature_means,
    latent_quadrature,
    lda_reference,
    probe_grid,
    reliance,
    shortcut_bias,
    two_feature_data,
)
from tests.examples import Example, Make


def sample(make: Make) -> dict:
    return {
        "n": 7,
        "rho": (0.8, 0.95),
        "alpha": (0.4, 0.1),
        "nest": (0, 2),
        "dim": 20,
        "noise": 0.1,
        "generator": torch.Generator().manual_seed(3),
        "dtype": make.dtype,
    }


def means(make: Make) -> torch.Tensor:
    return make.uniform(2, low=0.5, high=2.0)


EXAMPLES = [
    Example(feature_means, lambda make: {"rho": make.uniform(3, low=0.6, high=0.95)}, differentiable=("rho",)),
    Example(two_feature_data, sample, vmap=False),
    Example(probe_grid, lambda make: {"points": 6, "limit": 2.0, "dtype": make.dtype}, vmap=False),
    Example(reliance, lambda make: {"outputs": make.normal(12), "z": make.uniform(12, 2, low=0.1)}),
    Example(lda_reference, lambda make: {"z": make.normal(5, 2), "mu": means(make)}, differentiable=("z", "mu")),
    Example(
        shortcut_bias,
        lambda make: {"outputs": make.normal(12), "z": make.uniform(12, 2, low=0.1), "mu": means(make)},
    ),
    Example(latent_quadrature, lambda make: {"mu": means(make), "points": 8}, differentiable=("mu",)),
]


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


class TestData:
    def test_predictivity(self):
        drawn = two_feature_data(100_000, (0.7, 0.95), (1.0, 1.0), dim=16, generator=torch.Generator().manual_seed(0))
        agreement = (drawn.z.sign() == drawn.y[:, None]).double().mean(0)
        torch.testing.assert_close(agreement, doubles(0.7, 0.95), atol=5e-3, rtol=0)

    def test_embedding_is_an_isometry_up_to_amplification(self):
        generator = torch.Generator().manual_seed(1)
        drawn = two_feature_data(50, (0.7, 0.9), (2.0, 0.5), dim=30, generator=generator, dtype=torch.float64)
        scaled = drawn.z * doubles(2.0, 0.5)
        torch.testing.assert_close(drawn.x @ drawn.x.mT, scaled @ scaled.mT)
        torch.testing.assert_close(drawn.embed(drawn.z), drawn.x)

    def test_nest_keeps_loudness_and_information(self):
        generator = torch.Generator().manual_seed(2)
        drawn = two_feature_data(4000, (0.9, 0.9), (1.0, 1.0), nest=(0, 2), dim=20, generator=generator)
        shortcut = drawn.z[:, :1] @ drawn.embed.directions[0, :1].float()
        nested = drawn.x - shortcut
        assert nested.square().sum(1).mean().item() == pytest.approx(drawn.z[:, 1].square().mean().item(), rel=0.1)
        line = torch.stack([torch.zeros(200), torch.linspace(-3, 3, 200)], 1)
        distances = torch.cdist(drawn.embed(line), drawn.embed(line)) + torch.eye(200)
        assert distances.min() > 1e-4

    def test_noise_fills_the_space(self):
        drawn = two_feature_data(
            40, (0.9, 0.9), (1.0, 1.0), dim=16, noise=0.1, generator=torch.Generator().manual_seed(0)
        )
        assert torch.linalg.matrix_rank(drawn.x) == 16

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"rho": (0.5, 0.9)}, "rho"),
            ({"rho": (0.9, 1.0)}, "rho"),
            ({"alpha": (0.0, 1.0)}, "alpha"),
            ({"nest": (-1, 0)}, "nest"),
            ({"n": 0}, "n must"),
            ({"dim": 15}, "dim"),
            ({"noise": -1.0}, "noise"),
        ],
    )
    def test_bad_input(self, change, message):
        arguments = {"n": 5, "rho": (0.8, 0.9), "alpha": (1.0, 1.0), "generator": torch.Generator()} | change
        with pytest.raises(ValueError, match=message):
            two_feature_data(**arguments)


class TestReliance:
    def test_extremes(self):
        z = probe_grid(10)
        assert reliance(z[:, 0], z) == 0.5
        assert reliance(z[:, 1], z) == -0.5
        assert reliance(torch.ones(100), z) == 0

    def test_best_rule(self):
        z, mu = probe_grid(dtype=torch.float64), doubles(1.0, 2.0)
        assert shortcut_bias(lda_reference(z, mu), z, mu) == 0
        assert reliance(lda_reference(z, doubles(1.5, 1.5)), z) == 0

    def test_bad_input(self):
        with pytest.raises(ValueError, match="even"):
            probe_grid(41)
        with pytest.raises(ValueError, match="limit"):
            probe_grid(limit=0.0)
        with pytest.raises(ValueError, match="absolute value of z"):
            reliance(torch.ones(3), torch.zeros(3, 2))


class TestQuadrature:
    def test_quadrature_knows_the_distribution(self):
        mu = doubles(1.3, 2.1)
        z, weights, target = latent_quadrature(mu, points=60, limit=7.0)
        assert weights.sum().item() == pytest.approx(1)
        second = z.mT @ (weights[:, None] * z)
        torch.testing.assert_close(
            second, torch.eye(2, dtype=torch.float64) + torch.outer(mu, mu), rtol=1e-4, atol=1e-4
        )
        # E[y z] = mu, so the regression function correlates with z like the label.
        torch.testing.assert_close(z.mT @ (weights * target), mu, rtol=1e-4, atol=1e-4)
