"""The site is built without a warning, is whole, and says nothing of the code that isn't so."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from sphinx.util.inventory import InventoryFile

import nbqueue

from ..unit.test_compatibility_page import LISTED, exported, module_at, public_modules
from .pages import PAGES, ROOT, blocks, spans

DOCS = ROOT / "docs"

#: The build takes 15 s, and several times that on a machine that is busy.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site; warnings are errors, as in `make docs`."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-b",
        "html",
        str(DOCS),
        str(folder),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return folder


class _Page(HTMLParser):
    """What a page refers to, and the places in it that can be referred to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: set[str] = set()
        self.places: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id" and value:
                self.places.add(value)
            elif name in ("href", "src") and value:
                self.references.add(value)


def test_every_link_within_the_site_leads_somewhere(site: Path) -> None:
    pages = {path: _Page(path.read_text()) for path in site.rglob("*.html")}
    assert len(pages) > 50
    lost = []
    for path, page in pages.items():
        for reference in page.references:
            if re.match(r"[a-z]+:|//", reference):
                continue
            target, _, place = unquote(reference).partition("#")
            file = (path.parent / target.partition("?")[0]).resolve() if target else path
            if file.is_dir():
                file /= "index.html"
            if not file.exists() or (file in pages and place not in pages[file].places):
                lost.append(f"{path.relative_to(site)}: {reference}")
    assert lost == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """The site works without a network, and tells nobody who reads it."""
    loaded = re.compile(r'<(?:script|img|iframe)[^>]*src="(https?:)?//|<link[^>]*href="(https?:)?//')
    assert [str(path) for path in site.rglob("*.html") if loaded.search(path.read_text())] == []


def test_every_page_is_in_the_table_of_contents(site: Path) -> None:
    menu = _Page((site / "index.html").read_text()).references
    missing = [page for page in PAGES if page.startswith("docs/") and _address(page) not in menu]
    # Those below an index are in the menu once that is open.
    assert [page for page in missing if "/reference/" not in page and "/how-to/" not in page] == []


def _address(page: str) -> str:
    return "#" if page == "docs/index.md" else page.removeprefix("docs/").removesuffix("md") + "html"


def test_pictures_of_notebooks_are_those_of_the_theme(site: Path) -> None:
    shown = _Page((site / "index.html").read_text()).references
    assert {"_images/dashboard-light.png", "_images/dashboard-dark.png"} <= shown


def test_the_notebooks_are_shown_with_their_outputs(site: Path) -> None:
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert "cell_output" in (site / "tutorials" / f"{notebook.stem}.html").read_text()


# -- the reference -----------------------------------------------------------------------------------------


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    """Each is documented under one of its names: `nbqueue.Actor` is `nbqueue.actor.Actor`."""
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    documented = {
        name: item.uri for kind, items in inventory.data.items() if kind.startswith("py:")
        for name, item in items.items()
    }  # fmt: skip
    objects = {id(value) for name in documented for value in _at(name)}
    missing = [f"{path}.{name}" for path, name, value in _public() if id(value) not in objects]
    assert sorted(missing) == []
    outside = {name for name, uri in documented.items() if not uri.startswith("reference/")}
    assert outside == set()


def _public() -> Iterator[tuple[str, str, Any]]:
    """Yield each public name of each public module with what it names, but for what other packages define."""
    for path in public_modules():
        module = module_at(path)
        assert module is not None
        names = exported(module) | {name for listed, name in LISTED if listed == path}
        for name in names:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                value = getattr(module, name)
            if name.startswith("_") or type(value).__name__ == "module":
                continue
            if getattr(value, "__module__", "nbqueue").partition(".")[0] in ("nbqueue", "builtins"):
                yield path, name, value


def _at(name: str) -> Iterator[Any]:
    """Yield what a dotted name names, if it can be imported."""
    module, _, attribute = name.rpartition(".")
    found = module_at(module) if module else None
    if found is not None and hasattr(found, attribute):
        yield getattr(found, attribute)


def test_every_variable_that_is_read_is_on_its_page() -> None:
    page = (DOCS / "reference" / "environment.md").read_text()
    read = {
        value
        for value in _texts(ROOT / "nbqueue")
        if re.fullmatch(r"NBQUEUE_[A-Z_]*[A-Z]|dramatiq_[a-z_]*[a-z]", value)
    }
    # Click's own, for its completion scripts, which users never set.
    assert len(read) > 10
    assert {name for name in read - {"NBQUEUE_COMPLETE"} if f"`{name}`" not in page} == set()


def _texts(folder: Path) -> set[str]:
    """Return every text in the sources, what is put into it standing as `\\0`."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(re.sub(r"%[-.\d]*[rsdg]", "\0", node.value))
            elif isinstance(node, ast.JoinedStr):
                found.add("".join(v.value if isinstance(v, ast.Constant) else "\0" for v in node.values))  # type: ignore[misc]
    return found


# -- what pages say of the project ---------------------------------------------------------------------------


def test_every_message_in_troubleshooting_is_one_of_nbqueue() -> None:
    quoted = re.findall(r"^> `(.+)`$", (DOCS / "troubleshooting.md").read_text(), re.M)
    assert len(quoted) > 60
    texts = "\n".join(_texts(ROOT / "nbqueue"))
    unknown = []
    for message in quoted:
        # A piece that is left out may hold more than one value: it never spans two texts, though.
        pattern = "[^\n]*".join(re.escape(part) for part in message.split("…"))
        if not re.search(pattern, texts):
            unknown.append(message)
    assert unknown == []


def test_tests_that_are_named_as_proofs_exist() -> None:
    named = {span for page in PAGES for span in spans(page) if "::test_" in span}
    assert len(named) > 40
    missing = []
    for proof in named:
        file, _, name = proof.removeprefix("tests/").partition("::")
        path = ROOT / "tests" / file
        if not path.exists() or not re.search(rf"^ *(async )?def {name}\(", path.read_text(), re.M):
            missing.append(proof)
    assert missing == []


def test_files_that_pages_name_exist() -> None:
    named = {
        (page, span)
        for page in PAGES
        for span in spans(page)
        if re.fullmatch(r"(deploy|tests|docs|notebooks|nbqueue)/[\w./-]+\.\w+", span)
    }
    assert len(named) > 5
    assert {(page, path) for page, path in named if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("docs/")])
def test_links_of_pages_outside_the_site_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text) + re.findall(r'src(?:set)?="([^"]+)"', text)
    assert [link for link in links if not ((ROOT / page).parent / link).is_file()] == []


def test_every_diagram_is_drawn() -> None:
    """`python docs/diagrams.py` draws them, when they have changed."""
    texts = [block.source for page in PAGES for block in blocks(page) if block.language == "mermaid"]
    wanted = {f"diagram-{hashlib.sha256(text.encode()).hexdigest()[:10]}.svg" for text in texts}
    assert len(wanted) > 1
    assert {path.name for path in (DOCS / "images").glob("diagram-*")} == wanted


def test_the_site_is_of_this_version(site: Path) -> None:
    assert f"nbqueue {nbqueue.__version__}" in (site / "index.html").read_text()


def test_the_build_leaves_the_folder_as_it_was(site: Path) -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", "docs/tutorials/01-quickstart.ipynb", "build/docs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
        timeout=20,
    )
    if (ROOT / ".git").exists():
        assert len(ignored.stdout.split()) == 2, ignored.stderr
