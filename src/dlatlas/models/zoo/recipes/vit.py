"""A vision transformer that classifies shapes."""

from dataclasses import dataclass

from dlatlas.models.vit import ViT
from dlatlas.models.zoo import classifier, world
from dlatlas.models.zoo.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Settings(classifier.Vision):
    """Settings of the network, as of `dlatlas.models.vit.ViT`."""

    patch_size: int = 4
    dim: int = 64
    depth: int = 3
    heads: int = 4


def build(settings: Settings) -> ViT:
    """Give the network."""
    return ViT(
        len(world.CLASSES),
        image_size=settings.image_size,
        patch_size=settings.patch_size,
        image_channels=3,
        dim=settings.dim,
        depth=settings.depth,
        heads=settings.heads,
    )


RECIPE = Recipe(
    name="vit",
    settings={
        "smoke": Settings(steps=5, judged=200),
        "cpu": Settings(steps=2000, batch=64, rate=3e-3),
        "gpu": Settings(steps=30_000, batch=512, rate=5e-4, image_size=32, dim=192, depth=8, heads=6, judged=10_000),
    },
    build=build,
    train=classifier.train,
    measure=classifier.measure,
)
