"""Facts that the methods of theory/random_features_attention must satisfy."""

import pytest
import torch
import torch.nn.functional as F

from dlatlas.theory.random_features_attention import (
    rf_attention_features,
    rf_attention_kernel,
    rf_attention_spectrum,
    rf_mlp_features,
)
from tests.examples import Example

EXAMPLES = [
    Example(
        rf_attention_features,
        lambda make: {"x0": make.normal(4, 3), "keys": make.normal(4, 5, 3), "W": make.normal(6, 4, 4)},
        differentiable=("x0", "keys", "W"),
    ),
    Example(
        rf_attention_kernel,
        lambda make: {
            "x0": make.normal(4, 3),
            "keys": make.normal(4, 5, 3),
            "x0b": make.normal(2, 3),
            "keysb": make.normal(2, 3, 3),
            "sigma2": 0.25,
        },
        differentiable=("x0", "keys", "x0b", "keysb"),
    ),
    Example(
        rf_attention_spectrum,
        lambda make: {"d": 4, "n_keys": 3, "sigma2": 0.25, "dtype": make.dtype},
        vmap=False,
    ),
    Example(
        rf_mlp_features,
        lambda make: {"x": make.normal(4, 3), "W": make.normal(6, 4)},
        differentiable=("x", "W"),
    ),
]


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


class TestFeatures:
    def test_is_the_triple_loop(self, draw):
        x0, keys, W = draw(3, 2), draw(3, 4, 2), draw(5, 3, 3)
        expected = torch.zeros(3, 5, 3, dtype=torch.float64)
        one = torch.ones(1, dtype=torch.float64)
        for n in range(3):
            for m in range(5):
                for i in range(4):
                    key = torch.cat([keys[n, i], one])
                    expected[n, m] += max(float(torch.cat([x0[n], one]) @ W[m] @ key), 0.0) * key / 4
        torch.testing.assert_close(rf_attention_features(x0, keys, W), expected.flatten(1))

    def test_order_and_repetition_of_keys(self, draw):
        x0, keys, W = draw(3, 2), draw(3, 4, 2), draw(5, 3, 3)
        features = rf_attention_features(x0, keys, W)
        torch.testing.assert_close(rf_attention_features(x0, keys.flip(1), W), features)
        torch.testing.assert_close(rf_attention_features(x0, torch.cat([keys, keys], 1), W), features)

    def test_mlp_features(self, draw):
        x, W = draw(3, 2), draw(4, 3)
        torch.testing.assert_close(rf_mlp_features(x, W), torch.relu(x @ W[:, :2].T + W[:, 2]))

    def test_refuses(self, draw):
        with pytest.raises(ValueError, match="W must have the order 3"):
            rf_attention_features(draw(3, 2), draw(3, 4, 2), draw(5, 4, 4))
        with pytest.raises(ValueError, match="W must have 3 columns"):
            rf_mlp_features(draw(3, 2), draw(4, 2))


class TestKernel:
    def test_is_the_mean_over_heads(self, draw):
        x0, keys = draw(3, 2) / 2, draw(3, 4, 2) / 2
        heads = 200_000
        phi = rf_attention_features(x0, keys, 0.5 * draw(heads, 3, 3))
        K = rf_attention_kernel(x0, keys, x0, keys, sigma2=0.25)
        torch.testing.assert_close(phi @ phi.mT / heads / K, torch.ones(3, 3).double(), atol=0.02, rtol=0)

    def test_only_ones(self):
        zero = torch.zeros(1, 3).double()
        got = rf_attention_kernel(zero, zero[None], zero, zero[None], sigma2=0.3)
        assert got.item() == pytest.approx(0.15)

    def test_many_rows_are_the_same_as_few(self, draw):
        x0, keys = draw(20, 2), draw(20, 4, 2)
        whole = rf_attention_kernel(x0, keys, x0[:3], keys[:3], sigma2=0.25)
        part = rf_attention_kernel(x0[11:13], keys[11:13], x0[:3], keys[:3], sigma2=0.25)
        torch.testing.assert_close(whole[11:13], part)

    def test_refuses(self, draw):
        with pytest.raises(ValueError, match="sigma2"):
            rf_attention_kernel(draw(2, 2), draw(2, 4, 2), draw(2, 2), draw(2, 4, 2), sigma2=0.0)


class TestSpectrum:
    @pytest.mark.parametrize("d", [3, 5])
    def test_gives_the_kernel_back(self, draw, d):
        N, degree = 3, 20
        sectors, mult, _ = rf_attention_spectrum(d, N, sigma2=0.25, degree=degree)
        x = F.normalize(draw(6, N + 1, d), dim=-1)
        x0, keys = x[:, 0], x[:, 1:]
        s, t = x0[:3] @ x0[3:].T, torch.einsum("nid,mjd->nmij", keys[:3], keys[3:])

        def polynomials(t):
            values = [torch.ones_like(t), t]
            for a in range(1, degree):
                values.append(((2 * a + d - 2) * t * values[a] - a * values[a - 1]) / (a + d - 2))
            return torch.stack(values)

        h = torch.cat([sectors[:, :1], N * sectors[:, 1:]], 1)
        summed = torch.einsum("ab,ab,anm,bnm->nm", h, mult, polynomials(s), polynomials(t).mean((-1, -2)))
        K = rf_attention_kernel(x0[:3], keys[:3], x0[3:], keys[3:], sigma2=0.25)
        torch.testing.assert_close(summed, K, atol=1e-4, rtol=0)

    def test_numbers_of_harmonics_and_trace(self, draw):
        sectors, mult, rest = rf_attention_spectrum(3, 4, sigma2=0.5, degree=5)
        assert mult[0].tolist() == [1, 3, 5, 7, 9, 11]
        x = F.normalize(draw(4000, 5, 3), dim=-1)
        diagonal = [rf_attention_kernel(v[:1], v[None, 1:], v[:1], v[None, 1:], sigma2=0.5).item() for v in x[:400]]
        assert ((sectors * mult).sum() + rest).item() == pytest.approx(sum(diagonal) / 400, rel=0.03)
        assert rest < 0.02 * (sectors * mult).sum()

    def test_degree_zero_and_refusals(self):
        sectors, mult, _ = rf_attention_spectrum(4, 2, sigma2=1.0, degree=0)
        assert sectors.shape == mult.shape == (1, 1)
        for arguments in ({"d": 2}, {"n_keys": 0}, {"degree": -1}, {"sigma2": 0.0}):
            with pytest.raises(ValueError, match=next(iter(arguments))):
                rf_attention_spectrum(**{"d": 4, "n_keys": 2, "sigma2": 1.0, "degree": 3, **arguments})
