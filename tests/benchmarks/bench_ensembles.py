"""An ensemble against a loop over seeds: one step of training.

The loop is given every advantage: the same implementation of the optimiser, and the same batches already drawn.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlatlas import lab
from dlatlas.lab.run import Run
from dlatlas.models.cnn import CNN
from dlatlas.models.mlp import mlp
from tests.benchmarks.conftest import SIDES, Duel

SEEDS, BATCH, CLASSES = 16, 64, 10


def adam(parameters) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def fused_adam(parameters) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3, fused=True)


def training_steps(factory: Callable[[], nn.Module], shape: tuple[int, ...], optimiser: Callable):
    """Maps a device to a step of all seeds, together and one after the other; each returns the losses before it."""

    def make(device: torch.device) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        nets = lab.Ensemble(factory, Run("benchmark", "cpu", SEEDS, device))
        modules = [nets.module(seed) for seed in range(SEEDS)]
        x = torch.randn(SEEDS, BATCH, *shape, device=device)
        y = torch.randint(CLASSES, (SEEDS, BATCH), device=device)
        return together(nets, optimiser(nets.parameters()), x, y), separately(
            modules, [optimiser(module.parameters()) for module in modules], x, y
        )

    return make


def together(nets: lab.Ensemble, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    def step() -> Tensor:
        losses = lab.per_seed(F.cross_entropy)(nets(x), y)
        optimiser.zero_grad()
        losses.sum().backward()
        optimiser.step()
        return losses.detach()

    return step


def separately(modules: list[nn.Module], optimisers: list, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    def step() -> Tensor:
        losses = []
        for module, optimiser, xs, ys in zip(modules, optimisers, x, y, strict=True):
            loss = F.cross_entropy(module(xs), ys)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    return step


def small_cnn() -> nn.Module:
    return CNN((8, 16), CLASSES, image_size=8)


def larger_cnn() -> nn.Module:
    return CNN((16, 32), CLASSES, image_size=16, image_channels=3)


def small_mlp() -> nn.Module:
    return mlp(64, 128, 128, CLASSES)


LOOP = f"loop over {SEEDS} seeds"
DUELS = [
    Duel("MLP 64-128-128-10, Adam", LOOP, training_steps(small_mlp, (64,), adam)),
    Duel("MLP 64-128-128-10, fused Adam", LOOP, training_steps(small_mlp, (64,), fused_adam)),
    Duel("CNN 8-16 on 1x8x8, Adam", LOOP, training_steps(small_cnn, (1, 8, 8), adam)),
    Duel("CNN 16-32 on 3x16x16, Adam", LOOP, training_steps(larger_cnn, (3, 16, 16), adam)),
]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("duel", DUELS, ids=lambda duel: duel.name)
def test_losses_agree_and_both_are_timed(duel: Duel, side: str, fight) -> None:
    fight(duel, side)
