"""Minibatches and the plain training loop, with one leading seed axis."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlatlas.lab.ensemble import Ensemble, per_seed
from dlatlas.progress import track

if TYPE_CHECKING:
    from dlatlas.lab.run import Run


def steps(total: int, label: str = "step") -> Iterator[int]:
    """Like ``range(total)``, with progress shown."""
    return track(total, label)


def batches(*tensors: Tensor, size: int | None, steps: int, run: "Run") -> Iterator[tuple[Tensor, ...]]:
    """Minibatches of data that all seeds share.

    Every seed walks through the data in an order of its own, without replacement, epoch after epoch. The order
    depends on the seed alone: each arm of an experiment sees the same batches.

    Parameters
    ----------
    tensors
        Each (n, ...), with the same n.
    size
        Examples a batch; None for the full batch, in order.
    steps
        How many batches to yield.
    run
        Gives the seeds and the device.

    Yields
    ------
    One tensor (S, size, ...) for each of ``tensors``.
    """
    n = _common_length(tensors, axis=0)
    tensors = tuple(t.to(run.device) for t in tensors)
    if size is None:
        whole = tuple(t.expand(run.seeds, *t.shape) for t in tensors)
        for _ in track(steps, "step"):
            yield whole
        return
    for index in _index_batches(n, size, steps, run):
        yield tuple(t[index] for t in tensors)


def seed_batches(*tensors: Tensor, size: int | None, steps: int, run: "Run") -> Iterator[tuple[Tensor, ...]]:
    """Minibatches of data that each seed has for itself: like `batches`, for tensors (S, n, ...)."""
    n = _common_length(tensors, axis=1)
    tensors = tuple(t.to(run.device) for t in tensors)
    if any(len(t) != run.seeds for t in tensors):
        raise ValueError(f"tensors must have {run.seeds} rows, one a seed; got {[len(t) for t in tensors]}")
    if size is None:
        for _ in track(steps, "step"):
            yield tensors
        return
    seed = torch.arange(run.seeds, device=run.device)[:, None]
    for index in _index_batches(n, size, steps, run):
        yield tuple(t[seed, index] for t in tensors)


def fit(
    nets: Ensemble,
    loss: Callable[..., Tensor],
    batches: Iterable[tuple[Tensor, ...]],
    *,
    optimiser: torch.optim.Optimizer,
) -> Tensor:
    """Train an ensemble: the usual loop.

    Parameters
    ----------
    nets
        The networks of all seeds.
    loss
        Loss of one seed, ``loss(prediction, target)``, a scalar.
    batches
        Yields (x, y), each (S, size, ...): see `batches` and `seed_batches`.
    optimiser
        Any elementwise torch optimiser over ``nets.parameters()``.

    Returns
    -------
    The loss before each step, (steps, S), on the CPU.
    """
    history = []
    for x, y in batches:
        losses = per_seed(loss)(nets(x), y)
        optimiser.zero_grad()
        losses.sum().backward()
        optimiser.step()
        history.append(losses.detach())
    return torch.stack(history).cpu()


def _common_length(tensors: tuple[Tensor, ...], axis: int) -> int:
    lengths: set[Any] = {t.shape[axis] for t in tensors}
    if len(lengths) != 1:
        raise ValueError(f"tensors must have the same number of examples, got {sorted(lengths)}")
    return lengths.pop()


def _index_batches(n: int, size: int, steps: int, run: "Run") -> Iterator[Tensor]:
    """Yield (S, size) indices; what an epoch leaves over opens the next one."""
    if not 1 <= size <= n:
        raise ValueError(f"size must lie between 1 and the {n} examples there are, got {size}")
    generators = [run.generator("batches", seed) for seed in range(run.seeds)]
    left = torch.empty(run.seeds, 0, dtype=torch.long)
    for _ in track(steps, "step"):
        if left.shape[1] < size:
            epoch = torch.stack([torch.randperm(n, generator=g) for g in generators])
            left = torch.cat([left, epoch], dim=1)
        yield left[:, :size].to(run.device)
        left = left[:, size:]
