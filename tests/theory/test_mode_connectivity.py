"""Facts about paths between networks, and about matching their units."""

import math
from itertools import product

import pytest
import torch

from dlatlas.ops.matching import apply_perms, best_assignment, mlp_spec, weight_matching
from dlatlas.theory.mode_connectivity import (
    barrier,
    barrier_curve,
    distance_from_singular_values,
    distance_reduction,
    expected_mismatches,
    interpolate,
    interpolation_curve,
    singular_overlap,
    ste_matching,
)
from tests.examples import Example, Make

SPEC = mlp_spec(["0", "2"])


def quartic(params):
    return params.pow(4).sum()


def net(make: Make) -> dict[str, torch.Tensor]:
    shapes = {"0.weight": (4, 3), "0.bias": (4,), "2.weight": (2, 4), "2.bias": (2,)}
    return {name: make.normal(*shape) for name, shape in shapes.items()}


def two_ends(make: Make) -> dict:
    return {"params_a": make.normal(5), "params_b": make.normal(5)}


def length(params):
    return sum(p.square().sum() for p in params.values())


EXAMPLES = [
    Example(
        interpolate, lambda make: {**two_ends(make), "a": make.uniform(1).squeeze(0)}, differentiable=("params_a", "a")
    ),
    Example(
        interpolation_curve,
        lambda make: {"loss": quartic, **two_ends(make), "lams": make.uniform(4)},
        differentiable=("params_a", "params_b", "lams"),
    ),
    Example(barrier, lambda make: {"curve": make.normal(7)}, differentiable=("curve",)),
    Example(
        barrier_curve,
        lambda make: {"loss": quartic, **two_ends(make), "n": 5},
        differentiable=("params_a", "params_b"),
    ),
    Example(
        distance_reduction,
        lambda make: {**two_ends(make), "matched_b": make.normal(5)},
        differentiable=("params_a", "params_b", "matched_b"),
    ),
    Example(
        singular_overlap,
        lambda make: {"layers_a": [make.normal(5, 3)], "layers_b": [make.normal(5, 3)], "g": 0.3},
        vmap=False,
    ),
    Example(
        distance_from_singular_values,
        lambda make: {"Wa": make.normal(5, 3), "Wb": make.normal(5, 3)},
        differentiable=("Wa", "Wb"),
    ),
    Example(expected_mismatches, lambda make: {"units": make.normal(6, 3), "noise": 0.8}, differentiable=("units",)),
    Example(
        ste_matching,
        lambda make: {"params_a": net(make), "params_b": net(make), "spec": SPEC, "loss": length, "steps": 3},
        vmap=False,
    ),
]


@pytest.fixture
def make():
    return Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))


class TestPaths:
    def test_ends_are_the_networks(self, make):
        a, b = net(make), net(make)
        for position, end in ((0.0, a), (1.0, b)):
            between = interpolate(a, b, position)
            assert all(torch.equal(between[name], end[name]) for name in end)

    def test_refuses_other_architectures(self, make):
        with pytest.raises(ValueError, match="both ends must be one architecture"):
            interpolate({"w": make.normal(3)}, {"w": make.normal(4)}, 0.5)
        with pytest.raises(ValueError, match="both ends must be one architecture"):
            interpolate({"w": make.normal(3)}, {"v": make.normal(3)}, 0.5)

    def test_barrier_by_hand(self):
        assert barrier(torch.tensor([0.1, 0.6, 0.3])).item() == pytest.approx(0.4)
        assert barrier(torch.tensor([0.1, 0.0, 0.3])).item() == 0
        with pytest.raises(ValueError, match="number of positions must be at least 3"):
            barrier(torch.tensor([0.1, 0.3]))

    def test_curve_of_a_quartic(self):
        above, height = barrier_curve(quartic, -torch.ones(1), torch.ones(1), n=3)
        assert above.tolist() == [0, -1, 0]
        assert height == 0

    def test_curve_and_height_agree(self, make):
        a, b = make.normal(3), make.normal(3)
        lams = torch.linspace(0, 1, 9, dtype=torch.float64)

        def wavy(t):
            return torch.sin(3 * t).sum()

        above, height = barrier_curve(wavy, a, b, n=9)
        assert height == above.max()
        torch.testing.assert_close(height, barrier(interpolation_curve(wavy, a, b, lams)))


class TestMatching:
    def test_distance_reduction(self, make):
        a, b = make.normal(6), make.normal(6)
        assert distance_reduction(a, b, a).item() == 1
        assert distance_reduction(a, b, b).item() == pytest.approx(0, abs=1e-12)
        assert distance_reduction(a, b, (a + b) / 2).item() == pytest.approx(0.5)
        with pytest.raises(ValueError, match="distance of the networks"):
            distance_reduction(a, a, b)

    def test_overlap_of_leading_vectors(self, make):
        U, _ = torch.linalg.qr(make.normal(4, 4))
        V, _ = torch.linalg.qr(make.normal(4, 4))
        s = torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64)
        W = U @ torch.diag(s) @ V.T
        swapped = U[:, [1, 0, 2, 3]] @ torch.diag(s) @ V.T[[1, 0, 2, 3]]
        assert singular_overlap([W], [W], 0.0).item() == pytest.approx(1)
        assert singular_overlap([W], [swapped], 1.0).item() == pytest.approx(0, abs=1e-12)
        assert singular_overlap([W], [swapped], 0.4).item() == pytest.approx(1)
        # The one kept vector of the second layer agrees, the two of the first do not.
        assert singular_overlap([W, W], [-W, W], 0.4).item() == pytest.approx(1)

    def test_layers_count_by_their_kept_vectors(self):
        one, other = torch.diag(torch.tensor([1.0, 0.9, 0.1])), torch.diag(torch.tensor([1.0, 0.1, 0.1]))
        turned = torch.diag(torch.tensor([0.1, 0.1, 1.0]))
        assert singular_overlap([one, other], [one, turned], 0.5).item() == pytest.approx(2 / 3)

    def test_overlap_refuses(self, make):
        with pytest.raises(ValueError, match="g must lie in"):
            singular_overlap([make.normal(3, 3)], [make.normal(3, 3)], 1.5)

    def test_distance_from_singular_values(self, make):
        Wa, Wb = make.normal(5, 3), make.normal(5, 3)
        distance, floor = distance_from_singular_values(Wa, Wb)
        torch.testing.assert_close(distance, (Wa - Wb).square().sum())
        moved, floor_moved = distance_from_singular_values(Wa, Wb[[3, 1, 0, 4, 2]])
        torch.testing.assert_close(floor, floor_moved)
        assert floor < min(distance, moved)

    def test_floor_is_reached_by_orthogonal_matrices(self, make):
        Wa, Wb = make.normal(4, 4), make.normal(4, 4)
        (U, s, Vh), (U2, s2, Vh2) = (torch.linalg.svd(W) for W in (Wa, Wb))
        turned = U @ U2.T @ Wb @ Vh2.T @ Vh
        _, floor = distance_from_singular_values(Wa, Wb)
        torch.testing.assert_close(floor, (Wa - turned).square().sum())
        torch.testing.assert_close(floor, (s - s2).square().sum())


class TestRecovery:
    def test_sum_by_hand(self, make):
        w, sigma = make.normal(5, 3), 0.7

        def chance(*cycle):
            around = zip(cycle, cycle[1:] + cycle[:1], strict=True)
            squared = sum(float((w[i] - w[j]).square().sum()) for i, j in around)
            return 0.5 * math.erfc(math.sqrt(squared) / (2 * sigma) / math.sqrt(2))

        pairs = sum(chance(i, j) for i, j in product(range(5), repeat=2) if i != j)
        triples = sum(chance(*c) for c in product(range(5), repeat=3) if len(set(c)) == 3)
        assert expected_mismatches(w, sigma).item() == pytest.approx((pairs + triples) / 5)

    def test_equal_units_are_exchanged_half_of_the_time(self):
        w = torch.tensor([[0.0, 0.0], [0.0, 0.0], [50.0, 0.0]])
        assert expected_mismatches(w, 0.1).item() == pytest.approx(2 * 0.5 / 3)

    def test_agrees_with_matching(self, make):
        w, sigma, copies = make.normal(20, 6), 0.45, 400
        wrong = 0
        for _ in range(copies):
            noisy = w + sigma * make.normal(20, 6)
            wrong += (best_assignment(w @ noisy.T) != torch.arange(20)).double().mean().item()
        assert wrong / copies == pytest.approx(expected_mismatches(w, sigma).item(), rel=0.25)

    def test_refuses_no_noise(self, make):
        with pytest.raises(ValueError, match="noise must lie"):
            expected_mismatches(make.normal(3, 2), 0.0)


class TestStraightThrough:
    def test_finds_a_copy(self, make):
        a, x = net(make), make.normal(40, 3)

        def outputs(p):
            return torch.relu(x @ p["0.weight"].T + p["0.bias"]) @ p["2.weight"].T + p["2.bias"]

        target = outputs(a)
        order = torch.tensor([1, 0, 2, 3])
        b = apply_perms(a, {"0": order}, SPEC)
        found = ste_matching(a, b, SPEC, lambda p: (outputs(p) - target).square().mean(), steps=5)
        assert torch.equal(order[found["0"]], torch.arange(4))

    def test_never_worse_than_weight_matching(self, make):
        a, b = net(make), net(make)

        def loss(p):
            return p["0.weight"].pow(4).sum() + p["2.weight"].square().sum()

        def halfway(perms):
            return loss(interpolate(a, apply_perms(b, perms, SPEC), 0.5))

        first = halfway(weight_matching(a, b, SPEC))
        assert halfway(ste_matching(a, b, SPEC, loss, steps=1)) == first
        assert halfway(ste_matching(a, b, SPEC, loss, steps=30, lr=0.1)) < first

    def test_refuses_no_steps(self, make):
        with pytest.raises(ValueError, match="steps must be at least 1"):
            ste_matching(net(make), net(make), SPEC, length, steps=0)
