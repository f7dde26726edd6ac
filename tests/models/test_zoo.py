"""The cache of the zoo, and that every recipe makes what it says."""

import copy
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor, nn

from dlatlas.data import shapes
from dlatlas.models import zoo
from dlatlas.models.zoo import cache, recipes, sources, world
from dlatlas.models.zoo.recipe import Schedule, optimise
from dlatlas.models.zoo.recipes import clip as clip_recipe
from dlatlas.models.zoo.recipes import lm as lm_recipe


@dataclass(frozen=True)
class Run:
    profile: str
    device: torch.device


RUN = Run("smoke", torch.device("cpu"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A cache that tests of the models share."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def full(trained, monkeypatch) -> Path:
    monkeypatch.setenv("DLATLAS_ZOO", str(trained))
    return trained


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DLATLAS_ZOO", str(tmp_path / "zoo"))
    return tmp_path / "zoo"


@pytest.fixture
def stored(full, empty) -> Path:
    """File of the trained CNN in a cache of its own."""
    (file,) = _files(full, "cnn") or _filled(full, "cnn")
    empty.mkdir()
    return Path(shutil.copy(file, empty))


def _filled(folder: Path, name: str) -> list[Path]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DLATLAS_ZOO", str(folder))
        zoo.load(name, RUN)
    return _files(folder, name)


def _files(folder: Path, name: str) -> list[Path]:
    return list(folder.glob(f"{name}-smoke-*.safetensors"))


def _images(n: int = 3) -> Tensor:
    return torch.rand(n, 3, world.IMAGE_SIZE, world.IMAGE_SIZE, generator=torch.Generator().manual_seed(0))


def _mask(model: nn.Module) -> Tensor:
    return model.random_mask(3, torch.Generator().manual_seed(0))


INPUTS: dict[str, Callable[[nn.Module], tuple[Tensor, ...]]] = {
    "cnn": lambda model: (_images(),),
    "vit": lambda model: (_images(),),
    "mae": lambda model: (_images(), _mask(model)),
    "clip": lambda model: (_images(), model.tokenise(["a red star", "a ring"])),
    "diffusion": lambda model: (_images(), torch.tensor([0, 500, 999]), torch.tensor([0, 11, 12])),
    "lm": lambda model: (torch.randint(model.vocabulary, (2, model.length)),),
}
OUTPUTS = {
    "cnn": (3, 12),
    "vit": (3, 12),
    "mae": (3, 16, 48),
    "clip": (3, 2),
    "diffusion": (3, 3, 16, 16),
    "lm": (2, 48, len(lm_recipe.VOCABULARY)),
}


@pytest.mark.parametrize("name", zoo.NAMES)
def test_model_comes_trained_in_evaluation_mode_with_its_report(name, full):
    model, report = zoo.load(name, RUN), zoo.report(name, RUN)
    assert model(*INPUTS[name](model)).shape == OUTPUTS[name]
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert report["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert (report["name"], report["profile"]) == (name, "smoke")
    assert report["recipe"] == sources.recipe_hash(name)
    assert report["seconds"] > 0
    assert all(torch.isfinite(torch.tensor(value)) for value in report["metrics"].values())


@pytest.mark.parametrize("name", zoo.NAMES)
def test_training_changes_the_weights(name, full):
    recipe = cache.recipe_of(name)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        fresh = recipe.build(recipe.settings["smoke"])
    trained = zoo.load(name, RUN)
    assert any(not torch.equal(a, b) for a, b in zip(fresh.parameters(), trained.parameters(), strict=True))


@pytest.mark.parametrize("name", zoo.NAMES)
def test_copies_run_together(name, full):
    model = zoo.load(name, RUN)
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    inputs = INPUTS[name](model)
    states = torch.func.stack_module_state([model, other])
    together = torch.vmap(lambda parameters, buffers: torch.func.functional_call(model, (parameters, buffers), inputs))(
        *states
    )
    torch.testing.assert_close(together, torch.stack([model(*inputs), other(*inputs)]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["cnn", "mae", "lm"])
def test_training_is_deterministic(name, full, tmp_path, monkeypatch):
    first = zoo.load(name, RUN).state_dict()
    torch.manual_seed(123)
    monkeypatch.setenv("DLATLAS_ZOO", str(tmp_path))
    second = zoo.load(name, RUN).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("deterministic", [False, True])
def test_training_leaves_random_state_and_settings_as_they_were(empty, deterministic):
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    zoo.load("vit", RUN)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    torch.use_deterministic_algorithms(was_deterministic, warn_only=True)


def test_second_load_reads_the_file(stored, monkeypatch):
    monkeypatch.setattr(cache, "made", _never)
    first, second = zoo.load("cnn", RUN), zoo.load("cnn", RUN)
    assert first is not second
    torch.testing.assert_close(first(_images()), second(_images()))


def _never(*_):
    raise AssertionError("the model was trained again")


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _improve_report(file: Path) -> None:
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    metadata["report"] = re.sub(r'"accuracy": [\d.]+', '"accuracy": 1.0', metadata["report"])
    save_file(load_file(file), file, metadata=metadata)


def _drop_metadata(file: Path) -> None:
    save_file(load_file(file), file)


@pytest.mark.parametrize("damage", [_flip, _truncate, _empty, _improve_report, _drop_metadata])
def test_damaged_file_is_noticed_and_made_again(damage, stored):
    before = zoo.load("cnn", RUN).state_dict()
    damage(stored)
    with pytest.warns(UserWarning, match=re.escape(str(stored))):
        after = zoo.load("cnn", RUN).state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    zoo.load("cnn", RUN)  # whole again: no warning


ASK = """
import sys
from types import SimpleNamespace
import torch
from dlatlas.models.zoo import cache
make, made = cache.made, []
cache.made = lambda *arguments: made.append(1) or make(*arguments)
print("ready", flush=True)
cache.load("cnn", SimpleNamespace(profile="smoke", device=torch.device("cpu")))
print(len(made), flush=True)
"""


def test_two_processes_at_once_train_once(empty):
    empty.mkdir()
    lock = FileLock(cache.file_of("cnn", "smoke").with_suffix(".lock"))
    with lock:
        asking = [subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert [process.stdout.readline() for process in asking] == ["ready\n"] * 2
    trained = [int(process.communicate(timeout=120)[0]) for process in asking]
    assert sorted(trained) == [0, 1]
    assert len(_files(empty, "cnn")) == 1
    assert not list(empty.glob(".unfinished*"))


def test_training_that_fails_leaves_nothing(empty, monkeypatch):
    monkeypatch.setattr(cache, "save_file", _fail)
    with pytest.raises(RuntimeError, match="disk full"):
        zoo.load("cnn", RUN)
    assert not list(empty.glob("*.safetensors*"))


def _fail(_weights, half, **_):
    Path(half).write_bytes(b"half")
    raise RuntimeError("disk full")


def test_unknown_name_is_refused_with_the_names():
    with pytest.raises(ValueError, match=r"cnn, vit, mae, clip, diffusion, lm; got 'resnet'"):
        zoo.load("resnet", RUN)


def test_unknown_profile_is_refused_with_the_profiles():
    with pytest.raises(ValueError, match=r"smoke, cpu, gpu; got 'fast'"):
        zoo.load("cnn", Run("fast", torch.device("cpu")))


def test_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DLATLAS_ZOO", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"file; set DLATLAS_ZOO"):
        zoo.load("cnn", RUN)


def test_cache_is_in_the_data_home_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("DLATLAS_ZOO", raising=False)
    monkeypatch.setenv("DLATLAS_DATA", str(tmp_path))
    assert zoo.folder() == tmp_path / "zoo"
    monkeypatch.setenv("DLATLAS_ZOO", "~/models")
    assert zoo.folder() == Path.home() / "models"


@pytest.fixture
def sketch(tmp_path, monkeypatch) -> Path:
    """Sources of a library with two recipes, in which only imports matter."""
    files = {
        "data/world.py": "import math\n",
        "models/net.py": "from dlatlas.data import world\n",
        "models/zoo/recipes/vit.py": "from dlatlas.models.net import Net\n",
        "models/zoo/recipes/cnn.py": "import dlatlas.data.world\n",
        "models/zoo/recipes/diffusion.py": "import torch\nfrom dlatlas.models.zoo.recipes import cnn\n",
        "plots/style.py": "\n",
    }
    for name, text in files.items():
        file = tmp_path / "dlatlas" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        for package in list(file.relative_to(tmp_path).parents)[:-1]:
            (tmp_path / package / "__init__.py").touch()
        file.write_text(text)
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    return tmp_path / "dlatlas"


def test_hash_covers_the_recipe_and_what_it_imports(sketch):
    names = {str(file.relative_to(sketch)) for file in sources.recipe_files("vit")}
    assert names == {"models/zoo/recipes/vit.py", "models/net.py", "data/__init__.py", "data/world.py"}
    for name in names:
        before = sources.recipe_hash("vit")
        (sketch / name).write_text((sketch / name).read_text() + "x = 1\n")
        assert sources.recipe_hash("vit") != before, name


def test_hash_leaves_out_what_the_recipe_does_not_import(sketch):
    before = sources.recipe_hash("vit")
    for name in ("models/zoo/recipes/cnn.py", "plots/style.py"):
        (sketch / name).write_text("x = 1\n")
    assert sources.recipe_hash("vit") == before


def test_hash_covers_the_models_that_a_recipe_needs(sketch):
    before = sources.recipe_hash("diffusion")
    (sketch / "models/zoo/recipes/cnn.py").write_text("x = 1\n")
    assert sources.recipe_hash("diffusion") != before


def test_every_recipe_has_a_name_in_the_list():
    assert set(zoo.NAMES) == {module.name for module in pkgutil.iter_modules(recipes.__path__)}
    assert all(cache.recipe_of(name).name == name for name in zoo.NAMES)


def test_page_that_loads_one_model_does_not_import_the_others():
    listing = "import sys, dlatlas.models.zoo; print([name for name in sys.modules if 'dlatlas.models.zoo.' in name])"
    loaded = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout
    assert not any(f"'{sources.module_of(name)}'" in loaded for name in zoo.NAMES)


def test_optimiser_finds_the_minimum():
    model = nn.Linear(1, 1, bias=False)
    optimise(model, lambda: (model.weight - 3).square().sum(), Schedule(steps=300, rate=0.1, decay=0.0))
    assert model.weight.item() == pytest.approx(3, abs=1e-2)


def test_worlds_scenes_are_what_it_says():
    generator = torch.Generator().manual_seed(0)
    scenes = world.scenes(300, generator)
    assert {shapes.SIZES[i] for i in scenes.size.flatten()} == set(world.SIZES)
    assert {shapes.TEXTURES[i] for i in scenes.texture.flatten()} == set(world.TEXTURES)
    assert {shapes.BACKGROUNDS[i] for i in scenes.background} == set(world.BACKGROUNDS)
    images, classes = world.labelled(4, generator, torch.device("cpu"), 16)
    assert images.shape == (4, 3, 16, 16)
    assert classes.shape == (4,)


def test_held_out_pairs_never_occur_in_training():
    scenes = world.scenes(3000, torch.Generator().manual_seed(0), world.joint().hold_out(clip_recipe.HELD_OUT))
    seen = set(shapes.labels(scenes, "shape", "colour").tolist())
    held_out = {
        shapes.SHAPES.index(shape) * len(shapes.COLOURS) + shapes.COLOURS.index(colour)
        for shape, colour in clip_recipe.HELD_OUT
    }
    assert len(held_out) == 2 * len(shapes.SHAPES)
    assert not seen & held_out
    assert len(seen) == len(shapes.SHAPES) * len(shapes.COLOURS) - len(held_out)


def test_pair_texts_are_numbered_as_labels():
    texts = clip_recipe.pair_texts()
    scenes = world.scenes(20, torch.Generator().manual_seed(0))
    for label, shape, colour in zip(
        shapes.labels(scenes, "shape", "colour").tolist(), scenes.shape[:, 0], scenes.colour[:, 0], strict=True
    ):
        assert texts[label].split()[1:] == [shapes.COLOURS[colour], shapes.SHAPES[shape]]


def test_texts_of_the_language_model_are_about_one_scene():
    for text in lm_recipe.texts(20, torch.Generator().manual_seed(0)):
        sentences = text.split(f" {lm_recipe.STOP}")[:-1]
        assert len(sentences) == lm_recipe.STATEMENTS * lm_recipe.WORDINGS
        assert set(text.split()) <= set(lm_recipe.VOCABULARY)
