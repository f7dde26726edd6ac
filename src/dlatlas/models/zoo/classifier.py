"""Training and measuring a classifier of shapes."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from dlatlas.models.zoo import world
from dlatlas.models.zoo.recipe import Schedule, Task, optimise


@dataclass(frozen=True, kw_only=True)
class Vision(Schedule):
    """Settings of a model of images.

    Parameters
    ----------
    image_size
        Side of the images in pixels.
    """

    image_size: int = world.IMAGE_SIZE


def train(model: nn.Module, task: Task[Vision]) -> None:
    """Minimise the cross-entropy on fresh scenes."""

    def loss() -> Tensor:
        images, classes = world.labelled(task.settings.batch, task.generator, task.device, task.settings.image_size)
        return F.cross_entropy(model(images), classes)

    optimise(model, loss, task.settings)


def measure(model: nn.Module, task: Task[Vision]) -> dict[str, float]:
    """Accuracy on fresh scenes, and that of a guess."""
    images, classes = world.labelled(task.settings.judged, task.generator, task.device, task.settings.image_size)
    correct = model(images).argmax(-1) == classes
    return {"accuracy": correct.float().mean().item(), "chance": 1 / len(world.CLASSES)}
