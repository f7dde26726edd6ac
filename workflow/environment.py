"""Make or mend the environment that the Makefile uses; says nothing when there is nothing to do.

    python workflow/environment.py .venv              a virtual environment, made when it is not there
    python workflow/environment.py --keep-torch DIR   an environment that is there and may have its own torch

Standard library only: it runs before anything is installed.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST_PYTHON, OLDEST_TORCH = (3, 11), (2, 6)
PYTHONS = ("python3.13", "python3.12", "python3.11", "python3", "python")
MADE_FROM = ("requirements.lock", "pyproject.toml", "workflow/environment.py")

# What torch says about itself, without importing it.
ABOUT_TORCH = """
import json
from importlib.metadata import PackageNotFoundError, requires, version
try:
    print(json.dumps({"version": version("torch"), "requires": requires("torch") or []}))
except PackageNotFoundError:
    print("null")
"""


def main():
    """Make or mend the environment, unless its stamp says that it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix", type=Path)
    parser.add_argument("--keep-torch", action="store_true")
    parser.add_argument("--extra", help="an optional set of requirements in pyproject.toml to add, such as bench")
    arguments = parser.parse_args()
    prefix = arguments.prefix.absolute()
    stamp = prefix / ".dlatlas"
    if not stamp.is_file() or stamp.read_text() != fingerprint():
        if arguments.keep_torch:
            mend(prefix)
        else:
            make(prefix)
        pip(prefix, "--no-deps", "--editable", str(ROOT))
        stamp.write_text(fingerprint())
    if arguments.extra:
        add(prefix, arguments.extra)


def fingerprint():
    """What an environment was made from, and for which copy of the project."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in MADE_FROM:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest() + "\n"


def make(prefix):
    """A virtual environment (when there is none) with exactly the pinned versions."""
    if not (prefix / "bin" / "python").exists():
        say(f"Making {prefix} ...")
        run(find_python(), "-m", "venv", str(prefix))
    say(f"Installing requirements.lock into {prefix} (about two minutes) ...")
    pip(prefix, "--requirement", str(ROOT / "requirements.lock"))


def mend(prefix):
    """Complete an environment that is there: its own torch stays, the rest is pinned as far as torch leaves it free."""
    if not (prefix / "bin" / "python").exists():
        sys.exit(f"{prefix} is no environment: there is no {prefix}/bin/python")
    torch = about_torch(prefix)
    if torch is None:
        make(prefix)
        return
    if release(torch["version"]) < OLDEST_TORCH:
        sys.exit(f"{prefix} has torch {torch['version']}; the book needs {'.'.join(map(str, OLDEST_TORCH))} or newer")
    say(f"Installing requirements into {prefix}; its torch {torch['version']} stays ...")
    add(prefix, "book,test")
    after = about_torch(prefix)
    if after != torch:
        sys.exit(f"torch was {torch['version']} and is now {after and after['version']}; please report this")


def add(prefix, extra):
    """Add an optional set of requirements; what is installed stays as it is."""
    constraints = prefix / ".dlatlas-constraints"
    constraints.write_text(constraints_around(about_torch(prefix), (ROOT / "requirements.lock").read_text()))
    pip(prefix, "--constraint", str(constraints), "--editable", f"{ROOT}[{extra}]")


def about_torch(prefix):
    """Version and requirements of the torch in an environment; None when it has none."""
    answer = subprocess.run(
        [str(prefix / "bin" / "python"), "-c", ABOUT_TORCH], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(answer.stdout)


def constraints_around(torch, lock):
    """Pins of the lock without torch and what torch asks for: another torch may need other versions of it."""
    free = {"torch"} | {distribution(requirement) for requirement in torch["requires"]}
    pins = [line for line in lock.splitlines() if line and not line.startswith("#") and distribution(line) not in free]
    return "\n".join(["torch==" + torch["version"], *pins]) + "\n"


def distribution(requirement):
    """Normalised name of the distribution that a requirement is about."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement).group()).lower()


def release(version):
    """Major and minor number of a version."""
    return tuple(map(int, re.match(r"(\d+)\.(\d+)", version).groups()))


def find_python():
    """A Python that is new enough: the running one when it is, else one that is on the path."""
    if sys.version_info >= OLDEST_PYTHON:
        return sys.executable
    for name in filter(shutil.which, PYTHONS):
        answer = subprocess.run(
            [name, "-c", "import sys; print(*sys.version_info[:2])"], check=False, stdout=subprocess.PIPE
        )
        if answer.returncode == 0 and tuple(map(int, answer.stdout.split())) >= OLDEST_PYTHON:
            return name
    return sys.exit("Python 3.11 or newer is needed, and none is on the path")


def pip(prefix, *arguments):
    """Install into an environment."""
    run(str(prefix / "bin" / "python"), "-m", "pip", "install", "--quiet", *arguments)


def run(*command):
    """Run a command; end with its status when it fails."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    status = subprocess.run(command, check=False, env=environment).returncode
    if status:
        sys.exit(f"status {status}: {' '.join(command)}")


def say(line):
    """Say what takes a while."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
