"""Where untrusted code runs: bubblewrap, a container, or, when told so, nowhere safe."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import dlatlas
from dlatlas.publish.errors import UserError
from dlatlas.publish.grading.confine import MB, Confinement
from dlatlas.publish.grading.settings import Limits, Settings
from dlatlas.registry import book_folder

STUDENT = "dlatlas.publish.grading.student"
TESTER = "dlatlas.publish.grading.tester"

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_WRITABLE = ("/dev/shm", "/tmp")
_CONFIGURATION = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "fonts", "localtime")
# Users that no system hands out. Each worker that root starts becomes another one, as processes are counted by user.
_users = count(1_900_000_000 + os.getpid() % 100_000 * 1000)


@dataclass(frozen=True)
class Start:
    """How to start a worker, and what to do once it has ended."""

    command: list[str]
    environment: dict[str, str]
    folder: Path | None = None
    clean_up: list[Callable[[], object]] = field(default_factory=list)


Sandbox = Callable[[str], Start]


def choose_sandbox(settings: Settings, course: Path, files: list[Path], *, unsafe: bool) -> Sandbox:
    """Strongest sandbox that is there.

    Parameters
    ----------
    settings
        Limits, and the container command if there is one.
    course
        Folder that must not be visible inside.
    files
        Files of the assignment that the notebooks may read; they lie in the working folder.
    unsafe
        Run without a sandbox.

    Raises
    ------
    UserError
        When there is no sandbox, and unsafe was not asked for.
    """
    if unsafe:
        return lambda module: _unprotected(module, settings.limits, files)
    if shutil.which("bwrap"):
        readable = [*_readable(), *settings.readable]
        _require_outside(course, readable)
        return lambda module: _bubblewrap(module, settings.limits, readable, files)
    if settings.container:
        return lambda module: _container(module, settings)
    raise UserError(
        "Submissions are programs of other people, and there is nothing here to run them in safely. Install bubblewrap "
        "(Debian, Ubuntu, Fedora: the package bubblewrap), or set a container command in grading.yml; the guide page "
        "on grading shows one. If you know every student and accept that their code can read and change all that you "
        "can, add --unsafe."
    )


def _bubblewrap(module: str, limits: Limits, readable: list[Path], files: list[Path]) -> Start:
    root = os.geteuid() == 0
    user = next(_users) if root else None
    size = str(limits.disk_mb * MB)
    command = ["bwrap", "--die-with-parent", "--new-session", "--clearenv"]
    command += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    command += ["--cap-drop", "ALL"]
    # As root the worker itself becomes another user, once bubblewrap has shown it what only root may reach.
    command += (
        ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if root else ["--unshare-user", "--disable-userns"]
    )
    for name, value in _environment().items():
        command += ["--setenv", name, value]
    command += ["--proc", "/proc", "--dev", "/dev"]
    # First what can be written to: an environment may itself lie under /tmp.
    for folder in _WRITABLE:
        command += ["--perms", "1777", "--size", size, "--tmpfs", folder]
    visible = [*map(Path, _SYSTEM), *(Path("/etc") / name for name in _CONFIGURATION), *readable]
    there = {Path("/"), *map(Path, _WRITABLE)}
    for folder in sorted({folder for path in visible for folder in path.parents} - there):
        # Made by bubblewrap as it goes, they would be closed to other users.
        command += ["--perms", "0755", "--dir", str(folder)]
    for path in visible:
        command += _visible(path)
    for file in files:
        command += ["--ro-bind", str(file), f"/tmp/{file.name}"]
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp", "--"]
    confinement = _confinement(limits, processes=limits.processes, user=user)
    return Start(command + _worker(sys.executable, module, confinement), _environment())


def _container(module: str, settings: Settings) -> Start:
    limits = settings.limits
    words = {
        "name": f"dlatlas-{os.getpid()}-{next(_users)}",
        "memory_mb": limits.memory_mb,
        "disk_mb": limits.disk_mb,
        "processes": limits.processes,
    }
    command = [word.format(**words) for word in shlex.split(settings.container or "")]
    stop = [word.format(**words) for word in shlex.split(settings.container_stop or "")]
    clean_up: list[Callable[[], object]] = (
        [lambda: subprocess.run(stop, check=False, capture_output=True)] if stop else []
    )
    # The container counts its own processes.
    worker = _worker("python", module, _confinement(limits, processes=None, user=None))
    return Start(command + worker, dict(os.environ), clean_up=clean_up)


def _unprotected(module: str, limits: Limits, files: list[Path]) -> Start:
    folder = Path(tempfile.mkdtemp(prefix="dlatlas-"))
    for file in files:
        (shutil.copytree if file.is_dir() else shutil.copy)(file, folder / file.name)
    environment = _environment() | {"HOME": str(folder), "TMPDIR": str(folder)}
    worker = _worker(sys.executable, module, _confinement(limits, processes=None, user=None))
    return Start(worker, environment, folder, [lambda: shutil.rmtree(folder, ignore_errors=True)])


def _confinement(limits: Limits, *, processes: int | None, user: int | None) -> Confinement:
    return Confinement(memory_mb=limits.memory_mb, disk_mb=limits.disk_mb, processes=processes, user=user)


def _worker(python: str, module: str, confinement: Confinement) -> list[str]:
    return [python, "-I", "-B", "-m", module, confinement.model_dump_json()]


def _environment() -> dict[str, str]:
    """Variables of a worker: none of the grader's, and one thread, so that workers do not slow each other down."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp"}
    return threads | path | {"LANG": "C.UTF-8", "USER": "student", "NBGRADER_EXECUTION": "autograde"}


def _readable() -> list[Path]:
    """Python, its packages, and the library of the book; not the notebooks, which hold solutions."""
    package = Path(dlatlas.__file__).resolve().parent
    paths = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.base_prefix).resolve(), package]
    registry = [book_folder() / name for name in ("papers", "contents.yml", "guide.yml")]
    outer = [path for path in [*paths, *registry] if not path.is_relative_to("/usr")]
    return [
        path
        for path in dict.fromkeys(outer)
        if not any(path != other and path.is_relative_to(other) for other in outer)
    ]


def _require_outside(course: Path, readable: list[Path]) -> None:
    for path in [*map(Path, _SYSTEM), *readable]:
        if course.resolve().is_relative_to(path.resolve()):
            raise UserError(
                f"{course} lies within {path}, which every submission can read; move the course folder elsewhere"
            )


def _visible(path: Path) -> list[str]:
    if path.is_symlink() and path.parent == Path("/"):
        return ["--symlink", os.readlink(path), str(path)]
    return ["--ro-bind-try", str(path), str(path)]
