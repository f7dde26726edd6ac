"""The API reference: one page a package of the library, one section a module, contents by autodoc."""

import ast
from collections.abc import Iterator
from pathlib import Path

from dlatlas.registry import Registry

PACKAGES = {
    "lab": "Laboratory",
    "plots": "Plots",
    "data": "Data",
    "models": "Models",
    "ops": "Tensor operations",
}


def api_pages(source: Path, registry: Registry) -> dict[str, str]:
    """Pages of the reference by name.

    Parameters
    ----------
    source
        Folder of the package, ``src/dlatlas``.
    registry
        Its parts; each has a package of its name once a chapter of it is written.
    """
    pages = {}
    for package, title in {**PACKAGES, **{part.part: part.title for part in registry.parts}}.items():
        if modules := list(documented_modules(source, package)):
            sections = [_section(module, source) for module in modules]
            pages[f"book/api/{package}"] = "\n".join([f"# {title}: `dlatlas.{package}`", "", *sections])
    return pages


def documented_modules(source: Path, package: str) -> Iterator[str]:
    """Modules of a package that have something public.

    A package whose ``__init__`` says what it exports (``__all__``) is one section: its modules are its own affair.

    Parameters
    ----------
    source
        Folder of the package, ``src/dlatlas``.
    package
        Name below ``dlatlas``, for instance ``data`` or ``data.shapes``.
    """
    folder = source.joinpath(*package.split("."))
    if _exports(folder / "__init__.py"):
        yield f"dlatlas.{package}"
        return
    for entry in sorted(folder.glob("[a-z]*")):
        if entry.is_dir():
            yield from documented_modules(source, f"{package}.{entry.name}")
        elif entry.suffix == ".py" and _has_public_names(entry):
            yield f"dlatlas.{package}.{entry.stem}"


def _exports(file: Path) -> bool:
    return any(
        isinstance(node, ast.Assign) and "__all__" in map(ast.unparse, node.targets) for node in _statements(file)
    )


def _has_public_names(file: Path) -> bool:
    definitions = (node for node in _statements(file) if isinstance(node, ast.FunctionDef | ast.ClassDef))
    return any(not definition.name.startswith("_") for definition in definitions)


def _statements(file: Path) -> list[ast.stmt]:
    return ast.parse(file.read_text(encoding="utf-8")).body if file.is_file() else []


def _section(module: str, source: Path) -> str:
    is_package = source.joinpath(*module.split(".")[1:]).is_dir()
    options = ":members:\n   :imported-members:" if is_package else ":members:"
    return f"## `{module}`\n\n```{{eval-rst}}\n.. automodule:: {module}\n   {options}\n```\n"
