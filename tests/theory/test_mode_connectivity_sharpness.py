"""Facts about adaptive sharpness, straggler layers and their repair."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from dlatlas.models.mlp import mlp
from dlatlas.theory.mode_connectivity_sharpness import (
    adaptive_sharpness,
    layer_sharpness,
    sparsify_delta,
    straggler_layers,
)
from tests.examples import Example, Make


def smooth(params):
    return torch.sin(params).sum() + params.pow(4).sum() / 10


def squares(params):
    return sum((k + 1) * p.square().sum() for k, p in enumerate(params.values()))


def named(make: Make) -> dict:
    return {"0.weight": make.normal(2, 3), "0.bias": make.normal(2), "last.weight": make.normal(1, 2)}


EXAMPLES = [
    Example(
        adaptive_sharpness,
        lambda make: {"loss": smooth, "params": make.normal(4), "rho": 0.1, "steps": 3},
        differentiable=("params",),
    ),
    Example(layer_sharpness, lambda make: {"loss": squares, "params": named(make), "rho": 0.1}, vmap=False),
    Example(straggler_layers, lambda make: {"loss": squares, "p0": named(make), "p1": named(make)}, vmap=False),
    Example(
        sparsify_delta,
        lambda make: {"p0": named(make), "p1": named(make), "layers": ["0"], "q": 0.5},
        vmap=False,
    ),
]


@pytest.fixture
def make():
    return Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))


class TestSharpness:
    @pytest.mark.parametrize("steps", [1, 5])
    def test_one_dimension(self, steps):
        w = torch.tensor([2.0], dtype=torch.float64)
        got = adaptive_sharpness(lambda v: 1.5 * v.square().sum(), w, 0.1, steps=steps)
        assert got.item() == pytest.approx(0.42 * 3)

    def test_is_the_maximum_of_a_parabola(self, make):
        A = make.normal(2, 2)
        H, w = A @ A.T, make.normal(2)

        def loss(v):
            return 0.5 * v @ H @ v

        angles = torch.linspace(0, 2 * math.pi, 2001, dtype=torch.float64)
        ring = torch.stack([angles.cos(), angles.sin()], 1)
        best = max(loss(w + 0.3 * w.abs() * e) for e in ring) - loss(w)
        torch.testing.assert_close(adaptive_sharpness(loss, w, 0.3), best, atol=1e-5, rtol=1e-5)

    def test_is_invariant_to_scale_between_rectified_layers(self, make):
        torch.manual_seed(0)
        net, x, y = mlp(3, 5, 2).double(), make.normal(20, 3), torch.arange(20) % 2
        params = {name: p.detach() for name, p in net.named_parameters()}
        factors = {"0.weight": 3.0, "0.bias": 3.0, "2.weight": 1 / 3, "2.bias": 1.0}
        rescaled = {name: factors[name] * p for name, p in params.items()}

        def loss(p):
            return F.cross_entropy(functional_call(net, p, (x,)), y)

        torch.testing.assert_close(adaptive_sharpness(loss, rescaled, 0.1), adaptive_sharpness(loss, params, 0.1))

    def test_more_steps_do_not_lower_it(self, make):
        w = make.normal(6)
        values = [adaptive_sharpness(smooth, w, 0.5, steps=steps) for steps in (1, 2, 5, 20)]
        assert all(u <= v for u, v in pairwise(values))

    def test_perturbs_only_the_layers_that_are_named(self, make):
        params = named(make)
        alone = adaptive_sharpness(squares, params, 0.1, layers=["last"])
        expected = adaptive_sharpness(lambda v: 3 * v.square().sum(), params["last.weight"], 0.1)
        torch.testing.assert_close(alone, expected)

    def test_first_order(self, make):
        params = named(make)
        by_layer = layer_sharpness(squares, params, 1e-4)
        whole = torch.stack(list(by_layer.values())).norm()
        torch.testing.assert_close(whole, adaptive_sharpness(squares, params, 1e-4), rtol=1e-3, atol=0)
        for layer in ("0", "last"):
            exact = adaptive_sharpness(squares, params, 1e-4, layers=[layer])
            torch.testing.assert_close(by_layer[layer], exact, rtol=1e-3, atol=0)

    def test_refuses(self, make):
        with pytest.raises(ValueError, match="rho must be greater than 0"):
            adaptive_sharpness(smooth, make.normal(3), 0.0)
        with pytest.raises(ValueError, match="steps must be at least 1"):
            adaptive_sharpness(smooth, make.normal(3), 0.1, steps=0)
        with pytest.raises(ValueError, match="layers must be among"):
            adaptive_sharpness(squares, named(make), 0.1, layers=["7"])
        with pytest.raises(ValueError, match="rho must be greater than 0"):
            layer_sharpness(squares, named(make), -1.0)


class TestStragglers:
    @staticmethod
    def humps(params):
        """The first layer has a hump of height 2 between 0 and 1, the second of height 5, the third none."""
        a, b, c = (params[f"{layer}.weight"].sum() for layer in "abc")
        return 2 * torch.sin(math.pi * a) + 5 * torch.sin(math.pi * b) + c.square()

    def test_finds_the_highest_barrier(self):
        p0 = {f"{layer}.weight": torch.zeros(1) for layer in "abc"}
        p1 = {f"{layer}.weight": torch.ones(1) for layer in "abc"}
        assert straggler_layers(self.humps, p0, p1, frac=0.1) == ["b"]
        assert straggler_layers(self.humps, p0, p1, frac=0.5) == ["b", "a"]
        assert straggler_layers(self.humps, p0, p1, frac=1.0) == ["b", "a", "c"]

    def test_refuses(self, make):
        for frac in (0.0, 1.5):
            with pytest.raises(ValueError, match="frac must"):
                straggler_layers(squares, named(make), named(make), frac=frac)


class TestSparsify:
    def test_undoes_the_smallest_changes_of_the_layer(self):
        p0 = {"a.weight": torch.zeros(4), "a.bias": torch.zeros(1), "b.weight": torch.zeros(2)}
        p1 = {
            "a.weight": torch.tensor([0.1, -3.0, 0.2, 4.0]),
            "a.bias": torch.tensor([-0.15]),
            "b.weight": torch.tensor([0.01, 1.0]),
        }
        sparse = sparsify_delta(p0, p1, ["a"], 0.4)
        assert torch.equal(sparse["a.weight"], torch.tensor([0.0, -3.0, 0.2, 4.0]))
        assert torch.equal(sparse["a.bias"], torch.zeros(1))
        assert torch.equal(sparse["b.weight"], p1["b.weight"])

    def test_limits(self, make):
        p0, p1 = named(make), named(make)
        nothing, all_of_it = (sparsify_delta(p0, p1, ["0", "last"], q) for q in (0.0, 1.0))
        assert all(torch.equal(nothing[name], p1[name]) for name in p1)
        assert all(torch.equal(all_of_it[name], p0[name]) for name in p0)

    def test_refuses(self, make):
        with pytest.raises(ValueError, match="q must lie in"):
            sparsify_delta(named(make), named(make), ["0"], 1.2)
        with pytest.raises(ValueError, match="layers must be among"):
            sparsify_delta(named(make), named(make), ["7"], 0.5)
