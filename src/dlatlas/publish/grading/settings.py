"""What an instructor can set: `grading.yml` in the course folder."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dlatlas.publish.errors import UserError

FILE = "grading.yml"


class Limits(BaseModel):
    """What one submission may use.

    Parameters
    ----------
    seconds_per_cell, seconds
        Time of one cell or one test; time of the whole submission.
    memory_mb, processes, disk_mb
        Memory of all its processes together; processes and threads; what it may write.
    notebook_mb
        Size of the notebook that is handed in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds_per_cell: float = Field(60, gt=0)
    seconds: float = Field(600, gt=0)
    memory_mb: int = Field(4096, ge=512)
    processes: int = Field(64, ge=8)
    disk_mb: int = Field(256, ge=1)
    notebook_mb: float = Field(20, gt=0)


class Settings(BaseModel):
    """Settings of a course.

    Parameters
    ----------
    limits
        What one submission may use.
    readable
        Further folders that code of students may read, such as data sets.
    container
        Command that runs its arguments in a container, where bubblewrap is not there.
    container_stop
        Command that ends that container.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    limits: Limits = Limits()
    readable: tuple[Path, ...] = ()
    container: str | None = None
    container_stop: str | None = None


def load_settings(course: Path) -> Settings:
    """Settings of a course folder; without a file, the defaults.

    Raises
    ------
    UserError
        When the file holds something else than settings.
    """
    file = course / FILE
    if not file.is_file():
        return Settings()
    try:
        return Settings.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    except yaml.YAMLError as error:
        raise UserError(f"{file}: {error}") from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise UserError(f"{file}:\n" + "\n".join(problems)) from error
