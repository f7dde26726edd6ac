"""The statements of a chapter that some of its cells depend on.

An assignment must run by itself, without the experiments of its chapter. From the names that the cells of an exercise
use we follow definitions backwards, top-level statement by top-level statement. Assignments (also to items and
attributes), definitions and imports are followed; what a statement changes by calling a method is not.
"""

import ast
import builtins
import symtable
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dlatlas.publish.errors import UserError

_COMPOUND = (ast.For, ast.While, ast.With, ast.If, ast.Try)


@dataclass(frozen=True)
class Statement:
    """A top-level statement: what it binds, what it changes, and what it needs."""

    position: int
    source: str
    binds: frozenset[str]
    changes: frozenset[str]
    needs: frozenset[str]
    is_import: bool


def statements(source: str, position: int = 0) -> list[Statement]:
    """Top-level statements of a cell; an import of several names is one statement for each name."""
    lines = source.split("\n")
    return [part for node in ast.parse(source).body for part in _statement(node, lines, position)]


def _statement(node: ast.stmt, lines: list[str], position: int) -> list[Statement]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [_import(node, alias, position) for alias in node.names]
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    # Comments above a statement explain it.
    while first > 1 and lines[first - 2].lstrip().startswith("#"):
        first -= 1
    source = "\n".join(lines[first - 1 : node.end_lineno]).rstrip().rstrip(";")
    stored, changed = _stored(node)
    needs = _globals(ast.unparse(node)) | changed
    if isinstance(node, _COMPOUND):
        needs -= stored - changed  # what a loop stores it has, as a rule, stored before it reads it
    return [Statement(position, source, frozenset(stored), frozenset(changed), frozenset(needs), False)]


def _import(node: ast.Import | ast.ImportFrom, alias: ast.alias, position: int) -> Statement:
    bound = alias.asname or alias.name.partition(".")[0]
    copy = ast.ImportFrom(node.module, [alias], node.level) if isinstance(node, ast.ImportFrom) else ast.Import([alias])
    return Statement(position, ast.unparse(copy), frozenset([bound]), frozenset(), frozenset(), True)


def _stored(node: ast.stmt) -> tuple[set[str], set[str]]:
    """Names that a statement binds, and names whose values it changes."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}, set()
    bound, changed = set(), set()
    parts = list(_outside_functions(node))
    counted = {id(part.target) for part in parts if isinstance(part, ast.AugAssign)}
    for part in parts:
        if isinstance(part, ast.FunctionDef | ast.ClassDef):
            bound.add(part.name)
        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            (changed if id(part) in counted else bound).add(part.id)
        elif isinstance(part, ast.Attribute | ast.Subscript) and isinstance(part.ctx, ast.Store):
            changed.add(_base(part))
    return bound, changed - bound - {""}


def _outside_functions(node: ast.AST) -> Iterable[ast.AST]:
    """The node and what is in it, without the insides of functions, classes and comprehensions."""
    yield node
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.comprehension):
        return
    for child in ast.iter_child_nodes(node):
        yield from _outside_functions(child)


def _base(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _globals(source: str) -> set[str]:
    """Names that a piece of code reads from outside."""
    found, tables = set(), [symtable.symtable(source, "<cell>", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        found |= {
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global())
        }
    return found


def needed(cells: Mapping[int, str], own: set[int], closed: Mapping[int, str]) -> list[Statement]:
    """Statements outside of some cells that these cells depend on, in the order of the chapter.

    Parameters
    ----------
    cells
        Source of all code cells by position.
    own
        Positions of the cells that must run.
    closed
        Positions from which nothing may be taken, with the reason: solutions of other exercises.

    Raises
    ------
    UserError
        When a name is defined nowhere before it is used, or only where nothing may be taken.
    """
    everything = [part for position in sorted(cells) for part in statements(cells[position], position)]
    wanted = [(index, name) for index, part in enumerate(everything) if part.position in own for name in part.needs]
    taken: set[int] = set()
    while wanted:
        index, name = wanted.pop()
        for found in _sources(everything, index, name):
            part = everything[found]
            if part.position in closed:
                raise UserError(f"the name {name!r} is defined in {closed[part.position]}")
            if part.position not in own and found not in taken:
                taken.add(found)
                wanted += [(found, other) for other in part.needs]
    return [everything[index] for index in sorted(taken)]


def _sources(everything: list[Statement], index: int, name: str) -> list[int]:
    """Where a name got its value before a statement: the last that binds it, and those that changed it since."""
    sources = []
    for earlier in range(index - 1, -1, -1):
        if name in everything[earlier].changes:
            sources.append(earlier)
        if name in everything[earlier].binds:
            return [*sources, earlier]
    if not hasattr(builtins, name) and name != "__name__":
        raise UserError(f"the name {name!r} is used and defined nowhere before (cell {everything[index].position})")
    return sources
