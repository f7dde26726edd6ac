"""A small U-Net for images with a noise level and a class."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dlatlas.models.inputs import check_shape
from dlatlas.ops.validate import at_least, labels
from dlatlas.typed import typed

GROUPS = 4
LOWEST_FREQUENCY = 1e-4
FOLD = 2
"""Side of the squares of pixels that are folded into channels at the entrance; most of the work is then a quarter."""


class ResidualBlock(nn.Module):
    r"""Two convolutions 3×3 beside an identity, whose features a condition scales and shifts in between.

    .. math:: y = W_0 x + W_2 * \sigma\left((1 + a(c)) \odot N(W_1 * \sigma(N(x))) + b(c)\right)

    N is group normalisation, and :math:`\sigma` the SiLU.

    Parameters
    ----------
    inputs, outputs
        Channels.
    condition
        Dimension of the condition c.
    """

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.GroupNorm(GROUPS, inputs), nn.GroupNorm(GROUPS, outputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(condition, 2 * outputs)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        # The block begins as its shortcut.
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Float[Tensor, "n c h w"], condition: Float[Tensor, "n d"]) -> Float[Tensor, "n o h w"]:
        """Give the output channels."""
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        h = self.second_norm(self.first(F.silu(self.first_norm(x))))
        return self.shortcut(x) + self.second(F.silu((1 + scale) * h + shift))


class UNet(nn.Module):
    """Two resolutions of residual blocks, the finer one joined to the way back, conditioned on a level and a label.

    Parameters
    ----------
    labels
        Number of labels.
    image_size
        Side of the square RGB images in pixels, a multiple of 4.
    channels
        At the finer and at the coarser resolution, half and a quarter of the images'; multiples of 4.
    depth
        Residual blocks at the coarser resolution.
    condition
        Dimension of the embedding of level and label, an even number.

    Raises
    ------
    ValueError
        If a size is not positive or not such a multiple.
    """

    def __init__(
        self,
        labels: int,
        *,
        image_size: int = 16,
        channels: Sequence[int] = (48, 64),
        depth: int = 2,
        condition: int = 64,
    ) -> None:
        super().__init__()
        fine, coarse = channels
        for name, value, factor in (
            ("image_size", image_size, 2 * FOLD),
            ("channels", fine, GROUPS),
            ("channels", coarse, GROUPS),
            ("condition", condition, 2),
        ):
            if value < factor or value % factor:
                raise ValueError(f"{name} must be a positive multiple of {factor}, got {value}")
        at_least("labels", labels, 1)
        at_least("depth", depth, 1)
        values = 3 * FOLD**2
        self.labels, self.image_size, self.condition = labels, image_size, condition
        self.label_embedding = nn.Parameter(torch.randn(labels, condition))
        self.level = nn.Sequential(nn.Linear(condition, condition), nn.SiLU(), nn.Linear(condition, condition))
        self.entrance = nn.Conv2d(values, fine, 3, padding=1)
        self.down = ResidualBlock(fine, fine, condition)
        self.reduce = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        self.middle = nn.ModuleList(ResidualBlock(coarse, coarse, condition) for _ in range(depth))
        self.up = ResidualBlock(coarse + fine, fine, condition)
        self.exit = nn.Sequential(nn.GroupNorm(GROUPS, fine), nn.SiLU(), nn.Conv2d(fine, values, 3, padding=1))

    @typed
    def forward(
        self, x: Float[Tensor, "n 3 size size"], t: Int[Tensor, "n"], label: Int[Tensor, "n"]
    ) -> Float[Tensor, "n 3 size size"]:
        """Give an image for an image, its level and its label."""
        check_shape("x", x, 3, self.image_size, self.image_size)
        labels("label", label, self.labels)
        condition = F.silu(self.level(waves(t, self.condition)) + F.embedding(label, self.label_embedding))
        fine = self.down(self.entrance(F.pixel_unshuffle(x, FOLD)), condition)
        coarse = self.reduce(fine)
        for block in self.middle:
            coarse = block(coarse, condition)
        both = torch.cat([coarse.repeat_interleave(2, -1).repeat_interleave(2, -2), fine], dim=1)
        return F.pixel_shuffle(self.exit(self.up(both, condition)), FOLD)


@typed
def waves(t: Int[Tensor, "n"], dim: int) -> Float[Tensor, "n dim"]:
    """Give sines and cosines of numbers at frequencies from 1 down to 1/10000.

    Parameters
    ----------
    t
        Numbers, such as noise levels.
    dim
        How many, an even number: as many sines as cosines.
    """
    frequencies = torch.logspace(0, math.log10(LOWEST_FREQUENCY), dim // 2, device=t.device)
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)
