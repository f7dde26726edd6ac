"""The workflow trains the models that pages load, before the pages that load them."""

from pathlib import Path

import pytest

from dlatlas.publish.dependencies import _graph, modules_in
from dlatlas.publish.errors import UserError
from dlatlas.publish.layout import Layout
from dlatlas.publish.zoo import RECIPES, ZOO, made_file, made_files, models, recipe_files, runs, train
from tests.publish.project import ROOT, Project, tiny_project


def asked(tmp_path: Path, *cells: str) -> list[str]:
    project = Project(tmp_path)
    project.page("alpha", *cells)
    return models(project.root / "notebooks/theory/alpha.md")


ALL = sorted(modules_in(RECIPES))


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["from dlatlas.models import zoo", 'net = zoo.load("vit", run)'], ["vit"]),
        (["from dlatlas.models import zoo as z", 'z.report("clip", run)["metrics"]'], ["clip"]),
        (["import dlatlas.models.zoo", 'dlatlas.models.zoo.load(run=run, name="lm")'], ["lm"]),
        (["import dlatlas.models.zoo as z\nz.load('mae', run).encoder"], ["mae"]),
        (["from dlatlas.models.zoo import load as get", 'f(get("cnn", run), get("vit", run))'], ["cnn", "vit"]),
        (["from dlatlas.models import zoo", "%matplotlib inline\nnet = zoo.load('vit', run)"], ["vit"]),
        (["from dlatlas.models import zoo", "for name in zoo.NAMES: zoo.load(name, run)"], ALL),
        (["from dlatlas.models import zoo", 'zoo.load("resnet", run)'], []),
        (["from dlatlas.models import zoo", "zoo.NAMES"], []),
        (["from dlatlas.models.vit import zoo", 'zoo.load("vit", run)'], []),
        (["import json", 'json.load("vit")', "this is no python"], []),
    ],
)
def test_models_that_a_page_loads(tmp_path: Path, cells: list[str], names: list[str]) -> None:
    assert asked(tmp_path, *cells) == names


def test_a_page_depends_on_the_models_that_it_loads(tmp_path: Path) -> None:
    Project(tmp_path).page("alpha", "from dlatlas.models import zoo", 'zoo.load("vit", run)')
    layout = Layout(tmp_path, "smoke")
    assert made_files("theory/alpha", layout) == [made_file("vit", layout)]
    assert runs(["theory/alpha"], layout) == ["zoo/vit"]


def test_a_model_depends_on_its_recipe_and_what_that_imports() -> None:
    names = {file.relative_to(ROOT / "src/dlatlas").as_posix() for file in recipe_files("vit", Layout(ROOT, "smoke"))}
    assert {"models/zoo/recipes/vit.py", "models/zoo/world.py", "models/vit.py", "data/shapes/render.py"} <= names
    assert not {"models/zoo/recipes/cnn.py", "models/cnn.py"} & names


def test_a_model_depends_on_all_that_its_hash_covers() -> None:
    from dlatlas.models.zoo import sources

    for name in ALL:
        assert set(sources.recipe_files(name)) <= set(recipe_files(name, Layout(ROOT, "smoke"))), name


def test_only_pages_load_models() -> None:
    modules = _graph().modules
    outside = {name for name in modules if not name.startswith((ZOO, "dlatlas.publish"))}
    assert outside > {"dlatlas.lab", "dlatlas.theory.grokking"}
    loading = {name for name in outside if ZOO in _graph().find_modules_directly_imported_by(name)}
    assert loading == set()


def test_an_unknown_model_is_refused_with_the_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model 'resnet'; the models are clip, cnn, diffusion, lm, mae, vit"):
        train("resnet", Layout(tmp_path, "smoke"))


LIBRARY = {
    "lab.py": "from types import SimpleNamespace\ndef start(profile, chapter): return SimpleNamespace()\n",
    "models/__init__.py": "",
    "models/zoo/__init__.py": """
import os
from pathlib import Path

RECIPES = Path(__file__).parent / "recipes"

def load(name, run):
    return Path(os.environ["DLATLAS_ZOO"], name).read_text()

def report(name, run):
    recipe = (RECIPES / f"{name}.py").read_text()
    if "fail" in recipe:
        raise RuntimeError("out of memory")
    Path(os.environ["DLATLAS_ZOO"]).mkdir(parents=True, exist_ok=True)
    with open(Path(os.environ["DLATLAS_ZOO"], name), "a") as file:
        file.write("trained\\n")
    return {"recipe": str(hash(recipe))}
""",
    "models/zoo/recipes/__init__.py": "",
    "models/zoo/recipes/vit.py": "from dlatlas.ops import base\n",
    "models/zoo/recipes/cnn.py": "\n",
    "models/zoo/recipes/lm.py": "\n",
}


def loading(name: str) -> list[str]:
    return ["from dlatlas.models import zoo", f"assert 'trained' in zoo.load({name!r}, None)"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delenv("DLATLAS_ZOO", raising=False)
    project = tiny_project(tmp_path, {"alpha": loading("vit"), "beta": loading("cnn"), "gamma": ["1"]})
    for name, text in LIBRARY.items():
        project.write(f"src/dlatlas/{name}", text)
    return project


def rerun(project: Project) -> tuple[set[str], dict[str, int]]:
    """Chapters that ran, and how often each model was trained so far."""
    before = project.runs()
    project.build()
    folder = project.root / "_build/smoke/zoo"
    trained = {file.stem: file.read_text().count("trained") for file in folder.iterdir() if not file.suffix}
    return {name for name, when in project.runs().items() if when != before.get(name)}, trained


def append(project: Project, name: str) -> None:
    with open(project.root / "src/dlatlas" / name, "a") as file:
        file.write("# changed\n")


@pytest.mark.slow
def test_a_changed_recipe_trains_its_model_and_runs_the_pages_that_load_it(project: Project) -> None:
    assert "zoo/vit: finished" in project.build()
    assert rerun(project) == (set(), {"vit": 1, "cnn": 1})
    assert {project.record(name)["status"] for name in ("alpha", "beta", "gamma")} == {"finished"}

    append(project, "models/zoo/recipes/vit.py")
    assert rerun(project) == ({"alpha"}, {"vit": 2, "cnn": 1})

    append(project, "models/zoo/recipes/lm.py")
    assert rerun(project) == (set(), {"vit": 2, "cnn": 1})


@pytest.mark.slow
def test_a_model_that_cannot_be_trained_stops_no_other_page(project: Project) -> None:
    project.write("src/dlatlas/models/zoo/recipes/cnn.py", "fail = True\n")
    assert "theory/beta: cell 3: FileNotFoundError" in project.build()
    assert project.record("alpha")["status"] == "finished"
    assert "out of memory" in (project.root / "_build/smoke/logs/zoo/cnn.log").read_text()
