"""Facts that the methods of theory/feature_learning must satisfy: kernels, criticality, fluctuations."""

import math

import pytest
import torch
import torch.nn.functional as F

from dlatlas.theory.feature_learning_effective import (
    critical_init,
    forward_kernels,
    gauss_expect,
    homogeneous_fluctuation,
    is_homogeneous,
    kernel_rg,
    susceptibilities,
    vertex_rg,
)
from tests.examples import Example

TANH = {"act": torch.tanh, "C_W": 1.2, "C_b": 0.1, "depth": 4}
EXAMPLES = [
    Example(gauss_expect, lambda make: {"fn": torch.tanh, "K": make.uniform(3)}, differentiable=("K",)),
    Example(kernel_rg, lambda make: {**TANH, "K1": make.uniform(3, low=0.5)}, differentiable=("K1",)),
    Example(
        susceptibilities,
        lambda make: {"act": torch.tanh, "C_W": 1.2, "K": make.uniform(3, low=0.5)},
        differentiable=("K",),
    ),
    Example(critical_init, lambda make: {"act": torch.sin}, vmap=False),
    Example(is_homogeneous, lambda make: {"act": torch.relu}, vmap=False),
    Example(vertex_rg, lambda make: {**TANH, "K1": make.uniform(3, low=0.5)}, differentiable=("K1",)),
    Example(homogeneous_fluctuation, lambda make: {"act": torch.relu, "n": 8, "depth": 3}, vmap=False),
    Example(
        forward_kernels,
        lambda make: {
            "act": torch.tanh,
            "C_W": 1.2,
            "C_b": 0.1,
            "K1": make.uniform(1)[0] + 0.5,
            "noise": make.normal(3, 5, 6),
        },
        differentiable=("K1", "noise"),
    ),
]


def leaky(z: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(z, 0.3)


def identity(z: torch.Tensor) -> torch.Tensor:
    return z


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


class TestExpectation:
    def test_moments(self):
        K = double(0.5, 2.0)
        torch.testing.assert_close(gauss_expect(lambda z: z**4, K), 3 * K**2)
        torch.testing.assert_close(gauss_expect(lambda z: torch.relu(z) ** 4, K), 1.5 * K**2)

    def test_closed_form(self):
        K = double(0.3, 1.7)
        torch.testing.assert_close(gauss_expect(torch.cos, K), torch.exp(-K / 2))
        erf = gauss_expect(lambda z: torch.erf(z) ** 2, K)
        torch.testing.assert_close(erf, 2 / math.pi * torch.asin(2 * K / (1 + 2 * K)))

    def test_refuses_what_has_no_moment(self):
        with pytest.raises(ValueError, match="relative change of the expectation"):
            gauss_expect(lambda z: torch.exp(z.square()), double(1.0))

    @pytest.mark.parametrize("order", [0, 7])
    def test_refuses_orders(self, order):
        with pytest.raises(ValueError, match="order"):
            gauss_expect(torch.tanh, double(1.0), order=order)

    def test_refuses_negative_variances(self):
        with pytest.raises(ValueError, match="K must lie"):
            gauss_expect(torch.tanh, double(-1.0))


class TestCriticality:
    @pytest.mark.parametrize(
        ("act", "C_W"), [(torch.relu, 2.0), (identity, 1.0), (leaky, 2 / 1.09), (torch.tanh, 1.0), (torch.sin, 1.0)]
    )
    def test_values(self, act, C_W):
        assert critical_init(act) == (pytest.approx(C_W), 0.0)

    @pytest.mark.parametrize("act", [torch.relu, leaky, identity])
    def test_scale_invariant_for_every_kernel(self, act):
        parallel, perpendicular = susceptibilities(act, critical_init(act)[0], double(0.01, 1.0, 30.0))
        torch.testing.assert_close(parallel, torch.ones(3).double())
        torch.testing.assert_close(perpendicular, torch.ones(3).double())

    @pytest.mark.parametrize("act", [torch.tanh, torch.sin])
    def test_fixed_point_at_zero(self, act):
        for value in susceptibilities(act, critical_init(act)[0], double(1e-6)):
            assert value.item() == pytest.approx(1, abs=1e-5)

    @pytest.mark.parametrize("act", [torch.tanh, F.gelu, torch.sigmoid])
    def test_two_forms_of_the_parallel_susceptibility(self, act):
        K = double(0.4, 1.5)
        slope = torch.func.vmap(torch.func.grad(lambda k: 1.3 * gauss_expect(lambda z: act(z).square(), k)))(K)
        torch.testing.assert_close(susceptibilities(act, 1.3, K)[0], slope, rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize("act", [torch.sigmoid, torch.cos, torch.square, F.gelu])
    def test_refuses_the_other_classes(self, act):
        with pytest.raises(ValueError, match="act must"):
            critical_init(act)

    def test_homogeneous(self):
        assert is_homogeneous(leaky)
        assert not is_homogeneous(torch.tanh)
        assert not is_homogeneous(torch.zeros_like)


class TestRecursions:
    def test_kernel_by_hand(self):
        K = kernel_rg(torch.relu, 1.6, 0.3, double(2.0)[0], 3)
        torch.testing.assert_close(K, double(2.0, 0.3 + 1.6, 0.3 + 0.8 * 1.9))

    def test_tanh_decays_universally(self):
        for start in (0.1, 1.0, 9.0):
            K = kernel_rg(torch.tanh, 1.0, 0.0, double(start)[0], 2000)[-1]
            assert 2 * 2000 * K.item() == pytest.approx(1, abs=0.01)

    @pytest.mark.parametrize(("act", "slope"), [(torch.relu, 5), (identity, 2)])
    def test_vertex_of_the_scale_invariant(self, act, slope):
        V = vertex_rg(act, critical_init(act)[0], 0.0, double(1.5)[0], 6)
        torch.testing.assert_close(V, slope * 1.5**2 * torch.arange(6).double())

    @pytest.mark.parametrize("act", [torch.tanh, torch.sin])
    def test_vertex_of_the_class_of_zero(self, act):
        K, V = (f(act, 1.0, 0.0, double(1.0)[0], 1000)[-1] for f in (kernel_rg, vertex_rg))
        assert (V / K**2 / 1000).item() == pytest.approx(2 / 3, rel=0.01)

    def test_refuses(self):
        one = double(1.0)[0]
        with pytest.raises(ValueError, match="C_W must be greater than 0"):
            kernel_rg(torch.tanh, 0.0, 0.0, one, 3)
        with pytest.raises(ValueError, match="C_b"):
            vertex_rg(torch.tanh, 1.0, -0.1, one, 3)
        with pytest.raises(ValueError, match="relative change"):
            kernel_rg(lambda z: torch.exp(z.square()), 1.0, 0.0, one, 2)
        with pytest.raises(ValueError, match="K must lie"):
            susceptibilities(torch.tanh, 1.0, double(0.0))


class TestFluctuations:
    def test_one_unit_wide(self):
        assert homogeneous_fluctuation(torch.relu, 1, 1) + 1 == pytest.approx(6)
        assert homogeneous_fluctuation(identity, 4, 3) == pytest.approx(1.5**3 - 1)

    def test_grows_like_the_vertex_when_wide(self):
        V = vertex_rg(leaky, critical_init(leaky)[0], 0.0, double(1.0)[0], 5)[-1].item()
        assert 1e6 * homogeneous_fluctuation(leaky, 10**6, 4) == pytest.approx(V, rel=1e-4)

    def test_refuses_other_activations(self):
        with pytest.raises(ValueError, match="linear on either side"):
            homogeneous_fluctuation(torch.tanh, 4, 3)

    def test_chain_is_that_of_weight_matrices(self):
        """Same moments of Q after three layers, from drawn pre-activations and from weights."""
        g = torch.Generator().manual_seed(0)
        n, depth, nets = 6, 3, 20_000
        chain = forward_kernels(torch.tanh, 1.5, 0.0, torch.tensor(1.0), torch.randn(depth, nets, n, generator=g))[-1]
        x = torch.ones(nets, n, 1)
        for index in range(depth):
            scale = math.sqrt((1.0 if index == 0 else 1.5) / n)
            x = torch.tanh(scale * torch.randn(nets, n, n, generator=g) @ x)
        matrices = 1.5 * x.square().mean((1, 2))
        assert chain.mean().item() == pytest.approx(matrices.mean().item(), rel=0.02)
        assert chain.var().item() == pytest.approx(matrices.var().item(), rel=0.06)

    @pytest.mark.parametrize("act", [torch.relu, identity])
    def test_variance_is_exact(self, act):
        noise = torch.randn(3, 100_000, 12, generator=torch.Generator().manual_seed(1))
        Q = forward_kernels(act, critical_init(act)[0], 0.0, torch.tensor(2.0), noise)[-1]
        assert Q.mean().item() == pytest.approx(2, rel=0.02)
        assert (Q.var() / Q.mean() ** 2).item() == pytest.approx(homogeneous_fluctuation(act, 12, 3), rel=0.1)
