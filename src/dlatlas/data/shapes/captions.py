"""Captions of scenes, other wordings of them, near misses, and their words as numbers."""

import random
from collections.abc import Sequence
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from dlatlas.data.shapes.grammar import (
    CHANGES,
    RELATIONS,
    Count,
    Objects,
    Phrase,
    Relation,
    Statement,
    Thing,
    holds,
    wordings,
    words,
)
from dlatlas.data.shapes.scenes import Scenes
from dlatlas.data.shapes.vocabulary import FACTORS, OBJECT_FACTORS, index_of
from dlatlas.ops import validate
from dlatlas.typed import typed

T = TypeVar("T")
TOPICS = ("objects", "relation", "count")
WORDS = words()
"""The vocabulary: word i has the token i + 1, and 0 fills up."""
_TOKEN = {word: index + 1 for index, word in enumerate(WORDS)}


class _Dice:
    """Choices from a seed, by ``random()`` only: the one method whose values Python keeps from version to version."""

    def __init__(self, generator: torch.Generator):
        self._random = random.Random(int(torch.randint(2**62, (), generator=generator))).random

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._random() * len(options))]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        return sorted(options, key=lambda _: self._random())


@typed
def statements(
    scenes: Scenes, *, generator: torch.Generator, about: Sequence[str] = TOPICS, detail: float = 0.7
) -> list[Statement]:
    """A true statement about each scene.

    Parameters
    ----------
    scenes
        Scenes with one leading dimension.
    generator
        A CPU generator.
    about
        What is spoken of, from ``TOPICS``: all objects with their attributes, the relation of two objects, or how many
        objects are alike. One of those that the scene admits is chosen; relation and count need two objects. Where two
        objects are too close together for a relation, they are described instead.
    detail
        Probability with which each of colour, texture and size is mentioned.

    Returns
    -------
    list
        Statements: ``text()`` gives the plain wording.
    """
    for topic in about:
        validate.one_of("about", topic, TOPICS)
    validate.in_range("detail", detail, 0.0, 1.0)
    dice = _Dice(generator)
    return [_statement(things, dice, about, detail) for things in objects_of(scenes)]


@typed
def captions(
    scenes: Scenes, *, generator: torch.Generator, about: Sequence[str] = TOPICS, detail: float = 0.7
) -> list[str]:
    """A true caption of each scene: the plain wording of one of the `statements` that the arguments allow."""
    return [statement.text() for statement in statements(scenes, generator=generator, about=about, detail=detail)]


@typed
def paraphrases(said: Sequence[Statement], number: int, *, generator: torch.Generator) -> list[list[str]]:
    """Different wordings of each statement, none of them the plain one.

    Parameters
    ----------
    said
        From `statements`.
    number
        Wordings of each, at most 4 (every statement has so many; some have more).
    generator
        A CPU generator.
    """
    validate.in_range("number", number, 1, 4)
    dice = _Dice(generator)
    return [dice.shuffled(wordings(statement)[1:])[:number] for statement in said]


@typed
def distractors(
    said: Sequence[Statement],
    scenes: Scenes,
    number: int,
    *,
    generator: torch.Generator,
    kinds: Sequence[str] = CHANGES,
) -> list[list[str]]:
    """False captions that differ from each true statement in one respect.

    Parameters
    ----------
    said
        From `statements`, about these scenes.
    scenes
        Scenes with one leading dimension.
    number
        Distractors of each statement.
    generator
        A CPU generator.
    kinds
        What may be changed, from ``CHANGES``: an attribute, which attribute belongs to which object, the count, or the
        relation.

    Raises
    ------
    ValueError
        When a statement has too few near misses of these kinds that are false.
    """
    validate.at_least("number", number, 1)
    for kind in kinds:
        validate.one_of("kinds", kind, CHANGES)
    dice = _Dice(generator)
    return [
        _false_changes(statement, things, number, kinds, dice)
        for statement, things in zip(said, objects_of(scenes), strict=True)
    ]


@typed
def phrase(**factors: str) -> str:
    """A noun phrase for named values, such as ``phrase(shape="star", colour="red")``: ``"a red star"``."""
    for factor, value in factors.items():
        validate.one_of("factor", factor, OBJECT_FACTORS)
        index_of(factor, value)
    return Objects((Phrase(**factors),)).text()


@typed
def tokens(texts: Sequence[str], length: int) -> Int[Tensor, "n length"]:
    """Numbers of the words of each text, filled up with zeros to a length.

    Raises
    ------
    ValueError
        For a word outside ``WORDS``, or a text with more words than the length.
    """
    table = torch.zeros(len(texts), length, dtype=torch.long)
    for row, text in zip(table, texts, strict=True):
        split = text.replace(",", "").split()
        if unknown := [word for word in split if word not in _TOKEN]:
            raise ValueError(f"texts must use the words in WORDS, got {', '.join(map(repr, unknown))}")
        if len(split) > length:
            raise ValueError(f"length must be at least {len(split)} for {text!r}, got {length}")
        row[: len(split)] = torch.tensor([_TOKEN[word] for word in split])
    return table


def objects_of(scenes: Scenes) -> list[list[Thing]]:
    """The objects of each scene as the grammar sees them."""
    if len(scenes.batch) != 1:
        raise ValueError(f"scenes must have one leading dimension, got {tuple(scenes.batch)}")
    columns = [
        [[FACTORS[factor][index] for index in row] for row in getattr(scenes, factor).tolist()]
        for factor in OBJECT_FACTORS
    ]
    places = [scenes.position[..., axis].tolist() for axis in (0, 1)]
    rows = zip(scenes.present.tolist(), *columns, *places, strict=True)
    return [[Thing(*slot) for there, *slot in zip(*row, strict=True) if there] for row in rows]


def _statement(things: list[Thing], dice: _Dice, about: Sequence[str], detail: float) -> Statement:
    possible = [topic for topic in about if topic == "objects" or len(things) > 1]
    if not possible or not things:
        raise ValueError(
            f"about must include a topic that each scene admits, got {tuple(about)} for {len(things)} objects"
        )
    return _TELL[dice.pick(possible)](things, dice, detail)


def _tell_objects(things: list[Thing], dice: _Dice, detail: float) -> Objects:
    return Objects(tuple(_describe(thing, dice, detail) for thing in dice.shuffled(things)))


def _tell_relation(things: list[Thing], dice: _Dice, detail: float) -> Statement:
    a, b = dice.shuffled(things)[:2]
    if standing := [relation for relation in RELATIONS if holds(relation, a, b)]:
        return Relation(_describe(a, dice, detail), dice.pick(standing), _describe(b, dice, detail))
    return _tell_objects([a, b], dice, detail)


def _tell_count(things: list[Thing], dice: _Dice, detail: float) -> Count:
    alike = dice.pick(((), ("shape",), ("colour",), ("texture",), ("shape", "colour")))
    model = dice.pick(things)
    what = Phrase(**{factor: getattr(model, factor) for factor in alike})
    return Count(sum(what.fits(thing) for thing in things), what)


def _describe(thing: Thing, dice: _Dice, detail: float) -> Phrase:
    mentioned = {factor: getattr(thing, factor) for factor in OBJECT_FACTORS[1:] if dice.chance(detail)}
    return Phrase(shape=thing.shape, **mentioned)


def _false_changes(
    statement: Statement, things: list[Thing], number: int, kinds: Sequence[str], dice: _Dice
) -> list[str]:
    """Distinct false near misses. The kind of change is chosen first, so that all kinds are equally frequent."""
    options = dice.shuffled([change for change in statement.changes() if change[0] in kinds])
    found: dict[str, None] = {}
    while options and len(found) < number:
        kind = dice.pick(sorted({kind for kind, _ in options}))
        place = next(place for place, option in enumerate(options) if option[0] == kind)
        _, changed = options.pop(place)
        if not changed.true_of(things):
            found[changed.text()] = None
    if len(found) < number:
        raise ValueError(
            f"number must be at most {len(found)} for {statement.text()!r} and changes of {tuple(kinds)}, got {number}"
        )
    return list(found)


_TELL = {"objects": _tell_objects, "relation": _tell_relation, "count": _tell_count}
