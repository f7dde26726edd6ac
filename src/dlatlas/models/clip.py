"""Contrastive language-image pre-training: two towers that meet in one space."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dlatlas.models.cnn import CNN
from dlatlas.models.transformer import Transformer
from dlatlas.ops.validate import at_least
from dlatlas.typed import typed

FILLER = 0
FIRST_TEMPERATURE, LARGEST_SCALE = 0.07, 100.0


class CLIP(nn.Module):
    r"""An image tower and a text tower, whose outputs are unit vectors of one space.

    .. math:: \mathrm{logits}_{ij} = e^{s} \langle u_i, v_j \rangle, \qquad
        u = \frac{f(x)}{\lVert f(x) \rVert}, \quad v = \frac{g(t)}{\lVert g(t) \rVert}

    The image tower f is a convolutional network. The text tower g is a transformer, whose outputs are averaged over the
    words.

    Parameters
    ----------
    words
        The vocabulary: word i has the token i + 1, and 0 fills up.
    length
        Most words in a text.
    dimension
        Of the common space, e.
    image_size
        Side of the square RGB images in pixels.
    channels
        Of the image tower, see `dlatlas.models.cnn.CNN`.
    dim, depth, heads
        Of the text tower, see `dlatlas.models.transformer.Transformer`.
    """

    def __init__(
        self,
        words: Sequence[str],
        length: int,
        *,
        dimension: int = 32,
        image_size: int = 16,
        channels: Sequence[int] = (32, 64, 128),
        dim: int = 32,
        depth: int = 1,
        heads: int = 4,
    ) -> None:
        super().__init__()
        at_least("dimension", dimension, 1)
        self.words, self.length = tuple(words), length
        self._token = {word: index + 1 for index, word in enumerate(self.words)}
        self.image_tower = CNN(channels, dimension, image_size=image_size, image_channels=3)
        self.text_tower = Transformer(
            1 + len(self.words), length, dim=dim, depth=depth, heads=heads, causal=False, outputs=dimension
        )
        self.log_scale = nn.Parameter(torch.tensor(-math.log(FIRST_TEMPERATURE)))

    @property
    def scale(self) -> Float[Tensor, ""]:
        r"""The factor :math:`e^s` of the logits, at most 100."""
        return self.log_scale.exp().clamp_max(LARGEST_SCALE)

    def tokenise(self, texts: Sequence[str]) -> Int[Tensor, "m length"]:
        """Give the tokens of texts; punctuation is left out.

        Raises
        ------
        ValueError
            For an unknown word, or a text that is too long or empty.
        """
        rows = [self._tokens(text) for text in texts]
        return torch.tensor([row + [FILLER] * (self.length - len(row)) for row in rows], dtype=torch.long)

    @typed
    def encode_image(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n e"]:
        """Give unit vectors for images in [0, 1]."""
        return F.normalize(self.image_tower(images), dim=-1)

    @typed
    def encode_text(self, tokens: Int[Tensor, "m length"]) -> Float[Tensor, "m e"]:
        """Give unit vectors for texts, as tokens from `tokenise`."""
        words = (tokens != FILLER)[..., None]
        mean = (self.text_tower(tokens) * words).sum(1) / words.sum(1).clamp_min(1)
        return F.normalize(mean, dim=-1)

    @typed
    def forward(self, images: Float[Tensor, "n 3 h w"], tokens: Int[Tensor, "m length"]) -> Float[Tensor, "n m"]:
        """Give the logits of every image with every text."""
        return self.scale * self.encode_image(images) @ self.encode_text(tokens).mT

    @typed
    def zero_shot(self, images: Float[Tensor, "n 3 h w"], texts: Sequence[str]) -> Float[Tensor, "n m"]:
        """Give the probability of each text, given that one of them belongs to the image."""
        return self(images, self.tokenise(texts).to(images.device)).softmax(-1)

    @typed
    def loss(self, images: Float[Tensor, "n 3 h w"], tokens: Int[Tensor, "n length"]) -> Float[Tensor, ""]:
        """Mean cross-entropy of finding the text of an image, and the image of a text, in a batch of pairs."""
        logits, pairs = self(images, tokens), torch.arange(len(images), device=images.device)
        return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.mT, pairs)) / 2

    def _tokens(self, text: str) -> list[int]:
        words = text.replace(",", "").replace(".", "").split()
        if unknown := [word for word in words if word not in self._token]:
            raise ValueError(f"texts must use the words of the model, got {', '.join(map(repr, unknown))}")
        if not 1 <= len(words) <= self.length:
            raise ValueError(f"texts must have 1 to {self.length} words, got {len(words)} in {text!r}")
        return [self._token[word] for word in words]
