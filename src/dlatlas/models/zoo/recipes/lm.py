"""A language model of texts about scenes.

A text is about one scene of one to three objects: true statements, each in several wordings, every one of which ends
with a full stop. A text ends with `END`. What follows can be told from the grammar (``"two stars that are red"``) and
from what was said before of the same scene.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlatlas.data import shapes
from dlatlas.models.language_model import LanguageModel
from dlatlas.models.zoo.recipe import Recipe, Schedule, Task, optimise

END, COMMA, STOP = "|", ",", "."
VOCABULARY = (END, *shapes.WORDS, COMMA, STOP)
STATEMENTS = 2
WORDINGS = 2
OBJECTS = (1, 3)


@dataclass(frozen=True, kw_only=True)
class Settings(Schedule):
    """Settings of the network and of its text.

    Parameters
    ----------
    length
        Tokens in a window of text.
    texts
        Texts to train on; as many as ``judged`` others are to measure on.
    """

    length: int = 48
    texts: int = 8000
    dim: int = 64
    depth: int = 3
    heads: int = 4


def build(settings: Settings) -> LanguageModel:
    """Give the network."""
    return LanguageModel(VOCABULARY, settings.length, dim=settings.dim, depth=settings.depth, heads=settings.heads)


def texts(n: int, generator: torch.Generator) -> list[str]:
    """Write n texts, without the `END`."""
    scenes = shapes.sample(n, generator=generator, objects=OBJECTS)
    told = [_sentences(scenes, generator) for _ in range(STATEMENTS)]
    return [_joined([sentence for about in text for sentence in about]) for text in zip(*told, strict=True)]


def stream(model: LanguageModel, written: Sequence[str]) -> Tensor:
    """Give the tokens of texts, one after the other, each after an `END`."""
    return torch.cat([model.encode(f"{END} {text}") for text in written])


def train(model: LanguageModel, task: Task[Settings]) -> None:
    """Maximise the likelihood of windows of the text."""
    text = stream(model, texts(task.settings.texts, task.generator))

    def loss() -> Tensor:
        return -model.log_likelihood(_windows(text, task).to(task.device)).mean()

    optimise(model, loss, task.settings)


def measure(model: LanguageModel, task: Task[Settings]) -> dict[str, float]:
    """Perplexity of fresh text, and that by the frequencies of words and of pairs of words."""
    known = stream(model, texts(task.settings.texts, task.generator))
    fresh = stream(model, texts(task.settings.judged, task.generator))
    windows = fresh[: len(fresh) // model.length * model.length].view(-1, model.length)
    # The first half of a window is context only, as a baseline that looks back one word needs little of it.
    second_half = model.log_likelihood(windows.to(task.device))[:, model.length // 2 :]
    return {
        "perplexity": math.exp(-second_half.mean().item()),
        "perplexity of word pairs": _pair_perplexity(known, fresh, model.vocabulary),
        "perplexity of words": _word_perplexity(known, fresh, model.vocabulary),
        "vocabulary": float(model.vocabulary),
    }


def _sentences(scenes: shapes.Scenes, generator: torch.Generator) -> list[list[str]]:
    """A statement about each scene: plainly, and in other words."""
    said = shapes.statements(scenes, generator=generator)
    others = shapes.paraphrases(said, WORDINGS - 1, generator=generator)
    return [[statement.text(), *more] for statement, more in zip(said, others, strict=True)]


def _joined(sentences: list[str]) -> str:
    return " ".join(f"{sentence.replace(COMMA, f' {COMMA}')} {STOP}" for sentence in sentences)


def _windows(text: Tensor, task: Task[Settings]) -> Tensor:
    """Draw windows of one token more than the model takes: the last one is only predicted."""
    width = task.settings.length + 1
    starts = torch.randint(len(text) - width + 1, (task.settings.batch, 1), generator=task.generator)
    return text[starts + torch.arange(width)]


def _word_perplexity(known: Tensor, fresh: Tensor, vocabulary: int) -> float:
    counts = 1 + torch.bincount(known, minlength=vocabulary).double()
    return math.exp(-(counts / counts.sum()).log()[fresh].mean().item())


def _pair_perplexity(known: Tensor, fresh: Tensor, vocabulary: int) -> float:
    pairs = torch.bincount(vocabulary * known[:-1] + known[1:], minlength=vocabulary**2)
    counts = 1 + pairs.double().view(vocabulary, vocabulary)
    return math.exp(-(counts / counts.sum(1, keepdim=True)).log()[fresh[:-1], fresh[1:]].mean().item())


RECIPE = Recipe(
    name="lm",
    settings={
        "smoke": Settings(steps=5, texts=200, judged=40),
        "cpu": Settings(steps=1200, batch=32, rate=3e-3),
        "gpu": Settings(
            steps=10_000, batch=256, rate=1e-3, length=128, texts=200_000, dim=192, depth=6, heads=6, judged=10_000
        ),
    },
    build=build,
    train=train,
    measure=measure,
)
