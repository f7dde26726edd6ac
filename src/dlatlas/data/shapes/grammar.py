"""Statements about a scene: what they mean, how they are worded, and what nearly the same statement would say.

A statement is data. `true_of` decides on it by the objects of a scene, ``text`` words it, ``changes`` lists its near
misses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import NamedTuple

from dlatlas.data.shapes.vocabulary import FACTORS

ADJECTIVES = {
    "plain": "plain",
    "stripes": "striped",
    "dots": "dotted",
    "checks": "checked",
    "gradient": "shaded",
}
SPOKEN = ("size", "texture", "colour")
"""Factors that adjectives speak of, in the order of English."""
SYNONYMS = {
    "small": "little",
    "large": "big",
    "purple": "violet",
    "dotted": "spotted",
    "checked": "chequered",
    "circle": "disc",
    "crescent": "moon",
    "circles": "discs",
    "crescents": "moons",
}
NUMBERS = ("one", "two", "three", "four")
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
CLEARANCE = 0.08
"""How far apart two centres must be, as a fraction of the image, for one to be left of or above the other."""
FRAMES = ("{}", "there {be} {}", "a picture of {}", "an image with {}", "we see {}")


class Thing(NamedTuple):
    """An object as the grammar sees it: words for its factors, and its place."""

    shape: str
    colour: str
    texture: str
    size: str
    x: float
    y: float


class Wording(NamedTuple):
    """One of the ways to say the same: a frame around it, adjectives before or after the noun, synonyms or not."""

    frame: str = FRAMES[0]
    adjectives_after: bool = False
    synonyms: bool = False


PLAIN = Wording()


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: what is said of an object, None where nothing is said."""

    shape: str | None = None
    colour: str | None = None
    texture: str | None = None
    size: str | None = None

    def fits(self, thing: Thing) -> bool:
        """Whether all that is said holds for the object."""
        return all(getattr(thing, factor) == value for factor, value in self.said().items())

    def said(self) -> dict[str, str]:
        """The values that are named."""
        return {factor: value for factor, value in vars(self).items() if value is not None}

    def text(self, wording: Wording, number: int | None = None) -> str:
        """``"a small striped red star"``, or ``"two stars that are red"`` with a number."""
        adjectives = [_adjective(factor, getattr(self, factor)) for factor in SPOKEN if getattr(self, factor)]
        noun = self.shape or "object"
        if many := number is not None and number > 1:
            noun = plural(noun)
        if wording.adjectives_after and adjectives:
            words = f"{noun} that {'are' if many else 'is'} {_listed(adjectives)}"
        else:
            words = " ".join([*adjectives, noun])
        return f"{_article(words) if number is None else NUMBERS[number - 1]} {words}"

    def others(self) -> Iterator["Phrase"]:
        """The phrases that differ in one named value."""
        for factor, value in self.said().items():
            yield from (replace(self, **{factor: other}) for other in FACTORS[factor] if other != value)


@dataclass(frozen=True)
class Objects:
    """``"a red star and a small ring"``: there are these objects, and maybe more."""

    phrases: tuple[Phrase, ...]

    def true_of(self, things: Sequence[Thing]) -> bool:
        """Whether different objects of the scene fit the phrases."""
        return any(
            all(phrase.fits(thing) for phrase, thing in zip(self.phrases, chosen, strict=True))
            for chosen in permutations(things, len(self.phrases))
        )

    def text(self, wording: Wording = PLAIN) -> str:
        """The statement in words."""
        return _sentence(_listed([phrase.text(wording) for phrase in self.phrases]), False, wording)

    def changes(self) -> Iterator[tuple[str, "Objects"]]:
        """Near misses and what is changed in them: a value of one object, or which value belongs to which object."""
        for index, phrase in enumerate(self.phrases):
            yield from (("attribute", Objects(_exchanged(self.phrases, {index: other}))) for other in phrase.others())
        for i, j, first, second in _rebound(self.phrases):
            yield "binding", Objects(_exchanged(self.phrases, {i: first, j: second}))


@dataclass(frozen=True)
class Count:
    """``"two red stars"``: exactly so many objects fit the phrase."""

    number: int
    phrase: Phrase

    def true_of(self, things: Sequence[Thing]) -> bool:
        """Whether the number is right."""
        return sum(self.phrase.fits(thing) for thing in things) == self.number

    def text(self, wording: Wording = PLAIN) -> str:
        """The statement in words."""
        return _sentence(self.phrase.text(wording, self.number), self.number > 1, wording)

    def changes(self) -> Iterator[tuple[str, "Count"]]:
        """Near misses and what is changed in them: the number, or a value."""
        yield from (("count", Count(n, self.phrase)) for n in range(1, len(NUMBERS) + 1) if n != self.number)
        yield from (("attribute", Count(self.number, other)) for other in self.phrase.others())


@dataclass(frozen=True)
class Relation:
    """``"a red star left of a ring"``: there are two such objects in this relation."""

    first: Phrase
    relation: str
    second: Phrase

    def true_of(self, things: Sequence[Thing]) -> bool:
        """Whether two different objects of the scene stand so."""
        return any(
            self.first.fits(a) and self.second.fits(b) and holds(self.relation, a, b)
            for a, b in permutations(things, 2)
        )

    def text(self, wording: Wording = PLAIN) -> str:
        """The statement in words."""
        return _sentence(f"{self.first.text(wording)} {self.relation} {self.second.text(wording)}", False, wording)

    def changes(self) -> Iterator[tuple[str, "Relation"]]:
        """Near misses and what is changed in them: the relation, a value, or which value belongs to which object."""
        yield "relation", replace(self, relation=OPPOSITES[self.relation])
        yield "relation", replace(self, first=self.second, second=self.first)
        yield from (("attribute", replace(self, first=other)) for other in self.first.others())
        yield from (("attribute", replace(self, second=other)) for other in self.second.others())
        for _, _, first, second in _rebound((self.first, self.second)):
            yield "binding", replace(self, first=first, second=second)


Statement = Objects | Count | Relation
CHANGES = ("attribute", "binding", "count", "relation")


def holds(relation: str, a: Thing, b: Thing) -> bool:
    """Whether the first object stands in a relation to the second."""
    right, down = RELATIONS[relation]
    return right * (a.x - b.x) + down * (a.y - b.y) > CLEARANCE


def wordings(statement: Statement) -> list[str]:
    """All ways to word a statement, the plain one first; there are at least five."""
    ways = (Wording(f, after, synonyms) for synonyms in (False, True) for after in (False, True) for f in FRAMES)
    return list(dict.fromkeys(statement.text(way) for way in ways))


def plural(noun: str) -> str:
    """Plural of a noun of this grammar."""
    if noun.endswith("ss"):
        return f"{noun}es"
    return f"{noun.removesuffix('f')}ves" if noun.endswith("f") else f"{noun}s"


def words() -> tuple[str, ...]:
    """Every word that a statement can contain, in alphabetical order."""
    nouns = [*FACTORS["shape"], "object"]
    frames = " ".join(FRAMES).replace("{be}", "is are").replace("{}", "")
    spoken = [
        *FACTORS["colour"],
        *ADJECTIVES.values(),
        *FACTORS["size"],
        *nouns,
        *map(plural, nouns),
        *SYNONYMS.values(),
    ]
    glue = ("a", "an", "and", "that", "is", "are")
    return tuple(sorted({*spoken, *NUMBERS, *" ".join(RELATIONS).split(), *frames.split(), *glue}))


def _adjective(factor: str, value: str) -> str:
    return ADJECTIVES[value] if factor == "texture" else value


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def _listed(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _sentence(what: str, many: bool, wording: Wording) -> str:
    text = wording.frame.format(what, be="are" if many else "is")
    return " ".join(map(_synonym, text.split())) if wording.synonyms else text


def _synonym(word: str) -> str:
    bare = word.rstrip(",")
    return SYNONYMS.get(bare, bare) + word[len(bare) :]


def _exchanged(phrases: tuple[Phrase, ...], new: dict[int, Phrase]) -> tuple[Phrase, ...]:
    return tuple(new.get(index, phrase) for index, phrase in enumerate(phrases))


def _rebound(phrases: tuple[Phrase, ...]) -> Iterator[tuple[int, int, Phrase, Phrase]]:
    """Pairs of phrases that have exchanged a value which both of them name."""
    for j, second in enumerate(phrases):
        for i, first in enumerate(phrases[:j]):
            for factor in (factor for factor in first.said() if factor in second.said()):
                a, b = getattr(first, factor), getattr(second, factor)
                if a != b:
                    yield i, j, replace(first, **{factor: b}), replace(second, **{factor: a})
