"""What a recipe is made of: the source that decides on a model, and its hash."""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "dlatlas"
ROOT = Path(__file__).parents[3]
NAMES = ("cnn", "vit", "mae", "clip", "diffusion", "lm")


def module_of(name: str) -> str:
    """The module that holds a recipe."""
    return f"{__package__}.recipes.{name}"


def recipe_files(name: str) -> list[Path]:
    """Source of a recipe: its module, and all of this library that it imports, directly or through others."""
    return sorted(_closure(module_of(name)))


def recipe_hash(name: str) -> str:
    """Hash of the source of a recipe, where its data, architecture, settings and seed are written."""
    digest = hashlib.sha256()
    for file in recipe_files(name):
        digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _closure(module: str) -> set[Path]:
    found: dict[str, Path] = {}
    waiting = {module}
    while waiting:
        module = waiting.pop()
        found[module] = _file(module)
        waiting |= set(_imported(found[module])) - found.keys()
    return set(found.values())


def _imported(file: Path) -> Iterator[str]:
    """Modules of this library that a file imports; it need not be run for that."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == PACKAGE and _file(name).is_file())


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
