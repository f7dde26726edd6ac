"""Facts of `dlatlas.models.mup`."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlatlas.models.mlp import mlp
from dlatlas.models.mup import MupScale, mup_groups, mup_init_, mup_scales
from dlatlas.theory.feature_learning import ABCMLP, abc_table


class Tiny(nn.Module):
    """Embedding, free position table, attention, normalisation, readout."""

    def __init__(self, width):
        super().__init__()
        self.embedding = nn.Embedding(7, width)
        self.position = nn.Parameter(torch.randn(1, 5, width))
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)

    def forward(self, tokens):
        h = self.embedding(tokens) + self.position
        return self.head(self.norm(self.attention(h, h, h)[0]))


def test_the_three_kinds_of_a_perceptron():
    scales = mup_scales(mlp(6, 40, 80, 3), mlp(6, 10, 10, 3))
    assert scales["0.weight"] == scales["0.bias"] == MupScale(1.0, 4.0, 1.0)
    assert scales["2.weight"] == MupScale(1.0, 2.0, 1 / 4)
    assert scales["2.bias"] == MupScale(1.0, 8.0, 1.0)
    assert scales["4.weight"] == MupScale(1 / math.sqrt(8), 1 / 8, 1 / 8)
    assert scales["4.bias"] == MupScale(1.0, 1.0, 1.0)


def test_the_base_model_is_left_as_it_is():
    assert set(mup_scales(mlp(6, 10, 10, 3), mlp(6, 10, 10, 3)).values()) == {MupScale(1.0, 1.0, 1.0)}


def test_a_transformer():
    scales = mup_scales(Tiny(16), Tiny(4))
    vectors = ("embedding.weight", "position", "norm.weight", "norm.bias", "attention.in_proj_bias")
    assert {scales[name] for name in vectors} == {MupScale(1.0, 4.0, 1.0)}
    assert scales["attention.in_proj_weight"] == scales["attention.out_proj.weight"] == MupScale(1.0, 1.0, 1 / 4)
    assert scales["head.weight"] == MupScale(0.5, 1 / 4, 1 / 4)


def test_convolutions_ignore_the_kernel_size():
    def net(width):
        return nn.Sequential(nn.Conv2d(3, width, 5), nn.ReLU(), nn.Conv2d(width, width, 3))

    scales = mup_scales(net(8), net(4))
    assert scales["0.weight"] == MupScale(1.0, 2.0, 1.0)
    assert scales["2.weight"] == MupScale(1.0, 1.0, 1 / 2)


def test_initial_readout_shrinks():
    torch.manual_seed(0)
    model = mlp(4, 32, 2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert mup_init_(model, mup_scales(model, mlp(4, 8, 2))) is model
    torch.testing.assert_close(model[2].weight.detach(), before["2.weight"] / 2)
    torch.testing.assert_close(model[0].weight.detach(), before["0.weight"])


def test_groups_hold_every_parameter_once():
    model = Tiny(16)
    groups = mup_groups(dict(model.named_parameters()), mup_scales(model, Tiny(4)), lr=0.1, rule="adam")
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert sorted(group["lr"] for group in groups) == pytest.approx([0.025, 0.1])
    torch.optim.Adam(groups)


def test_is_the_abc_parametrisation():
    """Rates by layer and multipliers in the forward pass give one trajectory of the function."""
    base_width, width, eta, x, y = 8, 32, 0.1, torch.randn(12, 5).double(), torch.arange(12) % 3
    torch.manual_seed(3)
    abc = ABCMLP(5, width, 3, abc_table("mup", 2)).double()
    plain, base = mlp(5, width, width, 3, bias=False).double(), mlp(5, base_width, base_width, 3, bias=False)
    with torch.no_grad():
        for layer, factor, weight in zip((0, 2, 4), abc.factors, abc.weights, strict=True):
            plain[layer].weight.copy_(factor * weight)
    scales = mup_scales(plain, base)
    # At the base width the plain network has the rates of each layer that the abc network has there.
    rates = [eta * base_width, eta, eta / base_width]
    optimisers = [
        torch.optim.SGD(abc.parameters(), lr=abc.lr(eta)),
        torch.optim.SGD(
            [
                {"params": [plain[layer].weight], "lr": rate * scales[f"{layer}.weight"].sgd}
                for layer, rate in zip((0, 2, 4), rates, strict=True)
            ]
        ),
    ]
    for _ in range(10):
        for net, optimiser in zip((abc, plain), optimisers, strict=True):
            optimiser.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimiser.step()
    torch.testing.assert_close(abc(x), plain(x), rtol=1e-9, atol=1e-9)


def test_refuses_models_that_differ():
    with pytest.raises(ValueError, match=r"parameter 4.weight with 2 axes"):
        mup_scales(mlp(4, 8, 8, 2), mlp(4, 4, 2))
    with pytest.raises(ValueError, match="lacks"):
        mup_scales(mlp(4, 8, 2), mlp(4, 4, 4, 2))
    model = mlp(4, 8, 2)
    named, scales = dict(model.named_parameters()), mup_scales(model, model)
    with pytest.raises(ValueError, match="rule must be one of sgd, adam"):
        mup_groups(named, scales, lr=0.1, rule="lion")
    with pytest.raises(ValueError, match="lr must be greater than 0"):
        mup_groups(named, scales, lr=0.0, rule="sgd")
