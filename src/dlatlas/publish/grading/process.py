"""A worker seen from outside: messages with a deadline, a watch on its memory, and its end."""

import os
import select
import subprocess
import time
from contextlib import suppress

import psutil

from dlatlas.publish.grading.confine import MB
from dlatlas.publish.grading.sandbox import Start
from dlatlas.publish.grading.wire import BrokenMessage, body, framed, length_in

_SECONDS_BETWEEN_LOOKS = 0.2
_PIECE = 2**20


class Stopped(Exception):
    """A worker cannot go on; the message says why, in words for the student."""


class Worker:
    """A process in a sandbox, and the line to it.

    Parameters
    ----------
    start
        How to start it.
    memory_mb
        Memory of all its processes together.
    """

    def __init__(self, start: Start, memory_mb: int) -> None:
        self._start = start
        self._memory = memory_mb * MB
        self._process = subprocess.Popen(
            start.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=start.environment,
            cwd=start.folder,
            start_new_session=True,
        )
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._looked = 0.0

    def send(self, data: bytes, until: float) -> None:
        """Send a message before the deadline.

        Raises
        ------
        Stopped
            When the worker does not take it in time, uses too much memory or has ended.
        """
        rest = memoryview(framed(data))
        while rest:
            self._wait(self._in, select.POLLOUT, until)
            try:
                rest = rest[os.write(self._in, rest[:_PIECE]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise Stopped(self._end()) from error

    def receive(self, until: float) -> bytes:
        """Wait for a message until the deadline.

        Raises
        ------
        Stopped
            When none comes in time, what comes is none, or the worker uses too much memory or has ended.
        """
        data = bytearray()
        while (length := self._length(data)) is None or len(data) < length:
            self._wait(self._out, select.POLLIN, until)
            piece = os.read(self._out, _PIECE if length is None else min(_PIECE, length - len(data)))
            if not piece:
                raise Stopped(self._end())
            data += piece
        return body(data)

    def _length(self, data: bytearray) -> int | None:
        try:
            return length_in(data)
        except BrokenMessage as error:
            raise Stopped("the process of the notebook wrote to the line of the grader") from error

    def _wait(self, descriptor: int, event: int, until: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        ready = False
        while not ready:
            ready = bool(poll.poll(_SECONDS_BETWEEN_LOOKS * 1000))
            self.look()
            if time.monotonic() > until:
                raise Stopped("it did not end within the time limit")

    def look(self) -> None:
        """See to it that the worker keeps to its memory.

        Raises
        ------
        Stopped
            When it does not.
        """
        if time.monotonic() - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = time.monotonic()
        if sum(_memory(process) for process in self._family()) > self._memory:
            raise Stopped("it used more memory than the limit")

    def _family(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children(recursive=True)
        return []

    def _end(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        return f"the process of the notebook ended (exit status {self._process.returncode})"

    def complaint(self) -> str:
        """What the worker wrote before it was ready: why it did not start."""
        os.set_blocking(self._process.stderr.fileno(), False)
        with suppress(BlockingIOError):
            return (os.read(self._process.stderr.fileno(), 4000) or b"").decode(errors="replace").strip()
        return ""

    def close(self) -> None:
        """End the worker and all that it has started."""
        family = self._family()
        self._process.kill()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(OSError):
                stream.close()
        for clean_up in self._start.clean_up:
            clean_up()


def _memory(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return process.memory_info().rss
    return 0
