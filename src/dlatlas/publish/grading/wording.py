"""What is said of a test, in words that give no hidden test away."""

from typing import Any


def said(error: dict[str, Any]) -> str:
    """What went wrong in a visible test or in a cell of the student."""
    if error.get("expected") and not error["message"]:
        return f"expected {error['expected']}"
    message = (
        error["message"] if error["name"] == "AssertionError" else f"{error['name']}: {error['message']}".rstrip(": ")
    )
    return f"{message}\n(in `{error['within']}`)" if error.get("within") else message


def hidden_result(hint: str | None, *, passed: bool) -> str:
    """How the part of a test went that students do not see."""
    if passed:
        return "hidden test passed"
    return f"hidden test failed. Hint: {hint}" if hint else "hidden test failed"
