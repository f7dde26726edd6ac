"""Values as plain data: what crosses the line between the tests and a student's code.

Plain Python values, tensors and arrays are written as JSON and bytes and read back as such, whoever wrote them. For the
rest each side has its own way: the student's process keeps the object and sends a number for it.
"""

import math
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlatlas.publish.grading.wire import BrokenMessage

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in [
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
    ]
}
_ARRAY_KINDS = "biufc"
_SEQUENCES = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "size": torch.Size}
_KIND_OF_SEQUENCE = {kind: name for name, kind in _SEQUENCES.items()}


class Packer:
    """Writes values as plain data; ``pieces`` gathers the bytes of tensors and arrays.

    Parameters
    ----------
    other
        Node for a value that is not plain data, given the value and this packer.
    tensor
        Node for a tensor; by default its bytes.
    """

    def __init__(self, other: Callable[[Any, "Packer"], Any], tensor: Callable[[Tensor], Any] | None = None) -> None:
        self.pieces: list[bytes] = []
        self._other = other
        self._tensor = tensor or self.bytes_of_tensor

    def pack(self, value: Any) -> Any:
        """Node of a value."""
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if kind in _KIND_OF_SEQUENCE:
            return {_KIND_OF_SEQUENCE[kind]: [self.pack(item) for item in value]}
        if kind is dict:
            return {"dict": [[self.pack(key), self.pack(item)] for key, item in value.items()]}
        if isinstance(value, Tensor):
            return self._tensor(value) if _is_plain_tensor(value) else self._other(value, self)
        return self._small(value)

    def _small(self, value: Any) -> Any:
        kind = type(value)
        if kind is complex:
            return {"complex": [value.real, value.imag]}
        if kind is bytes:
            return {"bytes": self._piece(value)}
        if kind is torch.dtype:
            return {"dtype": str(value).removeprefix("torch.")}
        if kind is torch.device:
            return {"device": str(value)}
        if kind in (slice, range):
            return {kind.__name__: [self.pack(item) for item in (value.start, value.stop, value.step)]}
        if value is Ellipsis:
            return {"ellipsis": None}
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in _ARRAY_KINDS:
            return self._array(value)
        if isinstance(value, tuple) and (fields := getattr(kind, "__match_args__", ())):
            return {"named": [kind.__name__, list(fields), [self.pack(item) for item in value]]}
        return self._other(value, self)

    def bytes_of_tensor(self, tensor: Tensor) -> Any:
        """Node of a tensor with its bytes among the pieces."""
        flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
        data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        name = str(tensor.dtype).removeprefix("torch.")
        return {"tensor": [name, list(tensor.shape), self._piece(data)]}

    def _array(self, array: Any) -> Any:
        kind = "array" if isinstance(array, np.ndarray) else "scalar"
        return {kind: [array.dtype.str, list(array.shape), self._piece(np.ascontiguousarray(array).tobytes())]}

    def _piece(self, data: bytes) -> int:
        self.pieces.append(data)
        return len(self.pieces) - 1


class Unpacker:
    """Reads values from plain data, and refuses anything else.

    Parameters
    ----------
    pieces
        Bytes of the tensors and arrays.
    others
        How to read further kinds of nodes.
    """

    def __init__(self, pieces: list[bytes], others: dict[str, Callable[[Any], Any]]) -> None:
        self._pieces = pieces
        self._readers = {**_PLAIN_READERS, **others}

    def unpack(self, node: Any) -> Any:
        """Value of a node.

        Raises
        ------
        BrokenMessage
            When the node is no value.
        """
        try:
            return self._unpack(node)
        except BrokenMessage:
            raise
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, OverflowError) as error:
            raise BrokenMessage(f"no value: {type(error).__name__}") from error

    def _unpack(self, node: Any) -> Any:
        if node is None or isinstance(node, bool | int | float | str):
            return node
        ((kind, content),) = node.items()
        if kind in _SEQUENCES:
            return _SEQUENCES[kind]([self._unpack(item) for item in content])
        if kind == "dict":
            return {self._unpack(key): self._unpack(item) for key, item in content}
        if kind in ("slice", "range"):
            return {"slice": slice, "range": range}[kind](*[self._unpack(item) for item in content])
        if kind == "named":
            name, fields, items = content
            return namedtuple(name, fields)(*[self._unpack(item) for item in items])
        if kind in ("tensor", "array", "scalar"):
            name, shape, piece = content
            return _FROM_BYTES[kind](name, shape, self._bytes(piece))
        return self._bytes(content) if kind == "bytes" else self._readers[kind](content)

    def _bytes(self, piece: int) -> bytes:
        if not 0 <= piece < len(self._pieces):
            raise BrokenMessage("no value: it refers to bytes that are not there")
        return self._pieces[piece]


def _is_plain_tensor(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized


def _tensor(name: str, shape: list[int], data: bytes) -> Tensor:
    dtype = _DTYPES[name]
    _require_size(shape, dtype.itemsize, data)
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)


def _array(name: str, shape: list[int], data: bytes) -> np.ndarray:
    dtype = np.dtype(str(name))
    if dtype.kind not in _ARRAY_KINDS:
        raise BrokenMessage(f"no value: arrays of kind {dtype.kind!r} do not cross")
    _require_size(shape, dtype.itemsize, data)
    return np.frombuffer(bytearray(data), dtype=dtype).reshape(shape)


def _scalar(name: str, shape: list[int], data: bytes) -> np.generic:
    return _array(name, shape, data)[()]


def _require_size(shape: list[int], itemsize: int, data: bytes) -> None:
    if any(size < 0 for size in shape) or math.prod(shape) * itemsize != len(data):
        raise BrokenMessage("no value: shape and bytes do not fit")


_FROM_BYTES: dict[str, Callable[[str, list[int], bytes], Any]] = {"tensor": _tensor, "array": _array, "scalar": _scalar}
_PLAIN_READERS: dict[str, Callable[[Any], Any]] = {
    "complex": lambda parts: complex(*parts),
    "dtype": lambda name: _DTYPES[name],
    "device": torch.device,
    "ellipsis": lambda _: Ellipsis,
}
