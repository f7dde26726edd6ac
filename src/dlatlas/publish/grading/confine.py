"""What a worker gives up before it does anything else: rights and resources."""

import os
import resource
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel

MB = 2**20
_OPEN_FILES = 512


class Confinement(BaseModel):
    """Limits that a worker puts on itself; the sandbox around it does the rest.

    Parameters
    ----------
    memory_mb, disk_mb
        Data of one process; size of one file.
    processes
        Processes and threads, where the user's other processes are not counted with them.
    user
        Number of the user to become, when the worker is started as root.
    """

    memory_mb: int
    disk_mb: int
    processes: int | None = None
    user: int | None = None


def confine(limits: Confinement) -> None:
    """Give up rights and resources, for good."""
    # When memory runs out, the kernel should end this process before any other.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if limits.user is not None:
        os.setgroups([])
        os.setresgid(limits.user, limits.user, limits.user)
        os.setresuid(limits.user, limits.user, limits.user)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, limits.memory_mb * MB)
    _limit(resource.RLIMIT_FSIZE, limits.disk_mb * MB)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    if limits.processes is not None:
        _limit(resource.RLIMIT_NPROC, limits.processes)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (allowed, allowed))
