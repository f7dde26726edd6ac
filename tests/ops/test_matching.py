"""Facts that matching hidden units must satisfy."""

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlatlas.models.mlp import mlp
from dlatlas.ops.matching import apply_perms, best_assignment, matching_gain, mlp_spec, weight_matching
from tests.examples import Example, Make

SPEC = mlp_spec(["0", "2", "4"])
SHAPES = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (5, 4), "2.bias": (5,), "4.weight": (2, 5), "4.bias": (2,)}


def network(make: Make) -> dict[str, torch.Tensor]:
    return {name: make.normal(*shape) for name, shape in SHAPES.items()}


def perms(make: Make) -> dict[str, torch.Tensor]:
    orders = {"0": [2, 0, 3, 1], "2": [4, 1, 0, 2, 3]}
    return {key: torch.tensor(order, device=make.device) for key, order in orders.items()}


EXAMPLES = [
    Example(mlp_spec, lambda _: {"layers": ["0", "2", "4"]}, vmap=False),
    Example(best_assignment, lambda make: {"gain": make.normal(5, 5)}, vmap=False),
    Example(apply_perms, lambda make: {"params": network(make), "perms": perms(make), "spec": SPEC}, vmap=False),
    Example(
        matching_gain,
        lambda make: {
            "params_a": network(make),
            "params_b": network(make),
            "perms": perms(make),
            "key": "2",
            "spec": SPEC,
        },
        vmap=False,
    ),
    Example(
        weight_matching, lambda make: {"params_a": network(make), "params_b": network(make), "spec": SPEC}, vmap=False
    ),
]


def drawn(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return network(Make(torch.float64, torch.device("cpu"), generator))


def shuffled(params, seed):
    generator = torch.Generator().manual_seed(seed)
    orders = {key: torch.randperm(m, generator=generator) for key, m in (("0", 4), ("2", 5))}
    return apply_perms(params, orders, SPEC)


def inner(a, b):
    return sum((a[name] * b[name]).sum() for name in a)


class TestSpec:
    def test_says_which_permutation_acts_on_which_axis(self):
        assert SPEC["0.weight"] == ("0", None)
        assert SPEC["2.weight"] == ("2", "0")
        assert SPEC["4.weight"] == (None, "2")
        assert SPEC["4.bias"] == (None,)

    def test_refuses(self):
        with pytest.raises(ValueError, match="number of layers must be at least 2"):
            mlp_spec(["0"])
        with pytest.raises(ValueError, match="different names"):
            mlp_spec(["0", "0"])


class TestAssignment:
    @settings(deadline=None, max_examples=30)
    @given(seed=st.integers(0, 10_000), m=st.integers(1, 5))
    def test_is_the_best_of_all(self, seed, m):
        gain = torch.randn(m, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        rows = torch.arange(m)
        best = max(gain[rows, list(p)].sum() for p in permutations(range(m)))
        assert gain[rows, best_assignment(gain)].sum() == pytest.approx(best.item())

    def test_refuses_undefined_gains(self):
        with pytest.raises(ValueError, match="gain must be finite"):
            best_assignment(torch.tensor([[1.0, torch.nan], [0.0, 1.0]]))


class TestPermuting:
    def test_unit_i_is_the_old_unit_p_i(self):
        params = drawn(0)
        p = torch.tensor([1, 3, 0, 2])
        moved = apply_perms(params, {"0": p, "2": torch.arange(5)}, SPEC)
        assert torch.equal(moved["0.weight"], params["0.weight"][p])
        assert torch.equal(moved["0.bias"], params["0.bias"][p])
        assert torch.equal(moved["2.weight"], params["2.weight"][:, p])
        assert torch.equal(moved["4.weight"], params["4.weight"])

    def test_keeps_the_outputs(self):
        torch.manual_seed(0)
        net, x = mlp(3, 4, 5, 2).double(), torch.randn(7, 3, dtype=torch.float64)
        params = {name: p.detach() for name, p in net.named_parameters()}
        got = torch.func.functional_call(net, shuffled(params, 1), (x,))
        torch.testing.assert_close(got, net(x))

    def test_leaves_other_parameters_alone(self):
        params = drawn(0) | {"scale": torch.ones(3)}
        assert torch.equal(shuffled(params, 1)["scale"], torch.ones(3))

    def test_refuses(self):
        params, order = drawn(0), {"0": torch.arange(4), "2": torch.arange(5)}
        with pytest.raises(ValueError, match=r"params must have 2\.bias"):
            apply_perms({n: v for n, v in params.items() if n != "2.bias"}, order, SPEC)
        with pytest.raises(ValueError, match="must have 2 axes"):
            apply_perms(params | {"2.weight": torch.zeros(5, 4, 1)}, order, SPEC)
        with pytest.raises(ValueError, match="permutation 0 must have 4 entries, got 3"):
            apply_perms(params, order | {"0": torch.arange(3)}, SPEC)


class TestGain:
    def test_differences_are_those_of_the_inner_product(self):
        a, b = drawn(1), drawn(2)
        order = {"0": torch.tensor([2, 0, 3, 1]), "2": torch.tensor([4, 1, 0, 2, 3])}
        for key, m in (("0", 4), ("2", 5)):
            gain, rows = matching_gain(a, b, order, key, SPEC), torch.arange(m)
            now = inner(a, apply_perms(b, order, SPEC))
            for p in list(permutations(range(m)))[::17]:
                other = order | {key: torch.tensor(p)}
                change = inner(a, apply_perms(b, other, SPEC)) - now
                by_gain = gain[rows, other[key]].sum() - gain[rows, order[key]].sum()
                torch.testing.assert_close(by_gain, change)

    def test_refuses(self):
        a, order = drawn(1), {"0": torch.arange(4), "2": torch.arange(5)}
        with pytest.raises(ValueError, match="must be a permutation of the specification"):
            matching_gain(a, a, order, "7", SPEC)
        with pytest.raises(ValueError, match="must act on one axis of w"):
            matching_gain({"w": torch.eye(3)}, {"w": torch.eye(3)}, {"p": torch.arange(3)}, "p", {"w": ("p", "p")})


class TestMatching:
    @settings(deadline=None, max_examples=30)
    @given(seed=st.integers(0, 10_000))
    def test_never_makes_the_distance_larger(self, seed):
        a, b = drawn(seed), drawn(seed + 1)
        matched = apply_perms(b, weight_matching(a, b, SPEC, seed=seed), SPEC)
        assert inner(a, matched) >= inner(a, b) - 1e-9

    @pytest.mark.parametrize("seed", range(5))
    def test_recognises_a_permuted_copy_of_one_hidden_layer(self, seed):
        spec = mlp_spec(["0", "4"])
        a = {"0.weight": drawn(seed)["2.weight"], "0.bias": drawn(seed)["2.bias"]}
        a |= {"4.weight": drawn(seed)["4.weight"], "4.bias": drawn(seed)["4.bias"]}
        order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
        b = apply_perms(a, {"0": order}, spec)
        found = weight_matching(a, b, spec, seed=seed)
        assert torch.equal(order[found["0"]], torch.arange(5))

    def test_ends_where_all_is_tied(self):
        zeros = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
        assert torch.equal(weight_matching(zeros, zeros, SPEC)["0"], torch.arange(4))

    def test_refuses_other_widths(self):
        wider = drawn(0) | {"0.weight": torch.zeros(6, 3), "0.bias": torch.zeros(6), "2.weight": torch.zeros(5, 6)}
        with pytest.raises(ValueError, match="params_a must have the layer sizes"):
            weight_matching(wider, drawn(0), SPEC)
