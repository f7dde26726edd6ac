"""Runs the cells of a student's notebook, and keeps what they show within bounds."""

import io
import os
import sys
import traceback
from contextlib import nullcontext
from typing import Any

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from dlatlas.publish.grading.limits import LONGEST_TEXT, MOST_CHARACTERS, MOST_OUTPUTS, SHOWN_FORMATS


class Outputs:
    """Outputs of the running cell, in the form of a notebook."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Forget what the last cell showed."""
        self.items: list[dict[str, Any]] = []
        self._characters = 0

    def write(self, text: str) -> None:
        """Keep printed text, up to a length."""
        last = self.items[-1] if self.items else {}
        if last.get("output_type") != "stream":
            last = {"output_type": "stream", "name": "stdout", "text": ""}
            self._add(last, LONGEST_TEXT)
        room = LONGEST_TEXT - len(last["text"])
        if room > 0:
            last["text"] += text if len(text) <= room else text[:room] + "\n... output cut here ...\n"

    def show(self, data: dict[str, Any]) -> None:
        """Keep a figure or a value, in the formats that are safe to look at."""
        kept = {name: data[name] for name in SHOWN_FORMATS if isinstance(data.get(name), str)}
        kept |= {"text/plain": kept["text/plain"][:LONGEST_TEXT]} if "text/plain" in kept else {}
        self._add({"output_type": "display_data", "data": kept}, sum(map(len, kept.values())))

    def _add(self, output: dict[str, Any], size: int) -> None:
        self._characters += size
        if len(self.items) < MOST_OUTPUTS and self._characters <= MOST_CHARACTERS:
            self.items.append(output)


class _Stream(io.TextIOBase):
    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs

    def write(self, text: str) -> int:
        self._outputs.write(text)
        return len(text)

    def writable(self) -> bool:
        return True


class _Publisher(DisplayPublisher):
    def publish(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        _outputs.show(data)

    def clear_output(self, wait: bool = False) -> None:
        _outputs.start()


class _Hook(DisplayHook):
    def write_output_prompt(self) -> None:
        pass

    def write_format_data(self, format_dict: dict[str, Any], md_dict: Any = None) -> None:
        _outputs.show(format_dict)

    def finish_displayhook(self) -> None:
        pass


class _Shell(InteractiveShell):
    display_pub_class = _Publisher
    displayhook_class = _Hook

    def _showtraceback(self, etype: Any, evalue: Any, stb: Any) -> None:
        """Errors are returned, not printed."""

    def _tee(self, channel: str) -> Any:
        """IPython would keep all that is printed for its history, without end."""
        return nullcontext()

    def enable_gui(self, gui: Any = None) -> None:
        """There is no screen."""


_outputs = Outputs()


class Cells:
    """A session of IPython."""

    def __init__(self) -> None:
        os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "NoColor"
        self._shell = _Shell.instance(config=config)
        sys.stdout = sys.stderr = _Stream(_outputs)

    @property
    def names(self) -> dict[str, Any]:
        """Variables of the session."""
        return self._shell.user_ns

    def run(self, source: str) -> dict[str, Any]:
        """Run a cell; give what it showed, and the error that ended it, if any."""
        _outputs.start()
        result = self._shell.run_cell(source, store_history=False)
        self._flush_figures()
        error = result.error_before_exec or result.error_in_exec
        return {"outputs": _outputs.items, "error": describe(error) if error else None}

    def _flush_figures(self) -> None:
        if "matplotlib.pyplot" in sys.modules:
            from matplotlib_inline.backend_inline import flush_figures

            flush_figures()


def describe(error: BaseException) -> dict[str, Any]:
    """Error as plain data: the names of its class and base classes, its message, and the student's line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/site-packages/" not in frame.filename]
    lines = [frame.line for frame in frames if frame.line and "ipython-input" in frame.filename]
    return {
        "classes": [kind.__name__ for kind in type(error).__mro__],
        "message": str(error)[:2000],
        "line": lines[-1].strip()[:200] if lines else None,
    }
