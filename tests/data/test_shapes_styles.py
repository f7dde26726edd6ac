"""Styles, corruptions, views and wrong labels."""

import pytest
import torch

from dlatlas.data.shapes import (
    CORRUPTIONS,
    SEVERITIES,
    SHIFTS,
    STYLES,
    Joint,
    augment,
    corrupt,
    flip_labels,
    pair_noise,
    render,
    render_style,
    sample,
    shift,
    symmetric_noise,
    view_pair,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scenes():
    return sample(200, generator=generator(), joint=Joint().only(size=("medium", "large")))


@pytest.fixture(scope="module")
def images(scenes):
    return render(scenes, 32)


def test_the_promised_styles_are_there():
    promised = {
        "noise",
        "blur",
        "contrast",
        "brightness",
        "haze",
        "rain",
        "pixelate",
        "occlusion",
        "sketch",
        "colour shift",
    }
    assert promised == set(CORRUPTIONS)
    assert "texture swap" in SHIFTS
    assert set(STYLES) == {"clean", *SHIFTS, *CORRUPTIONS}


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_severity_moves_images_away_from_the_clean_ones(images, kind):
    corrupted = [corrupt(images, kind, severity, generator=generator(1)) for severity in SEVERITIES]
    distances = torch.stack([(x - images).square().mean((1, 2, 3)).sqrt() for x in corrupted])
    assert (distances.mean(1).diff() > 0.005).all()
    assert distances[0].mean() > 0.01
    assert (distances.diff(dim=0) > -0.02).float().mean() > 0.95
    for x in corrupted:
        assert x.shape == images.shape
        assert x.min() >= 0
        assert x.max() <= 1


@pytest.mark.parametrize("kind", ["texture swap", "new background", "shrink"])
def test_severity_moves_shifted_scenes_away(scenes, images, kind):
    distances = [(render_style(scenes, kind, s, generator=generator(1)) - images).abs().mean() for s in SEVERITIES]
    assert (torch.stack(distances).diff() > 0).all()


@pytest.mark.parametrize(("kind", "changed"), [("texture swap", "texture"), ("new background", "background")])
def test_swaps_happen_at_their_rate_and_touch_one_factor_only(kind, changed):
    scenes = sample(5000, generator=generator())
    for severity in SEVERITIES:
        other = shift(scenes, kind, severity, generator=generator(1))
        rate = (getattr(other, changed) != getattr(scenes, changed)).float().mean()
        assert rate == pytest.approx(severity / 5, abs=0.03)
        unchanged = set(scenes.tensors()) - {changed}
        assert all(torch.equal(scenes.tensors()[name], other.tensors()[name]) for name in unchanged)


@pytest.mark.parametrize("kind", SHIFTS)
def test_shifts_keep_shapes_and_colours(scenes, kind):
    other = shift(scenes, kind, 5, generator=generator())
    assert torch.equal(other.shape, scenes.shape)
    assert torch.equal(other.colour, scenes.colour)


def test_facts_of_single_corruptions(images):
    x = lambda kind, severity=3: corrupt(images, kind, severity, generator=generator())  # noqa: E731
    torch.testing.assert_close(x("contrast").mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(x("contrast").std((1, 2, 3)), 0.4 * images.std((1, 2, 3)), atol=1e-5, rtol=0)
    assert (x("brightness") >= images).all()
    assert (x("blur").diff(dim=-1).abs().mean() < 0.7 * images.diff(dim=-1).abs().mean()).item()
    torch.testing.assert_close(x("blur").mean((2, 3)), images.mean((2, 3)), atol=0.02, rtol=0)
    grey = x("sketch", 5)
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert ((x("occlusion") != images).any(1).float().mean((1, 2)) <= 0.36**2 + 0.05).all()
    # A turn about the grey axis keeps the mean of the channels, but where the result is clipped.
    assert (x("colour shift", 2).mean(1) - images.mean(1)).abs().median() < 1e-6
    assert (x("noise", 1) - images).std() == pytest.approx(0.04, abs=0.005)


def test_corruptions_take_any_leading_dimensions_and_follow_the_seed(images):
    for kind in CORRUPTIONS:
        flat = corrupt(images[:6], kind, 4, generator=generator(3))
        shaped = corrupt(images[:6].unflatten(0, (2, 3)), kind, 4, generator=generator(3))
        assert torch.equal(shaped.flatten(0, 1), flat)
    assert not torch.equal(
        corrupt(images, "rain", 3, generator=generator(1)), corrupt(images, "rain", 3, generator=generator(2))
    )


def test_each_image_gets_its_own_draw(images):
    same = images[:1].expand(20, -1, -1, -1)
    for kind in ("noise", "haze", "rain", "occlusion", "colour shift"):
        corrupted = corrupt(same, kind, 3, generator=generator())
        assert len(corrupted.flatten(1).unique(dim=0)) > 1, kind


def test_the_clean_style_is_the_image(scenes, images):
    assert torch.equal(render_style(scenes, "clean", generator=generator()), images)


def test_augmentations_that_are_off_do_nothing(images):
    same = augment(images, generator=generator(), crop=1.0, flip=0.0, jitter=0.0, grey_out=0.0)
    torch.testing.assert_close(same, images, atol=1e-5, rtol=0)
    flipped = augment(images, generator=generator(), crop=1.0, flip=1.0, jitter=0.0, grey_out=0.0)
    torch.testing.assert_close(flipped, images.flip(-1), atol=1e-5, rtol=0)


def test_augmentations_happen_at_their_rate(images):
    grey = augment(images, generator=generator(), jitter=0.0, crop=1.0, grey_out=0.3)
    assert (grey[:, 0] == grey[:, 2]).all(-1).all(-1).float().mean() == pytest.approx(0.3, abs=0.15)
    blurred = augment(images, generator=generator(), jitter=0.0, crop=1.0, flip=0.0, grey_out=0.0, blur=0.5)
    same = (blurred - images).abs().flatten(1).amax(1) < 1e-4
    assert same.float().mean() == pytest.approx(0.5, abs=0.15)


def test_a_crop_enlarges(images):
    def share(x: torch.Tensor) -> torch.Tensor:
        return (x - x[:, :, :1, :1]).abs().amax(1).gt(0.1).float().mean()

    centred = sample(200, generator=generator(), spread=0, joint=Joint().only(background="paper", size="medium"))
    x = render(centred)
    cropped = augment(x, generator=generator(), crop=0.5, flip=0.0, jitter=0.0, grey_out=0.0)
    assert 1.1 < share(cropped) / share(x) < 1.8


def test_crops_come_from_everywhere():
    ramp = torch.linspace(0, 1, 33).expand(1, 3, 33, 33)
    for x in (ramp, ramp.mT):
        x = x.expand(400, -1, -1, -1)
        middles = augment(x, generator=generator(), crop=0.25, flip=0.0, jitter=0.0, grey_out=0.0)[:, 0, 16, 16]
        assert middles.min() < 0.35
        assert middles.max() > 0.65
        assert middles.mean() == pytest.approx(0.5, abs=0.03)


def test_two_views_of_an_image_differ_and_show_the_same_scene(images):
    first, second = view_pair(images, generator=generator())
    assert (first - second).abs().flatten(1).amax(1).min() > 0.01
    colourless = {"crop": 0.8, "flip": 0.0, "jitter": 0.1, "grey_out": 0.0}
    first, second = view_pair(images, generator=generator(), **colourless)
    between = torch.cdist(first.flatten(1), second.flatten(1))
    assert (between.argmin(1) == torch.arange(len(images))).float().mean() > 0.9


def test_label_noise_has_its_transition_matrix():
    target = torch.arange(40_000) % 4
    for transition in (symmetric_noise(4, 0.3), pair_noise(4, 0.2)):
        noisy = flip_labels(target, transition, generator=generator())
        measured = torch.zeros(4, 4, dtype=torch.float64).index_put_((target, noisy), torch.tensor(1e-4).double(), True)
        torch.testing.assert_close(measured, transition, atol=0.02, rtol=0)
    clean = flip_labels(target, symmetric_noise(4, 0.0), generator=generator())
    assert torch.equal(clean, target)
    assert torch.equal(flip_labels(target, pair_noise(4, 1.0), generator=generator()), (target + 1) % 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, x: corrupt(x, "fog", 3, generator=generator()), "kind must be one of noise, .*; got 'fog'"),
        (lambda s, x: corrupt(x, "noise", 6, generator=generator()), r"severity must lie in \[1, 5\], got 6"),
        (lambda s, x: corrupt(x + 1, "noise", 3, generator=generator()), "images must lie in"),
        (lambda s, x: shift(s, "noise", 3, generator=generator()), "kind must be one of texture swap"),
        (lambda s, x: shift(s, "turn", 0, generator=generator()), "severity must lie in"),
        (lambda s, x: render_style(s, "cubist", generator=generator()), "style must be one of clean"),
        (lambda s, x: augment(x, generator=generator(), crop=0.0), "crop must be greater than 0"),
        (lambda s, x: augment(x, generator=generator(), jitter=2.0), "jitter must lie in"),
        (lambda s, x: symmetric_noise(1, 0.1), "classes must be at least 2"),
        (lambda s, x: pair_noise(3, 1.1), "rate must lie in"),
        (
            lambda s, x: flip_labels(torch.tensor([5]), symmetric_noise(3, 0.1), generator=generator()),
            "target must lie",
        ),
        (lambda s, x: flip_labels(torch.tensor([0]), torch.ones(2, 2), generator=generator()), "rows that sum to 1"),
    ],
)
def test_senseless_requests_are_refused(scenes, images, call, message):
    with pytest.raises(ValueError, match=message):
        call(scenes[:2], images[:2])
