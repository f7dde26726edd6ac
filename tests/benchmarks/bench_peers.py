"""Functions of the library against those that a reader would otherwise take."""

import copy
import functools
from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torchmetrics.functional.classification import multiclass_calibration_error

from dlatlas.adaptation.low_rank_adaptation import LoRA, adapt
from dlatlas.adaptation.low_rank_adaptation_svd import PiSSA
from dlatlas.models.parametrised_mlp import NTKMLP
from dlatlas.ops.calibration import expected_calibration_error
from dlatlas.ops.functional import empirical_ntk
from dlatlas.selfsup.redundancy_reduction import barlow_twins
from dlatlas.theory.neural_tangent_kernel import layerwise_ntk, ntk_recursion
from tests.benchmarks.conftest import SIDES, Duel

POINTS, INPUTS = 256, 16


def plain_ntk(net: torch.nn.Module, params: dict[str, Tensor], x: Tensor) -> Tensor:
    """The tangent kernel as the tutorials of torch.func write it: the whole Jacobian, then its square."""
    jacobian = vmap(jacrev(lambda p, one: functional_call(net, p, (one[None],)).squeeze()), (None, 0))(params, x)
    rows = [leaf.flatten(1) for leaf in jacobian.values()]
    return sum(row @ row.mT for row in rows)


def network(device: torch.device, *widths: int) -> tuple[torch.nn.Module, dict[str, Tensor], Tensor]:
    net = NTKMLP([INPUTS, *widths, 1], act="relu", beta=0.1).to(device)
    params = {name: value.detach() for name, value in net.named_parameters()}
    return net, params, torch.randn(POINTS, INPUTS, device=device)


def empirical(device: torch.device):
    net, params, x = network(device, 512, 512)
    return (
        lambda: empirical_ntk(lambda p, block: functional_call(net, p, (block,)).squeeze(-1), params, x),
        lambda: plain_ntk(net, params, x),
    )


def layerwise(device: torch.device):
    net, params, x = network(device, 512, 512)
    return lambda: layerwise_ntk(net, params, x), lambda: plain_ntk(net, params, x)


def infinitely_wide(device: torch.device):
    """The peer's network is wide enough to be near the limit, and no wider than its Jacobian allows."""
    net, params, x = network(device, 1024, 1024)
    return lambda: ntk_recursion(x, x, depth=3, act="relu", beta=0.1)[1], lambda: plain_ntk(net, params, x)


def calibration(device: torch.device):
    p = torch.randn(20_000, 10, device=device).softmax(-1)
    y = torch.randint(10, (20_000,), device=device)
    return (
        lambda: expected_calibration_error(p, y, bins=15),
        lambda: multiclass_calibration_error(p, y, 10, n_bins=15, norm="l1"),
    )


def published_barlow_twins(z1: Tensor, z2: Tensor, lam: float = 5e-3) -> Tensor:
    """The loss as its authors published it: batch normalisation, and the off-diagonal by a shift of the rows."""
    n, d = z1.shape
    normalise = nn.BatchNorm1d(d, affine=False, device=z1.device)
    c = normalise(z1).T @ normalise(z2) / n
    off_diagonal = c.flatten()[:-1].view(d - 1, d + 1)[:, 1:]
    return (c.diagonal() - 1).square().sum() + lam * off_diagonal.square().sum()


def barlow(n: int, d: int):
    def make(device: torch.device):
        z1, z2 = (torch.randn(n, d, device=device, requires_grad=True) for _ in range(2))
        return tuple(functools.partial(with_gradients, loss, z1, z2) for loss in (barlow_twins, published_barlow_twins))

    return make


def with_gradients(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """A scalar and its gradients."""
    value = function(*inputs)
    return value.detach(), *torch.autograd.grad(value, inputs)


RANK = 8


def network_to_adapt(d: int, device: torch.device) -> tuple[nn.Module, list[str]]:
    layers = [nn.Linear(d, d) if index % 2 == 0 else nn.ReLU() for index in range(7)]
    return nn.Sequential(*layers).to(device), ["0", "2", "4", "6"]


def peft_model(net: nn.Module, layers: list[str], init: str | bool = True) -> nn.Module:
    settings = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=layers, init_lora_weights=init)
    return get_peft_model(copy.deepcopy(net), settings)


def adapted_step(d: int, rows: int):
    """One step's work, forward and backward, of a network with LoRA on every layer."""

    def make(device: torch.device):
        net, layers = network_to_adapt(d, device)
        x = torch.randn(rows, d, device=device, requires_grad=True)
        both = adapt(net, functools.partial(LoRA, r=RANK), layers).to(device), peft_model(net, layers)
        return tuple(functools.partial(step, model, x) for model in both)

    return make


def step(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of everything that is trained; the loss and the gradient of the input, which both models share."""
    trained = [value for value in model.parameters() if value.requires_grad]
    loss = model(x).square().mean()
    gradient, *_ = torch.autograd.grad(loss, [x, *trained])
    return loss.detach(), gradient


def pissa_start(d: int):
    """From a network to one adapted by PiSSA; the adapted network gives what the network gave."""

    def make(device: torch.device):
        net, layers = network_to_adapt(d, device)
        x = torch.randn(16, d, device=device)
        return (
            lambda: adapt(net, functools.partial(PiSSA, r=RANK), layers)(x).detach(),
            lambda: peft_model(net, layers, "pissa")(x).detach(),
        )

    return make


DUELS = [
    Duel("Barlow Twins with gradients, 256 x 128", "as published", barlow(256, 128)),
    Duel("Barlow Twins with gradients, 1024 x 2048", "as published", barlow(1024, 2048)),
    Duel("LoRA step, 4 layers of 64, 1,088 rows", "peft", adapted_step(64, 1088)),
    Duel("LoRA step, 4 layers of 512, 1,024 rows", "peft", adapted_step(512, 1024)),
    Duel("PiSSA from the start, 4 layers of 512", "peft", pissa_start(512)),
    Duel("empirical NTK, 512-512, 256 points", "torch.func Jacobian", empirical),
    Duel("NTK layer by layer, 512-512, 256 points", "torch.func Jacobian", layerwise),
    Duel("NTK of infinite width, 3 layers, 256 points", "torch.func Jacobian at 1024", infinitely_wide, deviation=0.2),
    Duel("calibration error, 20,000 points", "torchmetrics", calibration),
]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("duel", DUELS, ids=lambda duel: duel.name)
def test_values_agree_and_both_are_timed(duel: Duel, side: str, fight) -> None:
    fight(duel, side)
