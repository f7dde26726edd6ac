"""The student's process: runs the cells of a submission, and answers calls of what they define.

Everything here is in reach of the student's code. Nothing that it sends is believed.
"""

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count, islice
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import Tensor

from dlatlas.publish.grading.objects import keep, known
from dlatlas.publish.grading.shell import Cells, describe
from dlatlas.publish.grading.values import Packer, Unpacker
from dlatlas.publish.grading.wire import Message
from dlatlas.publish.grading.worker import open_channel, say_ready

_SECONDS_BETWEEN_SIGNALS = 0.5
_SUBCLASSED = (bool, int, float, str, dict, list, tuple, set, frozenset)

Answer = tuple[dict[str, Any], list[bytes]]


class TimeLimit(BaseException):
    """The time of a cell or of a call is over. Not an Exception, so that few handlers catch it."""


class Answers:
    """Does what the grader asks, one request at a time."""

    def __init__(self) -> None:
        self._cells = Cells()
        self._calls: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        self._numbers = count(1)
        self._asked = {
            "execute": self._execute,
            "names": self._names,
            "call": self._call,
            "backward": self._backward,
            "forward": self._forward,
        }

    def answer(self, request: Message) -> Answer:
        """Answer to a request: what came out, or what was raised."""
        head, pieces = request
        for call in head.get("freed", []):
            self._calls.pop(call, None)
        try:
            with _time_limit(head["seconds"]):
                return self._asked[head["ask"]](head, pieces)
        except BaseException as error:  # sys.exit() in a student's function ends the call, not the process
            return {"raised": describe(error)}, []

    def _execute(self, head: dict[str, Any], pieces: list[bytes]) -> Answer:
        return self._cells.run(head["source"]), []

    def _names(self, head: dict[str, Any], pieces: list[bytes]) -> Answer:
        """Variables as they are now; one that cannot be told is left out."""
        packer = Packer(_reference)
        values = {}
        for name in head["names"]:
            with suppress(Exception):
                values[name] = packer.pack(self._cells.names[name])
        return {"values": values}, packer.pieces

    def _call(self, head: dict[str, Any], pieces: list[bytes]) -> Answer:
        """Result of an operation on an object; keeps its graph when gradients may be asked for."""
        inputs = _tensors(head, pieces)
        for tensor, differentiable in zip(inputs, head["differentiable"], strict=True):
            tensor.requires_grad_(differentiable)
        others = {
            "slot": inputs.__getitem__,
            "handle": known,
            "pickle": lambda piece: cloudpickle.loads(pieces[piece]),
        }
        unpacker = Unpacker(pieces, others)
        arguments, named = unpacker.unpack(head["arguments"])
        _set_random_state(*cloudpickle.loads(pieces[head["random"]]))
        versions = [tensor._version for tensor in inputs]
        answer, results = self._result(_OPERATIONS[head["operation"]](*arguments, **named), inputs)
        answer["changed"] = [tensor._version != version for tensor, version in zip(inputs, versions, strict=True)]
        return answer, results

    def _backward(self, head: dict[str, Any], pieces: list[bytes]) -> Answer:
        """Gradients of a call for its inputs, given those for its outputs; they can be differentiated again."""
        inputs, outputs = self._calls[head["of"]]
        given = [gradient.requires_grad_() for gradient in _tensors(head, pieces)]
        return self._result(tuple(_pull_back(outputs, inputs, given)), [*inputs, *given])

    def _forward(self, head: dict[str, Any], pieces: list[bytes]) -> Answer:
        """Tangents of a call's outputs, given those of its inputs.

        Gradients are linear in what is given for the outputs, so that their own gradients are the tangents.
        """
        inputs, outputs = self._calls[head["of"]]
        tangents = [tangent.requires_grad_() for tangent in _tensors(head, pieces)]
        probes = [torch.zeros_like(output, requires_grad=output.requires_grad) for output in outputs]
        gradients = _pull_back(outputs, inputs, probes)
        return self._result(tuple(_pull_back(gradients, probes, tangents)), [*inputs, *tangents])

    def _result(self, value: Any, inputs: list[Tensor]) -> Answer:
        outputs: list[Tensor] = []

        def slot(tensor: Tensor) -> dict[str, int]:
            outputs.append(tensor)
            return {"slot": len(outputs) - 1}

        packer = Packer(_reference, slot)
        node = packer.pack(value)
        tensors = [packer.bytes_of_tensor(output) for output in outputs]
        differentiable = [output.requires_grad for output in outputs]
        call = next(self._numbers)
        if any(differentiable) and any(tensor.requires_grad for tensor in inputs):
            self._calls[call] = (inputs, outputs)
        answer = {"value": node, "tensors": tensors, "differentiable": differentiable, "call": call}
        return answer, packer.pieces


def _pull_back(outputs: list[Tensor], inputs: list[Tensor], given: list[Tensor]) -> list[Tensor]:
    """Gradients for all inputs; zeros for those that have none."""
    attached = [position for position, output in enumerate(outputs) if output.requires_grad]
    wanted = [position for position, tensor in enumerate(inputs) if tensor.requires_grad]
    found = torch.autograd.grad(
        [outputs[position] for position in attached],
        [inputs[position] for position in wanted],
        [given[position] for position in attached],
        create_graph=True,
        allow_unused=True,
    )
    known = {position: gradient for position, gradient in zip(wanted, found, strict=True) if gradient is not None}
    return [known.get(position, torch.zeros_like(tensor)) for position, tensor in enumerate(inputs)]


def _call(target: Any, /, *arguments: Any, **named: Any) -> Any:
    return target(*arguments, **named)


_OPERATIONS = {
    "call": _call,
    "attribute": getattr,
    "item": lambda target, key: target[key],
    "length": len,
    "iterate": iter,
    "next": lambda target: list(islice(target, 1)),
    "is_instance": isinstance,
}


def _reference(value: Any, packer: Packer) -> Any:
    """Node of what is not plain data: a subclass of a plain type as that type, else a number for the object."""
    for plain in _SUBCLASSED:
        if isinstance(value, plain):
            return packer.pack(plain(value))
    kind = "class" if isinstance(value, type) else "function" if callable(value) else "object"
    name = getattr(value, "__name__", None)
    handle = [keep(value), kind, name if isinstance(name, str) else type(value).__name__]
    return {"handle": handle}


def _tensors(head: dict[str, Any], pieces: list[bytes]) -> list[Tensor]:
    unpacker = Unpacker(pieces, {})
    return [unpacker.unpack(node) for node in head["tensors"]]


def _set_random_state(for_torch: Tensor, for_numpy: Any, for_python: Any) -> None:
    """Draw on from where the tests are, so that seeds which they set hold here as well."""
    torch.set_rng_state(for_torch)
    np.random.set_state(for_numpy)  # noqa: NPY002 - the tests may have set the seed of the old interface
    random.setstate(for_python)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeLimit(f"not done after {seconds:.0f} s")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01), _SECONDS_BETWEEN_SIGNALS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    """Answer requests until the line is closed."""
    channel = open_channel()
    answers = Answers()
    say_ready(channel)
    while request := channel.receive():
        channel.send(*answers.answer(request))


if __name__ == "__main__":
    main()
