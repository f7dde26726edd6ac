"""A masked autoencoder of images."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dlatlas.models.inputs import check_shape
from dlatlas.models.transformer import EMBEDDING_STD, Block
from dlatlas.models.vit import patchify
from dlatlas.ops.validate import at_least, in_range
from dlatlas.typed import typed


class MaskedAutoencoder(nn.Module):
    r"""A transformer encoder that sees some patches of an image, and a lighter decoder that predicts the others.

    The encoder takes the visible patches only. The decoder gets its output, and one learned token in the place of every
    hidden patch.

    Parameters
    ----------
    image_size
        Height and width of the square images in pixels, a multiple of ``patch_size``.
    patch_size
        Side s of a patch in pixels; there are p = (image_size / s)² patches of v = channels · s² values.
    image_channels
        Channels of the images.
    hidden
        How many patches are hidden.
    dim, depth, heads
        Width d of the encoder's tokens, number of blocks, heads in each.
    decoder_dim, decoder_depth
        The same for the decoder.

    Raises
    ------
    ValueError
        If a size is not positive, ``patch_size`` does not divide ``image_size``, or not at least one patch is visible
        and one hidden.
    """

    def __init__(
        self,
        *,
        image_size: int = 16,
        patch_size: int = 2,
        image_channels: int = 3,
        hidden: int = 48,
        dim: int = 64,
        depth: int = 4,
        heads: int = 4,
        decoder_dim: int = 32,
        decoder_depth: int = 1,
    ) -> None:
        super().__init__()
        for name, value in (("patch_size", patch_size), ("depth", depth), ("decoder_depth", decoder_depth)):
            at_least(name, value, 1)
        if image_size % patch_size or image_size < patch_size:
            raise ValueError(f"image_size must be a multiple of patch_size={patch_size}, got {image_size}")
        patches = (image_size // patch_size) ** 2
        if not 1 <= hidden < patches:
            raise ValueError(f"hidden must lie in [1, {patches - 1}] for {patches} patches, got {hidden}")
        values = image_channels * patch_size**2
        self.image_size, self.patch_size, self.image_channels = image_size, patch_size, image_channels
        self.patches, self.hidden = patches, hidden
        self.embed = nn.Linear(values, dim)
        self.positions = nn.Parameter(EMBEDDING_STD * torch.randn(patches, dim))
        self.encoder = nn.Sequential(*(Block(dim, heads, causal=False) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.bridge = nn.Linear(dim, decoder_dim)
        self.mask_token = nn.Parameter(EMBEDDING_STD * torch.randn(decoder_dim))
        self.decoder_positions = nn.Parameter(EMBEDDING_STD * torch.randn(patches, decoder_dim))
        self.decoder = nn.Sequential(*(Block(decoder_dim, heads, causal=False) for _ in range(decoder_depth)))
        self.decoder_norm = nn.LayerNorm(decoder_dim)
        self.head = nn.Linear(decoder_dim, values)

    def random_mask(self, n: int, generator: torch.Generator) -> Bool[Tensor, "n p"]:
        """Draw which patches are hidden (True), independently for n images; the generator is a CPU generator."""
        order = torch.rand(n, self.patches, generator=generator).argsort(1)
        return order < self.hidden

    @typed
    def tokens(self, x: Float[Tensor, "n c size size"]) -> Float[Tensor, "n p d"]:
        """Give the encoder's output for every patch of whole images, in reading order."""
        return self.norm(self.encoder(self._embedded(x)))

    @typed
    def features(self, x: Float[Tensor, "n c size size"]) -> Float[Tensor, "n d"]:
        """Give the mean of the encoder's outputs over the patches of whole images."""
        return self.tokens(x).mean(1)

    @typed
    def forward(self, x: Float[Tensor, "n c size size"], mask: Bool[Tensor, "n p"]) -> Float[Tensor, "n p v"]:
        """Predict all patches from those that the mask leaves (False).

        Parameters
        ----------
        x
            Images.
        mask
            True for hidden patches: ``hidden`` in each row, as `random_mask` draws them.

        Returns
        -------
        Tensor
            Values of the patches, laid out as by `dlatlas.models.vit.patchify`.
        """
        check_shape("mask", mask, self.patches)
        in_range("hidden patches of an image", mask.sum(1), self.hidden, self.hidden)
        visible = mask.long().argsort(dim=1, stable=True)[:, : self.patches - self.hidden]
        seen = self.norm(self.encoder(_rows(self._embedded(x), visible)))
        return self.head(self.decoder_norm(self.decoder(self._filled(self.bridge(seen), visible))))

    @typed
    def loss(self, x: Float[Tensor, "n c size size"], mask: Bool[Tensor, "n p"]) -> Float[Tensor, ""]:
        """Mean squared error of the hidden patches."""
        errors = (self(x, mask) - patchify(x, self.patch_size)).square().mean(-1)
        return (errors * mask).sum() / mask.sum()

    @typed
    def reconstruct(
        self, x: Float[Tensor, "n c size size"], mask: Bool[Tensor, "n p"]
    ) -> Float[Tensor, "n c size size"]:
        """Give images whose hidden patches are the prediction and whose visible patches are the true ones."""
        patches = torch.where(mask[..., None], self(x, mask), patchify(x, self.patch_size))
        return unpatchify(patches, self.patch_size, self.image_channels)

    def _embedded(self, x: Tensor) -> Tensor:
        check_shape("x", x, self.image_channels, self.image_size, self.image_size)
        return self.embed(patchify(x, self.patch_size)) + self.positions

    def _filled(self, seen: Tensor, visible: Int[Tensor, "n v"]) -> Tensor:
        """Put the visible tokens in their places, and the mask token in all others."""
        blank = self.mask_token.expand(seen.shape[0], self.patches, -1)
        places = visible[..., None].expand(*visible.shape, seen.shape[-1])
        return blank.scatter(1, places, seen) + self.decoder_positions


@typed
def unpatchify(patches: Float[Tensor, "n p v"], patch_size: int, image_channels: int = 3) -> Float[Tensor, "n c h w"]:
    """Put the patches of square images together again: the inverse of `dlatlas.models.vit.patchify`.

    Parameters
    ----------
    patches
        Patches (n, p, channels · patch_size²) in reading order; p is a square.
    patch_size
        Side of a patch in pixels.
    image_channels
        Channels of the images.

    Raises
    ------
    ValueError
        If the patches do not make a square image with so many channels.
    """
    side = round(patches.shape[1] ** 0.5)
    if side**2 != patches.shape[1]:
        raise ValueError(f"patches must be a square number an image, got {patches.shape[1]}")
    check_shape("patches", patches, image_channels * patch_size**2)
    grid = patches.unflatten(2, (image_channels, patch_size, patch_size)).unflatten(1, (side, side))
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def _rows(tokens: Tensor, chosen: Int[Tensor, "n v"]) -> Tensor:
    return tokens.gather(1, chosen[..., None].expand(*chosen.shape, tokens.shape[-1]))
