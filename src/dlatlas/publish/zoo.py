"""The models that pages load: which ones a page needs, what they are made from, and training them beforehand."""

import ast
import os
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from dlatlas.progress import PROGRESS_FILE
from dlatlas.publish.dependencies import library_files, modules_in, trees
from dlatlas.publish.errors import UserError
from dlatlas.publish.files import write_json
from dlatlas.publish.layout import Layout
from dlatlas.publish.report import Report

ZOO = "dlatlas.models.zoo"
RECIPES = f"{ZOO}.recipes"
ASKING = ("load", "report")
GUIDE = "guide/zoo"
CACHE = "DLATLAS_ZOO"


def keep_with_the_build(layout: Layout) -> None:
    """Keep models in the build folder, unless the user keeps them elsewhere; for this process and those it starts."""
    os.environ.setdefault(CACHE, str(layout.build.absolute() / "zoo"))


def made_file(name: str, layout: Layout) -> Path:
    """File that says that a model is in the cache, and by which recipe; pages that load it depend on this file."""
    return layout.build / "zoo" / f"{name}.json"


def made_files(chapter: str, layout: Layout) -> list[Path]:
    """What a chapter depends on beside its own files: the models that it loads."""
    return [made_file(name, layout) for name in models(layout.notebook(chapter))]


def runs(chapters: Iterable[str], layout: Layout) -> list[str]:
    """Names under which the training of the models that chapters load reports how far it is."""
    loaded = {name for chapter in chapters for name in models(layout.notebook(chapter))}
    return [_run(name) for name in sorted(loaded)]


def _run(name: str) -> str:
    return f"zoo/{name}"


def recipe_files(name: str, layout: Layout) -> list[Path]:
    """Files that a model is made from: its recipe, and the modules that this imports."""
    return library_files([f"{RECIPES}.{name}"], layout.root / "src")


def models(page: Path) -> list[str]:
    """Models that the code cells of a page load: the names in its calls of ``zoo.load`` and ``zoo.report``.

    A name that is not written out could be any. A name that there is none of is left to the page, which says so.
    """
    parsed = list(trees(page))
    functions = {name for tree in parsed for name in _asking(tree)}
    calls = [node for tree in parsed for node in ast.walk(tree) if isinstance(node, ast.Call)]
    asked = [_first(call) for call in calls if ast.unparse(call.func) in functions]
    if not asked:
        return []
    known = modules_in(RECIPES)
    return sorted(known if None in asked else known.intersection(asked))


def _asking(tree: ast.AST) -> Iterator[str]:
    """What the functions of the zoo are called in the code: ``zoo.load``, or as they were imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"{alias.asname or ZOO}.{f}" for alias in node.names if alias.name == ZOO for f in ASKING)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = alias.asname or alias.name
                if f"{node.module}.{alias.name}" == ZOO:
                    yield from (f"{name}.{function}" for function in ASKING)
                elif node.module == ZOO and alias.name in ASKING:
                    yield name


def _first(call: ast.Call) -> str | None:
    """Name that a call asks for, None where it is not written out."""
    named = [keyword.value for keyword in call.keywords if keyword.arg == "name"]
    match [*call.args, *named]:
        case [ast.Constant(value=str(name)), *_]:
            return name
    return None


def train(name: str, layout: Layout) -> None:
    """Put a model into the cache, if it is not there, and write the file that says so.

    A model that cannot be trained stops no page: those that load it try again, and show what is wrong.

    Raises
    ------
    UserError
        When there is no such model, with the list of those there are.
    """
    known = modules_in(RECIPES)
    if name not in known:
        raise UserError(f"no model {name!r}; the models are {', '.join(sorted(known))}")
    keep_with_the_build(layout)
    progress = Report(layout.progress(_run(name)), _run(name), 1)
    os.environ[PROGRESS_FILE] = str(progress.loop_file)
    progress.next_cell()
    begin = time.monotonic()
    made = _trained(name, layout.profile)
    progress.end(failed="error" in made, seconds=time.monotonic() - begin)
    write_json(made, made_file(name, layout))


def _trained(name: str, profile: str) -> dict[str, str]:
    """Recipe of the model, or the error that its training ended with."""
    from dlatlas import lab
    from dlatlas.models import zoo

    try:
        return {"recipe": zoo.report(name, lab.start(profile, chapter=GUIDE))["recipe"]}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}
