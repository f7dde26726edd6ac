"""Two chapters side by side against one after the other, and the site of the whole library."""

import time
from pathlib import Path

from tests.publish.project import book_project, tiny_project

# About ten seconds of one core, in one thread as the workflow sets it.
WORK = """import numpy as np
a = np.random.default_rng(0).normal(size=(1500, 1500))
for _ in range(150):
    a = np.tanh(a @ a)
"""
SITE_SECONDS = 60


def test_chapters_side_by_side_take_less_time_than_in_turn(tmp_path: Path, seconds) -> None:
    in_turn, side_by_side = (tiny_project(tmp_path / name, {"alpha": [WORK], "beta": [WORK]}) for name in "ab")
    begin = time.perf_counter()
    in_turn.build(1)
    apart = time.perf_counter() - begin
    together = seconds(
        "two chapters side by side",
        lambda: side_by_side.build(2),
        lambda t: f"{t:.1f} s; in turn {apart:.1f} s",
        rounds=1,
    )
    assert together < apart


def test_the_site_without_running_a_chapter(tmp_path: Path, seconds) -> None:
    project = book_project(tmp_path, {"grokking": ["1"]})
    median = seconds("site of the whole library", lambda: project.command("site"), lambda t: f"{t:.1f} s", rounds=1)
    assert median <= SITE_SECONDS
