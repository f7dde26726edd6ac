"""An ensemble against a loop over seeds: both times and their ratio.

Run with ``python -m tests.benchmarks.ensembles``. The loop is given every advantage: the same optimiser implementation,
and the same batches already drawn.
"""

import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F

from dlatlas import lab
from dlatlas.lab.run import Run
from dlatlas.models.cnn import CNN
from dlatlas.models.mlp import mlp

SEEDS, BATCH, CLASSES = 16, 64, 10
REPEATS = 9


def optimiser(parameters) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3, fused=True)


def ensemble_step(factory: Callable[[], nn.Module], x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    run = Run("benchmark", "cpu", SEEDS, torch.device("cpu"))
    nets = lab.Ensemble(factory, run)
    adam = optimiser(nets.parameters())

    def step():
        losses = lab.per_seed(F.cross_entropy)(nets(x), y)
        adam.zero_grad()
        losses.sum().backward()
        adam.step()

    return step


def loop_step(factory: Callable[[], nn.Module], x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    modules = [factory() for _ in range(SEEDS)]
    adams = [optimiser(module.parameters()) for module in modules]

    def step():
        for module, adam, xs, ys in zip(modules, adams, x, y, strict=True):
            loss = F.cross_entropy(module(xs), ys)
            adam.zero_grad()
            loss.backward()
            adam.step()

    return step


def milliseconds(step: Callable[[], None], calls: int) -> float:
    """Median time of one call."""
    step()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(calls):
            step()
        times.append((time.perf_counter() - start) / calls * 1e3)
    return statistics.median(times)


def main() -> None:
    cases = [
        ("MLP 64-128-128-10", lambda: mlp(64, 128, 128, CLASSES), (64,), 20, 4.0),
        ("CNN 8-16, 1x8x8", lambda: CNN((8, 16), CLASSES, image_size=8), (1, 8, 8), 5, 1.5),
        ("CNN 16-32, 3x16x16", lambda: CNN((16, 32), CLASSES, image_size=16, image_channels=3), (3, 16, 16), 2, 1.5),
    ]
    title = f"{SEEDS} seeds, batch {BATCH}, Adam, {torch.get_num_threads()} threads"
    table = Table("network", "ensemble (ms)", "loop (ms)", "ratio", "goal", title=title)
    for name, factory, shape, calls, goal in cases:
        x, y = torch.randn(SEEDS, BATCH, *shape), torch.randint(CLASSES, (SEEDS, BATCH))
        together, separate = (milliseconds(build(factory, x, y), calls) for build in (ensemble_step, loop_step))
        table.add_row(name, f"{together:.2f}", f"{separate:.2f}", f"{separate / together:.1f}", f"{goal}")
    Console().print(table)


if __name__ == "__main__":
    main()
