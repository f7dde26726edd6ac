"""Which scenes are drawn: joint distributions, placement, and the same scenes on every machine."""

import math

import pytest
import torch

from dlatlas.data.shapes import (
    BACKGROUNDS,
    COLOURS,
    FACTORS,
    SHAPES,
    SIZES,
    TEXTURES,
    Joint,
    Scenes,
    concatenate,
    rearrange,
    sample,
)

N = 20_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(joint: Joint, n: int = N) -> Scenes:
    return sample(n, generator=generator(), joint=joint)


def frequencies(scenes: Scenes, factor: str) -> torch.Tensor:
    return torch.bincount(getattr(scenes, factor).flatten(), minlength=len(FACTORS[factor])) / scenes.shape.numel()


def deviation(p: torch.Tensor | float) -> float:
    """Five standard deviations of a frequency of probability p at N draws."""
    return 5 * math.sqrt(float(torch.as_tensor(p * (1 - p)).max()) / N)


def test_the_vocabulary_is_as_rich_as_promised_and_no_word_names_two_values():
    assert min(len(SHAPES), len(COLOURS), len(BACKGROUNDS)) >= 8
    assert TEXTURES == ("plain", "stripes", "dots", "checks", "gradient")
    words = [value for values in FACTORS.values() for value in values]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("factor", FACTORS)
def test_the_default_is_uniform(factor):
    expected = 1 / len(FACTORS[factor])
    torch.testing.assert_close(
        frequencies(drawn(Joint()), factor),
        torch.full((len(FACTORS[factor]),), expected),
        atol=deviation(expected),
        rtol=0,
    )


def test_only_restricts_factors():
    scenes = drawn(Joint().only(shape=("star", "ring"), size="large"))
    assert {SHAPES[i] for i in scenes.shape.unique()} == {"star", "ring"}
    assert {SIZES[i] for i in scenes.size.unique()} == {"large"}
    assert scenes.colour.unique().numel() == len(COLOURS)


def test_held_out_combinations_never_occur_and_keep_draws_nothing_else():
    held_out = {("star", "red"), ("heart", "dots"), ("ring", "blue", "sand")}
    train = sample(N, generator=generator(), joint=Joint().hold_out(held_out), objects=(1, 3))
    names = _combinations(train)
    assert not any(set(combination) <= words for combination in held_out for words in names)
    assert any({"ring", "blue"} <= words for words in names)
    test = drawn(Joint().keep(held_out), 500)
    assert all(any(set(combination) <= words for combination in held_out) for words in _combinations(test))


def _combinations(scenes: Scenes) -> set[frozenset[str]]:
    columns = [getattr(scenes, factor) for factor in ("shape", "colour", "texture", "size")]
    background = scenes.background[:, None].expand_as(scenes.shape)
    rows = torch.stack([*columns, background], -1)[scenes.present].unique(dim=0).tolist()
    return {frozenset(values[i] for values, i in zip(FACTORS.values(), row, strict=True)) for row in rows}


@pytest.mark.parametrize("strength", [0.0, 0.4, 0.95, 1.0])
def test_a_correlation_has_its_strength_and_leaves_the_marginals(strength):
    joint = Joint().only(shape=SHAPES[:5], colour=COLOURS[:5]).correlate("shape", "colour", strength)
    scenes = drawn(joint)
    partners = strength + (1 - strength) / 5
    agreement = (scenes.shape == scenes.colour).float().mean()
    assert agreement == pytest.approx(partners, abs=deviation(partners) + 1e-6)
    expected = torch.tensor([0.2] * 5 + [0.0] * 7, dtype=torch.float64)
    torch.testing.assert_close(joint.marginal("shape"), expected)


def test_a_scene_wide_shortcut_works_for_every_object():
    joint = Joint().correlate("background", "colour", 1.0)
    scenes = sample(300, generator=generator(), joint=joint, objects=(3, 3))
    assert (scenes.colour == scenes.background[:, None]).all()


def test_pairs_choose_the_partners():
    pairs = {"star": "blue", "heart": "blue", "ring": "red"}
    joint = Joint().only(shape=tuple(pairs)).correlate("shape", "colour", 1.0, pairs)
    assert {(SHAPES[s], COLOURS[c]) for s, c in zip(drawn(joint).shape, drawn(joint).colour, strict=True)} == set(
        pairs.items()
    )


def test_a_correlation_never_revives_what_is_held_out():
    joint = Joint().hold_out([("circle", "blue")]).correlate("shape", "colour", 0.9)
    assert joint.marginal("shape", "colour")[SHAPES.index("circle"), COLOURS.index("blue")] == 0


def test_a_long_tail_falls_geometrically():
    joint = Joint().only(shape=SHAPES[:6]).long_tail("shape", 50)
    marginal = joint.marginal("shape")[:6]
    torch.testing.assert_close(marginal[:-1] / marginal[1:], torch.full((5,), 50 ** (1 / 5), dtype=torch.float64))
    measured = frequencies(drawn(joint), "shape")[:6]
    torch.testing.assert_close(measured, marginal.float(), atol=deviation(marginal), rtol=0)


def test_any_table_is_followed():
    table = torch.rand(Joint().table.shape, generator=generator(3), dtype=torch.float64) ** 8
    joint = Joint(table)
    scenes = drawn(joint)
    counted = torch.zeros(len(SHAPES), len(COLOURS)).index_put_(
        (scenes.shape[:, 0], scenes.colour[:, 0]), torch.tensor(1 / N), accumulate=True
    )
    torch.testing.assert_close(
        counted, joint.marginal("shape", "colour").float(), atol=deviation(joint.marginal("shape", "colour")), rtol=0
    )


def test_marginals_come_in_the_order_of_the_arguments():
    joint = Joint().correlate("shape", "colour", 0.5).long_tail("colour", 10)
    torch.testing.assert_close(joint.marginal("colour", "shape"), joint.marginal("shape", "colour").T)


@pytest.mark.parametrize("objects", [(1, 1), (2, 4), (4, 4)])
def test_numbers_of_objects(objects):
    scenes = sample(2000, generator=generator(), objects=objects)
    assert sorted(scenes.count.unique().tolist()) == list(range(objects[0], objects[1] + 1))
    assert scenes.slots == objects[1]


def test_objects_stay_in_the_image_and_in_the_range_of_their_size():
    scenes = sample(5000, generator=generator(), objects=(1, 4))
    reach = scenes.radius[..., None]
    assert ((scenes.position - reach > -1e-6) & (scenes.position + reach < 1 + 1e-6)).all()
    small, large = (scenes.radius[scenes.size == SIZES.index(size)] for size in ("small", "large"))
    assert small.max() < large.min()


def test_overlap_limits_how_near_objects_come():
    def nearest(overlap: float) -> torch.Tensor:
        joint = Joint().only(size="small")
        scenes = sample(1000, generator=generator(), objects=(2, 2), overlap=overlap, joint=joint)
        apart = (scenes.position[:, 0] - scenes.position[:, 1]).norm(dim=-1)
        return (apart / scenes.radius.sum(1)).min()

    assert nearest(0.0) >= 1 - 1e-6
    assert 0.5 - 1e-6 <= nearest(0.5) < 1
    assert nearest(1.0) < 0.5


def test_spread_rotation_and_tint_at_zero_are_exact():
    scenes = sample(50, generator=generator(), spread=0, rotation=0, tint=0)
    assert (scenes.position == 0.5).all()
    assert (scenes.angle == 0).all()
    assert (scenes.tint == 0).all()


def test_nearer_objects_come_later():
    depth = sample(500, generator=generator(), objects=(4, 4)).depth
    assert (depth[:, :-1] > depth[:, 1:]).all()
    assert depth.min() > 0
    assert depth.max() < 1


def test_rearranged_scenes_hold_the_same_things_elsewhere():
    scenes = sample(100, generator=generator(), objects=(1, 3))
    other = rearrange(scenes, generator=generator(1))
    for factor in ("present", "shape", "colour", "texture", "size", "tint", "background", "depth", "period"):
        assert torch.equal(getattr(scenes, factor), getattr(other, factor))
    for factor in ("position", "radius", "angle"):
        assert not torch.equal(getattr(scenes, factor), getattr(other, factor))


def test_the_first_scenes_of_a_larger_sample_are_those_of_a_smaller_one():
    few, many = (sample(n, generator=generator(7), objects=(1, 3)) for n in (5, 50))
    for name, tensor in few.tensors().items():
        assert torch.equal(tensor, many[:5].tensors()[name])


def test_a_seed_gives_these_scenes_on_every_machine():
    scenes = sample(64, generator=generator(2024), objects=(1, 4), joint=Joint().correlate("shape", "colour", 0.5))
    weights = torch.arange(1, 65)

    def checksum(tensor: torch.Tensor) -> int:
        whole = (tensor.double() * 2**20).round().long() if tensor.is_floating_point() else tensor.long()
        return int((whole.reshape(64, -1).sum(1) * weights).sum())

    assert {name: checksum(tensor) for name, tensor in scenes.tensors().items()} == GOLDEN


def test_scenes_index_concatenate_and_move():
    scenes = sample(10, generator=generator(), objects=(1, 2))
    assert scenes[3].batch == ()
    assert len(scenes[scenes.count == 1]) == int((scenes.count == 1).sum())
    both = concatenate(scenes[:4], scenes[4:])
    assert torch.equal(both.position, scenes.position)
    assert scenes.to("cpu").device == torch.device("cpu")
    with pytest.raises(ValueError, match="equally many slots"):
        concatenate(scenes, sample(2, generator=generator()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"objects": (0, 2)}, r"objects\[0\] must lie in"),
        ({"objects": (1, 5)}, r"objects\[1\] must lie in \[1, 4\], got 5"),
        ({"objects": (3, 2)}, r"objects\[0\] must lie in \[1, 2\], got 3"),
        ({"spread": 1.5}, "spread must lie in"),
        ({"rotation": -1.0}, "rotation must lie in"),
        ({"overlap": 2.0}, "overlap must lie in"),
        ({"tint": -0.1}, "tint must lie in"),
    ],
)
def test_senseless_samples_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample(**{"n": 4, "generator": generator(), **arguments})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda j: j.only(shape="blob"), "shape must be one of circle, .*; got 'blob'"),
        (lambda j: j.only(form="circle"), "factor must be one of shape, .*; got 'form'"),
        (lambda j: j.hold_out([("star", "rouge")]), "unknown value 'rouge'"),
        (lambda j: j.only(shape="star").hold_out([("star",)]), "hold_out must leave at least one combination"),
        (lambda j: j.only(shape="star").keep([("ring", "red")]), "keep must leave at least one combination"),
        (lambda j: j.correlate("shape", "colour", 1.2), "strength must lie in"),
        (lambda j: j.correlate("shape", "shape", 0.5), "factor and cue must differ"),
        (lambda j: j.correlate("shape", "colour", 0.5, {"star": "red"}), "pairs must name a partner for every shape"),
        (lambda j: j.hold_out([("circle", "red")]).correlate("shape", "colour", 0.5), "not: circle with red"),
        (lambda j: j.long_tail("shape", 0.5), "ratio must be at least 1"),
        (lambda j: j.reweigh("shape", {"star": -1.0}), "weight of star must be at least 0"),
        (lambda j: j.only(shape="ring").reweigh("shape", {"star": 1.0}), "got a weight for star"),
        (lambda j: Joint(torch.ones(3)), "table must have shape"),
        (lambda j: Joint(-j.table), "smallest entry of table must be at least 0"),
        (lambda j: Joint(0 * j.table), "table must leave at least one combination"),
    ],
)
def test_senseless_distributions_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(Joint())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": torch.full((3, 1), 99)}, "shape must lie in"),
        ({"radius": torch.full((3, 1), -0.1)}, "radius must lie in"),
        ({"position": torch.full((3, 1, 2), math.nan)}, "position must be finite"),
        ({"background": torch.zeros(3, 1, dtype=torch.long)}, r"background must have shape \(3,\), got \(3, 1\)"),
    ],
)
def test_senseless_scenes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        sample(3, generator=generator()).replace(**change)


GOLDEN = {
    "present": 5138,
    "shape": 44754,
    "colour": 32650,
    "texture": 14914,
    "size": 8011,
    "position": 8976637621,
    "radius": 1426184885,
    "angle": 281340919,
    "period": 6068338913,
    "depth": 4401883866,
    "tint": -52491797,
    "background": 9647,
}
