"""docs/compatibility.md says of each public name whether it is there, and says the truth."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import warnings
from pathlib import Path
from types import ModuleType

import pytest

import nbqueue

from .test_public_names import NAMES

PAGE = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()

#: Rooms whose names are for nbqueue itself.
INTERNAL = ("nbqueue.notebook", "nbqueue.redis")

#: The cells of a row that begins with a module: what it lists, and its state (or what it is for).
ROW = re.compile(r"^\| `(nbqueue[a-z_.]*)` \| (.+) \| (.+) \|$", re.M)


def names_on_page() -> dict[tuple[str, str], bool]:
    """Return each (module, name) of the tables, and whether the page says that it is there."""
    found: dict[tuple[str, str], bool] = {}
    for module, names, state in ROW.findall(PAGE):
        for name in re.findall(r"`(\w+)`", names):
            found[module, name] = state not in ("not yet", "left out")
    return found


LISTED = names_on_page()
THERE = sorted(key for key, there in LISTED.items() if there)
NOT_YET = sorted(key for key, there in LISTED.items() if not there)


def module_at(path: str) -> ModuleType | None:
    """Return the module, None when there is none (or it lacks something that it needs)."""
    try:
        return importlib.import_module(path)
    except ImportError:
        return None


def has(path: str, name: str) -> bool:
    module = module_at(path)
    with warnings.catch_warnings():
        # ConnectionError is deprecated; a missing client library is warned of.
        warnings.simplefilter("ignore")
        return module is not None and hasattr(module, name)


def exported(module: ModuleType) -> set[str]:
    """Return a module's public names: its `__all__`, or else the classes and functions that it defines."""
    if hasattr(module, "__all__"):
        return set(module.__all__)
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }


def public_modules() -> list[str]:
    """Return the modules that the page must cover: those that it names, and those that have an `__all__`."""
    paths = {module for module, _ in LISTED}
    for found in pkgutil.walk_packages(nbqueue.__path__, "nbqueue."):
        # `backends` and `brokers` name what is in them; each file of theirs is not a room of its own.
        inside = found.name.rpartition(".")[0].endswith((".backends", ".brokers"))
        if not inside and not found.name.startswith(INTERNAL) and hasattr(module_at(found.name), "__all__"):
            paths.add(found.name)
    return sorted(paths)


def test_the_page_lists_names_of_every_state() -> None:
    assert len(THERE) > 150
    assert all("`" not in state for _, _, state in ROW.findall(PAGE.partition("## Ours")[0]))


@pytest.mark.parametrize(("path", "name"), THERE)
def test_a_name_that_is_said_to_be_there_can_be_imported(path: str, name: str) -> None:
    assert has(path, name)


def test_names_that_are_said_to_be_missing_are_missing() -> None:
    there = [f"{path}.{name}" for path, name in NOT_YET if has(path, name)]
    assert there == [], "They are there now: say so in docs/compatibility.md"


@pytest.mark.parametrize("path", public_modules())
def test_every_exported_name_is_on_the_page(path: str) -> None:
    module = module_at(path)
    names = exported(module) if module is not None else set()
    assert sorted(name for name in names if (path, name) not in LISTED) == []


def test_every_name_that_programs_import_is_on_the_page() -> None:
    wanted = {(path, name) for path, names in NAMES.items() for name in names.split()}
    assert sorted(wanted - set(LISTED)) == []
