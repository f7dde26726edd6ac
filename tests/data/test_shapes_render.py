"""What the renderer draws."""

import math

import pytest
import torch

from dlatlas.data.shapes import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    TEXTURES,
    Joint,
    Scenes,
    animate,
    render,
    sample,
    silhouettes,
)
from dlatlas.data.shapes import geometry as g
from dlatlas.data.shapes.render import CHUNK
from dlatlas.data.shapes.vocabulary import GROUNDS, PALETTE


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain_scenes(n: int = len(SHAPES), **factors: torch.Tensor) -> Scenes:
    """Upright plain red circles in the centre of paper, but for the given factors."""
    joint = Joint().only(shape="circle", colour="red", texture="plain", size="large", background="paper")
    scenes = sample(n, generator=generator(), joint=joint, spread=0, rotation=0, tint=0)
    return scenes.replace(**factors)


def every(values: tuple[str, ...]) -> torch.Tensor:
    return torch.arange(len(values))[:, None]


def lens(r1: float, r2: float, d: float) -> float:
    """Area that two discs share."""
    a1 = math.acos((d**2 + r1**2 - r2**2) / (2 * d * r1))
    a2 = math.acos((d**2 + r2**2 - r1**2) / (2 * d * r2))
    return r1**2 * (a1 - math.sin(2 * a1) / 2) + r2**2 * (a2 - math.sin(2 * a2) / 2)


def heart_area() -> float:
    """Half a disc pair and half a kite, less the sector that they share, left and right."""
    (a, b), r, tip = g.HEART_CENTRE, g.HEART_LOBE, g.HEART_TIP
    x, y = a + r * g.HEART_NORMAL[0], b + r * g.HEART_NORMAL[1]
    corners = [(0, tip), (x, y), (a, b), (0, b)]
    kite = sum(p * s - q * t for (p, q), (t, s) in zip(corners, corners[1:] + corners[:1], strict=True)) / 2
    beyond_axis = r**2 * math.acos(a / r) - a * math.sqrt(r**2 - a**2)
    shared = r**2 * (math.pi + math.atan2(g.HEART_NORMAL[1], g.HEART_NORMAL[0])) / 2 - beyond_axis / 2
    return 2 * (math.pi * r**2 - beyond_axis + kite - shared)


def drop_area() -> float:
    r, tip = g.DROP, 1 - g.DROP_CENTRE
    return r**2 * (math.pi - math.acos(r / tip)) + r * math.sqrt(tip**2 - r**2)


LEAF_RADIUS = (1 + g.LEAF_WIDTH**2) / (2 * g.LEAF_WIDTH)
AREAS = {
    "circle": math.pi * g.DISC**2,
    "square": 4 * g.BOX**2,
    "triangle": 3 * math.sqrt(3) / 4,
    "star": 5 * g.STAR_INNER * math.sin(math.pi / 5),
    "cross": 8 * g.ARM * g.ARM_WIDTH - 4 * g.ARM_WIDTH**2,
    "ring": 4 * math.pi * g.RING * g.RING_WIDTH,
    "heart": heart_area(),
    "crescent": math.pi * g.MOON**2 - lens(g.MOON, g.BITE, g.BITE_SHIFT - g.MOON_SHIFT),
    "arrow": g.ARROW_HEAD * (g.ARROW_TIP - g.ARROW_NECK) + 2 * g.ARROW_SHAFT * (g.ARROW_TAIL + g.ARROW_NECK),
    "pentagon": 2.5 * math.sin(2 * math.pi / 5),
    "drop": drop_area(),
    "leaf": lens(LEAF_RADIUS, LEAF_RADIUS, 2 * (LEAF_RADIUS - g.LEAF_WIDTH)),
}


@pytest.mark.parametrize("angle", [0.0, 0.4])
@pytest.mark.parametrize("shape", SHAPES)
def test_areas_are_those_of_the_figures(shape, angle):
    radius = 0.4
    scenes = plain_scenes(
        1,
        shape=torch.tensor([[SHAPES.index(shape)]]),
        radius=torch.tensor([[radius]]),
        angle=torch.tensor([[angle]]),
        position=torch.tensor([[[0.503, 0.497]]]),
    )
    area = silhouettes(scenes, 64).mean().item() / radius**2
    assert area == pytest.approx(AREAS[shape], rel=0.01)


def test_the_area_of_a_disc_converges_to_pi_r_squared():
    errors = []
    for size in (16, 64, 256):
        radius = torch.tensor([[0.3]])
        area = silhouettes(plain_scenes(1, radius=radius), size).mean().item()
        errors.append(abs(area - math.pi * (0.3 * g.DISC) ** 2) / area)
    assert errors[0] < 0.01
    assert errors[2] < 2e-4


def test_coverage_is_the_smoothstep_of_the_distance_to_the_edge():
    right = torch.linspace(20, 21, 11) / 32
    scenes = plain_scenes(11, shape=torch.full((11, 1), SHAPES.index("square")), radius=(right[:, None] - 0.5) / g.BOX)
    cover = silhouettes(scenes, 32)[:, 0, 16, 20]
    share = 32 * right - 20
    torch.testing.assert_close(cover, 3 * share**2 - 2 * share**3, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_outlines_fit_the_unit_circle_and_come_near_it(shape):
    line = torch.linspace(-1.5, 1.5, 601, dtype=torch.float64)
    v, u = torch.meshgrid(line, line, indexing="ij")
    inside = g.OUTLINES[shape](u, v) < 0
    reach = torch.sqrt(u**2 + v**2)[inside].max()
    assert 0.85 < reach <= 1.0


@pytest.mark.parametrize("shape", SHAPES)
def test_outlines_are_signed_distances_near_the_edge(shape):
    u, v = (torch.empty(20_000, dtype=torch.float64).uniform_(-1, 1, generator=generator(i)) for i in (0, 1))
    u.requires_grad_(), v.requires_grad_()
    distance = g.OUTLINES[shape](u, v)
    du, dv = torch.autograd.grad(distance.sum(), (u, v))
    near = distance.abs() < 0.05
    torch.testing.assert_close(torch.sqrt(du**2 + dv**2)[near], torch.ones_like(du[near]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_images_are_in_the_unit_interval_and_as_large_as_asked(size):
    images = render(sample(40, generator=generator(), objects=(1, 4)), size)
    assert images.shape == (40, 3, size, size)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1


def test_an_object_has_its_colour_and_the_corner_its_background():
    images = render(plain_scenes(len(COLOURS), colour=every(COLOURS)), 32)
    torch.testing.assert_close(images[:, :, 16, 16], torch.tensor(list(PALETTE.values())))
    images = render(plain_scenes(len(BACKGROUNDS), background=every(BACKGROUNDS)[:, 0]), 32)
    flat = [i for i, ground in enumerate(GROUNDS.values()) if ground.texture == "plain"]
    expected = torch.tensor([GROUNDS[BACKGROUNDS[i]].first for i in flat])
    torch.testing.assert_close(images[flat, :, 0, 0], expected)


def test_an_empty_scene_is_its_background():
    scenes = plain_scenes(2)
    nothing = render(scenes.replace(present=torch.zeros_like(scenes.present)))
    assert (nothing == nothing[:, :, :1, :1]).all()


def test_values_differ_visibly_between_all_shapes_colours_textures_and_backgrounds():
    radius = torch.full((1, 1), 0.26)
    for name, values in (("shape", SHAPES), ("colour", COLOURS), ("texture", TEXTURES), ("background", BACKGROUNDS)):
        index = every(values)
        factors = {name: index[:, 0] if name == "background" else index, "radius": radius.expand(len(values), 1)}
        images = render(plain_scenes(len(values), **factors), 32).flatten(1)
        distance = torch.cdist(images, images).fill_diagonal_(math.inf)
        assert distance.min() > 1.0, name


def test_a_turn_of_the_object_turns_the_image():
    scenes = plain_scenes(shape=every(SHAPES), texture=torch.full((len(SHAPES), 1), TEXTURES.index("checks")))
    turned = scenes.replace(angle=torch.full_like(scenes.angle, math.pi / 2))
    torch.testing.assert_close(render(turned), render(scenes).rot90(1, (-2, -1)), atol=1e-4, rtol=0)


def test_a_move_by_whole_pixels_moves_the_image():
    scenes = plain_scenes(shape=every(SHAPES), radius=torch.full((len(SHAPES), 1), 0.25))
    moved = scenes.replace(position=scenes.position + torch.tensor([4 / 32, -2 / 32]))
    torch.testing.assert_close(render(moved), render(scenes).roll((-2, 4), (-2, -1)), atol=1e-4, rtol=0)


def test_later_objects_hide_earlier_ones():
    joint = Joint().only(texture="plain", size="large")
    scenes = sample(1, generator=generator(), objects=(2, 2), spread=0, tint=0, joint=joint)
    scenes = scenes.replace(
        shape=torch.zeros(1, 2, dtype=torch.long), colour=torch.tensor([[0, 5]]), radius=torch.tensor([[0.45, 0.2]])
    )
    image = render(scenes, 32)[0]
    torch.testing.assert_close(image[:, 16, 16], torch.tensor(PALETTE[COLOURS[5]]))
    torch.testing.assert_close(image[:, 16, 26], torch.tensor(PALETTE[COLOURS[0]]))
    behind = scenes.replace(**{name: getattr(scenes, name).flip(1) for name in ("colour", "radius")})
    torch.testing.assert_close(render(behind, 32)[0, :, 16, 16], torch.tensor(PALETTE[COLOURS[0]]))


@pytest.mark.parametrize("texture", ["stripes", "dots", "checks"])
def test_a_texture_finer_than_the_pixels_fades_to_one_tone(texture):
    fine = plain_scenes(
        1,
        texture=torch.tensor([[TEXTURES.index(texture)]]),
        period=torch.tensor([[0.01]]),
        radius=torch.tensor([[0.4]]),
    )
    inner = render(fine, 32)[0, :, 12:20, 12:20]
    assert inner.std((1, 2)).max() < 0.12
    coarse = render(fine.replace(period=torch.tensor([[0.7]])), 32)[0, :, 12:20, 12:20]
    assert coarse.std((1, 2)).max() > 0.15


def test_rendering_does_not_depend_on_the_company(monkeypatch):

    scenes = sample(30, generator=generator(), objects=(1, 3))
    together = render(scenes, 24)
    alone = torch.stack([render(scenes[i : i + 1], 24)[0] for i in range(30)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    monkeypatch.setitem(CHUNK, "cpu", 5000)
    torch.testing.assert_close(render(scenes, 24), together, atol=1e-6, rtol=0)


def test_leading_dimensions_are_kept():
    scenes = sample(3, generator=generator(), objects=(1, 2))
    assert render(animate(scenes, 4, generator=generator()), 16).shape == (3, 4, 3, 16, 16)
    assert render(scenes[0], 16).shape == (3, 16, 16)
    assert silhouettes(scenes[0], 16).shape == (2, 16, 16)


def test_the_image_is_differentiable_in_the_geometry():
    scenes = sample(8, generator=generator(), joint=Joint().only(texture="stripes"))
    names = ("position", "radius", "angle", "period", "tint")
    leaves = {name: getattr(scenes, name).clone().requires_grad_() for name in names}
    render(scenes.replace(**leaves), 16).square().sum().backward()
    for name, leaf in leaves.items():
        assert leaf.grad.isfinite().all(), name
        assert (leaf.grad != 0).any(), name


def test_the_inputs_are_left_alone():
    scenes = sample(5, generator=generator(), objects=(1, 3))
    before = {name: tensor.clone() for name, tensor in scenes.tensors().items()}
    render(scenes), silhouettes(scenes)
    assert all(torch.equal(tensor, before[name]) for name, tensor in scenes.tensors().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same():
    scenes = sample(64, generator=generator(), objects=(1, 4))
    torch.testing.assert_close(render(scenes.to("cuda")).cpu(), render(scenes), atol=1e-4, rtol=0)


def test_the_picture_of_a_seed_is_this_on_every_machine():
    images = render(sample(4, generator=generator(2024), objects=(1, 4)), 32)
    thumbnails = torch.nn.functional.avg_pool2d(images, 8).mean(1) * 255
    torch.testing.assert_close(thumbnails.flatten(1), torch.tensor(THUMBNAILS).flatten(1), atol=1.0, rtol=0)


def test_senseless_sizes_are_refused():
    with pytest.raises(ValueError, match="size must be at least 8, got 4"):
        render(sample(1, generator=generator()), 4)


THUMBNAILS = [
    [
        [175.0, 174.0, 171.0, 175.0],
        [175.0, 170.0, 162.0, 175.0],
        [175.0, 170.0, 162.0, 173.0],
        [175.0, 169.0, 164.0, 175.0],
    ],
    [[98.0, 98.0, 98.0, 98.0], [98.0, 98.0, 98.0, 98.0], [123.0, 154.0, 98.0, 98.0], [113.0, 140.0, 98.0, 98.0]],
    [
        [154.0, 156.0, 156.0, 156.0],
        [119.0, 151.0, 156.0, 156.0],
        [156.0, 152.0, 158.0, 156.0],
        [156.0, 156.0, 156.0, 156.0],
    ],
    [
        [132.0, 134.0, 129.0, 133.0],
        [136.0, 143.0, 131.0, 131.0],
        [128.0, 128.0, 128.0, 128.0],
        [152.0, 128.0, 129.0, 128.0],
    ],
]
