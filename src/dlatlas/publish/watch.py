"""An eye on the processes of a run: how much memory they take, and whether anybody still waits for them."""

import os
import threading
from collections.abc import Iterable
from contextlib import suppress

import psutil

SECONDS_BETWEEN_LOOKS = 0.2


class Watch:
    """Watch the children of this process while the block runs.

    A scheduler that is killed outright cannot stop what it started. When this process loses its parent it kills its
    children and ends, so that the next call does not find an old run beside its own.
    """

    def __init__(self) -> None:
        self.peak_memory_mb = 0.0
        self._parent = os.getppid()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._stop.wait(SECONDS_BETWEEN_LOOKS):
            children = psutil.Process().children(recursive=True)
            if os.getppid() != self._parent:
                kill(children)
                os._exit(1)
            self.peak_memory_mb = max(self.peak_memory_mb, sum(map(_resident_mb, children)))


def _resident_mb(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill processes, some of which may be gone already."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
