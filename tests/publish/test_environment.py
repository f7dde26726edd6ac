"""The script that sets up the environment, on environments without network and without torch itself."""

import importlib.util
import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.publish.project import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
PINS = dict(line.split("==") for line in LOCK.splitlines() if line and not line.startswith("#"))


@pytest.fixture
def environment():
    specification = importlib.util.spec_from_file_location("environment", ROOT / "workflow/environment.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def commands(environment, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    run: list[tuple[str, ...]] = []
    monkeypatch.setattr(environment, "run", lambda *command: run.append(command))
    return run


def prefix_with_torch(folder: Path, about: dict | None) -> Path:
    """An environment whose Python answers what its torch is, whatever it is asked."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\ncat <<'E'\n{json.dumps(about)}\nE\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return folder


def set_up(environment, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["environment.py", *arguments])
    environment.main()


def test_every_requirement_is_pinned_once_without_a_local_version() -> None:
    pins = [line for line in LOCK.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    assert len(pins) == len(PINS)
    assert "dlatlas" not in PINS


def test_pins_are_those_of_this_environment() -> None:
    here = subprocess.run([sys.executable, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    installed = dict(line.split("==") for line in here.splitlines() if re.fullmatch(r"[\w.-]+==[\w.+]+", line))
    wanted = {name: version for name, version in PINS.items() if name in installed}
    assert len(wanted) > 100
    assert {name: installed[name].split("+")[0] for name in wanted} == wanted


def test_everything_that_the_project_asks_for_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["book"], *extras["test"]]
    names = {re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-") for requirement in asked}
    assert names <= {name.lower().replace("_", "-") for name in PINS}


def test_an_extra_is_added_around_the_torch_that_is_there(environment, commands, monkeypatch, tmp_path: Path) -> None:
    prefix = prefix_with_torch(tmp_path, {"version": "2.9.1", "requires": []})
    (prefix / ".dlatlas").write_text(environment.fingerprint())
    set_up(environment, monkeypatch, "--extra", "bench", str(prefix))
    assert [command[-1] for command in commands] == [f"{ROOT}[bench]"]
    assert (prefix / ".dlatlas-constraints").read_text().startswith("torch==2.9.1\n")


def test_a_new_environment_gets_the_pins(environment, commands, monkeypatch, tmp_path: Path) -> None:
    prefix = tmp_path / "venv"
    monkeypatch.setattr(environment, "fingerprint", lambda: "new\n")
    prefix.mkdir()
    set_up(environment, monkeypatch, str(prefix))
    assert commands[0][1:] == ("-m", "venv", str(prefix))
    assert commands[1][-2:] == ("--requirement", str(ROOT / "requirements.lock"))
    assert commands[2][-3:] == ("--no-deps", "--editable", str(ROOT))


def test_an_environment_that_is_up_to_date_is_left_alone(environment, commands, monkeypatch, tmp_path: Path) -> None:
    prefix = prefix_with_torch(tmp_path, None)
    set_up(environment, monkeypatch, str(prefix))
    assert commands
    commands.clear()
    set_up(environment, monkeypatch, str(prefix))
    assert not commands


def test_a_changed_lock_mends_the_environment(environment, commands, monkeypatch, tmp_path: Path) -> None:
    set_up(environment, monkeypatch, str(prefix_with_torch(tmp_path, None)))
    monkeypatch.setattr(environment, "fingerprint", lambda: "changed\n")
    commands.clear()
    set_up(environment, monkeypatch, str(tmp_path))
    assert any("requirements.lock" in command[-1] for command in commands)


def test_torch_and_what_it_asks_for_stay(environment, commands, monkeypatch, tmp_path: Path) -> None:
    torch = {
        "version": "2.6.0+cu124",
        "requires": ["sympy==1.13.1", "typing_extensions>=4.10.0", "nvidia-nccl-cu12==2.21"],
    }
    prefix = prefix_with_torch(tmp_path, torch)
    set_up(environment, monkeypatch, "--keep-torch", str(prefix))
    constraints = (prefix / ".dlatlas-constraints").read_text().splitlines()
    assert constraints[0] == "torch==2.6.0+cu124"
    names = {line.split("==")[0] for line in constraints}
    assert not names & {"sympy", "typing_extensions"}
    assert {"numpy", "snakemake", "jupyter-book"} <= names
    assert commands[0][-4:] == (
        "--constraint",
        str(prefix / ".dlatlas-constraints"),
        "--editable",
        f"{ROOT}[book,test]",
    )


def test_an_old_torch_is_refused_by_name(environment, commands, monkeypatch, tmp_path: Path) -> None:
    prefix = prefix_with_torch(tmp_path, {"version": "2.5.1", "requires": []})
    with pytest.raises(SystemExit, match=r"has torch 2\.5\.1; the book needs 2\.6 or newer"):
        set_up(environment, monkeypatch, "--keep-torch", str(prefix))
    assert not commands


def test_an_environment_without_torch_gets_the_pins(environment, commands, monkeypatch, tmp_path: Path) -> None:
    set_up(environment, monkeypatch, "--keep-torch", str(prefix_with_torch(tmp_path, None)))
    assert commands[0][-2:] == ("--requirement", str(ROOT / "requirements.lock"))


def test_a_folder_that_is_no_environment_is_refused(environment, monkeypatch, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is no environment"):
        set_up(environment, monkeypatch, "--keep-torch", str(tmp_path / "nothing"))


def prefix_of(arguments: list[str], **variables: str) -> str:
    """Command that `make environment` would call."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CONDA", "ENV"))}
    command = ["make", "--no-print-directory", "--dry-run", "environment", *arguments]
    return subprocess.run(command, cwd=ROOT, env=clean | variables, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("arguments", "variables", "call"),
    [
        ([], {}, f'environment.py  "{ROOT}/.venv"'),
        ([], {"CONDA_DEFAULT_ENV": "dlatlas", "CONDA_PREFIX": "/conda/dlatlas"}, 'environment.py  "/conda/dlatlas"'),
        ([], {"CONDA_DEFAULT_ENV": "base", "CONDA_PREFIX": "/conda"}, f'environment.py  "{ROOT}/.venv"'),
        (["ENV=/own/torch"], {}, 'environment.py --keep-torch "/own/torch"'),
    ],
)
def test_make_chooses_the_environment(arguments: list[str], variables: dict[str, str], call: str) -> None:
    assert call in prefix_of(arguments, **variables)


def test_make_takes_the_active_environment() -> None:
    path = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ["PATH"]])
    assert f'--keep-torch "{sys.prefix}"' in prefix_of(["ENV=active"], PATH=path)
