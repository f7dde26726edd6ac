"""Facts that the methods of theory/feature_learning must satisfy: abc-parametrisations."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dlatlas.theory.feature_learning import (
    ABC,
    ABCMLP,
    abc_between,
    abc_classify,
    abc_movement,
    abc_shift,
    abc_table,
    coord_check,
)
from tests.examples import Example, Make

MUP = abc_table("mup", 2)


def coordinates(make: Make) -> dict:
    net = ABCMLP(3, 6, 2, MUP, act="erf").to(make.dtype)
    shapes = {name: p.shape for name, p in net.named_parameters()}
    params = {name: make.normal(*shape) / math.sqrt(6) for name, shape in shapes.items()}
    return {"net": net, "params": params, "x": make.normal(4, 3), "loss": square, "lr": 0.1, "steps": 3}


def square(f: torch.Tensor) -> torch.Tensor:
    return (f - 1).square().mean()


EXAMPLES = [
    Example(abc_table, lambda make: {"name": "ntk", "L": 2}, vmap=False),
    Example(abc_between, lambda make: {"s": 0.5, "L": 3}, vmap=False),
    Example(abc_shift, lambda make: {"exponents": MUP, "t": 0.3}, vmap=False),
    Example(abc_movement, lambda make: MUP._asdict(), vmap=False),
    Example(abc_classify, lambda make: MUP._asdict(), vmap=False),
    Example(coord_check, coordinates, differentiable=("x",)),
]


class TestClassification:
    @pytest.mark.parametrize(
        ("name", "L", "r", "regime"),
        [
            ("mup", 1, 0.0, "feature learning"),
            ("mup", 4, 0.0, "feature learning"),
            ("ntk", 1, 0.5, "kernel"),
            ("ntk", 3, 0.5, "kernel"),
            ("standard", 2, 0.5, "kernel"),
            ("standard", 1, 1.5, "kernel"),
            ("mean-field", 1, 0.0, "feature learning"),
            ("standard-c0", 2, -1.0, "unstable"),
        ],
    )
    def test_of_the_table(self, name, L, r, regime):
        found = abc_classify(*abc_table(name, L))
        assert found.r == pytest.approx(r)
        assert found.regime == regime
        assert found.stable == (regime != "unstable")

    def test_mean_field_is_mup_with_one_hidden_layer(self):
        shifted = abc_shift(abc_table("mup", 1), 0.5)
        mean_field = abc_table("mean-field", 1)
        assert shifted.a == mean_field.a
        assert shifted.b == mean_field.b
        assert shifted.c == mean_field.c

    @pytest.mark.parametrize("s", [0.0, 0.3, 1.0])
    def test_line_between(self, s):
        found = abc_classify(*abc_between(s, 3))
        assert found.stable
        assert found.nontrivial
        assert found.r == pytest.approx(s / 2)

    def test_ends_of_the_line(self):
        assert abc_between(0.0, 2) == abc_table("mup", 2)
        assert abc_between(1.0, 2) == abc_table("ntk", 2)

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.floats(-2, 2), min_size=3, max_size=5),
        st.floats(-2, 2),
        st.floats(-1, 1),
        st.lists(st.floats(-2, 2), min_size=5, max_size=5),
    )
    def test_shift_changes_nothing(self, a, c, t, b):
        kind = ABC(tuple(a), tuple(b[: len(a)]), c)
        assert abc_movement(*abc_shift(kind, t)) == pytest.approx(abc_movement(*kind), abs=1e-9)

    def test_a_slow_rate_is_trivial(self):
        a, b, c = abc_table("ntk", 2)
        assert abc_classify(a, b, c + 0.5).regime == "trivial"

    def test_layers_move_at_least_as_far_as_their_input(self):
        assert abc_movement(*abc_table("standard", 3)) == pytest.approx((1.5, 0.5, 0.5))
        assert abc_movement((-1.0, 0.0, 0.5), (1.0, 0.5, 0.5), 0.0) == pytest.approx((-1.0, -1.0))


class TestNetwork:
    def test_scales(self):
        torch.manual_seed(0)
        net = ABCMLP(4, 400, 2, abc_table("mup", 2))
        assert net.factors == pytest.approx([20.0, 1.0, 1 / 20])
        for weight in net.weights:
            assert weight.std().item() == pytest.approx(1 / 20, rel=0.1)
        assert net.biases is None

    def test_forward_is_the_formula(self):
        net = ABCMLP(3, 5, 2, abc_between(0.5, 1)).double()
        x = torch.randn(4, 3).double()
        first, last = net.weights
        h = 5**0.25 * x @ first.T
        torch.testing.assert_close(net(x), 5**-0.5 * torch.relu(h) @ last.T)

    @pytest.mark.parametrize("name", ["mup", "ntk", "standard"])
    def test_shift_gives_the_same_training(self, name):
        x, y = torch.randn(8, 3).double(), torch.randn(8, 2).double()

        def train(kind):
            net = ABCMLP(3, 16, 2, kind, act="erf").double()
            torch.manual_seed(6)
            with torch.no_grad():  # once more, in double precision
                for w, b in zip(net.weights, kind.b, strict=True):
                    w.copy_(16**-b * torch.randn_like(w))
            optimiser = torch.optim.SGD(net.parameters(), lr=net.lr(0.2))
            for _ in range(20):
                optimiser.zero_grad()
                F.mse_loss(net(x), y).backward()
                optimiser.step()
            return net(x)

        kind = abc_table(name, 2)
        torch.testing.assert_close(train(abc_shift(kind, 0.3)), train(kind), rtol=1e-10, atol=1e-11)

    def test_rate(self):
        assert ABCMLP(3, 16, 2, abc_table("standard", 2)).lr(0.5) == pytest.approx(0.5 / 16)
        mean_field = ABCMLP(3, 16, 2, abc_table("mean-field", 1))
        assert mean_field.lr(0.5) == pytest.approx(8.0)

    def test_refuses_a_rate_without_its_power_of_the_width(self):
        with pytest.raises(ValueError, match="stable parametrisation"):
            ABCMLP(3, 16, 2, abc_table("standard-c0", 2)).lr(0.5)


class TestMovement:
    def test_is_what_an_optimiser_does(self):
        torch.manual_seed(0)
        net = ABCMLP(3, 8, 2, MUP).double()
        x = torch.randn(5, 3).double()
        params = {name: p.detach().clone() for name, p in net.named_parameters()}
        got = coord_check(net, params, x, square, lr=0.2, steps=4)
        before = net.preactivations(params, x)
        optimiser = torch.optim.SGD(net.parameters(), lr=0.2)
        for _ in range(4):
            optimiser.zero_grad()
            square(net(x)).backward()
            optimiser.step()
        after = net.preactivations(dict(net.named_parameters()), x)
        for layer, (u, v) in enumerate(zip(before, after, strict=True)):
            if layer < 2:
                u, v = u.clamp(min=0), v.clamp(min=0)
            assert got[layer].item() == pytest.approx((u - v).square().mean().sqrt().item(), rel=1e-9)

    @pytest.mark.parametrize("name", ["mup", "ntk", "standard"])
    def test_exponents(self, name):
        x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
        moved = []
        for width in (64, 1024):
            found = []
            for seed in range(8):
                torch.manual_seed(seed)
                net = ABCMLP(3, width, 2, abc_table(name, 2))
                params = {key: p.detach() for key, p in net.named_parameters()}
                found.append(coord_check(net, params, x, square, lr=net.lr(0.1), steps=2)[:2].log())
            moved.append(torch.stack(found).mean(0))
        slopes = (moved[1] - moved[0]) / math.log(16)
        assert slopes.tolist() == pytest.approx([-r for r in abc_movement(*abc_table(name, 2))], abs=0.15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: abc_table("he", 2), "name must be one of"),
        (lambda: abc_table("mup", 0), "L must be at least 1"),
        (lambda: abc_table("mean-field", 2), "L of the mean-field"),
        (lambda: abc_between(1.5, 2), "s must lie in"),
        (lambda: abc_movement((0.0,), (0.0,), 0.0), "number of layers in a"),
        (lambda: abc_classify((0.0, 0.0), (0.0,), 0.0), "number of layers in b"),
        (lambda: ABCMLP(3, 4, 2, MUP).lr(0.0), "eta must be greater than 0"),
    ],
)
def test_refuses_what_makes_no_sense(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("change", "message"), [({"lr": 0.0}, "lr"), ({"steps": 0}, "steps")])
def test_movement_refuses(change, message):
    make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=message):
        coord_check(**{**coordinates(make), **change})
