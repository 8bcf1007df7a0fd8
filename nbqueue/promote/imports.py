"""Writes the imports as formatters sort them: standard library, libraries, own modules; merged."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence

from .statements import Imported

#: Characters in a line, as formatters have it unless told otherwise.
WIDTH = 88


def render_imports(imports: Iterable[Imported], futures: Sequence[str], folder: str) -> str:
    """Return the import section.

    Parameters:
      futures: what to import from `__future__`.
      folder: where the file will be; modules beside it are its own.
    """
    wanted = dict.fromkeys(imports)
    typing_only = [each for each in wanted if each.typing_only]
    if typing_only:
        wanted[Imported("typing", "TYPE_CHECKING", None)] = None
    now = [each for each in wanted if not each.typing_only]
    parts = [f"from __future__ import {', '.join(futures)}"] if futures else []
    parts += _sections(now, folder)
    if typing_only:
        inner = "\n\n".join(_sections(typing_only, folder)).splitlines()
        parts.append("\n".join(["if TYPE_CHECKING:", *(f"    {line}" if line else "" for line in inner)]))
    return "\n\n".join(parts)


def _sections(imports: Iterable[Imported], folder: str) -> list[str]:
    sections: list[list[Imported]] = [[], [], [], []]
    for each in imports:
        sections[_section(each.module, folder)].append(each)
    return ["\n".join(_lines(section)) for section in sections if section]


def _section(module: str, folder: str) -> int:
    root = module.partition(".")[0]
    if not root:
        return 3
    if root in sys.stdlib_module_names:
        return 0
    beside = os.path.join(folder, root)
    return 2 if os.path.isdir(beside) or os.path.isfile(f"{beside}.py") else 1


def _lines(imports: list[Imported]) -> list[str]:
    modules = sorted((each for each in imports if each.member is None), key=_module_key)
    lines = [f"import {each.module}{_alias(each)}" for each in modules]
    members: dict[tuple[str, str], list[Imported]] = {}
    for each in imports:
        if each.member is not None:
            # Formatters keep a renamed member in a line of its own.
            members.setdefault(
                (each.module, f"{each.member}{_alias(each)}" if each.alias else ""), []
            ).append(each)
    statements = [sorted(group, key=_member_key) for group in members.values()]
    for group in sorted(statements, key=lambda group: (_module_key(group[0]), _member_key(group[0]))):
        names = [f"{each.member}{_alias(each)}" for each in group]
        line = f"from {group[0].module} import {', '.join(names)}"
        if len(line) > WIDTH:
            line = "\n".join([f"from {group[0].module} import (", *(f"    {name}," for name in names), ")"])
        lines.append(line)
    return lines


def _alias(each: Imported) -> str:
    return f" as {each.alias}" if each.alias else ""


def _natural(text: str) -> list[tuple[bool, int, str]]:
    """Return a key by which `a2` stands before `a10`."""
    parts = re.split(r"(\d+)", text)
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts if part]


def _module_key(each: Imported) -> tuple[object, ...]:
    return _natural(each.module.lower()), _natural(each.module), each.alias or "" if not each.member else ""


def _member_key(each: Imported) -> tuple[object, ...]:
    name = each.member or ""
    kind = 0 if len(name) > 1 and name.isupper() else 1 if name[:1].isupper() else 2
    return kind, _natural(name.lower()), _natural(name), each.alias or ""
