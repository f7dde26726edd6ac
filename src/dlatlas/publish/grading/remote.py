"""Stand-ins for a student's functions and objects, in the process that runs the tests.

A stand-in can be called, also under autograd and ``torch.func`` transforms; what comes back are plain values, tensors
and further stand-ins. It does not compare equal to anything and has no truth value: a test can only be passed by values
that the test itself compares.
"""

import builtins
import random
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import Tensor, nn

from dlatlas.publish.grading.objects import known
from dlatlas.publish.grading.values import Packer, Unpacker
from dlatlas.publish.grading.wire import BrokenMessage, Message

Ask = Callable[[dict[str, Any], list[bytes]], Message]

# An object that answers these itself could pass for a tensor: `assert f(x).equal(y)`.
_OF_TENSORS = (set(dir(Tensor)) | set(dir(np.ndarray))) - set(dir(nn.Module))


class StudentError(Exception):
    """An error of the student's code, of a class that the tests' process does not know."""


class Line:
    """Asks the student's process.

    Parameters
    ----------
    ask
        Sends a request and waits for the answer.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._freed: list[int] = []

    def bind(self, answer: Message) -> dict[str, Any]:
        """Variables of the student, from the answer that holds them."""
        _raise_if_raised(answer.head)
        unpacker = Unpacker(answer.pieces, {"handle": self._stand_in})
        return {name: unpacker.unpack(node) for name, node in answer.head["values"].items()}

    def operate(self, operation: str, *arguments: Any, **named: Any) -> Any:
        """Result of an operation in the student's process."""
        tensors: list[Tensor] = []

        def slot(tensor: Tensor) -> dict[str, int]:
            tensors.append(tensor)
            return {"slot": len(tensors) - 1}

        packer = Packer(_by_value, slot)
        request = {"ask": "call", "operation": operation, "arguments": packer.pack((arguments, named))}
        request["random"] = len(packer.pieces)
        packer.pieces.append(cloudpickle.dumps(_random_state()))
        request["differentiable"] = [_is_tracked(tensor) for tensor in tensors]
        exchange = Exchange(self, request, packer.pieces)
        outputs = _Call.apply(exchange, *tensors)
        for tensor, changed in zip(tensors, exchange.answer.head["changed"], strict=True):
            if changed:
                _spoil(tensor)
        return self._value(exchange, outputs)

    def request(self, head: dict[str, Any], pieces: list[bytes]) -> Message:
        """Answer to a request; raises here what was raised there."""
        answer = self._ask(head | {"freed": list(self._freed)}, pieces)
        self._freed.clear()
        _raise_if_raised(answer.head)
        return answer

    def forget_with(self, owner: Any, call: int) -> None:
        """Let the student's process forget the graph of a call once its owner is gone."""
        weakref.finalize(owner, self._freed.append, call)

    def _value(self, exchange: "Exchange", outputs: Sequence[Tensor]) -> Any:
        others = {"handle": self._stand_in, "slot": lambda position: outputs[position]}
        return Unpacker(exchange.answer.pieces, others).unpack(exchange.answer.head["value"])

    def _stand_in(self, content: Any) -> "Remote":
        number, kind, name = content
        if not isinstance(number, int) or not isinstance(name, str):
            raise BrokenMessage("no value: a stand-in without a number or a name")
        return Remote(self, number, str(kind), name)


class Exchange:
    """One request about tensors, and its answer; what autograd needs to go back through it."""

    def __init__(self, line: Line, request: dict[str, Any], pieces: list[bytes]) -> None:
        self.answer = Message({}, [])
        self._line = line
        self._request = request
        self._pieces = pieces
        self._rows: list[Exchange] = []

    def __call__(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Send the request with these tensors, and give the tensors of the answer."""
        packer = Packer(_by_value)
        packer.pieces = list(self._pieces)
        sent = tensors[self._request.get("first", 0) :]
        nodes = [packer.bytes_of_tensor(tensor) for tensor in sent]
        self.answer = self._line.request(self._request | {"tensors": nodes}, packer.pieces)
        unpacker = Unpacker(self.answer.pieces, {})
        found = tuple(unpacker.unpack(node) for node in self.answer.head["tensors"])
        if not all(isinstance(tensor, Tensor) for tensor in found):
            raise BrokenMessage("no value: something else in place of a tensor")
        self._line.forget_with(self, self.answer.head["call"])
        return found

    @property
    def differentiable(self) -> list[bool]:
        """Which of the answer's tensors gradients can be asked for."""
        return self.answer.head["differentiable"]

    def rows(self, count: int) -> "list[Exchange]":
        """The same request for each row of a batch."""
        if not self._rows:
            self._rows = [Exchange(self._line, self._request, self._pieces) for _ in range(count)]
        return self._rows

    def derivative(self, direction: str, inputs: int) -> "Exchange":
        """Request for a derivative of this one, "backward" or "forward".

        Its first tensors are the inputs of this one: autograd needs to know of them, and the other side still has them.
        """
        request = {"ask": direction, "of": self.answer.head["call"], "first": inputs}
        derivative = Exchange(self._line, request, [])
        derivative._rows = [row.derivative(direction, inputs) for row in self._rows]
        return derivative


class _Call(torch.autograd.Function):
    """A call whose forward and backward are computed in the student's process."""

    @staticmethod
    def forward(exchange: Exchange, *tensors: Tensor) -> tuple[Tensor, ...]:
        return exchange(tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        exchange, *tensors = inputs
        ctx.exchange = exchange
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        pairs = zip(output, exchange.differentiable, strict=True)
        ctx.mark_non_differentiable(*[tensor for tensor, differentiable in pairs if not differentiable])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        return None, *_Call.apply(ctx.exchange.derivative("backward", len(inputs)), *inputs, *gradients)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        inputs = ctx.saved_tensors
        filled = [torch.zeros_like(i) if t is None else t for i, t in zip(inputs, tangents, strict=True)]
        return _Call.apply(ctx.exchange.derivative("forward", len(inputs)), *inputs, *filled)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, exchange: Exchange, *tensors: Tensor) -> tuple[tuple, tuple]:
        found = []
        for position, row in enumerate(exchange.rows(info.batch_size)):
            pairs = zip(tensors, in_dims[1:], strict=True)
            found.append(_Call.apply(row, *[t if dim is None else t.select(dim, position) for t, dim in pairs]))
            exchange.answer = row.answer
        stacked = tuple(torch.stack(column) for column in zip(*found, strict=True))
        return stacked, (0,) * len(stacked)


class Remote:
    """Stand-in for an object of the student's process."""

    def __init__(self, line: Line, number: int, kind: str, name: str) -> None:
        self._line = line
        self._number = number
        self._kind = kind
        self.__name__ = name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._line.operate("call", self, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in _OF_TENSORS:
            raise AttributeError(f"{self!r} has no attribute {name!r}; a tensor or a number was expected here")
        return self._line.operate("attribute", self, name)

    def __getitem__(self, key: Any) -> Any:
        return self._line.operate("item", self, key)

    def __len__(self) -> int:
        return self._line.operate("length", self)

    def __iter__(self) -> Any:
        iterator = self._line.operate("iterate", self)
        while found := self._line.operate("next", iterator):
            yield found[0]

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} is neither true nor false")

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, Remote) and bool(self._line.operate("is_instance", instance, self))

    def __reduce__(self) -> tuple:
        return known, (self._number,)

    def __repr__(self) -> str:
        return f"<{self._kind} {self.__name__} of the submission>"

    @property
    def node(self) -> dict[str, int]:
        """How the student's process is told of this object."""
        return {"handle": self._number}


def _by_value(value: Any, packer: Packer) -> Any:
    """Node of an argument that is not plain data: what it is, for the student's process to build again."""
    if isinstance(value, Remote):
        return value.node
    packer.pieces.append(cloudpickle.dumps(value))
    return {"pickle": len(packer.pieces) - 1}


def _spoil(tensor: Tensor) -> None:
    """Put nonsense into an argument that the student's function has changed.

    A test that the argument is left alone fails, as it should. What the student has made of it must not come here: a
    function that sets its input to zero would choose what its result is compared with.
    """
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return
    with torch.no_grad():
        if tensor.dtype == torch.bool:
            tensor.logical_not_()
        else:
            exact = not (tensor.is_floating_point() or tensor.is_complex())
            tensor.fill_(torch.iinfo(tensor.dtype).min if exact else torch.nan)


def _is_tracked(tensor: Tensor) -> bool:
    """Whether a derivative with respect to this tensor may be asked for, by autograd or by a transform."""
    differentiable = tensor.is_floating_point() or tensor.is_complex()
    transformed = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return differentiable and torch.is_grad_enabled() and (tensor.requires_grad or transformed)


def _random_state() -> tuple:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002 - tests may use the old interface


def _raise_if_raised(head: dict[str, Any]) -> None:
    if "raised" not in head:
        return
    raised = head["raised"]
    raise _error([str(name) for name in raised["classes"]], str(raised["message"]))


def _error(classes: list[str], message: str) -> Exception:
    """Error of the first built-in class among these, so that a test can expect a ValueError."""
    if "TimeLimit" in classes:
        return TimeoutError(message)
    for name in classes:
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception) and kind not in (Exception, StopIteration):
            try:
                return kind(message)
            except TypeError:
                continue
    return StudentError(f"{classes[0]}: {message}" if classes else message)
