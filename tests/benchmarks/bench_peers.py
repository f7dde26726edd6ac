"""Functions of the library against those that a reader would otherwise take."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, jacrev, vmap
from torchmetrics.functional.classification import multiclass_calibration_error

from dlatlas.models.parametrised_mlp import NTKMLP
from dlatlas.ops.calibration import expected_calibration_error
from dlatlas.ops.functional import empirical_ntk
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


DUELS = [
    Duel("empirical NTK, 512-512, 256 points", "torch.func Jacobian", empirical),
    Duel("NTK layer by layer, 512-512, 256 points", "torch.func Jacobian", layerwise),
    Duel("NTK of infinite width, 3 layers, 256 points", "torch.func Jacobian at 1024", infinitely_wide, deviation=0.2),
    Duel("calibration error, 20,000 points", "torchmetrics", calibration),
]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("duel", DUELS, ids=lambda duel: duel.name)
def test_values_agree_and_both_are_timed(duel: Duel, side: str, fight) -> None:
    fight(duel, side)
