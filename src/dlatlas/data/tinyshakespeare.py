"""Tiny Shakespeare: a megabyte of plays, letter by letter, from the data home."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from dlatlas.data.home import PublishedFile, fetch

PUBLISHED = PublishedFile(
    "tinyshakespeare.txt",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)


class Text(NamedTuple):
    """A text as positions of its characters (n,) in an alphabet, sorted by code point."""

    tokens: Int[Tensor, "n"]
    alphabet: str


def tinyshakespeare() -> Text:
    """Read the 1,115,394 characters, of 65 kinds.

    Raises
    ------
    DataUnavailableError
        If the file is neither in the data home nor to be had from the network.
    """
    return encode(fetch(PUBLISHED).read_text(encoding="utf-8"))


def encode(text: str) -> Text:
    """Replace every character by its position in the alphabet of the text."""
    alphabet = "".join(sorted(set(text)))
    position = {character: index for index, character in enumerate(alphabet)}
    return Text(torch.tensor([position[character] for character in text]), alphabet)


def decode(text: Text) -> str:
    """Turn positions back into characters."""
    return "".join(text.alphabet[token] for token in text.tokens.tolist())
