"""The traceback of a failure: the frames of the user's own code, named by cell, with two lines of source.

It comes as the text that Python prints, maybe from another machine. Source is looked up only where the line
that the text quotes stands in the same place here: a file of the same name elsewhere may be another.
"""

from __future__ import annotations

import linecache
import os
import re
import site
import sysconfig
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ... import __file__ as _package_file
from ..markup import Markup, element, joined, plain_output

if TYPE_CHECKING:
    from collections.abc import Iterable

    from IPython.core.interactiveshell import InteractiveShell

#: Frames and characters of a line that are shown.
FRAMES_SHOWN, LINE_SHOWN = 8, 160

_FRAME = re.compile(r'^\s{2,4}File "(?P<file>.+)", line (?P<line>\d+)(?:, in (?P<name>.+))?$')
_CARETS = re.compile(r"^\s*[~^]+\s*$")
_HEADER = "Traceback (most recent call last):"
_PACKAGE = os.path.dirname(os.path.abspath(_package_file)) + os.sep
_LIBRARIES = tuple(
    {
        *(os.path.join(path, "") for path in sysconfig.get_paths().values()),
        *(os.path.join(path, "") for path in [*site.getsitepackages(), site.getusersitepackages()]),
    }
)


@dataclass(frozen=True)
class Frame:
    file: str
    line: int
    name: str
    #: The line of source that the traceback quotes, "" for none.
    source: str

    @property
    def of_nbqueue(self) -> bool:
        # On another machine the package lies elsewhere.
        return self.file.startswith(_PACKAGE) or f"{os.sep}site-packages{os.sep}nbqueue{os.sep}" in self.file

    @property
    def of_library(self) -> bool:
        folders = f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}"
        return self.file.startswith((*_LIBRARIES, "<frozen ")) or any(part in self.file for part in folders)


@dataclass(frozen=True)
class Trace:
    """What is shown of a traceback."""

    body: Markup
    frames: int
    nbqueue: int
    libraries: int

    @property
    def told(self) -> str:
        """Say how many frames are shown and how many are not."""
        hidden = [f"{self.nbqueue} of nbqueue"] if self.nbqueue else []
        hidden += [f"{self.libraries} of libraries"] if self.libraries else []
        told = f"{self.frames} of your frames"
        return f"{told}; {' and '.join(hidden)} hidden" if hidden else told


def parse(text: str) -> list[Frame | str]:
    """Return the frames of a traceback, and between them the lines that are none: the errors."""
    found: list[Frame | str] = []
    lines = text.rstrip().split("\n")
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        matched = _FRAME.match(line)
        if matched is None:
            if line.strip() and line.strip() != _HEADER and not _CARETS.match(line):
                found.append(line)
            continue
        quoted = []
        while (
            position < len(lines) and lines[position].startswith("    ") and not _FRAME.match(lines[position])
        ):
            quoted.append(lines[position])
            position += 1
        source = next((one.strip() for one in quoted if not _CARETS.match(one)), "")
        found.append(Frame(matched["file"], int(matched["line"]), matched["name"] or "", source))
    return found


def drawn(text: str, shell: InteractiveShell | None) -> Trace:
    """Return what is shown of a traceback.

    Parameters:
      shell: knows which file is which cell.
    """
    parts = parse(plain_output(text))
    frames = [part for part in parts if isinstance(part, Frame)]
    own = [frame for frame in frames if not frame.of_nbqueue and not frame.of_library]
    nbqueue = sum(frame.of_nbqueue for frame in frames)
    if not own:  # it failed around the actor: then all of it matters
        own, nbqueue = frames, 0
    libraries = len(frames) - len(own) - nbqueue
    left_out = max(0, len(own) - FRAMES_SHOWN)
    shown = {id(frame) for frame in [*own[: FRAMES_SHOWN // 2], *own[-FRAMES_SHOWN // 2 :]]}
    lines: list[Markup] = []
    for part in parts:
        if isinstance(part, str):
            lines.append(joined(part[: 4 * LINE_SHOWN], "\n"))
        elif id(part) in shown:
            lines.extend(_frame(part, shell))
        elif left_out and part in own:
            lines.append(element("span", f"… {left_out} more …", class_="nbq-where") + Markup("\n"))  # type: ignore[arg-type]
            left_out = 0
    return Trace(Markup("".join(lines).rstrip("\n")), len(own), nbqueue, libraries)


def place(frame: Frame, shell: InteractiveShell | None) -> str:
    """Say where a frame is: `In [4], line 6, in clean`, or the file instead of the cell."""
    where = cell_of(frame.file, shell) or f'File "{frame.file}"'
    return f"{where}, line {frame.line}" + (f", in {frame.name}" if frame.name else "")


def cell_of(file: str, shell: InteractiveShell | None) -> str | None:
    """Return `In [4]` for the file that stands for a cell of this session, None for others."""
    named = None if shell is None else shell.compile.format_code_name(file)
    return None if named is None else named[1].replace("In[", "In [")


def _frame(frame: Frame, shell: InteractiveShell | None) -> Iterable[Markup]:
    yield Markup(element("span", place(frame, shell), class_="nbq-where") + "\n")
    here = linecache.getline(frame.file, frame.line).rstrip()
    if not here or (frame.source and here.strip() != frame.source):
        if frame.source:
            yield Markup(element("mark", _numbered(frame.line, f"    {frame.source}")) + "\n")
        return
    before = linecache.getline(frame.file, frame.line - 1).rstrip() if frame.line > 1 else ""
    if before:
        yield joined(_numbered(frame.line - 1, before), "\n")
    yield Markup(element("mark", _numbered(frame.line, here)) + "\n")


def _numbered(number: int, source: str) -> str:
    return f"{number:>5} {source[:LINE_SHOWN]}"
