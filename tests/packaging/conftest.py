"""What these tests share: the project's files, distributions built of them, environments with the wheel.

The distributions are built of a copy of the files under version control, so that what lies about in a work
tree makes no difference. Of an unpacked source distribution, which has no version control, everything counts
but what programs leave behind.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest's own reader of pyproject.toml

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
#: What each extra brings, without `all`.
EXTRAS: dict[str, list[str]] = {
    name: needed for name, needed in PROJECT["project"]["optional-dependencies"].items() if name != "all"
}
#: What Jupyter itself needs in an environment that kernels run in.
KERNEL = "ipykernel"
#: A program that imports every module and prints a line for each: whether it is there, or what it lacks.
IMPORT_ALL = """
import importlib, pkgutil, nbqueue
for module in pkgutil.walk_packages(nbqueue.__path__, "nbqueue.", onerror=lambda name: None):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
        print("there", module.name)
    except ImportError as error:
        print("lacks", module.name, ":", str(error))
"""
#: Seconds in which a program of these tests has to end; pip may have to fetch something.
DEADLINE = 300


def project_files() -> set[str]:
    """Return the paths of the project's files, relative to its root."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=20)
        paths = {path for path in listed.stdout.split("\0") if path}
    else:
        made = re.compile(
            "|".join(map(translate, (ROOT / ".gitignore").read_text().replace("/", "").split()))
        )
        found = {path.relative_to(ROOT) for path in ROOT.rglob("*")}
        paths = {str(path) for path in found if not any(made.match(part) for part in path.parts)}
        paths -= {"PKG-INFO", *(str(path) for path in found if path.match("docs/tutorials/*.ipynb"))}
    return {path for path in paths if (ROOT / path).is_file()}


def copy_project(folder: Path) -> set[str]:
    """Copy the project's files into a folder; return their paths."""
    paths = project_files()
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    return paths


@dataclass(frozen=True)
class Distributions:
    """The two forms in which nbqueue is published, and the files of which they were made."""

    files: set[str]
    sdist: Path
    wheel: Path


#: What programs leave in a work tree, and people: nothing of it is to be published.
LITTER = (
    ".env",
    ".venv/pyvenv.cfg",
    ".pytest_cache/README.md",
    "build/docs/index.html",
    "dist/nbqueue-0.0.0.tar.gz",
    "docs/tutorials/copied.ipynb",
    "nbqueue/__pycache__/actor.cpython-310.pyc",
    "nbqueue.egg-info/PKG-INFO",
    "notes.txt",
    "tests/unit/__pycache__/test_actors.cpython-310.pyc",
)


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """The source distribution, built in a littered work tree, and the wheel, built of that."""
    folder = tmp_path_factory.mktemp("distributions")
    files = copy_project(folder / "tree")
    for path in LITTER:
        (folder / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / path).touch()
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(folder / "tree")]
    built = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert built.returncode == 0, built.stdout + built.stderr
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return Distributions(files, sdist, wheel)


class Environment:
    """A virtual environment away from the work tree.

    Parameters:
      folder: where it is made; programs run in the folder beside it, `work`.
      requirements: what is installed, as pip is told.
    """

    def __init__(self, folder: Path, *requirements: str) -> None:
        self.programs = folder / "venv" / "bin"
        self.work = folder / "work"
        self.work.mkdir()
        venv.create(folder / "venv", with_pip=True)
        self.install(*requirements)

    def install(self, *arguments: str) -> None:
        """Install with the environment's own pip."""
        command = ("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments)
        done = self.run(*command)
        assert done.returncode == 0, done.stderr

    def write(self, name: str, text: str) -> None:
        """Write a file into the folder where programs run."""
        (self.work / name).write_text(text, encoding="utf-8")

    def run(self, program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment to its end."""
        return subprocess.run(
            [str(self.programs / program), *arguments],
            cwd=self.work,
            env=self.variables(**variables),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )

    def python(self, source: str, **variables: str) -> str:
        """Run a program in Python, warnings being errors; return what it prints."""
        done = self.run("python", "-W", "error", "-c", source, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def variables(self, **more: str) -> dict[str, str]:
        """Return the variables of programs here: nothing leads them back to the work tree."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("NBQUEUE_", "PYTHON"))
        }
        return {**kept, "PATH": f"{self.programs}{os.pathsep}{kept.get('PATH', os.defpath)}", **more}
