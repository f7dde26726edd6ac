"""Scenes a second on one core, drawn, rendered and labelled.

Run with ``OMP_NUM_THREADS=1 python -m tests.benchmarks.shapes``.
"""

import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

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
REPEATS = 7


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


def rates(work: Callable[[torch.Generator], None]) -> tuple[float, float]:
    """Scenes a second: the median by the clock on the wall, and by the time of the processor."""
    generator = torch.Generator().manual_seed(0)
    work(generator)
    wall, processor = [], []
    for _ in range(REPEATS):
        start = time.perf_counter(), time.process_time()
        work(generator)
        wall.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    return SCENES / statistics.median(wall), SCENES / statistics.median(processor)


def main() -> None:
    torch.set_num_threads(1)
    table = Table("scenes", "a second", "a second of processor time", title="one thread; goal 5,000 at 32 x 32")
    for name, work in CASES.items():
        wall, processor = rates(work)
        table.add_row(name, f"{wall:,.0f}", f"{processor:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
