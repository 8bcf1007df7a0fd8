"""Names that need a client library: loaded when they are used, and missing with a hint where it is."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable
from typing import Any


def loader(package: str, names: Iterable[tuple[str, str]]) -> Callable[[str], Any]:
    """Return a module's `__getattr__`.

    Parameters:
      package: the module's name.
      names: each with the module beside that has it; the extra that brings its library has the same name.
    """
    modules = dict(names)

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = modules[name]
        try:
            return getattr(importlib.import_module(f".{module}", package), name)
        except ImportError as error:
            hint = f"{name} needs the {module} package: pip install 'nbqueue[{module}]'."
            warnings.warn(hint, ImportWarning, stacklevel=2)
            raise AttributeError(hint) from error

    return load
