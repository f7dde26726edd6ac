"""Objects of a student's process that the tests hold by number."""

from itertools import count
from typing import Any

_objects: dict[int, Any] = {}
_numbers = count(1)


def keep(value: Any) -> int:
    """Number under which an object can be found again."""
    number = next(_numbers)
    _objects[number] = value
    return number


def known(number: int) -> Any:
    """Object that was kept under this number."""
    return _objects[number]
