"""The course file: which assignments a course has, what is in them, and when they are due."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from dlatlas.publish.errors import UserError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Points = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Assignment(BaseModel):
    """One assignment: all graded exercises of chapters, or exercises by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: Text
    due: AwareDatetime | None = None
    minutes: Annotated[int, Field(gt=0)] | None = None
    chapters: tuple[str, ...] = ()
    exercises: tuple[str, ...] = ()
    points: dict[str, Points] = {}

    @model_validator(mode="after")
    def _has_content(self) -> "Assignment":
        if not self.chapters and not self.exercises:
            raise ValueError("expected `chapters` or `exercises`: there is nothing in this assignment")
        return self


class Course(BaseModel):
    """A course: its name, what students install, its assignments in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    package: Text = f"dlatlas=={version('dlatlas')}"
    assignments: Annotated[dict[Name, Assignment], Field(min_length=1)]

    def assignment(self, name: str) -> Assignment:
        """Assignment of that name.

        Raises
        ------
        UserError
            When the course has no such assignment.
        """
        if name not in self.assignments:
            raise UserError(f"no assignment {name!r} in the course; there are {', '.join(self.assignments)}")
        return self.assignments[name]


def read_course(file: Path) -> Course:
    """Read and check a course file.

    Raises
    ------
    UserError
        With every problem found: file, line, place and reason.
    """
    try:
        text = file.read_text(encoding="utf-8")
        node, content = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{file}{line}: not valid YAML: {error.problem}") from error
    problems = [f"{file}:{line}: {place}: given twice" for line, place in _repeated(node)]
    try:
        course = Course.model_validate(_without_dates(content))
    except ValidationError as error:
        problems += [_problem(file, node, detail) for detail in error.errors()]
    if problems:
        raise UserError("\n".join(problems))
    return course


def _without_dates(content: Any) -> Any:
    """Dates that YAML has read already go back to text: only the course file's own rules decide what is a date."""
    if isinstance(content, Mapping):
        return {key: _without_dates(value) for key, value in content.items()}
    return content.isoformat() if isinstance(content, datetime) else content


def _problem(file: Path, node: yaml.Node | None, detail: Mapping[str, Any]) -> str:
    place, reason = detail["loc"], detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "timezone_aware" or "datetime" in detail["type"]:
        reason = f"expected a date with a time zone, such as 2026-10-19T23:59+02:00; got {detail['input']!r}"
    elif detail["type"] not in ("missing", "value_error"):
        reason = f"{reason} (got {detail['input']!r:.60})"
    where = ".".join(map(str, place)) or "the whole file"
    return f"{file}:{line_of(node, place)}: {where}: {reason}"


def line_of(node: yaml.Node | None, place: Iterable[str | int]) -> int:
    """Line of the value at a place of a YAML document, or of the innermost value on the way to it."""
    line = 1
    for step in place:
        children = dict(_children(node))
        if step not in children:
            break
        line, node = children[step]
    return line


def _children(node: yaml.Node | None) -> Iterator[tuple[str | int, tuple[int, yaml.Node]]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((key.value, (key.start_mark.line + 1, value)) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        yield from ((index, (item.start_mark.line + 1, item)) for index, item in enumerate(node.value))


def _repeated(node: yaml.Node | None, place: str = "") -> Iterator[tuple[int, str]]:
    """Keys that are given twice: YAML readers keep the last one silently."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, value in node.value:
        here = f"{place}.{key.value}" if place else str(key.value)
        if key.value in seen:
            yield key.start_mark.line + 1, here
        seen.add(key.value)
        yield from _repeated(value, here)
