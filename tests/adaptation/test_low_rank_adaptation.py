"""Facts about the interface of all adapters, and about LoRA."""

from functools import partial

import pytest
import torch
from torch import nn

from dlatlas.adaptation.low_rank_adaptation import (
    LoRA,
    adapt,
    adapters,
    as_matrix,
    as_weight,
    merge,
    trainable_parameters,
)
from dlatlas.adaptation.low_rank_adaptation_svd import SORSA, PiSSA
from dlatlas.adaptation.low_rank_adaptation_tucker import FLoRA
from dlatlas.adaptation.low_rank_adaptation_values import SALT, SVFit
from dlatlas.lab.ensemble import Ensemble
from dlatlas.lab.run import Run
from dlatlas.models.cnn import CNN
from dlatlas.models.mlp import mlp
from dlatlas.models.vit import ViT
from tests.examples import Example


def adapted_mlp(make):
    return adapt(mlp(3, 4, 2).to(make.device, make.dtype), partial(LoRA, r=2), ["0"])


EXAMPLES = [
    Example(
        adapt,
        lambda make: {"model": mlp(3, 4, 2), "adapter": partial(LoRA, r=2), "layers": ["0"], "also_train": ["2"]},
        vmap=False,
    ),
    Example(merge, lambda make: {"model": adapted_mlp(make)}, vmap=False),
    Example(adapters, lambda make: {"model": adapted_mlp(make)}, vmap=False),
    Example(trainable_parameters, lambda make: {"model": adapted_mlp(make)}, vmap=False),
    Example(as_matrix, lambda make: {"weight": make.normal(4, 3, 2, 5)}, differentiable=("weight",)),
    Example(as_weight, lambda make: {"matrix": make.normal(8, 15), "shape": (4, 3, 2, 5)}, differentiable=("matrix",)),
]

MATRIX_ADAPTERS = {
    "LoRA": partial(LoRA, r=2),
    "LoRA, alpha": partial(LoRA, r=2, alpha=4),
    "PiSSA": partial(PiSSA, r=2),
    "SORSA": partial(SORSA, r=2),
    "SVFit": partial(SVFit, r=3),
    "SALT": partial(SALT, k=2, r=2),
    "FLoRA": partial(FLoRA, ranks=(2, 3)),
}
KERNEL_ADAPTERS = MATRIX_ADAPTERS | {"FLoRA": partial(FLoRA, ranks=(2, 2, 1, 2), scale=4.0)}
every_matrix_adapter = pytest.mark.parametrize("adapter", MATRIX_ADAPTERS.values(), ids=MATRIX_ADAPTERS)
every_kernel_adapter = pytest.mark.parametrize("adapter", KERNEL_ADAPTERS.values(), ids=KERNEL_ADAPTERS)

VIT_LAYERS = ["blocks.0.attention.query_key_value", "blocks.0.mlp.0", "blocks.0.mlp.2"]
CNN_LAYERS = ["stages.0.0", "stages.1.0"]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def images():
    return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def small_vit():
    return ViT(4, image_size=8, patch_size=4, image_channels=3, dim=8, depth=1, heads=2).eval()


def small_cnn():
    return CNN((4, 8), 4, image_size=8, image_channels=3).eval()


def moved(model):
    """The model after a step that changes every trainable number."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def assert_merges_exactly(model, adapter, layers, images):
    adapted = moved(adapt(model, adapter, layers, also_train=["head"]))
    before = adapted(images)
    merged = merge(adapted)
    assert torch.equal(merged(images), before)
    assert not torch.allclose(merged(images), model(images))
    assert merged.state_dict().keys() == model.state_dict().keys()
    assert [type(m) for m in merged.modules()] == [type(m) for m in model.modules()]
    # Merging must leave the adapted model, and any copy of it, as it was.
    assert torch.equal(adapted(images), before)


class TestInterface:
    @every_matrix_adapter
    def test_merges_exactly_in_a_transformer(self, adapter, images):
        assert_merges_exactly(small_vit(), adapter, VIT_LAYERS, images)

    @every_kernel_adapter
    def test_merges_exactly_in_a_convolutional_network(self, adapter, images):
        assert_merges_exactly(small_cnn(), adapter, CNN_LAYERS, images)

    @every_kernel_adapter
    def test_starts_at_the_given_weight(self, adapter):
        weight = torch.randn(6, 4, 3, 3, dtype=torch.float64) if "FLoRA" in str(adapter) else torch.randn(6, 4).double()
        layer = nn.Module()
        layer.weight = nn.Parameter(weight.clone())
        adapted = adapt(nn.ModuleDict({"layer": layer}), adapter, ["layer"])
        # The factors of SALT start at 0.01, so its weight starts near, not at, the given one.
        atol = 1e-2 if adapter.func is SALT else 1e-13
        torch.testing.assert_close(adapted["layer"].weight, weight, atol=atol, rtol=0)

    @every_matrix_adapter
    def test_trains_adapters_and_what_is_asked_for_only(self, adapter, images):
        adapted = adapt(small_vit(), adapter, VIT_LAYERS, also_train=["head", "norm.bias"])
        wanted = {id(p) for a in adapters(adapted) for p in a.parameters()}
        wanted |= {id(p) for p in [*adapted.head.parameters(), adapted.norm.bias]}
        assert {id(p) for p in adapted.parameters() if p.requires_grad} == wanted
        assert trainable_parameters(adapted) == sum(p.numel() for p in adapted.parameters() if id(p) in wanted)
        adapted(images).sum().backward()
        assert all((p.grad is not None) == (id(p) in wanted) for p in adapted.parameters())

    def test_the_given_model_stays_as_it_is(self, images):
        model = small_vit()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        moved(adapt(model, partial(PiSSA, r=2), VIT_LAYERS))
        assert all(p.requires_grad for p in model.parameters())
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name])

    @every_matrix_adapter
    def test_an_ensemble_trains_like_separate_models(self, adapter, images):
        run = Run("adaptation/low_rank_adaptation", "smoke", 2, torch.device("cpu"))
        base = small_vit()
        nets = Ensemble(lambda: adapt(base, adapter, VIT_LAYERS, also_train=["head"]), run)
        alone = [nets.module(seed) for seed in range(2)]
        for models, apply in ((nets, nets.shared), (alone[0], alone[0]), (alone[1], alone[1])):
            optimiser = torch.optim.SGD([p for p in models.parameters() if p.requires_grad], lr=0.1)
            for _ in range(3):
                optimiser.zero_grad()
                apply(images).square().mean((-2, -1)).sum().backward()
                optimiser.step()
        for seed in range(2):
            torch.testing.assert_close(nets.shared(images)[seed], alone[seed](images), atol=1e-5, rtol=1e-5)
        assert not nets._looped

    def test_refuses_layers_without_a_weight_and_unknown_names(self):
        with pytest.raises(ValueError, match="weight of their own, got 'blocks', a Sequential"):
            adapt(small_vit(), partial(LoRA, r=2), ["blocks"])
        with pytest.raises(ValueError, match="weight of their own, got 'head'"):
            adapt(adapt(small_vit(), partial(LoRA, r=2), ["head"]), partial(LoRA, r=2), ["head"])
        with pytest.raises(ValueError, match=r"also_train must name .*'tail'"):
            adapt(small_vit(), partial(LoRA, r=2), [], also_train=["tail"])


class TestKernelsAsMatrices:
    def test_rows_are_outputs_and_heights(self):
        weight = torch.randn(4, 3, 2, 5)
        matrix = as_matrix(weight)
        assert matrix.shape == (8, 15)
        assert matrix[2 * 2 + 1, 1 * 5 + 4] == weight[2, 1, 1, 4]
        assert torch.equal(as_weight(matrix, weight.shape), weight)

    def test_refuses_other_numbers_of_axes(self):
        with pytest.raises(ValueError, match="2 axes or 4"):
            as_matrix(torch.zeros(2, 2, 2))
        with pytest.raises(ValueError, match="2 axes or 4 and 12 entries"):
            as_weight(torch.zeros(3, 4), (2, 2, 3))
        with pytest.raises(ValueError, match="2 axes or 4 and 12 entries"):
            as_weight(torch.zeros(3, 4), (3, 5))


class TestLoRA:
    def test_hand_case(self):
        adapter = LoRA(torch.zeros(2, 2), 1, alpha=3)
        with torch.no_grad():
            adapter.A.copy_(torch.tensor([[1.0, 2.0]]))
            adapter.B.copy_(torch.tensor([[5.0], [7.0]]))
        assert torch.equal(adapter.delta(), 3 * torch.tensor([[5.0, 10.0], [7.0, 14.0]]))

    def test_first_factor_is_uniform_on_the_scale_of_the_inputs(self):
        A = LoRA(torch.zeros(4, 400), 4).A.detach()
        assert 0.95 / 20 < A.abs().max() <= 1 / 20
        assert A.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.05)

    def test_first_factor_rests_at_the_start(self):
        weight, x, target = torch.randn(5, 4).double(), torch.randn(7, 4).double(), torch.randn(7, 5).double()
        layer = adapt(nn.ModuleDict({"0": nn.Linear(4, 5).double()}), partial(LoRA, r=2, alpha=4), ["0"])["0"]
        layer.weight = weight
        ((layer(x) - target) ** 2).sum().backward()
        adapter = layer.parametrizations.weight[0]
        assert torch.equal(adapter.A.grad, torch.zeros_like(adapter.A))
        G = 2 * (layer(x) - target).T @ x
        torch.testing.assert_close(adapter.B.grad, 2 * (G @ adapter.A.T).detach())

    def test_refuses(self):
        with pytest.raises(ValueError, match=r"r must lie in \[1, 3\], got 4"):
            LoRA(torch.zeros(3, 5), 4)
        with pytest.raises(ValueError, match="r must lie"):
            LoRA(torch.zeros(3, 5), 0)
        with pytest.raises(ValueError, match="alpha must be greater than 0"):
            LoRA(torch.zeros(3, 5), 2, alpha=0)
