"""Assignments under test: reference solutions score everything, empty ones nothing, and typical mistakes are caught."""

import linecache
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from multiprocessing import get_context
from time import monotonic
from typing import Any

from nbgrader.preprocessors import ClearSolutions

from dlatlas.publish.assignments.course import Course
from dlatlas.publish.assignments.exercises import Part
from dlatlas.publish.assignments.mutants import Mutant, mutants_of
from dlatlas.publish.assignments.notebook import import_block
from dlatlas.publish.assignments.runner import run_source
from dlatlas.publish.assignments.selection import Exercises, Selected
from dlatlas.publish.errors import UserError
from dlatlas.publish.layout import Layout

SURVIVED = "nothing"


@dataclass(frozen=True)
class Checked:
    """What the check of one assignment found."""

    name: str
    rows: list[tuple[str, str, str]]
    problems: list[str]
    seconds: float

    @property
    def summary(self) -> str:
        """One line on the whole."""
        killed = sum(killer != SURVIVED for _, _, killer in self.rows)
        found = f"{killed} of {len(self.rows)} mutants killed, {len(self.problems)} problems"
        return f"{self.name}: {found}, {self.seconds:.1f} s"


def check_all(names: Iterable[str], course: Course, layout: Layout, jobs: int) -> Iterator[Checked]:
    """Check assignments and chapters, each in a process of its own.

    Parameters
    ----------
    names
        Assignments of the course, or chapters; none means all assignments, and the chapters that are in none of them.
    course
        The course.
    layout
        The book.
    jobs
        How many run side by side.

    Raises
    ------
    UserError
        When a name is neither an assignment nor a chapter.
    """
    chosen = _chosen(list(names), course, Exercises(layout))
    mutants = {chapter: mutants_of(chapter, layout) for group in chosen.values() for chapter in _chapters(group)}
    with ProcessPoolExecutor(min(jobs, len(chosen) or 1), mp_context=get_context("spawn")) as pool:
        yield from pool.map(check, chosen, chosen.values(), [mutants] * len(chosen))


def _chosen(names: list[str], course: Course, exercises: Exercises) -> dict[str, list[Selected]]:
    if names:
        return {name: _named(name, course, exercises) for name in names}
    groups = {name: exercises.chosen(name, course) for name in course.assignments}
    covered = {chosen.exercise.label for group in groups.values() for chosen in group}
    for chapter in exercises.chapters:
        if rest := [chosen for chosen in exercises.of_chapter(chapter) if chosen.exercise.label not in covered]:
            groups[chapter] = rest
    return groups


def _named(name: str, course: Course, exercises: Exercises) -> list[Selected]:
    if name in exercises.chapters:
        return exercises.of_chapter(name)
    if name in course.assignments:
        return exercises.chosen(name, course)
    raise UserError(f"{name!r} is no assignment ({', '.join(course.assignments)}) and no chapter")


def _chapters(group: list[Selected]) -> set[str]:
    return {chosen.exercise.chapter for chosen in group}


def check(name: str, group: list[Selected], mutants: dict[str, dict[str, list[Mutant]]]) -> Checked:
    """Check the exercises of one assignment in this process."""
    begin = monotonic()
    rows: list[tuple[str, str, str]] = []
    problems: list[str] = []
    for chosen in group:
        try:
            trial = Trial(chosen)
            problems += trial.problems_of_references()
            rows += trial.mutant_rows(mutants[chosen.exercise.chapter])
        except UserError as error:
            problems.append(str(error))
    survivors = [(grade_id, mutant) for grade_id, mutant, killer in rows if killer == SURVIVED]
    problems += [f"{name}: {grade_id}: the mutant {mutant!r} passes all tests" for grade_id, mutant in survivors]
    return Checked(name, rows, problems, monotonic() - begin)


class Trial:
    """Runs the cells of one exercise, again and again, with other solutions."""

    def __init__(self, chosen: Selected) -> None:
        self._exercise = chosen.exercise
        self._code = [part for part in chosen.exercise.parts if part.is_code]
        imports = import_block(statement for statement in chosen.needed if statement.is_import)
        self._start: dict[str, Any] = {"__name__": "__main__"}
        for name, source in (("imports", imports), ("set-up", chosen.set_up)):
            _execute(source, self._start, f"<{chosen.exercise.label} {name}>")

    def mutant_rows(self, mutants: dict[str, list[Mutant]]) -> Iterator[tuple[str, str, str]]:
        """Solution, mutant, and the first cell that fails with it, for all mutants of the exercise.

        Raises
        ------
        UserError
            When a solution that is tested has no mutants, or a mutant does not fit its solution.
        """
        for part in self._code:
            if not part.is_solution or not self._exercise.tests:
                continue
            if part.grade_id not in mutants:
                raise UserError(f"{self._exercise.chapter}: no mutants for the solution {part.grade_id!r}")
            for mutant in mutants[part.grade_id]:
                wrong = {part.grade_id: mutant.applied_to(part.cell.source)}
                killer = next((grade_id for grade_id, _ in self._failures(wrong)), SURVIVED)
                yield part.grade_id, mutant.name, killer

    def problems_of_references(self) -> Iterator[str]:
        """Tests that the reference solution fails, and tests that pass without a solution."""
        label = f"{self._exercise.chapter}: {self._exercise.label}"
        for grade_id, error in self._failures({}):
            yield f"{label}: the reference solution fails in {grade_id!r}: {type(error).__name__}: {error}"
        empty = {part.grade_id: _emptied(part) for part in self._code if part.is_solution}
        failed = {grade_id for grade_id, _ in self._failures(empty)}
        for part in self._exercise.tests:
            if part.grade_id not in failed:
                yield f"{label}: the test {part.grade_id!r} passes without a solution"

    def _failures(self, replaced: dict[str, str]) -> Iterator[tuple[str, Exception]]:
        namespace = dict(self._start)
        for part in self._code:
            source = replaced.get(part.grade_id, part.cell.source) if part.grade_id else part.cell.source
            try:
                _execute(source, namespace, f"<{self._exercise.label} {part.grade_id}>")
            except Exception as error:
                yield part.grade_id or f"a released cell of {self._exercise.label}", error


def _emptied(part: Part) -> str:
    """Source of a solution cell as students get it."""
    cell, _ = ClearSolutions().preprocess_cell(part.cell.copy(), {"language": "python"}, 0)
    return cell.source


def _execute(source: str, namespace: dict[str, Any], name: str) -> None:
    # Dataclasses and inspect.getsource look the text of the cell up here.
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    with redirect_stdout(StringIO()):
        run_source(source, namespace, name)
