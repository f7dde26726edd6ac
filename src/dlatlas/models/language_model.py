"""An autoregressive language model of words."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlatlas.models.transformer import Transformer
from dlatlas.ops.validate import at_least, positive
from dlatlas.typed import typed


class LanguageModel(Transformer):
    """A causal transformer that knows its words, and can continue a text.

    Parameters
    ----------
    words
        The vocabulary: word i is token i.
    length
        Longest sequence that the model takes.
    dim, depth, heads
        As of `dlatlas.models.transformer.Transformer`.
    """

    def __init__(self, words: Sequence[str], length: int, *, dim: int = 64, depth: int = 2, heads: int = 4) -> None:
        super().__init__(len(words), length, dim=dim, depth=depth, heads=heads, causal=True)
        self.words = tuple(words)
        self._token = {word: index for index, word in enumerate(self.words)}

    def encode(self, text: str) -> Int[Tensor, "t"]:
        """Give the tokens of a text, whose words are separated by spaces.

        Raises
        ------
        ValueError
            For a word that the model does not know.
        """
        words = text.split(" ") if text else []
        if unknown := [word for word in words if word not in self._token]:
            raise ValueError(f"text must use the words of the model, got {', '.join(map(repr, unknown))}")
        return torch.tensor([self._token[word] for word in words], dtype=torch.long)

    def decode(self, tokens: Int[Tensor, "t"]) -> str:
        """Give the words of a sequence of tokens, separated by spaces."""
        return " ".join(self.words[token] for token in tokens.tolist())

    @torch.no_grad()
    @typed
    def generate(
        self,
        prompt: Int[Tensor, "n t"],
        steps: int,
        *,
        generator: torch.Generator,
        temperature: float = 1.0,
    ) -> Int[Tensor, "n u"]:
        r"""Continue sequences, one token after the other, each drawn from :math:`\mathrm{softmax}(z / \tau)`.

        Parameters
        ----------
        prompt
            At least one token a sequence. The model sees the last ``length`` tokens at most.
        steps
            Tokens to add.
        generator
            A CPU generator.
        temperature
            :math:`\tau > 0`; towards 0 the likeliest token always wins.

        Returns
        -------
        Tensor
            The prompt and the new tokens, u = t + steps.
        """
        at_least("steps", steps, 0)
        at_least("tokens in prompt", prompt.shape[1], 1)
        positive("temperature", temperature)
        text = prompt
        for _ in range(steps):
            logits = self(text[:, -self.length :])[:, -1]
            chances = (logits.double().cpu() / temperature).softmax(-1)
            text = torch.cat([text, torch.multinomial(chances, 1, generator=generator).to(text.device)], dim=1)
        return text

    @typed
    def log_likelihood(self, tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n u"]:
        """Give the log-probability, in nats, of every token but the first given those before it; u = t - 1."""
        at_least("tokens in a sequence", tokens.shape[1], 2)
        scores = self(tokens[:, :-1]).log_softmax(-1)
        return scores.gather(-1, tokens[:, 1:, None]).squeeze(-1)
