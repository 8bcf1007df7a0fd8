"""The pages of the documentation, and what is in them: blocks and spans of code.

Pages are named by their path from the root of the project. A block below a comment that readers don't see,
`<!-- file: tasks.py -->`, is a file that later blocks import, or load.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "deploy/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
]

_FILE = re.compile(r"<!--\s*file:\s*(.+?)\s*-->")
_MAGIC = re.compile(r"^\s*[%!]", re.M)


@dataclass(frozen=True)
class Block:
    """A block of code. `language` is empty for an indented one; `line` is that of its first line, from 1."""

    page: str
    line: int
    language: str
    source: str
    file: str | None = None

    @property
    def has_magics(self) -> bool:
        return self.language == "ipython3" or (self.language == "python" and bool(_MAGIC.search(self.source)))

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page in their order."""
    found: list[Block] = []
    file: str | None = None
    for token in MarkdownIt("commonmark").parse((ROOT / page).read_text()):
        if token.type == "html_block":
            file = mark[1] if (mark := _FILE.search(token.content)) else None
        elif token.type in ("fence", "code_block"):
            assert token.map is not None
            words = token.info.split()
            found.append(
                Block(
                    page=page,
                    line=token.map[0] + (2 if token.type == "fence" else 1),
                    language=words[0] if words else "",
                    source=token.content,
                    file=file,
                )
            )
        if token.type != "html_block":
            file = None
    return found


def spans(page: str) -> Iterator[str]:
    """Yield the pieces of code within the text of a page, those in tables included."""
    for token in MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text()):
        for child in token.children or ():
            if child.type == "code_inline":
                yield child.content
