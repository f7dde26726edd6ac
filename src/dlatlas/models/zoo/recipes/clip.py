"""CLIP of shapes and captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from dlatlas.data import shapes
from dlatlas.models.clip import CLIP
from dlatlas.models.zoo import world
from dlatlas.models.zoo.classifier import Vision
from dlatlas.models.zoo.recipe import Recipe, Task, optimise

LENGTH = 12
"""Most words in a text."""
DETAIL = 0.8
"""Probability with which a caption mentions the colour, the texture and the size."""
HELD_OUT = tuple(
    (shape, shapes.COLOURS[(3 * row + step) % len(shapes.COLOURS)])
    for row, shape in enumerate(world.CLASSES)
    for step in (0, 5)
)
"""Pairs of a shape and a colour that training never shows: two colours of every shape."""


@dataclass(frozen=True, kw_only=True)
class Settings(Vision):
    """Settings of the network, as of `dlatlas.models.clip.CLIP`.

    Parameters
    ----------
    pool
        Captioned scenes to train on. Their objects are put in another place whenever they are drawn.
    """

    pool: int = 20_000
    dimension: int = 32
    channels: Sequence[int] = (32, 64, 128)
    dim: int = 32
    depth: int = 1
    heads: int = 4


def build(settings: Settings) -> CLIP:
    """Give the network."""
    return CLIP(
        shapes.WORDS,
        LENGTH,
        dimension=settings.dimension,
        image_size=settings.image_size,
        channels=settings.channels,
        dim=settings.dim,
        depth=settings.depth,
        heads=settings.heads,
    )


def train(model: CLIP, task: Task[Settings]) -> None:
    """Match images and captions of scenes without the pairs that are held out."""
    scenes = world.scenes(task.settings.pool, task.generator, world.joint().hold_out(HELD_OUT))
    tokens = model.tokenise(captions(scenes, task.generator))

    def loss() -> Tensor:
        chosen = torch.randint(len(tokens), (task.settings.batch,), generator=task.generator)
        images = _rendered(world.rearranged(scenes[chosen], task.generator), task)
        return model.loss(images, tokens[chosen].to(task.device))

    optimise(model, loss, task.settings)


def captions(scenes: shapes.Scenes, generator: torch.Generator) -> list[str]:
    """Say what is in each scene, half of the time in the plain wording and half of the time in another one."""
    said = shapes.statements(scenes, generator=generator, about=("objects",), detail=DETAIL)
    others = shapes.paraphrases(said, 1, generator=generator)
    plain = torch.rand(len(said), generator=generator) < 0.5
    return [s.text() if p else other for s, (other,), p in zip(said, others, plain.tolist(), strict=True)]


def pair_texts() -> list[str]:
    """Give the texts ``"a red star"`` of all pairs of a shape and a colour, numbered as by `shapes.labels`."""
    return [shapes.phrase(shape=shape, colour=colour) for shape, colour in product(world.CLASSES, shapes.COLOURS)]


def measure(model: CLIP, task: Task[Settings]) -> dict[str, float]:
    """How often the text of the right shape and colour is the nearest of all, on fresh scenes.

    First for the pairs of a shape and a colour that training has not shown, then for those that it has.
    """
    return {
        "zero-shot accuracy": _accuracy(model, task, world.joint().keep(HELD_OUT)),
        "zero-shot accuracy on seen pairs": _accuracy(model, task, world.joint().hold_out(HELD_OUT)),
        "chance": 1 / len(pair_texts()),
    }


def _accuracy(model: CLIP, task: Task[Settings], joint: shapes.Joint) -> float:
    scenes = world.scenes(task.settings.judged, task.generator, joint)
    nearest = model.zero_shot(_rendered(scenes, task), pair_texts()).argmax(-1)
    return (nearest.cpu() == shapes.labels(scenes, "shape", "colour")).float().mean().item()


def _rendered(scenes: shapes.Scenes, task: Task[Settings]) -> Tensor:
    return shapes.render(scenes.to(task.device), task.settings.image_size)


RECIPE = Recipe(
    name="clip",
    settings={
        "smoke": Settings(steps=5, pool=200, judged=100),
        "cpu": Settings(steps=900, batch=256, rate=3e-3),
        "gpu": Settings(
            steps=20_000,
            batch=512,
            rate=5e-4,
            image_size=32,
            dimension=128,
            channels=(64, 128, 256, 256),
            dim=96,
            depth=3,
            pool=200_000,
            judged=5000,
        ),
    },
    build=build,
    train=train,
    measure=measure,
)
