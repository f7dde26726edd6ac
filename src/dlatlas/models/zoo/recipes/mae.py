"""A masked autoencoder of shapes."""

from dataclasses import dataclass

import torch
from sklearn.linear_model import RidgeClassifier
from torch import Tensor

from dlatlas.models.masked_autoencoder import MaskedAutoencoder
from dlatlas.models.vit import patchify
from dlatlas.models.zoo import world
from dlatlas.models.zoo.classifier import Vision
from dlatlas.models.zoo.recipe import Recipe, Task, optimise


@dataclass(frozen=True, kw_only=True)
class Settings(Vision):
    """Settings of the network, as of `dlatlas.models.masked_autoencoder.MaskedAutoencoder`.

    Parameters
    ----------
    hidden
        Share of the patches that are hidden.
    """

    patch_size: int = 4
    hidden: float = 0.625
    dim: int = 64
    depth: int = 3
    heads: int = 4
    decoder_dim: int = 64
    decoder_depth: int = 1


def build(settings: Settings) -> MaskedAutoencoder:
    """Give the network."""
    return MaskedAutoencoder(
        image_size=settings.image_size,
        patch_size=settings.patch_size,
        hidden=round(settings.hidden * (settings.image_size // settings.patch_size) ** 2),
        dim=settings.dim,
        depth=settings.depth,
        heads=settings.heads,
        decoder_dim=settings.decoder_dim,
        decoder_depth=settings.decoder_depth,
    )


def train(model: MaskedAutoencoder, task: Task[Settings]) -> None:
    """Minimise the error of the hidden patches of fresh scenes."""

    def loss() -> Tensor:
        images, _ = _labelled(task, task.settings.batch)
        return model.loss(images, model.random_mask(len(images), task.generator).to(task.device))

    optimise(model, loss, task.settings)


def measure(model: MaskedAutoencoder, task: Task[Settings]) -> dict[str, float]:
    """Error of hidden patches beside that of a guess, and how well a linear probe reads the shape.

    The guess for a hidden patch is the mean of the visible patches of its image. The probe is a ridge regression of the
    classes on the encoder's tokens; beside it is the same on the pixels.
    """
    images, classes = _labelled(task, task.settings.judged)
    mask = model.random_mask(len(images), task.generator).to(task.device)
    fresh, fresh_classes = _labelled(task, task.settings.judged)
    return {
        "error": model.loss(images, mask).item(),
        "error of the mean patch": _mean_patch_error(images, mask, model.patch_size),
        "probe accuracy": _probe(_tokens(model, images), classes, _tokens(model, fresh), fresh_classes),
        "probe accuracy of pixels": _probe(images.flatten(1), classes, fresh.flatten(1), fresh_classes),
        "chance": 1 / len(world.CLASSES),
    }


def _labelled(task: Task[Settings], n: int) -> tuple[Tensor, Tensor]:
    return world.labelled(n, task.generator, task.device, task.settings.image_size)


def _mean_patch_error(images: Tensor, mask: Tensor, patch_size: int) -> float:
    patches, seen = patchify(images, patch_size), ~mask[..., None]
    guess = (patches * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True)
    return (patches - guess).square()[mask].mean().item()


def _tokens(model: MaskedAutoencoder, images: Tensor) -> Tensor:
    return model.tokens(images).flatten(1)


def _probe(features: Tensor, classes: Tensor, fresh: Tensor, fresh_classes: Tensor) -> float:
    mean, scale = features.mean(0), features.std(0) + torch.finfo(features.dtype).eps
    probe = RidgeClassifier()
    probe.fit(((features - mean) / scale).cpu(), classes.cpu())
    return float(probe.score(((fresh - mean) / scale).cpu(), fresh_classes.cpu()))


RECIPE = Recipe(
    name="mae",
    settings={
        "smoke": Settings(steps=5, judged=100),
        "cpu": Settings(steps=2000, batch=64),
        "gpu": Settings(
            steps=30_000,
            batch=512,
            rate=5e-4,
            image_size=32,
            dim=192,
            depth=6,
            decoder_dim=128,
            decoder_depth=2,
            judged=5000,
        ),
    },
    build=build,
    train=train,
    measure=measure,
)
