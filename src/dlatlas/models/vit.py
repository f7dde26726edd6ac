"""A vision transformer."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dlatlas.models.inputs import check_shape
from dlatlas.models.transformer import EMBEDDING_STD, Block
from dlatlas.ops.validate import at_least
from dlatlas.typed import typed


class ViT(nn.Module):
    """Vision transformer: an image is a sequence of square patches, led by a class token whose output is classified.

    Parameters
    ----------
    classes
        Number of logits, K.
    image_size
        Height and width of the square images in pixels, a multiple of ``patch_size``.
    patch_size
        Height and width of a patch in pixels.
    image_channels
        Channels of the images: 1 for grey, 3 for colour.
    dim, depth, heads
        Width of the tokens, number of blocks, heads in each.
    expansion
        Width of the perceptrons in units of ``dim``.

    Raises
    ------
    ValueError
        If a size is not positive, ``patch_size`` does not divide ``image_size`` or ``heads`` does not divide ``dim``.
    """

    def __init__(
        self,
        classes: int = 10,
        *,
        image_size: int = 8,
        patch_size: int = 2,
        image_channels: int = 1,
        dim: int = 64,
        depth: int = 2,
        heads: int = 4,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        for name, value in (
            ("classes", classes),
            ("patch_size", patch_size),
            ("image_channels", image_channels),
            ("depth", depth),
            ("dim", dim),
        ):
            at_least(name, value, 1)
        if image_size % patch_size or image_size < patch_size:
            raise ValueError(f"image_size must be a multiple of patch_size={patch_size}, got {image_size}")
        self.image_size, self.patch_size, self.image_channels = image_size, patch_size, image_channels
        patches = (image_size // patch_size) ** 2
        self.embed = nn.Linear(image_channels * patch_size**2, dim)
        self.class_token = nn.Parameter(EMBEDDING_STD * torch.randn(dim))
        self.positions = nn.Parameter(EMBEDDING_STD * torch.randn(1 + patches, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads, causal=False, expansion=expansion) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    @typed
    def tokens(self, x: Float[Tensor, "n c size size"]) -> Float[Tensor, "n t d"]:
        """Give the normalised output for the class token (first) and for every patch, in reading order."""
        check_shape("x", x, self.image_channels, self.image_size, self.image_size)
        patches = self.embed(patchify(x, self.patch_size))
        class_token = self.class_token.expand(x.shape[0], 1, -1)
        return self.norm(self.blocks(torch.cat([class_token, patches], dim=1) + self.positions))

    @typed
    def features(self, x: Float[Tensor, "n c size size"]) -> Float[Tensor, "n d"]:
        """Give the output for the class token, the input of the linear layer."""
        return self.tokens(x)[:, 0]

    @typed
    def forward(self, x: Float[Tensor, "n c size size"]) -> Float[Tensor, "n k"]:
        """Give the logits."""
        return self.head(self.features(x))


@typed
def patchify(images: Float[Tensor, "n c h w"], patch_size: int) -> Float[Tensor, "n p v"]:
    """Cut images into square patches.

    Parameters
    ----------
    images
        Images (n, channels, height, width), whose sides are multiples of ``patch_size``.
    patch_size
        Side s of a patch in pixels.

    Returns
    -------
    Tensor
        Patches (n, height · width / s², channels · s²) in reading order, each flattened channel by channel.

    Raises
    ------
    ValueError
        If the sides are not multiples of ``patch_size``.
    """
    at_least("patch_size", patch_size, 1)
    height, width = images.shape[-2:]
    if height % patch_size or width % patch_size:
        raise ValueError(f"images must have sides that are multiples of patch_size={patch_size}, got {height}×{width}")
    grid = images.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size))
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
