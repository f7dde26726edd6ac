"""Facts that the methods of theory/random_features_bandlimit must satisfy."""

import math

import pytest
import torch

from dlatlas.ops.kernel_ridge import truncated_lstsq
from dlatlas.theory.random_features_bandlimit import bandlimit_floor, box_filter, random_net_features, ridgelet
from tests.examples import Example


def bump(t):
    return torch.exp(-(t**2) / 2)


def wavelet(t):
    return (1 - t**2) * bump(t) / (2 * math.pi)


def bump_hat(omega):
    return math.sqrt(2 * math.pi) * bump(omega)


def wavelet_hat(omega):
    return omega**2 * bump(omega) / math.sqrt(2 * math.pi)


EXAMPLES = [
    Example(
        random_net_features,
        lambda make: {
            "x": make.normal(4, 2),
            "n_units": 3,
            "lam": 2.0,
            "generator": torch.Generator().manual_seed(0),
        },
        differentiable=("x",),
        vmap=False,
    ),
    Example(
        ridgelet,
        lambda make: {
            "f": make.normal(9),
            "a_grid": make.normal(2),
            "b_grid": make.normal(3),
            "rho": wavelet,
            "x_grid": make.uniform(9, low=0.1).cumsum(0),
        },
        differentiable=("f", "a_grid", "b_grid", "x_grid"),
    ),
    Example(
        bandlimit_floor,
        lambda make: {
            "fhat": make.normal(9),
            "freqs": torch.linspace(-4, 4, 9, dtype=make.dtype, device=make.device),
            "lam": 1.5,
        },
        differentiable=("fhat",),
    ),
    Example(
        box_filter,
        lambda make: {"shat": bump_hat, "rhohat": wavelet_hat, "ratio": make.uniform(3, high=2.0)},
        differentiable=("ratio",),
    ),
]

X = torch.linspace(-7, 7, 1401, dtype=torch.float64)


def target(x):
    return torch.sin(2 * math.pi * x) * torch.exp(-(x**2))


class TestFeatures:
    def test_weights_fill_the_box(self):
        """With the identity as activation the features at 0 are the biases, at unit vectors the weights less these."""
        x = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double()
        generator = torch.Generator().manual_seed(0)
        features = random_net_features(x, 20_000, 3.0, lambda t: t, generator=generator)
        weights = torch.cat([features[1:] - features[:1], -features[:1]])
        assert weights.abs().max() <= 3.0
        torch.testing.assert_close(weights.var(1), torch.full((3,), 3.0).double(), atol=0.1, rtol=0)
        assert (torch.corrcoef(weights) - torch.eye(3)).abs().max() < 0.03

    def test_refuses(self):
        x = torch.zeros(2, 1)
        with pytest.raises(ValueError, match="lam must be greater than 0"):
            random_net_features(x, 3, 0.0)
        with pytest.raises(ValueError, match="n_units"):
            random_net_features(x, 0, 1.0)
        with pytest.raises(ValueError, match="x must be finite"):
            random_net_features(x / 0, 3, 1.0)


class TestRidgelet:
    def test_translation(self):
        a, b, shift = torch.tensor([0.5, -3.0, 8.0]).double(), torch.tensor([0.0, 1.2]).double(), 0.4
        moved = ridgelet(target(X - shift), a, b, wavelet, X)
        expected = torch.cat([ridgelet(target(X), s[None], b - s * shift, wavelet, X) for s in a])
        torch.testing.assert_close(moved, expected, atol=1e-10, rtol=0)

    def test_linear(self):
        a, b = torch.tensor([2.0]).double(), torch.tensor([0.0, 1.2]).double()
        both = ridgelet(2 * target(X) - bump(X), a, b, wavelet, X)
        apart = 2 * ridgelet(target(X), a, b, wavelet, X) - ridgelet(bump(X), a, b, wavelet, X)
        torch.testing.assert_close(both, apart)

    def test_gaussian_in_closed_form(self):
        """R of a Gaussian for a Gaussian is a Gaussian integral."""
        a, b = torch.tensor([1.5]).double(), torch.tensor([0.7]).double()
        got = ridgelet(bump(X), a, b, bump, X)
        expected = math.sqrt(2 * math.pi / (1 + 1.5**2)) * math.exp(-(0.7**2) / 2 / (1 + 1.5**2))
        assert got.item() == pytest.approx(expected, rel=1e-7)

    @pytest.mark.parametrize("lam", [3.0, 8.0])
    def test_reconstruction_is_the_filter(self, lam):
        a = torch.linspace(-lam, lam, 401).double()
        b = torch.linspace(-3 * lam - 6, 3 * lam + 6, 601).double()
        x = X[::5]
        R = ridgelet(target(x), a, b, wavelet, x)
        at = torch.tensor([0.0, 0.2, 0.9]).double()
        cell = (a[1] - a[0]) * (b[1] - b[0])
        ends = torch.ones_like(a)
        ends[[0, -1]] = 0.5
        rebuilt = torch.stack([(ends[:, None] * R * bump(a[:, None] * t - b)).sum() * cell for t in at])
        omega = torch.linspace(-30, 30, 6001).double()
        fhat = sum(s * torch.exp(-((omega - s * 2 * math.pi) ** 2) / 4) for s in (1, -1)) * math.sqrt(math.pi) / 2j
        kept = fhat * torch.exp(-((omega / lam) ** 2))
        expected = (torch.exp(1j * at[:, None] * omega) @ kept).real * 0.01 / (2 * math.pi)
        torch.testing.assert_close(rebuilt, expected, atol=2e-4, rtol=0)

    def test_refuses(self):
        one = torch.ones(1).double()
        with pytest.raises(ValueError, match="number of points"):
            ridgelet(one, one, one, wavelet, one)
        with pytest.raises(ValueError, match="steps of x_grid"):
            ridgelet(X, one, one, wavelet, -X)


class TestFloors:
    def test_filter_in_closed_form(self):
        ratio = torch.tensor([0.0, 0.5, -1.0, 2.0, 20.0]).double()
        torch.testing.assert_close(box_filter(bump_hat, wavelet_hat, ratio), torch.exp(-(ratio**2)), atol=1e-5, rtol=0)

    def test_parseval_and_error_function(self):
        omega = torch.linspace(-40, 40, 40_001).double()
        fhat = sum(s * torch.exp(-((omega - s * 2 * math.pi) ** 2) / 4) for s in (1, -1)) * math.sqrt(math.pi) / 2j
        norm = target(X).square().sum() * 0.01
        assert bandlimit_floor(fhat, omega, 0.0).item() == pytest.approx(norm.item(), rel=1e-3)
        for lam in (5.0, 7.0):
            expected = math.erfc((lam - 2 * math.pi) / math.sqrt(2)) / 2
            assert (bandlimit_floor(fhat, omega, lam) / norm).item() == pytest.approx(expected, abs=2e-3)

    def test_waves_on_a_period(self):
        x = 2 * math.pi * torch.arange(64).double() / 64
        c = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        f = sum(c[k] * torch.cos(k * x) for k in range(7))
        waves = torch.stack([torch.cos(k * x) for k in range(4)] + [torch.sin(k * x) for k in range(1, 4)], 1)
        rest = f - waves @ truncated_lstsq(waves, f)
        assert rest.square().mean().item() == pytest.approx((c[4:] ** 2).sum().item() / 2, rel=1e-10)

    def test_refuses(self):
        with pytest.raises(ValueError, match="lam must be at least"):
            bandlimit_floor(X, X, -1.0)
        with pytest.raises(ValueError, match="number of frequencies"):
            bandlimit_floor(X[:1], X[:1], 1.0)
        with pytest.raises(ValueError, match="largest"):
            box_filter(bump_hat, wavelet_hat, X, largest=0.0)
        with pytest.raises(ValueError, match="points"):
            box_filter(bump_hat, wavelet_hat, X, points=0)
