"""Typical wrong answers to the exercises of a chapter: ``tests/assignments/mutants/<part>/<chapter>.yml``."""

from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from dlatlas.publish.errors import UserError
from dlatlas.publish.layout import Layout

Text = Annotated[str, StringConstraints(min_length=1)]


class Mutant(BaseModel):
    """A wrong answer: the reference solution with one piece of text exchanged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text
    replace: Text
    by: str

    def applied_to(self, source: str) -> str:
        """Source of the wrong answer.

        Raises
        ------
        UserError
            When the reference solution does not hold the text exactly once.
        """
        if source.count(self.replace) != 1:
            raise UserError(
                f"the mutant {self.name!r} replaces {self.replace!r}, which the reference solution holds "
                f"{source.count(self.replace)} times (expected once)"
            )
        return source.replace(self.replace, self.by)


_FILE = TypeAdapter(dict[str, list[Mutant]])


def mutants_of(chapter: str, layout: Layout) -> dict[str, list[Mutant]]:
    """Mutants of a chapter by the name of the solution cell; none when the chapter has no file.

    Raises
    ------
    UserError
        With file, place and reason when the file is not as it should be.
    """
    file = layout.root / "tests" / "assignments" / "mutants" / f"{chapter}.yml"
    if not file.is_file():
        return {}
    try:
        return _FILE.validate_python(yaml.safe_load(file.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML: {error}") from error
    except ValidationError as error:
        lines = [f"{file}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise UserError("\n".join(lines)) from error
