"""What a chapter is made from: when one of these files changes, the chapter is run again."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

import grimp
from grimp import ImportGraph
from IPython.core.inputtransformer2 import TransformerManager

from dlatlas.publish.layout import Layout
from dlatlas.publish.notebooks import code_cells, read_page
from dlatlas.registry import load_registry

PACKAGE = "dlatlas"


def files(chapter: str, layout: Layout) -> list[Path]:
    """Files that the results of a chapter depend on: its text, the library that it uses, the pinned requirements."""
    page = layout.notebook(chapter)
    imported = [*library_files(imports(page), layout.root / "src")]
    return [page, *imported, layout.root / "requirements.lock"]


def registered(chapter: str) -> str:
    """Digest of the claims of a chapter as they are registered: a verdict depends on them."""
    claims = [claim.model_dump_json() for paper in load_registry().papers_of(chapter) for claim in paper.claims]
    return sha256("\n".join(claims).encode()).hexdigest()


def imports(page: Path) -> set[str]:
    """Dotted names of the package that the code cells of a page import, methods and functions included."""
    names = {name for tree in trees(page) for name in _imported(tree)}
    return {name for name in names if name.split(".")[0] == PACKAGE}


def trees(page: Path) -> Iterator[ast.AST]:
    """Syntax trees of the code cells of a page."""
    return (_parsed(cell.source) for cell in code_cells(read_page(page)))


def _parsed(source: str) -> ast.AST:
    try:
        return ast.parse(TransformerManager().transform_cell(source))
    except SyntaxError:
        # Such a cell imports nothing; running it says what is wrong, in its page, and stops no other chapter.
        return ast.Module([], [])


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def library_files(names: Iterable[str], source: Path) -> list[Path]:
    """Files of the modules that the names live in, and of all that these import, directly or through others."""
    modules = _closure({_module_of(name, _graph()) for name in names}, _graph())
    return sorted(file for module in modules for file in _files_of(module, source))


def modules_in(package: str) -> set[str]:
    """Last names of the modules in a package."""
    return {module.rpartition(".")[2] for module in _graph().find_children(package)}


@cache
def _graph() -> ImportGraph:
    return grimp.build_graph(PACKAGE, cache_dir=None)


def _module_of(name: str, graph: ImportGraph) -> str:
    """Longest leading part of a dotted name that is a module."""
    while name not in graph.modules and "." in name:
        name = name.rpartition(".")[0]
    return name


def _closure(modules: set[str], graph: ImportGraph) -> set[str]:
    """Modules, what they import, and the packages that hold them: importing ``a.b`` runs ``a`` first."""
    found: set[str] = set()
    waiting = set(modules)
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= graph.find_modules_directly_imported_by(module) | _parent(module)
        waiting -= found
    return found


def _parent(module: str) -> set[str]:
    return {module.rpartition(".")[0]} if "." in module else set()


def _files_of(module: str, source: Path) -> list[Path]:
    """Source of a module; with a package also the data files beside it, such as a figure style."""
    path = source.joinpath(*module.split("."))
    if not path.is_dir():
        return [path.with_suffix(".py")]
    data = [file for file in path.iterdir() if file.is_file() and file.suffix not in (".py", ".pyc")]
    return [path / "__init__.py", *data]
