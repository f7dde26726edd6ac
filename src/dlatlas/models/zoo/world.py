"""The corner of the shapes world that the models of the zoo see.

One medium or large object near the centre, nearly upright, plain or shaded, on a flat background, in an image of 16×16
pixels (32×32 in the ``gpu`` profile). The diffusion model sees a part of it, see its recipe. All the rest of the world
(small objects, objects at the border, stripes, dots, patterned backgrounds, styles, corruptions) is new to the models:
domains to which a chapter may move them.
"""

import torch
from torch import Tensor

from dlatlas.data import shapes

CLASSES = shapes.SHAPES
"""Label i of a model of the zoo is ``CLASSES[i]``, as ``shapes.labels(scenes, "shape")`` numbers them."""

IMAGE_SIZE = 16
SIZES = ("medium", "large")
TEXTURES = ("plain", "gradient")
BACKGROUNDS = ("paper", "mist", "sand", "moss", "slate", "night")
SPREAD, ROTATION = 0.25, 15.0


def joint() -> shapes.Joint:
    """Every combination of a shape, a colour, and the sizes, textures and backgrounds above is equally likely."""
    return shapes.Joint().only(size=SIZES, texture=TEXTURES, background=BACKGROUNDS)


def scenes(n: int, generator: torch.Generator, distribution: shapes.Joint | None = None) -> shapes.Scenes:
    """Draw scenes of one object, from `joint` or another distribution of the named factors."""
    return shapes.sample(n, generator=generator, joint=distribution or joint(), spread=SPREAD, rotation=ROTATION)


def rearranged(drawn: shapes.Scenes, generator: torch.Generator) -> shapes.Scenes:
    """Give the objects of scenes other places, turns and exact sizes."""
    return shapes.rearrange(drawn, generator=generator, spread=SPREAD, rotation=ROTATION)


def labelled(n: int, generator: torch.Generator, device: torch.device, size: int) -> tuple[Tensor, Tensor]:
    """Draw images (n, 3, size, size) in [0, 1] and their classes (n,)."""
    drawn = scenes(n, generator).to(device)
    return shapes.render(drawn, size), shapes.labels(drawn, "shape")
