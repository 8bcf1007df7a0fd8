"""Sphinx: how the pages of this folder become the site. `make docs` builds it into build/docs.

The notebooks are copied into `tutorials/` first, for Sphinx reads one folder only.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import diagrams  # noqa: E402

import nbqueue  # noqa: E402  the checkout, whatever is installed

project = "nbqueue"
author = copyright = "The nbqueue authors"
version = release = nbqueue.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# Docstrings write code between single backquotes.
default_role = "code"
nitpicky = False
# Cells with magics are no Python.
suppress_warnings = ["misc.highlighting_failure"]

# Markdown: anchors as on the code host, so that links between pages work in both places.
myst_heading_anchors = 4
myst_enable_extensions = ["deflist", "tasklist"]
nb_execution_mode = "off"

# The reference: signatures as they are written, members in the order of the source.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"nbqueue {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {"color-brand-primary": "#3367d6", "color-brand-content": "#3367d6"},
    "dark_css_variables": {"color-brand-primary": "#8ab4f8", "color-brand-content": "#8ab4f8"},
}

linkcheck_ignore = [r"http://localhost", r"http://127\.0\.0\.1"]


def copy_notebooks(app: Sphinx) -> None:
    """Put the tutorials where Sphinx finds them; an unchanged one keeps its time, and isn't read again."""
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        copy = HERE / "tutorials" / notebook.name
        if not copy.exists() or copy.read_bytes() != notebook.read_bytes():
            copy.write_bytes(notebook.read_bytes())


def place_drawings(app: Sphinx, name: str, source: list[str]) -> None:
    """Put the drawings of Mermaid diagrams in the place of their texts. One that isn't drawn stays text."""

    def drawn(found: re.Match[str]) -> str:
        drawing = diagrams.drawing_of(found[1])
        if not (diagrams.IMAGES / drawing).exists():
            return found[0]
        return f"![The diagram of this section](/images/{drawing})"

    source[0] = diagrams.DIAGRAM.sub(drawn, source[0])


def light_and_dark(app: Sphinx, name: str, source: list[str]) -> None:
    """Beside each picture in light, have the one in dark; readers see that of their theme."""

    def both(found: re.Match[str]) -> str:
        alternative, path = found.groups()
        return "\n\n".join(
            f"```{{image}} {path}-{theme}.png\n:alt: {alternative}\n:class: only-{theme}\n```"
            for theme in ("light", "dark")
        )

    source[0] = re.sub(r"^!\[(.+)\]\((.+)-light\.png\)$", both, source[0], flags=re.M)


def lead_links(app: Sphinx, name: str, source: list[str]) -> None:
    """Lead links that are right in the checkout to where things are on the site.

    CHANGELOG.md is outside this folder, and included in a page; notebooks are a folder beside this one.
    """
    up = "../" * name.count("/")
    source[0] = re.sub(r"\]\((?:\.\./)+CHANGELOG\.md\)", f"]({up}changelog.md)", source[0])
    if name.startswith("tutorials/"):
        source[0] = source[0].replace("](../docs/", "](../")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", copy_notebooks)
    app.connect("source-read", lead_links)
    app.connect("source-read", place_drawings)
    app.connect("source-read", light_and_dark)
    for language in ("mermaid", "conf"):
        app.add_lexer(language, TextLexer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
