"""Scenes in motion."""

import math

import pytest
import torch

from dlatlas.data.shapes import MOTIONS, animate, instance_masks, render, sample


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scenes():
    return sample(100, generator=generator(), objects=(1, 3))


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_first_frame_is_the_scene(scenes, motion):
    first = animate(scenes, 9, generator=generator(), motion=motion)[:, 0]
    for name, tensor in scenes.tensors().items():
        torch.testing.assert_close(first.tensors()[name], tensor, atol=1e-6, rtol=0)


@pytest.mark.parametrize("motion", MOTIONS)
def test_motion_is_smooth(scenes, motion):
    frames = 200
    moving = animate(scenes, frames, generator=generator(), motion=motion)
    for track in (moving.position, moving.angle, moving.radius):
        speed = track.diff(dim=1) * (frames - 1)
        change = speed.diff(dim=1) * (frames - 1)
        assert speed.abs().max() <= 2 * math.pi + 1e-2
        assert change.abs().max() <= 2 * math.pi**2 + 0.1


@pytest.mark.parametrize("motion", ["swing", "orbit", "pulse"])
def test_cycles_close(scenes, motion):
    moving = animate(scenes, 17, generator=generator(), motion=motion)
    torch.testing.assert_close(moving.position[:, -1], moving.position[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(moving.radius[:, -1], moving.radius[:, 0], atol=1e-5, rtol=0)


def test_each_motion_moves_what_it_should(scenes):
    moved = {}
    for motion in MOTIONS:
        moving = animate(scenes, 8, generator=generator(), motion=motion)
        moved[motion] = {name for name, tensor in moving.tensors().items() if (tensor != tensor[:, :1]).any()}
    travels = {motion: {"position"} for motion in ("drift", "swing", "orbit")}
    assert moved == {"rest": set(), **travels, "spin": {"angle"}, "pulse": {"radius"}}


def test_drifts_are_straight_and_stay_in_the_image(scenes):
    moving = animate(scenes, 11, generator=generator(), motion="drift")
    steps = moving.position.diff(dim=1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), atol=1e-5, rtol=0)
    reach = moving.radius[..., None]
    assert ((moving.position - reach > -1e-5) & (moving.position + reach < 1 + 1e-5)).all()


def test_swings_return_the_way_they_came(scenes):
    track = animate(scenes, 13, generator=generator(), motion="swing").position
    torch.testing.assert_close(track, track.flip(1), atol=1e-5, rtol=0)
    there = animate(scenes, 13, generator=generator(), motion="drift").position[:, -1]
    torch.testing.assert_close(track[:, 6], there, atol=1e-5, rtol=0)


def test_orbits_are_circles(scenes):
    track = animate(scenes, 16 + 1, generator=generator(), motion="orbit").position[:, :-1]
    radius = (track - track.mean(1, keepdim=True)).norm(dim=-1)
    torch.testing.assert_close(radius, radius[:, :1].expand_as(radius), atol=1e-4, rtol=0)
    assert radius.min() > 0.09
    assert radius.max() < 0.26


def test_objects_hide_each_other_on_the_way():
    scenes = sample(60, generator=generator(), objects=(2, 2), overlap=0)
    areas = instance_masks(animate(scenes, 12, generator=generator()), 64).sum((-2, -1)).float()
    hidden = areas[..., 0].amin(1) < 0.7 * areas[..., 0].amax(1)
    assert hidden.float().mean() > 0.15
    nearest = areas[..., 1]
    assert (nearest.amin(1) > 0.85 * nearest.amax(1)).all()


def test_each_object_can_have_its_own_motion(scenes):
    kinds = torch.randint(len(MOTIONS), scenes.shape.shape, generator=generator())
    moving = animate(scenes, 5, generator=generator(), motion=kinds)
    moves = (moving.position != moving.position[:, :1]).any(-1).any(1)
    travels = (kinds >= MOTIONS.index("drift")) & (kinds <= MOTIONS.index("orbit"))
    assert torch.equal(moves, travels)


def test_videos_of_videos_and_single_frames(scenes):
    assert animate(scenes, 1, generator=generator()).batch == (100, 1)
    assert animate(scenes[0], 4, generator=generator()).batch == (4,)
    assert render(animate(scenes[:2], 3, generator=generator()), 16).shape == (2, 3, 3, 16, 16)


def test_frames_change_little(scenes):
    video = render(animate(scenes[:20], 60, generator=generator()), 32)
    between = video.diff(dim=1).abs().mean((2, 3, 4))
    assert between.max() < 0.04


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"motion": "fly"}, "motion must be one of rest"),
        ({"motion": torch.full((100, 3), 9)}, "motion must lie in"),
        ({"motion": torch.zeros(100, 2, dtype=torch.long)}, r"motion must have shape \(100, 3\), got \(100, 2\)"),
    ],
)
def test_senseless_motions_are_refused(scenes, arguments, message):
    with pytest.raises(ValueError, match=message):
        animate(scenes, **{"frames": 4, "generator": generator(), **arguments})
