"""Messages between processes: a length, a JSON head, and the bytes of its tensors.

Whoever reads a message from a student's process must take it for hostile: the head is JSON, the rest is bytes, and
nothing in it is ever run.
"""

import json
import os
import struct
from typing import Any, NamedTuple

LARGEST = 256 * 2**20
_LENGTH = struct.Struct("<Q")
_HEAD = struct.Struct("<I")


class BrokenMessage(Exception):
    """What came is no message."""


class Message(NamedTuple):
    """A message: a head that fits JSON, and pieces of bytes to which it refers by position."""

    head: dict[str, Any]
    pieces: list[bytes]


def to_bytes(head: dict[str, Any], pieces: list[bytes] | None = None) -> bytes:
    """Message as bytes, without the length in front."""
    pieces = pieces or []
    text = json.dumps({"head": head, "sizes": [len(piece) for piece in pieces]}).encode()
    return b"".join([_HEAD.pack(len(text)), text, *pieces])


def from_bytes(data: bytes) -> Message:
    """Message from bytes.

    Raises
    ------
    BrokenMessage
        When the bytes are no message.
    """
    try:
        (size,) = _HEAD.unpack_from(data)
        start = _HEAD.size + size
        content = json.loads(data[_HEAD.size : start])
        head, sizes = content["head"], content["sizes"]
        ends = [start + sum(sizes[: number + 1]) for number in range(len(sizes))]
        pieces = [data[end - length : end] for end, length in zip(ends, sizes, strict=True)]
    except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BrokenMessage(f"no message: {type(error).__name__}") from error
    if not isinstance(head, dict) or any(size < 0 for size in sizes) or (ends or [start])[-1] != len(data):
        raise BrokenMessage("no message: its sizes do not fit")
    return Message(head, pieces)


def framed(data: bytes) -> bytes:
    """Bytes of a message with their length in front."""
    return _LENGTH.pack(len(data)) + data


def length_in(frame: bytes | bytearray) -> int | None:
    """Length that a frame announces, once enough of it is there.

    Raises
    ------
    BrokenMessage
        When the frame would be larger than a message may be.
    """
    if len(frame) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(frame)
    if length > LARGEST:
        raise BrokenMessage(f"a message of {length} bytes is too large")
    return _LENGTH.size + length


def body(frame: bytes | bytearray) -> bytes:
    """Bytes of the message in a whole frame."""
    return bytes(frame[_LENGTH.size :])


class Channel:
    """The end of a line inside a worker: reads and writes whole messages."""

    def __init__(self, source: int, target: int) -> None:
        self._source = source
        self._target = target

    def receive(self) -> Message | None:
        """Wait for a message; None when the line is closed."""
        start = self._read(_LENGTH.size)
        if start is None:
            return None
        data = self._read(_LENGTH.unpack(start)[0])
        return None if data is None else from_bytes(data)

    def send(self, head: dict[str, Any], pieces: list[bytes] | None = None) -> None:
        """Send a message."""
        rest = memoryview(framed(to_bytes(head, pieces)))
        while rest:
            rest = rest[os.write(self._target, rest) :]

    def _read(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            piece = os.read(self._source, min(size - len(data), 2**20))
            if not piece:
                return None
            data += piece
        return bytes(data)
