"""Names that a cell binds and uses, read from its source."""

import ast
from collections.abc import Iterator

from IPython.core.inputtransformer2 import TransformerManager


def bound_names(source: str) -> set[str]:
    """Names that a cell binds when it runs, except those that it imports."""
    return {name for statement in _tree(source).body for name in _bound(statement)}


def used_names(source: str) -> set[str]:
    """Names that a cell reads, anywhere in it."""
    return {
        node.id for node in ast.walk(_tree(source)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


def imported_modules(source: str) -> list[str]:
    """Modules that a cell imports at its outermost level."""
    modules = []
    for statement in _tree(source).body:
        if isinstance(statement, ast.Import):
            modules += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            modules.append(statement.module)
    return modules


def imports_of(source: str) -> str:
    """The import statements of a cell."""
    statements = [node for node in _tree(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join(ast.unparse(statement) for statement in statements)


def _tree(source: str) -> ast.Module:
    return ast.parse(TransformerManager().transform_cell(source))


def _bound(statement: ast.AST) -> Iterator[str]:
    """Names bound by a statement, not looking into functions and classes."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Name) and isinstance(statement.ctx, ast.Store):
        yield statement.id
    elif not isinstance(statement, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        for part in ast.iter_child_nodes(statement):
            yield from _bound(part)
