"""What a recipe is, and the training loop that all recipes share."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from dlatlas.progress import track

S = TypeVar("S", bound="Schedule")
M = TypeVar("M", bound=nn.Module)

WARM_UP = 0.05
MAX_NORM = 1.0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast a model is trained; recipes add the sizes of their model.

    Parameters
    ----------
    steps
        Optimiser steps.
    batch
        Examples in a step.
    rate
        Largest learning rate.
    decay
        Weight decay of the matrices.
    judged
        Fresh examples on which the model is measured.
    """

    steps: int
    batch: int = 128
    rate: float = 2e-3
    decay: float = 0.01
    judged: int = 2000


@dataclass(frozen=True)
class Task(Generic[S]):
    """What a recipe is given to work with.

    Parameters
    ----------
    settings
        Those of the profile.
    device
        Where the model is.
    generator
        A CPU generator of the recipe's own.
    others
        The models of the zoo that the recipe needs, by name.
    """

    settings: S
    device: torch.device
    generator: torch.Generator
    others: Mapping[str, nn.Module]


class Run(Protocol):
    """What a model is trained for: any object that knows its profile and its device, such as ``lab.Run``."""

    @property
    def profile(self) -> str: ...

    @property
    def device(self) -> torch.device: ...


@dataclass(frozen=True)
class Recipe(Generic[S, M]):
    """How to make a model.

    Parameters
    ----------
    name
        Of the model.
    settings
        By profile.
    build
        Gives the network, freshly initialised from the global random state.
    train
        Trains it in place.
    measure
        Says how good it is: numbers by name.
    seed
        Of the initialisation, the data and the training.
    needs
        Recipes of the models of the zoo that training or measuring asks for.
    """

    name: str
    settings: Mapping[str, S]
    build: Callable[[S], M]
    train: Callable[[M, Task[S]], None]
    measure: Callable[[M, Task[S]], dict[str, float]]
    seed: int = 0
    needs: tuple["Recipe", ...] = ()


def optimise(model: nn.Module, loss: Callable[[], Tensor], schedule: Schedule) -> None:
    """Minimise a loss that draws its own batch at each call.

    AdamW with clipped gradients; the rate rises linearly over the first 5% of the steps and falls to zero as a cosine.
    Biases, gains and embeddings do not decay.
    """
    matrices = [p for name, p in model.named_parameters() if _decays(name, p)]
    others = [p for name, p in model.named_parameters() if not _decays(name, p)]
    groups = [{"params": matrices, "weight_decay": schedule.decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=schedule.rate, betas=(0.9, 0.98))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _relative_rate(step, schedule.steps))
    model.train()
    for _ in track(schedule.steps, f"training {type(model).__name__}"):
        optimiser.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimiser.step()
        scheduler.step()


def _decays(name: str, parameter: Tensor) -> bool:
    return parameter.dim() > 1 and "embedding" not in name and "position" not in name


def _relative_rate(step: int, steps: int) -> float:
    warm_up = max(1, math.ceil(WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
