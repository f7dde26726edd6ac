"""A class-conditional diffusion model of shapes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlatlas.data import shapes
from dlatlas.models.diffusion import Diffusion
from dlatlas.models.zoo import world
from dlatlas.models.zoo.classifier import Vision
from dlatlas.models.zoo.recipe import Recipe, Task, optimise
from dlatlas.models.zoo.recipes import cnn

SCENES = shapes.Joint().only(size=("large",), texture=("plain",), background=("paper", "night"))
"""What the model learns to draw: a corner of `world`, with the object in the middle and upright.

In less than a minute it can learn twelve outlines in all colours, but not also where they may lie.
"""


@dataclass(frozen=True, kw_only=True)
class Settings(Vision):
    """Settings of the network, as of `dlatlas.models.diffusion.Diffusion`.

    Parameters
    ----------
    dropout
        Probability with which a label is left out in training.
    guidance
        Scale of the guidance when it is measured.
    """

    channels: Sequence[int] = (48, 64)
    depth: int = 2
    condition: int = 64
    dropout: float = 0.15
    guidance: float = 3.0


def build(settings: Settings) -> Diffusion:
    """Give the network."""
    return Diffusion(
        len(world.CLASSES),
        image_size=settings.image_size,
        channels=settings.channels,
        depth=settings.depth,
        condition=settings.condition,
    )


def drawn(n: int, task: Task[Settings]) -> tuple[Tensor, Tensor]:
    """Draw images (n, 3, size, size) in [0, 1] and their classes (n,)."""
    scenes = shapes.sample(n, generator=task.generator, joint=SCENES, spread=0.0, rotation=0.0).to(task.device)
    return shapes.render(scenes, task.settings.image_size), shapes.labels(scenes, "shape")


def train(model: Diffusion, task: Task[Settings]) -> None:
    """Minimise the error of the velocity on fresh scenes, some without their label."""

    def loss() -> Tensor:
        images, label = drawn(task.settings.batch, task)
        return model.loss(images, label, generator=task.generator, dropout=task.settings.dropout)

    optimise(model, loss, task.settings)


def measure(model: Diffusion, task: Task[Settings]) -> dict[str, float]:
    """How often the CNN of the zoo takes a sample for the class that was asked for, beside real images and a guess."""
    settings, judge = task.settings, task.others["cnn"]
    label = torch.arange(settings.judged, device=task.device) % model.classes
    samples = model.sample(label, generator=task.generator, guidance=settings.guidance)
    images, truth = drawn(settings.judged, task)
    return {
        "recognised": _share(judge, samples, label),
        "recognised of real images": _share(judge, images, truth),
        "chance": 1 / model.classes,
    }


def _share(judge: torch.nn.Module, images: Tensor, label: Tensor) -> float:
    return (judge(images).argmax(-1) == label).float().mean().item()


RECIPE = Recipe(
    name="diffusion",
    settings={
        "smoke": Settings(steps=5, judged=24),
        "cpu": Settings(steps=900, batch=64, judged=360),
        "gpu": Settings(
            steps=60_000, batch=512, rate=5e-4, image_size=32, channels=(128, 256), depth=4, condition=256, judged=3000
        ),
    },
    build=build,
    train=train,
    measure=measure,
    needs=(cnn.RECIPE,),
)
