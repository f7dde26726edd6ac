"""A convolutional classifier of shapes."""

from collections.abc import Sequence
from dataclasses import dataclass

from dlatlas.models.cnn import CNN
from dlatlas.models.zoo import classifier, world
from dlatlas.models.zoo.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Settings(classifier.Vision):
    """Settings of the network: channels of each stage."""

    channels: Sequence[int] = (32, 64, 128)


def build(settings: Settings) -> CNN:
    """Give the network."""
    return CNN(settings.channels, len(world.CLASSES), image_size=settings.image_size, image_channels=3)


RECIPE = Recipe(
    name="cnn",
    settings={
        "smoke": Settings(steps=5, judged=200),
        "cpu": Settings(steps=2000, batch=64, rate=3e-3),
        "gpu": Settings(steps=20_000, batch=512, image_size=32, channels=(64, 128, 256, 256), judged=10_000),
    },
    build=build,
    train=classifier.train,
    measure=classifier.measure,
)
