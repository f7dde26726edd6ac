"""Models on disk: trained once, checked whenever they are read."""

import hashlib
import importlib
import json
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dlatlas.data.home import data_home
from dlatlas.models.zoo.recipe import Recipe, Run, Task
from dlatlas.models.zoo.sources import NAMES, module_of, recipe_hash
from dlatlas.ops.validate import one_of

VARIABLE = "DLATLAS_ZOO"
Weights = dict[str, Tensor]


class Report(TypedDict):
    """How a model was trained, and how good it is."""

    name: str
    profile: str
    recipe: str
    parameters: int
    steps: int
    seconds: float
    device: str
    torch: str
    metrics: dict[str, float]


class _DamagedError(Exception):
    """A file is not what was written."""


def load(name: str, run: Run) -> nn.Module:
    """Give a model of the zoo: from the cache, or trained first.

    Parameters
    ----------
    name
        ``"cnn"``, ``"vit"``, ``"mae"``, ``"clip"``, ``"diffusion"`` or ``"lm"``.
    run
        Whose ``profile`` and ``device`` count, as of ``lab.start``. The model is trained on that device when it is not
        in the cache.

    Returns
    -------
    Module
        A network of its own for every call, in evaluation mode on the device. Its parameters can be trained on.

    Raises
    ------
    ValueError
        For an unknown name or profile.
    OSError
        If the cache cannot be written.

    Notes
    -----
    A file of the cache is named after the model, the profile and a hash of the recipe's source: its own module and
    every module of this library that it imports, directly or through others. A change in one of them trains the model
    anew. The version of PyTorch is not in the hash; it is in the report. Training takes one thread on a CPU and is
    deterministic there: the same recipe and profile give the same weights on the same machine.
    """
    weights, _ = _stored(name, run)
    recipe = recipe_of(name)
    with torch.random.fork_rng(devices=[]):  # what a page draws does not depend on whether it loads a model
        model = recipe.build(recipe.settings[run.profile])
    model.load_state_dict(weights)
    return model.to(run.device).eval()


def report(name: str, run: Run) -> Report:
    """Say how a model was trained and how good it is; it is trained first if it is not in the cache.

    Parameters
    ----------
    name, run
        As for `load`.

    Returns
    -------
    dict
        Number of ``parameters``, ``steps``, ``seconds`` of training, ``metrics`` on fresh examples by name, and what
        the model was made with.
    """
    return _stored(name, run)[1]


def folder() -> Path:
    """Give the folder of the cache; it need not exist."""
    chosen = os.environ.get(VARIABLE)
    return Path(chosen).expanduser() if chosen else data_home() / "zoo"


def _stored(name: str, run: Run) -> tuple[Weights, Report]:
    """Weights and report from the cache, which is filled first where it has to be."""
    one_of("name", name, NAMES)
    one_of("run.profile", run.profile, tuple(recipe_of(name).settings))
    file = file_of(name, run.profile)
    with _locked(file):
        try:
            return _read(file)
        except FileNotFoundError:
            pass
        except _DamagedError as damage:
            warnings.warn(f"{file} is damaged ({damage}); the model is trained again", stacklevel=3)
        _write(file, *made(name, run))
        return _read(file)


def file_of(name: str, profile: str) -> Path:
    """File of a model; it need not exist."""
    return folder() / f"{name}-{profile}-{recipe_hash(name)[:12]}.safetensors"


def recipe_of(name: str) -> Recipe:
    """The recipe of a model."""
    return importlib.import_module(module_of(name)).RECIPE


def made(name: str, run: Run) -> tuple[Weights, Report]:
    """Train a model by its recipe and measure it."""
    digest, recipe = recipe_hash(name), recipe_of(name)  # the source as it is now, whatever happens to it meanwhile
    others = {other.name: load(other.name, run) for other in recipe.needs}
    settings = recipe.settings[run.profile]
    with _reproducible(recipe.seed):
        task = Task(settings, run.device, torch.Generator().manual_seed(recipe.seed), others)
        model = recipe.build(settings).to(run.device)
        started = time.perf_counter()
        recipe.train(model, task)
        seconds = time.perf_counter() - started
        with torch.no_grad():
            metrics = recipe.measure(model.eval(), task)
    about = Report(
        name=name,
        profile=run.profile,
        recipe=digest,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        steps=settings.steps,
        seconds=round(seconds, 2),
        device=run.device.type,
        torch=torch.__version__,
        metrics=metrics,
    )
    return {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}, about


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """One seed, one thread and deterministic kernels; all as before at the end."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Keep other processes from training the same model."""
    lock = FileLock(file.with_suffix(".lock"))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise OSError(f"cannot write to {file.parent}; set {VARIABLE} to a folder for the models ({error})") from error
    try:
        yield
    finally:
        lock.release()


def _write(file: Path, weights: Weights, about: Report) -> None:
    """Write a file that is either whole or not there."""
    text = json.dumps(about)
    half = file.with_name(f".unfinished-{os.getpid()}-{file.name}")
    try:
        save_file(weights, half, metadata={"report": text, "checksum": _checksum(weights, text)})
        half.replace(file)
    finally:
        half.unlink(missing_ok=True)


def _read(file: Path) -> tuple[Weights, Report]:
    if not file.is_file():
        raise FileNotFoundError(file)
    try:
        with safe_open(file, "pt") as stored:
            metadata = stored.metadata() or {}
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise _DamagedError(str(error)) from error
    text = metadata.get("report", "")
    if metadata.get("checksum") != _checksum(weights, text):
        raise _DamagedError("its checksum is wrong")
    return weights, json.loads(text)


def _checksum(weights: Weights, text: str) -> str:
    """Hash of all tensors, their names and kinds, and the report."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
