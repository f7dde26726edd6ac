"""What is said about a scene agrees with what is drawn."""

import pytest
import torch

from dlatlas.data.shapes import (
    ATTRIBUTES,
    COLOURS,
    FACTORS,
    OBJECT_FACTORS,
    SHAPES,
    Joint,
    Scenes,
    attributes,
    boxes,
    counts,
    depth_map,
    instance_masks,
    keypoints,
    labels,
    render,
    sample,
    semantic_mask,
    silhouettes,
)
from dlatlas.data.shapes import geometry as g

SIZE = 48


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def crowded() -> Scenes:
    return sample(200, generator=generator(), objects=(1, 4), overlap=0.6, rotation=180)


def test_labels_number_the_combinations():
    scenes = sample(50, generator=generator())
    assert torch.equal(labels(scenes, "shape"), scenes.shape[:, 0])
    assert torch.equal(labels(scenes, "background"), scenes.background)
    combined = labels(scenes, "shape", "colour")
    assert torch.equal(combined // len(COLOURS), scenes.shape[:, 0])
    assert torch.equal(combined % len(COLOURS), scenes.colour[:, 0])


def test_attributes_and_counts_agree_with_the_factors(crowded):
    vectors = attributes(crowded)
    assert vectors.shape == (200, 4, len(ATTRIBUTES))
    assert torch.equal(vectors.sum(-1), len(OBJECT_FACTORS) * crowded.present.float())
    red_stars = vectors[..., ATTRIBUTES.index("star")] * vectors[..., ATTRIBUTES.index("red")]
    expected = crowded.present & (crowded.shape == SHAPES.index("star")) & (crowded.colour == COLOURS.index("red"))
    assert torch.equal(red_stars.bool(), expected)
    for factor in OBJECT_FACTORS:
        assert torch.equal(counts(crowded, factor).sum(-1), crowded.count)
        assert counts(crowded, factor).shape[-1] == len(FACTORS[factor])
    shapes = counts(crowded, "shape")
    first = [SHAPES[i] for i, there in zip(crowded.shape[0], crowded.present[0], strict=True) if there]
    assert shapes[0].tolist() == [first.count(shape) for shape in SHAPES]


def test_masks_are_disjoint_and_cover_the_foreground(crowded):
    masks = instance_masks(crowded, SIZE)
    assert masks.sum(1).max() == 1
    assert torch.equal(masks.any(1), (silhouettes(crowded, SIZE) > 0.5).any(1))
    assert not masks[~crowded.present].any()


def test_the_nearest_object_is_seen_whole_and_others_lose_what_it_hides(crowded):
    masks, whole = instance_masks(crowded, SIZE), silhouettes(crowded, SIZE) > 0.5
    last = crowded.count - 1
    rows = torch.arange(len(crowded))
    assert torch.equal(masks[rows, last], whole[rows, last])
    assert (masks.sum() < whole.sum()).item()
    assert not (masks & ~whole).any()


def test_masks_are_where_the_image_changes_with_the_object():
    scenes = sample(60, generator=generator(1), objects=(2, 2), overlap=0.6)
    masks = instance_masks(scenes, SIZE)
    tint = scenes.tint.clone()
    tint[:, 0] -= 0.2
    changed = (render(scenes, SIZE) - render(scenes.replace(tint=tint), SIZE)).abs().amax(1) > 1e-3
    # Every pixel of the mask changes colour, and no pixel of the nearer object's inside does.
    assert changed[masks[:, 0]].all()
    inside = silhouettes(scenes, SIZE)[:, 1] > 0.999
    assert not changed[inside].any()


def test_semantic_masks_name_the_factor_of_the_visible_object(crowded):
    masks = instance_masks(crowded, SIZE)
    for factor in ("shape", "colour"):
        semantic = semantic_mask(crowded, SIZE, factor)
        assert torch.equal(semantic == 0, ~masks.any(1))
        for slot in range(4):
            expected = (1 + getattr(crowded, factor)[:, slot, None, None]).expand_as(semantic)
            assert torch.equal(semantic[masks[:, slot]], expected[masks[:, slot]])


def test_depth_is_that_of_the_visible_object_and_one_behind(crowded):
    depth, masks = depth_map(crowded, SIZE), instance_masks(crowded, SIZE)
    assert (depth[~masks.any(1)] == 1).all()
    whole = silhouettes(crowded, SIZE) > 0.5
    nearest = torch.where(whole, crowded.depth[..., None, None], torch.tensor(1.0)).amin(1)
    torch.testing.assert_close(depth, nearest)


def test_boxes_are_tight(crowded):
    masks = instance_masks(crowded, SIZE).flatten(0, 1)
    for mask, box in zip(masks, (boxes(masks) * SIZE).round().long(), strict=True):
        left, top, right, bottom = box.tolist()
        if not mask.any():
            assert (left, top, right, bottom) == (0, 0, 0, 0)
            continue
        window = mask[top:bottom, left:right]
        assert window.sum() == mask.sum()
        assert window[0].any()
        assert window[-1].any()
        assert window[:, 0].any()
        assert window[:, -1].any()


def test_the_box_of_a_square_is_the_square():
    scenes = sample(1, generator=generator(), joint=Joint().only(shape="square", size="large"), spread=0, rotation=0)
    half = scenes.radius[0, 0] * g.BOX
    expected = torch.tensor([0.5 - half, 0.5 - half, 0.5 + half, 0.5 + half])
    torch.testing.assert_close(boxes(instance_masks(scenes, 64))[0, 0], expected, atol=1 / 64, rtol=0)


def test_keypoints_lie_on_their_objects(crowded):
    points = keypoints(crowded, SIZE)
    assert torch.equal(points.exists[..., 0], crowded.present)
    assert torch.equal(points.position[..., 0, :], crowded.position)
    assert not (points.visible & ~points.exists).any()
    reach = (points.position - crowded.position[..., None, :]).norm(dim=-1) / crowded.radius[..., None]
    tips = points.exists & (torch.arange(points.exists.shape[-1]) > 0)
    assert reach[tips].min() > 0.8
    assert reach[tips].max() < 1.01


@pytest.mark.parametrize("shape", SHAPES)
def test_tips_are_on_the_outline(shape):
    for u, v in g.TIPS[shape]:
        distance = g.OUTLINES[shape](*torch.tensor([[u], [v]], dtype=torch.float64))
        assert abs(distance.item()) < 1e-9


def test_keypoints_turn_with_the_object():
    joint = Joint().only(shape="arrow", size="large")
    scenes = sample(1, generator=generator(), joint=joint, spread=0, rotation=0)
    up = keypoints(scenes).position[0, 0, 1] - 0.5
    left = keypoints(scenes.replace(angle=torch.full((1, 1), torch.pi / 2))).position[0, 0, 1] - 0.5
    assert up[1] < -0.2
    assert left[0] < -0.2
    torch.testing.assert_close(torch.stack([up[1], up[0]]), left, atol=1e-6, rtol=0)


def test_hidden_keypoints_are_not_visible():
    joint = Joint().only(shape="square")
    scenes = sample(1, generator=generator(), objects=(2, 2), spread=0, rotation=0, joint=joint)
    under = keypoints(scenes.replace(radius=torch.tensor([[0.2, 0.45]])))
    over = keypoints(scenes.replace(radius=torch.tensor([[0.45, 0.2]])))
    assert not under.visible[0, 0].any()
    assert under.visible[0, 1, :5].all()
    assert over.visible[0, 0].tolist()[:5] == [False, True, True, True, True]
    outside = keypoints(scenes.replace(position=torch.full((1, 2, 2), 1.6)))
    assert not outside.visible.any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: labels(s, "shape"), "scenes must have one slot for a class label, got 2"),
        (lambda s: labels(sample(2, generator=generator())), "factors must name at least one"),
        (lambda s: labels(sample(2, generator=generator()), "form"), "factors must be one of shape"),
        (lambda s: counts(s, "background"), "factor must be one of shape, colour, texture, size; got 'background'"),
        (lambda s: semantic_mask(s, 32, "form"), "factor must be one of"),
        (lambda s: instance_masks(s, 2), "size must be at least 8, got 2"),
    ],
)
def test_senseless_questions_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(sample(2, generator=generator(), objects=(2, 2)))
