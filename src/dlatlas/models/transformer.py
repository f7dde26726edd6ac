"""Transformers for sequences of tokens."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dlatlas.ops.validate import at_least, in_range
from dlatlas.typed import typed

# Embeddings start small beside the outputs of the blocks, as in GPT-2 and ViT.
EMBEDDING_STD = 0.02


class Attention(nn.Module):
    r"""Multi-head self-attention.

    .. math:: \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt{d / H}} + M\right) V \quad\text{in each of } H \text{ heads}

    Parameters
    ----------
    dim
        Width d of the tokens, a multiple of ``heads``.
    heads
        Number of heads H.
    causal
        Whether the mask M hides from every token those after it.
    """

    def __init__(self, dim: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        _check_heads(dim, heads)
        self.heads, self.causal = heads, causal
        # No bias: softmax ignores a shift of the keys, so theirs would get rounding noise for a gradient, and Adam
        # would take full steps along it.
        self.query_key_value = nn.Linear(dim, 3 * dim, bias=False)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        query, key, value = (self._split(part) for part in self.query_key_value(x).chunk(3, dim=-1))
        # Written out: F.scaled_dot_product_attention has no vmap rule on CPU, so stacked networks would run one by one.
        scores = query @ key.mT / query.shape[-1] ** 0.5
        if self.causal:
            scores = scores.masked_fill(_future(x.shape[-2], x.device), -torch.inf)
        return self.output((scores.softmax(-1) @ value).transpose(-3, -2).flatten(-2))

    def _split(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n H t e"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a two-layer perceptron, each added to its input.

    Parameters
    ----------
    dim, heads, causal
        See `Attention`.
    expansion
        Width of the perceptron's hidden layer in units of ``dim``.
    """

    def __init__(self, dim: int, heads: int, *, causal: bool, expansion: int = 4) -> None:
        super().__init__()
        at_least("expansion", expansion, 1)
        self.norm_attention = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, causal=causal)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim))

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        x = x + self.attention(self.norm_attention(x))
        return x + self.mlp(self.norm_mlp(x))


class Transformer(nn.Module):
    """Transformer from token sequences to one vector of logits a position, with learned positions.

    With ``causal=True`` it is a decoder, whose logits at position t see the tokens up to t only: a language model.
    With ``causal=False`` it is an encoder, in which every position sees all.

    Parameters
    ----------
    vocabulary
        Number of different tokens.
    length
        Longest sequence that the model takes.
    dim, depth, heads
        Width of the tokens, number of blocks, heads in each.
    causal
        Whether a position is kept from seeing those after it.
    outputs
        Number of logits at each position; as many as tokens when not given.
    expansion
        Width of the perceptrons in units of ``dim``.

    Raises
    ------
    ValueError
        If a size is not positive or ``heads`` does not divide ``dim``.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        *,
        dim: int = 64,
        depth: int = 1,
        heads: int = 4,
        causal: bool = True,
        outputs: int | None = None,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        for name, value in (("vocabulary", vocabulary), ("length", length), ("depth", depth)):
            at_least(name, value, 1)
        self.vocabulary, self.length = vocabulary, length
        self.embedding = nn.Parameter(EMBEDDING_STD * torch.randn(vocabulary, dim))
        self.positions = nn.Parameter(EMBEDDING_STD * torch.randn(length, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads, causal=causal, expansion=expansion) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocabulary if outputs is None else outputs, bias=False)

    @typed
    def features(self, tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n t d"]:
        """Give the normalised output of the last block at every position."""
        length = tokens.shape[-1]
        if length > self.length:
            raise ValueError(f"tokens must have at most {self.length} positions, got {length}")
        in_range("tokens", tokens, 0, self.vocabulary - 1)
        x = F.embedding(tokens, self.embedding) + self.positions[:length]
        return self.norm(self.blocks(x))

    @typed
    def forward(self, tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n t k"]:
        """Give the logits at every position."""
        return self.head(self.features(tokens))


def _future(length: int, device: torch.device) -> Bool[Tensor, "t t"]:
    """Mark, for every position (row), the positions after it."""
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)


def _check_heads(dim: int, heads: int) -> None:
    at_least("heads", heads, 1)
    at_least("dim", dim, 1)
    if dim % heads:
        raise ValueError(f"dim must be a multiple of heads, got dim={dim} and heads={heads}")
