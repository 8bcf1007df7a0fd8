"""Imports the user's modules and finds their broker. What goes wrong is told with their traceback alone."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from types import ModuleType
from typing import Any

from ..broker import Broker, get_broker


class LoadingError(Exception):
    """A module can't be served; says why in a sentence."""


def extend_path(folders: tuple[str, ...]) -> None:
    """Look for modules in these folders first."""
    for folder in reversed(folders):
        sys.path.insert(0, os.path.abspath(folder))


def module_name(spec: str) -> str:
    """Return the name by which to import a module that was given as a name or as a path of a file.

    The folder of a file, or that of its outermost package, is put on `sys.path`.
    """
    if not (spec.endswith(".py") or os.sep in spec or "/" in spec):
        return spec
    path = os.path.abspath(spec if spec.endswith(".py") else f"{spec}.py")
    if not os.path.isfile(path):
        raise LoadingError(f"There is no file {spec!r} to serve.")
    folder, file = os.path.split(path)
    names = [] if file == "__init__.py" else [file[: -len(".py")]]
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        names.insert(0, package)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return ".".join(names)


def import_named(spec: str) -> ModuleType:
    """Import a module that was given as a name or as a path of a file."""
    name = module_name(spec)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise LoadingError(
                f"There is no module {name!r} in {sys.path[0]!r} or among the installed packages. "
                "--path says where else to look."
            ) from None
        raise


def split(spec: str) -> tuple[str, str]:
    """Return the module and the attribute of `module:attribute`; a drive letter is no module."""
    module, colon, attribute = spec.rpartition(":")
    if not colon or (len(module) == 1 and attribute[:1] in "\\/"):
        return spec, ""
    return module, attribute


def import_object(spec: str) -> tuple[ModuleType, Any]:
    """Return a module and what `module:name.name` names in it; the module itself without a name.

    Raises:
      ImportError: it has no such name.
    """
    module_spec, attribute = split(spec)
    module = import_named(module_spec)
    found: Any = module
    for name in attribute.split(".") if attribute else ():
        try:
            found = getattr(found, name)
        except AttributeError:
            raise ImportError(f"Module {module_spec!r} does not define a {attribute!r} variable.") from None
    return module, found


def import_broker(spec: str) -> tuple[ModuleType, Broker]:
    """Return a module and its broker: the one that is named, or the one of the process.

    A name may be that of a function, which is called, and has to set the broker of the process.

    Raises:
      ImportError: what is named is no broker.
    """
    module, found = import_object(spec)
    if found is module:
        return module, get_broker()
    if isinstance(found, Broker):
        return module, found
    if callable(found):
        found()
        return module, get_broker()
    raise ImportError(f"{spec!r} is not a Broker.")


def users_traceback(error: BaseException) -> str:
    """Return a traceback that begins in the user's code; one line where the error is not from there."""
    if isinstance(error, LoadingError):
        return str(error)
    frames = error.__traceback__
    while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    described = traceback.TracebackException(type(error), error, frames)
    if frames is None:
        return "".join(described.format_exception_only()).rstrip()
    return "".join(described.format()).rstrip()


_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def _is_ours(filename: str) -> bool:
    return filename.startswith(("<frozen importlib", _OURS)) or "importlib" in os.path.dirname(filename)
