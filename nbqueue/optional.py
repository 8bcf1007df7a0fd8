"""Names that need a client library: loaded when they are used, and missing with a hint where it is."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any


def loader(package: str, names: Iterable[tuple[str, str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    Parameters:
      package: the module's name.
      names: each with the module of the package that has it.
    """
    modules = dict(names)

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(f".{modules[name]}", package), name)
        except ImportError as error:
            warnings.warn(str(error), ImportWarning, stacklevel=2)
            # `from … import NAME` asks by way of importlib, which hides what an AttributeError says.
            if sys._getframe(1).f_globals.get("__name__") == "importlib._bootstrap":
                raise
            raise AttributeError(str(error)) from error

    return load
