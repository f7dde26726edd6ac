"""Captions are true, distractors are false; an independent reader of the sentences decides."""

import re
import subprocess
import sys
from itertools import permutations

import pytest
import torch

from dlatlas.data.shapes import (
    CHANGES,
    COLOURS,
    SHAPES,
    SIZES,
    TEXTURES,
    TOPICS,
    WORDS,
    Joint,
    Scenes,
    captions,
    distractors,
    paraphrases,
    phrase,
    sample,
    statements,
    tokens,
)
from dlatlas.data.shapes.grammar import plural

VALUES = {"shape": SHAPES, "colour": COLOURS, "size": SIZES, "texture": TEXTURES}
MEANINGS = {
    word: (factor, value)
    for factor in ("shape", "colour", "size")
    for value in VALUES[factor]
    for word in (value, f"{value}s", f"{value}es")
}
MEANINGS |= {
    "leaves": ("shape", "leaf"),
    "disc": ("shape", "circle"),
    "discs": ("shape", "circle"),
    "moon": ("shape", "crescent"),
    "moons": ("shape", "crescent"),
    "little": ("size", "small"),
    "big": ("size", "large"),
    "violet": ("colour", "purple"),
    "plain": ("texture", "plain"),
    "striped": ("texture", "stripes"),
    "dotted": ("texture", "dots"),
    "spotted": ("texture", "dots"),
    "checked": ("texture", "checks"),
    "chequered": ("texture", "checks"),
    "shaded": ("texture", "gradient"),
}
DIRECTIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
SAYS_NOTHING = {"a", "an", "that", "is", "are", "and", "object", "objects"}
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    joint = Joint().only(shape=SHAPES[:8])
    return sample(400, generator=generator(), objects=(1, 4), joint=joint)


def is_true(text: str, scene: Scenes) -> bool:
    """Read a caption and look at the scene."""
    text = re.sub(r"^(there (is|are)|a picture of|an image with|we see) ", "", text)
    for relation, direction in DIRECTIONS.items():
        first, found, second = text.partition(f" {relation} ")
        if found:
            return _related(_said(first), _said(second), torch.tensor(direction), scene)
    number, _, rest = text.partition(" ")
    if number in NUMBERS:
        return sum(_fits(_said(rest), scene, i) for i in _things(scene)) == NUMBERS[number]
    return _all_there([_said(part) for part in re.split(r"(?:, | and |^)(?=an? )", text) if part], scene)


def _things(scene: Scenes) -> list[int]:
    return [i for i in range(scene.slots) if scene.present[i]]


def _related(first: dict[str, str], second: dict[str, str], direction: torch.Tensor, scene: Scenes) -> bool:
    return any(
        _fits(first, scene, i)
        and _fits(second, scene, j)
        and ((scene.position[i] - scene.position[j]) * direction).sum() > 0.08
        for i, j in permutations(_things(scene), 2)
    )


def _all_there(parts: list[dict[str, str]], scene: Scenes) -> bool:
    return any(
        all(_fits(part, scene, i) for part, i in zip(parts, chosen, strict=True))
        for chosen in permutations(_things(scene), len(parts))
    )


def _said(text: str) -> dict[str, str]:
    words = [word for word in text.replace(",", "").split() if word not in SAYS_NOTHING]
    said = dict(MEANINGS[word] for word in words)
    assert len(said) == len(words)
    return said


def _fits(said: dict[str, str], scene: Scenes, i: int) -> bool:
    return all(VALUES[factor][getattr(scene, factor)[i]] == value for factor, value in said.items())


@pytest.mark.parametrize("about", [TOPICS, ("objects",), ("objects", "relation"), ("objects", "count")])
def test_captions_are_true(scenes, about):
    texts = captions(scenes, generator=generator(), about=about)
    assert all(is_true(text, scene) for text, scene in zip(texts, map(scenes.__getitem__, range(400)), strict=True))


def test_the_reader_can_tell_scenes_apart(scenes):
    texts = captions(scenes, generator=generator(), about=("objects",), detail=1.0)
    wrong = [is_true(text, scenes[(i + 1) % 400]) for i, text in enumerate(texts)]
    assert sum(wrong) < 20


def test_paraphrases_are_true_and_all_different(scenes):
    said = statements(scenes, generator=generator())
    for i, (statement, others) in enumerate(zip(said, paraphrases(said, 4, generator=generator(1)), strict=True)):
        assert len({statement.text(), *others}) == 5
        assert all(is_true(text, scenes[i]) for text in others), others


@pytest.mark.parametrize(("about", "kinds"), [(TOPICS, CHANGES), (("objects", "relation"), ("attribute",))])
def test_distractors_are_false_and_all_different(scenes, about, kinds):
    said = statements(scenes, generator=generator(), about=about)
    for i, texts in enumerate(distractors(said, scenes, 3, generator=generator(1), kinds=kinds)):
        assert len(set(texts)) == 3
        assert not any(is_true(text, scenes[i]) for text in texts), texts


def test_distractors_of_one_kind_change_nothing_else():
    scenes = sample(100, generator=generator(), objects=(3, 3), overlap=0)
    relations = statements(scenes, generator=generator(), about=("relation",), detail=1.0)
    pairs = zip(relations, distractors(relations, scenes, 1, generator=generator(), kinds=("relation",)), strict=True)
    for statement, (text,) in pairs:
        assert sorted(set(text.split()) - {"left", "right", "above", "below", "of", "a", "an"}) == sorted(
            set(statement.text().split()) - {"left", "right", "above", "below", "of", "a", "an"}
        )
    numbers = statements(scenes, generator=generator(), about=("count",))
    for statement, (text,) in zip(
        numbers, distractors(numbers, scenes, 1, generator=generator(), kinds=("count",)), strict=True
    ):
        assert text.split()[0] != statement.text().split()[0]


def test_every_kind_of_change_is_used():
    scenes = sample(200, generator=generator(), objects=(3, 3), overlap=0)
    said = statements(scenes, generator=generator(), about=("relation",), detail=1.0)
    drawn = distractors(said, scenes, 1, generator=generator())
    offered = [{kind: changed.text() for kind, changed in statement.changes()} for statement in said]
    relation = [text == options["relation"] for (text,), options in zip(drawn, offered, strict=True)]
    assert 20 < sum(relation) < 150


def test_detail_is_the_rate_of_mention():
    scenes = sample(1000, generator=generator())
    for detail in (0.0, 0.3, 1.0):
        texts = captions(scenes, generator=generator(), detail=detail, about=("objects",))
        share = sum(any(colour in text.split() for colour in COLOURS) for text in texts) / 1000
        assert share == pytest.approx(detail, abs=0.07)


def test_english():
    assert phrase(shape="star", colour="red") == "a red star"
    assert phrase(shape="arrow") == "an arrow"
    assert phrase(shape="star", colour="orange") == "an orange star"
    assert phrase(size="small", texture="stripes", colour="blue") == "a small striped blue object"
    assert [plural(noun) for noun in ("star", "cross", "leaf", "object")] == ["stars", "crosses", "leaves", "objects"]
    stars = Joint().only(shape="star", colour=("red", "blue"))
    scenes = sample(200, generator=generator(), objects=(2, 2), joint=stars)
    sentences = captions(scenes, generator=generator(), about=("count",))
    numbered = {tuple(sentence.split()[:1] + sentence.split()[-1:]) for sentence in sentences}
    assert ("one", "star") in numbered
    assert ("two", "stars") in numbered
    assert not {("one", "stars"), ("two", "star")} & numbered


def test_the_vocabulary_covers_every_sentence(scenes):
    said = statements(scenes, generator=generator())
    texts = [text for others in paraphrases(said, 4, generator=generator()) for text in others]
    texts += captions(scenes, generator=generator())
    table = tokens(texts, 48)
    assert table.shape == (len(texts), 48)
    assert table.max() <= len(WORDS)
    assert [WORDS[t - 1] for t in table[0] if t] == texts[0].replace(",", "").split()


def test_a_seed_gives_the_same_sentences_in_another_process():
    code = (
        "import torch; from dlatlas.data.shapes import *; g = torch.Generator().manual_seed(5);"
        "s = sample(30, generator=g, objects=(1, 4)); said = statements(s, generator=g);"
        "print([x.text() for x in said], paraphrases(said, 2, generator=g), distractors(said, s, 2, generator=g))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_the_captions_of_a_seed_are_these():
    scenes = sample(6, generator=generator(2024), objects=(1, 3))
    assert captions(scenes, generator=generator(2024)) == GOLDEN


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, said: captions(s, generator=generator(), about=("weather",)), "about must be one of"),
        (lambda s, said: captions(s, generator=generator(), about=("relation",)), "about must include a topic"),
        (lambda s, said: captions(s, generator=generator(), detail=1.5), "detail must lie in"),
        (lambda s, said: captions(s[0], generator=generator()), "scenes must have one leading dimension"),
        (lambda s, said: paraphrases(said, 9, generator=generator()), r"number must lie in \[1, 4\], got 9"),
        (lambda s, said: distractors(said, s, 0, generator=generator()), "number must be at least 1"),
        (lambda s, said: distractors(said, s, 1, generator=generator(), kinds=("mood",)), "kinds must be one of"),
        (lambda s, said: distractors(said, s, 500, generator=generator()), "number must be at most"),
        (lambda s, said: phrase(shape="blob"), "shape must be one of"),
        (lambda s, said: phrase(background="sand"), "factor must be one of"),
        (lambda s, said: tokens(["a crimson star"], 8), "texts must use the words in WORDS, got 'crimson'"),
        (lambda s, said: tokens(["a red star"], 2), "length must be at least 3"),
    ],
)
def test_senseless_requests_are_refused(call, message):
    scenes = sample(3, generator=generator())
    with pytest.raises(ValueError, match=message):
        call(scenes, statements(scenes, generator=generator()))


GOLDEN = [
    "three striped objects",
    "a small striped purple ring and a large striped cyan heart",
    "a large red arrow",
    "a dotted cyan heart below a large plain circle",
    "a checked blue leaf and a green arrow",
    "a medium white crescent right of a small shaded pink pentagon",
]
