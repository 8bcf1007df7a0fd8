"""Makes plain Python of a cell: lines that are IPython's become blank or `pass`, and are remembered.

Lines keep their numbers. IPython isn't needed, so that a file can be promoted where it isn't installed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

#: Cell magics that run their cell in the notebook's namespace.
PYTHON_CELLS = {"actor", "capture", "nbqueue", "prun", "time"}

_CELL_MAGIC = re.compile(r"%%(\w+)(.*)")
_MAGIC = re.compile(r"(\s*)(?:[%!?,;/]|%{0,2}[\w.*]+(?:\[[^\]]*\])?\?{1,2}\s*$)")
_TIMED = re.compile(r"(\s*)%time\s+(\w[\w\s,]*=[^=].*)")
_TARGET = r"\*?[A-Za-z_][\w.]*(?:\[[^\]=]*\])?"
_ASSIGNED = re.compile(rf"(\s*)({_TARGET}(?:\s*,\s*{_TARGET})*)\s*=\s*(?:%[a-zA-Z_]|!)")


@dataclass
class PlainCell:
    """A cell as Python. `magics` maps line numbers to what stood there.

    `python` is empty for a cell that isn't Python (`%%bash`). `actor_options` holds what follows `%%actor`.
    """

    python: str
    magics: dict[int, str] = field(default_factory=dict)
    actor_options: str | None = None


def to_python(source: str) -> PlainCell:
    """Return a cell as Python."""
    lines = source.replace("\r\n", "\n").split("\n")
    cell = PlainCell("")
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    lines = _without_indent(lines, first)
    if found := _CELL_MAGIC.match(lines[first]):
        name, rest = found.groups()
        if name not in PYTHON_CELLS:
            return cell
        if name == "actor":
            cell.actor_options = rest.strip()
        lines[first] = ""
    cell.python = "\n".join(_plain_lines(lines, cell.magics))
    return cell


def _without_indent(lines: list[str], first: int) -> list[str]:
    """Take the first line's indentation from all lines, as IPython does with pasted code."""
    indent = lines[first][: len(lines[first]) - len(lines[first].lstrip())]
    return [line.removeprefix(indent) for line in lines] if indent else lines


def _plain_lines(lines: list[str], magics: dict[int, str]) -> list[str]:
    plain = []
    quote, depth, continued, in_magic = "", 0, False, False
    for number, line in enumerate(lines, 1):
        if in_magic:
            replaced: str | None = ""
        elif quote or depth or continued:
            replaced = None
        else:
            replaced = _replacement(line)
            if replaced is not None:
                magics[number] = line.strip()
        if replaced is not None:
            in_magic = line.endswith("\\")
            plain.append(replaced)
            line = replaced
        else:
            plain.append(line)
        quote, depth = _after(line, quote, depth)
        continued = line.endswith("\\")
    return plain


def _replacement(line: str) -> str | None:
    """Return what stands for a line of IPython's, None for one of Python's."""
    if found := _TIMED.match(line):
        return found[1] + found[2]
    if found := _ASSIGNED.match(line):
        return f"{found[1]}{found[2]} = ..."
    if found := _MAGIC.match(line):
        return f"{found[1]}pass" if found[1] else ""
    return None


def _after(line: str, quote: str, depth: int) -> tuple[str, int]:
    """Return the quote that is open, and how many brackets are, after a line."""
    at = 0
    while at < len(line):
        char = line[at]
        if quote:
            if char == "\\":
                at += 2
            elif line.startswith(quote, at):
                at += len(quote)
                quote = ""
            else:
                at += 1
        elif char == "#":
            break
        elif char in "'\"":
            quote = char * 3 if line.startswith(char * 3, at) else char
            at += len(quote)
        else:
            depth = max(0, depth + (char in "([{") - (char in ")]}"))
            at += 1
    if len(quote) == 1 and not line.endswith("\\"):
        quote = ""
    return quote, depth
