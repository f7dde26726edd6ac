"""Facts that the methods of theory/attention_theory must satisfy: transformers as ensembles of paths."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlatlas.models.vit import ViT
from dlatlas.theory.attention_theory_paths import (
    EnsembleScale,
    PathEnsembleViT,
    component_contributions,
    path_components,
    path_distillation_loss,
    prune_paths,
    token_high_frequency,
)
from tests.examples import Example, Make


def small_vit(dtype=torch.float64, depth=3, device="cpu"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ViT(4, image_size=8, patch_size=4, dim=8, depth=depth, heads=2).to(device, dtype)


def readout(make: Make):
    return small_vit(make.dtype, device=make.device).requires_grad_(False)


EXAMPLES = [
    Example(
        path_components,
        lambda make: {"vit": readout(make), "images": make.uniform(2, 1, 8, 8)},
        differentiable=("images",),
    ),
    Example(
        prune_paths,
        lambda make: {
            "components": make.normal(5, 2, 3),
            "kept": torch.tensor([True, False, True, True, False], device=make.device),
        },
        differentiable=("components",),
    ),
    Example(
        component_contributions,
        lambda make: {"components": make.normal(7, 2, 8), "norm": readout(make).norm, "head": readout(make).head},
        differentiable=("components",),
    ),
    Example(
        path_distillation_loss,
        lambda make: {
            "components": make.normal(7, 2, 8),
            "weighted": make.normal(2, 8),
            "head": readout(make).head,
            "tau": 2.0,
        },
        differentiable=("components",),
    ),
    Example(
        token_high_frequency,
        lambda make: {"tokens": make.normal(3, 6, 4), "grid": (2, 3)},
        differentiable=("tokens",),
    ),
]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class TestComponents:
    @pytest.mark.parametrize("depth", [1, 4, 12])
    def test_add_up_to_the_forward_pass(self, generator, depth):
        vit, images = small_vit(depth=depth), normal(generator, 3, 1, 8, 8)
        components = path_components(vit, images)
        assert components.shape == (2 * depth + 1, 3, 5, 8)
        torch.testing.assert_close(vit.norm(components.sum(0)), vit.tokens(images), atol=1e-12, rtol=0)

    def test_single_precision(self, generator):
        vit, images = small_vit(torch.float32), normal(generator, 3, 1, 8, 8).float()
        torch.testing.assert_close(vit.norm(path_components(vit, images).sum(0)), vit.tokens(images), atol=1e-5, rtol=0)

    def test_contributions_add_up_to_the_logits(self, generator):
        vit, images = small_vit(), normal(generator, 3, 1, 8, 8)
        with torch.no_grad():
            vit.norm.weight.copy_(normal(generator, 8))
            vit.norm.bias.copy_(normal(generator, 8))
        tokens = path_components(vit, images)[:, :, 0]
        votes = component_contributions(tokens, vit.norm, vit.head)
        torch.testing.assert_close(votes.sum(0) + vit.head(vit.norm.bias), vit(images), atol=1e-12, rtol=0)

    def test_refuses_post_norm_blocks(self, generator):
        vit = small_vit()
        vit.blocks = nn.Sequential(nn.TransformerEncoderLayer(8, 2, batch_first=True).double())
        with pytest.raises(ValueError, match="pre-norm"):
            path_components(vit, normal(generator, 1, 1, 8, 8))


class TestWeights:
    def test_pruning_drops_exactly_what_it_says(self, generator):
        components = normal(generator, 5, 2, 3)
        kept = torch.tensor([True, False, True, False, False])
        torch.testing.assert_close(prune_paths(components, kept), components[0] + components[2])
        torch.testing.assert_close(prune_paths(components, torch.ones(5, dtype=torch.bool)), components.sum(0))
        with pytest.raises(ValueError, match="number of kept paths"):
            prune_paths(components, torch.zeros(5, dtype=torch.bool))

    def test_scale_is_the_identity_at_the_start(self, generator):
        vit, images = small_vit(), normal(generator, 3, 1, 8, 8)
        torch.testing.assert_close(PathEnsembleViT(vit).double()(images), vit(images), atol=1e-12, rtol=0)

    def test_scale_acts_by_channel(self, generator):
        scale = EnsembleScale(3, 2).double()
        weight = normal(generator, 3, 2)
        with torch.no_grad():
            scale.weight.copy_(weight)
        components = normal(generator, 3, 4, 2)
        expected = sum(g * c for g, c in zip(weight, components, strict=True))
        torch.testing.assert_close(scale(components), expected)

    def test_refuses_empty_sizes(self):
        with pytest.raises(ValueError, match="components must be at least 1"):
            EnsembleScale(0, 3)
        with pytest.raises(ValueError, match="dim must be at least 1"):
            EnsembleScale(3, 0)


class TestDistillation:
    def test_by_hand(self, generator):
        components, head = normal(generator, 5, 2, 3), nn.Linear(3, 4).double()
        weighted = normal(generator, 2, 3)
        p = (head(weighted) / 2).softmax(-1)
        q = (head(components[:3].sum(0)) / 2).softmax(-1)
        expected = 0.3 * 4 * (p * (p / q).log()).sum(-1).mean()
        torch.testing.assert_close(path_distillation_loss(components, weighted, head, tau=2.0, mu=0.3), expected)

    def test_zero_where_short_paths_agree_and_for_one_layer(self, generator):
        head = nn.Linear(3, 4).double()
        components = normal(generator, 7, 2, 3)
        components[3:] = 0
        assert path_distillation_loss(components, components.sum(0), head).abs() < 1e-12
        assert path_distillation_loss(components[:3], components[0], head) == 0

    def test_no_gradient_through_the_teacher(self, generator):
        weighted = normal(generator, 2, 3).requires_grad_()
        components = normal(generator, 5, 2, 3).requires_grad_()
        path_distillation_loss(components, weighted, nn.Linear(3, 4).double()).backward()
        assert weighted.grad is None
        assert components.grad.abs().sum() > 0

    def test_refuses(self, generator):
        components = normal(generator, 5, 2, 3)
        for settings, message in (
            ({"tau": 0.0}, "tau must be greater than 0"),
            ({"mu": -1.0}, "mu must be at least 0"),
        ):
            with pytest.raises(ValueError, match=message):
                path_distillation_loss(components, components.sum(0), F.relu, **settings)


class TestFrequency:
    def test_checkerboard_on_a_constant(self):
        rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        board = (1 - 2 * ((rows + columns) % 2)).double().flatten()
        tokens = (2 + 0.5 * board)[None, :, None].expand(3, -1, 5)
        assert token_high_frequency(tokens, (4, 4)).item() == pytest.approx(math.log(0.25))

    def test_smoothing_lowers_it(self, generator):
        tokens = normal(generator, 4, 9, 6) + 1
        smooth = 0.5 * tokens + 0.5 * tokens.mean(1, keepdim=True)
        difference = token_high_frequency(smooth, (3, 3)) - token_high_frequency(tokens, (3, 3))
        assert difference.item() == pytest.approx(math.log(0.5))

    def test_does_not_depend_on_scale(self, generator):
        tokens = normal(generator, 4, 6, 6)
        torch.testing.assert_close(token_high_frequency(7 * tokens, (2, 3)), token_high_frequency(tokens, (2, 3)))

    def test_refuses_another_grid(self, generator):
        with pytest.raises(ValueError, match="grid must have 6 places"):
            token_high_frequency(normal(generator, 1, 6, 2), (2, 2))
