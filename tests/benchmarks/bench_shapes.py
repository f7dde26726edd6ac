"""Scenes a second on one core, drawn, rendered and labelled."""

from collections.abc import Callable, Iterator

import pytest
import torch

from dlatlas.data.shapes import (
    animate,
    boxes,
    captions,
    corrupt,
    instance_masks,
    labels,
    render,
    sample,
    view_pair,
)

SCENES = 4096
GOAL = 5_000


def single_objects(size: int) -> Callable[[torch.Generator], None]:
    def work(generator: torch.Generator) -> None:
        scenes = sample(SCENES, generator=generator)
        render(scenes, size), labels(scenes, "shape")

    return work


def crowds(generator: torch.Generator) -> None:
    render(sample(SCENES, generator=generator, objects=(4, 4)), 32)


def crowds_with_masks(generator: torch.Generator) -> None:
    scenes = sample(SCENES, generator=generator, objects=(4, 4))
    render(scenes, 32), boxes(instance_masks(scenes, 32))


def captioned(generator: torch.Generator) -> None:
    scenes = sample(SCENES, generator=generator, objects=(1, 2))
    render(scenes, 32), captions(scenes, generator=generator)


def rainy(generator: torch.Generator) -> None:
    corrupt(render(sample(SCENES, generator=generator), 32), "rain", 3, generator=generator)


def pairs_of_views(generator: torch.Generator) -> None:
    view_pair(render(sample(SCENES, generator=generator), 32), generator=generator)


def videos(generator: torch.Generator) -> None:
    scenes = sample(SCENES // 16, generator=generator, objects=(2, 2))
    render(animate(scenes, 16, generator=generator), 32)


CASES = {
    "single objects with labels, 16 x 16": single_objects(16),
    "single objects with labels, 32 x 32": single_objects(32),
    "single objects with labels, 64 x 64": single_objects(64),
    "four objects, 32 x 32": crowds,
    "four objects with masks and boxes, 32 x 32": crowds_with_masks,
    "one or two objects with captions, 32 x 32": captioned,
    "single objects in rain, 32 x 32": rainy,
    "single objects in two views, 32 x 32": pairs_of_views,
    "frames of two drifting objects, 32 x 32": videos,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CASES)
def test_scenes_a_second(name: str, seconds) -> None:
    generator = torch.Generator().manual_seed(0)
    median = seconds(name, lambda: CASES[name](generator), lambda t: f"{SCENES / t:,.0f} scenes a second")
    if name == "single objects with labels, 32 x 32":
        assert median <= SCENES / GOAL
