"""What an exercise needs of its chapter."""

import pytest

from dlatlas.publish.assignments.slicing import needed
from dlatlas.publish.errors import UserError


def needs(*cells: str, own: int | None = None, closed: dict[int, str] | None = None) -> list[str]:
    own = len(cells) - 1 if own is None else own
    return [statement.source for statement in needed(dict(enumerate(cells)), {own}, closed or {})]


def test_imports_and_definitions_are_followed_backwards():
    cells = "import math\nimport os", "a = 1\nb = math.pi\nc = a", "def f(x):\n    return b * x", "f(2)"
    assert needs(*cells) == ["import math", "b = math.pi", "def f(x):\n    return b * x"]


def test_last_definition_before_the_use_counts():
    assert needs("x = 1\nx = 2", "y = x", "x = 3", own=1) == ["x = 2"]


def test_changes_of_items_and_attributes_belong_to_the_value():
    assert needs("x = [1, 2]\ny = 3\nx[0] = y\nx += [1]\nz = 4", "x") == ["x = [1, 2]", "y = 3", "x[0] = y", "x += [1]"]


def test_names_inside_functions_are_their_own():
    assert needs("x = slow()", "def f(x):\n    y = [x for x in x]\n    return y", "f(1)") == [
        "def f(x):\n    y = [x for x in x]\n    return y"
    ]


def test_loops_bring_what_they_store():
    cells = "n = 2\ni = slow()", "total = 0\nfor i in range(n):\n    square = i * i\n    total += square", "total"
    assert needs(*cells) == ["n = 2", "total = 0", "for i in range(n):\n    square = i * i\n    total += square"]


def test_decorators_and_comments_come_along():
    cells = "import functools", "# Why this is kept.\n@functools.cache\ndef f():\n    return 1", "f()"
    assert needs(*cells) == ["import functools", cells[1]]


def test_classes_bring_their_bases():
    assert needs("class A:\n    pass", "class B(A):\n    size = 3", "B()") == [
        "class A:\n    pass",
        "class B(A):\n    size = 3",
    ]


def test_unknown_name_is_an_error():
    with pytest.raises(UserError, match="the name 'nowhere' is used and defined nowhere before"):
        needs("a = 1", "nowhere + a + len([1])")


def test_nothing_is_taken_from_another_solution():
    with pytest.raises(UserError, match="the name 'f' is defined in the solution of another"):
        needs("def f():\n    return 42", "f()", closed={0: "the solution of another"})
