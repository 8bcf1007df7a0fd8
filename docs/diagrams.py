"""Draws the Mermaid diagrams of the pages, so that the site needs no script and no network to show them.

`python docs/diagrams.py` writes `docs/images/diagram-HASH.svg` for each, and removes those that no page has
any more. The hash is that of the diagram's text; conf.py puts the drawing in the place of the text. They are
drawn by the Mermaid that is in JupyterLab.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from urllib.parse import unquote

DOCS = Path(__file__).parent
IMAGES = DOCS / "images"
DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.M | re.S)
#: Milliseconds that JupyterLab may take to draw them.
PATIENCE = 60_000


def drawing_of(text: str) -> str:
    """Return the name of the file that holds the drawing of a diagram."""
    return f"diagram-{hashlib.sha256(text.encode()).hexdigest()[:10]}.svg"


def diagrams() -> dict[str, str]:
    """Return the diagrams of all pages by the names of their drawings."""
    return {
        drawing_of(text): text
        for page in sorted(DOCS.rglob("*.md"))
        for text in DIAGRAM.findall(page.read_text())
    }


def draw(texts: list[str]) -> list[str]:
    """Return an SVG for each text."""
    sys.path.insert(0, str(DOCS.parent))
    from playwright.sync_api import sync_playwright

    from tests.browser.lab import TOKEN, LabServer, chromium

    with LabServer() as server, sync_playwright() as playwright:
        (server.root / "diagrams.md").write_text("\n".join(f"```mermaid\n{text}```\n" for text in texts))
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 4000})
        page.goto(f"{server.url}/lab?token={TOKEN}")
        page.wait_for_function("() => window.jupyterapp?.commands.hasCommand('markdownviewer:open')")
        page.evaluate(
            "() => jupyterapp.restored.then(() => jupyterapp.commands.execute('docmanager:open', "
            "{path: 'diagrams.md', factory: 'Markdown Preview'}))"
        )
        pictures = page.locator(".jp-RenderedMermaid img")
        pictures.nth(len(texts) - 1).wait_for(timeout=PATIENCE)
        addresses = [picture.get_attribute("src") or "" for picture in pictures.all()]
        browser.close()
    return [plain(unquote(address.partition(",")[2])) for address in addresses]


def plain(picture: str) -> str:
    """Return an SVG without the list of HTML's entities before it, which none is left of."""
    return picture[picture.index("<svg") :].replace("&nbsp;", "&#160;").rstrip() + "\n"


def main() -> None:
    wanted = diagrams()
    for path in IMAGES.glob("diagram-*.svg"):
        if path.name not in wanted:
            path.unlink()
    missing = {name: text for name, text in wanted.items() if not (IMAGES / name).exists()}
    for name, drawing in zip(missing, draw(list(missing.values())) if missing else [], strict=True):
        (IMAGES / name).write_text(drawing)
        print(f"docs/images/{name}")


if __name__ == "__main__":
    main()
