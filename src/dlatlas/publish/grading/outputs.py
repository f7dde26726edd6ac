"""What a student's process says that a cell has shown: taken apart and put together anew, since it may say anything."""

from typing import Any

from dlatlas.publish.grading.limits import LARGEST_ANSWER, MOST_CHARACTERS, MOST_OUTPUTS, SHOWN_FORMATS
from dlatlas.publish.grading.process import Stopped
from dlatlas.publish.grading.wire import BrokenMessage, from_bytes


def read_answer(answer: bytes) -> dict[str, Any]:
    """Outputs and error of a cell, from the answer of a student's process.

    Raises
    ------
    Stopped
        When the answer is none: the process no longer does what it should.
    """
    try:
        if len(answer) > LARGEST_ANSWER:
            raise BrokenMessage("an answer of this length is none")
        head = from_bytes(answer).head
        error = head["raised"] if "raised" in head else head["error"]
        outputs = [_output(output) for output in head.get("outputs", [])[:MOST_OUTPUTS]]
        kept = outputs if sum(map(_size, outputs)) <= MOST_CHARACTERS else []
        return {"outputs": kept, "error": error and _error(error)}
    except (BrokenMessage, LookupError, TypeError, AttributeError) as problem:
        raise Stopped("the process of the notebook wrote to the line of the grader") from problem


def _output(output: dict[str, Any]) -> dict[str, Any]:
    if output["output_type"] == "stream":
        return {"output_type": "stream", "name": "stdout", "text": _text(output["text"])}
    data = {name: _text(content) for name, content in output["data"].items() if name in SHOWN_FORMATS}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def _size(output: dict[str, Any]) -> int:
    return len(output.get("text", "")) + sum(len(content) for content in output.get("data", {}).values())


def _error(error: dict[str, Any]) -> dict[str, Any]:
    line = error["line"]
    return {
        "name": _text(error["classes"][0])[:100],
        "message": _text(error["message"])[:2000],
        "within": line and _text(line)[:200],
    }


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text was expected")
    return value.encode("utf-8", errors="replace").decode("utf-8")
