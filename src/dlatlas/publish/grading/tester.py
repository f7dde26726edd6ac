"""The process of the tests: runs the instructor's cells, with stand-ins for what the student has defined.

One process serves many submissions: for each it forks, after the imports that all of them need, and the child is gone
when the submission is graded. No code of a student ever runs here.
"""

import ast
import importlib
import os
import sys
import time
import traceback
from contextlib import suppress
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

from dlatlas.publish.assignments.runner import describe
from dlatlas.publish.grading.remote import Line
from dlatlas.publish.grading.wire import Channel, Message
from dlatlas.publish.grading.worker import open_channel, say_ready

# What torch imports, in more than a second, when a transform meets an autograd function for the first time.
_LAZY = "torch._dynamo"


class _NoShell:
    """Stands for IPython in the instructor's cells: magics such as `%matplotlib inline` do nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **named: None


class Tests:
    """The instructor's cells for one submission."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._line = Line(self._ask)
        self._until = 0.0
        self._start()

    def serve(self) -> None:
        """Do what the grader asks until the submission is done."""
        while (request := self._channel.receive()) and "end" not in request.head:
            self._channel.send({"done": self._do(request.head)})

    def _do(self, head: dict[str, Any]) -> Any:
        if "start" in head:
            return self._start()
        if "bind" in head:
            return self._bind(head["bind"])
        self._until = time.monotonic() + head["seconds"]
        return self._run(head["run"], head["called"])

    def _start(self) -> None:
        self._names: dict[str, Any] = {
            "__name__": "__main__",
            "get_ipython": _NoShell,
            "display": lambda *_, **__: None,
        }

    def _bind(self, names: list[str]) -> None:
        """Take variables of the student from the next message; those that are not in it are not here either."""
        for name in names:
            self._names.pop(name, None)
        # Whatever is wrong with this message, it is the student's process that wrote it.
        with suppress(Exception):
            if answer := self._channel.receive():
                self._names |= self._line.bind(answer)

    def _run(self, source: str, called: str) -> dict[str, Any]:
        code = source
        try:
            code = TransformerManager().transform_cell(source)
            return {"error": None, "value": _number(_evaluate(code, self._names, called)), "trace": ""}
        except BaseException as error:
            return {"error": describe(error, code, called), "value": None, "trace": _trace(error)}

    def _ask(self, head: dict[str, Any], pieces: list[bytes]) -> Message:
        self._channel.send(head | {"seconds": self._until - time.monotonic()}, pieces)
        answer = self._channel.receive()
        if answer is None:
            sys.exit("the grader has gone")
        return answer


def _evaluate(source: str, names: dict[str, Any], called: str) -> Any:
    """Run a cell; the value of its last line if that is an expression."""
    tree = ast.parse(source, called)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, called, "exec"), names)
    return eval(compile(ast.Expression(last.value), called, "eval"), names) if last else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error, limit=-6))[-4000:]


def main() -> None:
    """Serve one submission after the other, each in a fork of this process."""
    channel = open_channel()
    say_ready(channel)
    while request := channel.receive():
        for module in [*request.head["begin"], _LAZY]:
            with suppress(Exception):
                importlib.import_module(module)
        child = os.fork()
        if child == 0:
            channel.send({"done": None})
            Tests(channel).serve()
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
