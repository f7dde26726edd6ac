"""Facts about label sharpness, intrinsic dimension and the gradient-sign step."""

import math

import pytest
import torch
from torch import nn

from dlatlas.models.mlp import mlp
from dlatlas.theory.generalisation_dynamics_properties import (
    fgsm,
    label_sharpness,
    mle_dimension,
    nearest_neighbour_distance,
    representation_dimension,
    twonn_dimension,
)
from tests.examples import Example


def network(make):
    torch.manual_seed(0)
    return mlp(3, 5, 2, activation="tanh").to(make.device, make.dtype)


EXAMPLES = [
    Example(
        label_sharpness,
        lambda make: {"x": make.normal(9, 3), "y": torch.arange(9, device=make.device) % 2},
        differentiable=("x",),
    ),
    Example(mle_dimension, lambda make: {"x": make.normal(12, 3), "k": 4}, differentiable=("x",)),
    Example(twonn_dimension, lambda make: {"x": make.normal(12, 3)}, differentiable=("x",)),
    Example(
        nearest_neighbour_distance,
        lambda make: {"n": make.uniform(3, low=5, high=9), "d": make.uniform(3, low=1, high=4)},
        differentiable=("n", "d"),
    ),
    Example(
        representation_dimension,
        lambda make: {"model": network(make), "layer": "1", "x": make.normal(12, 3), "k": 4},
        vmap=False,
    ),
    Example(
        fgsm,
        lambda make: {
            "model": network(make),
            "x": make.uniform(6, 3),
            "y": torch.arange(6, device=make.device) % 2,
            "eps": 0.1,
        },
    ),
]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestSharpness:
    def test_three_points(self):
        x = torch.tensor([[0.0], [3.0], [4.0]])
        assert label_sharpness(x, torch.tensor([0, 0, 1])).item() == pytest.approx(1)
        assert label_sharpness(x, torch.tensor([0, 1, 1])).item() == pytest.approx(1 / 3)

    def test_all_pairs(self):
        x, y = draw(30, 2, 2), torch.randint(3, (30,), generator=torch.Generator().manual_seed(1))
        pairs = [1 / (x[j] - x[k]).norm() for j in range(30) for k in range(30) if y[j] != y[k]]
        torch.testing.assert_close(label_sharpness(x, y), max(pairs))

    def test_blocks_change_nothing(self, monkeypatch):
        x, y = draw(30, 4), torch.arange(30) % 2
        whole = label_sharpness(x, y), mle_dimension(x, 5)
        monkeypatch.setattr("dlatlas.theory.generalisation_dynamics_properties.CHUNK", 100)
        torch.testing.assert_close((label_sharpness(x, y), mle_dimension(x, 5)), whole)

    def test_close_pairs_far_from_the_origin(self):
        x = torch.tensor([[1e3, 0.0], [1e3, 1e-3], [0.0, 0.0]], dtype=torch.float64)
        assert label_sharpness(x, torch.tensor([0, 1, 0])).item() == pytest.approx(1e3, rel=1e-9)

    def test_one_label_and_duplicates(self):
        x = torch.cat([draw(5, 2)] * 2)
        assert label_sharpness(x, torch.zeros(10, dtype=torch.long)) == 0
        with pytest.raises(ValueError, match="two labels"):
            label_sharpness(x, torch.arange(10) // 5)


class TestDimension:
    def test_literal(self):
        x, k = draw(25, 3), 5
        inverses = []
        for i in range(25):
            T = sorted((x[i] - x[j]).norm().item() for j in range(25) if j != i)[:k]
            inverses.append(sum(math.log(T[-1] / T[j]) for j in range(k - 1)) / (k - 1))
        assert mle_dimension(x, k).item() == pytest.approx(25 / sum(inverses))
        assert twonn_dimension(x).item() == pytest.approx(mle_dimension(x, 2).item())

    @pytest.mark.parametrize("dims", [1, 2, 3])
    def test_spheres(self, dims):
        x = torch.nn.functional.normalize(draw(1500, dims + 1), dim=1)
        assert mle_dimension(x).item() == pytest.approx(dims, rel=0.04)
        assert twonn_dimension(x).item() == pytest.approx(dims, rel=0.1)

    def test_scale_and_rotation(self):
        x = draw(60, 2)
        rotation = torch.linalg.qr(draw(10, 10, seed=2)).Q[:2]
        for estimate in (mle_dimension, twonn_dimension):
            torch.testing.assert_close(estimate(7 * x @ rotation + 3), estimate(x))

    def test_bad_input(self):
        with pytest.raises(ValueError, match="k must"):
            mle_dimension(draw(10, 2), 10)
        with pytest.raises(ValueError, match="k must"):
            mle_dimension(draw(10, 2), 1)
        with pytest.raises(ValueError, match="nearest"):
            mle_dimension(torch.cat([draw(10, 2)] * 2), 3)

    def test_nearest_neighbour_on_a_circle(self):
        n = 500
        generator = torch.Generator().manual_seed(0)
        gaps = (torch.rand(400, n, generator=generator) - 0.5).abs().amin(1)
        predicted = nearest_neighbour_distance(torch.tensor(float(n)), torch.tensor(1.0))
        assert predicted.item() == pytest.approx(1 / (2 * n))
        assert gaps.mean().item() == pytest.approx(predicted.item(), rel=0.15)

    def test_nearest_neighbour_in_the_plane(self):
        got = nearest_neighbour_distance(torch.tensor(100.0), torch.tensor(2.0))
        assert got.item() == pytest.approx(0.5 / 10)
        with pytest.raises(ValueError, match="n must"):
            nearest_neighbour_distance(torch.tensor(0.0), torch.tensor(2.0))


class TestNetworks:
    def test_representation_of_a_bottleneck(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 2), nn.Linear(2, 5)).double()
        x = draw(400, 5)
        at_input, at_neck = mle_dimension(x), representation_dimension(model, "0", x)
        assert at_neck < 2.3 < 3.5 < at_input
        torch.testing.assert_close(representation_dimension(model, "1", x), at_neck, rtol=0.2, atol=0)
        assert not model[0]._forward_hooks

    def test_coinciding_outputs_count_once(self):
        model, x = nn.Sequential(nn.ReLU()), draw(200, 2)
        x = torch.cat([x, -x.abs()])
        assert torch.isfinite(representation_dimension(model, "0", x, k=5))

    def test_unknown_layer(self):
        with pytest.raises(ValueError, match="layer"):
            representation_dimension(nn.Sequential(nn.ReLU()), "7", draw(30, 2))

    def test_step_raises_the_loss_by_the_first_order(self):
        torch.manual_seed(1)
        model = mlp(6, 12, 3, activation="tanh").double()
        x, y = torch.rand(20, 6, dtype=torch.float64) * 0.8 + 0.1, torch.arange(20) % 3

        def loss(x):
            return torch.nn.functional.cross_entropy(model(x), y, reduction="none")

        moved = fgsm(model, x, y, 1e-4)
        x_grad = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x_grad).sum(), x_grad)
        torch.testing.assert_close(loss(moved) - loss(x), 1e-4 * gradient.abs().sum(1), rtol=1e-2, atol=1e-9)
        torch.testing.assert_close((moved - x).abs().amax(), torch.tensor(1e-4).double())

    def test_stays_in_the_cube(self):
        model = mlp(3, 4, 2).double()
        x = torch.rand(10, 3, dtype=torch.float64)
        assert torch.equal(fgsm(model, x, torch.zeros(10, dtype=torch.long), 0.0), x)
        moved = fgsm(model, x, torch.zeros(10, dtype=torch.long), 2.0)
        torch.testing.assert_close(moved.clamp(0, 1), moved, rtol=0, atol=0)
        with pytest.raises(ValueError, match="x must"):
            fgsm(model, 255 * x, torch.zeros(10, dtype=torch.long), 0.1)
        with pytest.raises(ValueError, match="eps"):
            fgsm(model, x, torch.zeros(10, dtype=torch.long), -0.1)
