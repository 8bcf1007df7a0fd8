"""Takes the pictures of docs/notebook.md: real notebooks in JupyterLab, in light, dark and narrow.

`python docs/screenshots.py [NAME...]` writes `docs/images/NAME-{light,dark,480}.png`. It starts a JupyterLab
and a Chromium of its own, runs the cells, waits until they show what the picture is about, and takes it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Browser, Locator, expect, sync_playwright  # noqa: E402

from tests.browser.lab import LabServer, NotebookPage, chromium  # noqa: E402

IMAGES = ROOT / "docs" / "images"
#: Pixels of the page: a wide one, and one whose outputs are narrow.
WIDE, NARROW = 1010, 480
HEIGHT = 1600
#: What is around the cells of a picture goes, the cell with the preparations included.
BARE = """
.jp-Toolbar, .jp-cell-toolbar, .jp-Collapser-child { visibility: hidden !important; }
.jp-Notebook .jp-Cell:first-child { display: none; }
"""
#: Milliseconds that a picture may take to be ready: the dashboard draws a minute.
PATIENCE = 90_000

SETUP = """
import random, threading, time
%load_ext nbqueue
from nbqueue import actor, group, pipeline, progress
import nbqueue
"""


@dataclass
class Picture:
    """Cells, what is run around them, and when they show what they should."""

    cells: list[str]
    ready: Callable[[NotebookPage], None]
    #: Run before the cells, without showing; and after them.
    before: str = ""
    after: str = ""


def card(page: NotebookPage, number: int, kind: str = "message") -> Locator:
    return page.output(number + 1).locator(f'[data-nbqueue="{kind}"]')


def states(*wanted: str, kind: str = "message") -> Callable[[NotebookPage], None]:
    """Return what waits until the cards of the cells are in these states."""

    def wait(page: NotebookPage) -> None:
        for number, state in enumerate(wanted):
            if state:
                expect(card(page, number, kind)).to_have_attribute("data-nbqueue-state", state)

    return wait


def busy_minute(page: NotebookPage) -> None:
    """Wait until the sparklines have something to tell."""
    queue = page.output(1).locator('[data-nbqueue-name="default"] [data-nbqueue-part="done"]')
    page.page.wait_for_function(
        "node => Number(node.textContent.replace(',', '')) > 700",
        arg=queue.element_handle(),
        timeout=PATIENCE,
    )
    for state in ("failed", "retrying"):
        page.page.wait_for_function(
            """state => document.querySelector(`[data-nbqueue=result][data-nbqueue-state=${state}]`)""",
            arg=state,
            timeout=PATIENCE,
        )


def half_done(page: NotebookPage) -> None:
    """Wait until the bar is past its middle; each update is another element."""
    page.page.wait_for_function(
        """() => {
            const bar = document.querySelector("[data-nbqueue=group] [role=progressbar]");
            return Number(bar?.getAttribute("aria-valuenow")) > 58;
        }""",
        timeout=PATIENCE,
    )


PICTURES = {
    "dashboard": Picture(
        ["%nbqueue dashboard"],
        busy_minute,
        before="""
@actor
def resize(path, width=640):
    time.sleep(random.uniform(0.2, 0.5))
    if path.endswith("7.png") and random.random() < 0.08:
        raise ValueError(f"cannot identify image file {path}")
    return {"width": width, "bytes": random.randrange(20_000, 60_000)}

@actor(queue_name="email")
def notify(address):
    time.sleep(random.uniform(0.03, 0.06))
    return "sent"

@actor(queue_name="email", max_retries=5, min_backoff=15_000)
def remind(address):
    raise ConnectionError(f"{address} did not answer")

@actor(queue_name="reports")
def report(month):
    time.sleep(1)
    return f"report/{month}.html"
""",
        after="""
def now_and_then(seconds, send):
    while True:
        time.sleep(random.uniform(0.2, 1.8) * seconds)
        send()

def pictures():
    for number in range(260):
        resize.send(f"img_{number:03}.png")

load = [
    (0.07, lambda: resize.send(f"img_{random.randrange(1000):03}.png")),
    (0.15, lambda: notify.send(f"user{random.randrange(50)}@example.org")),
    (9, lambda: remind.send("ops@example.org")),
    (5, lambda: report.send(f"2026-{random.randrange(1, 13):02}")),
    (14, pictures),
]
nbqueue.start(threads=8)
for pace in load:
    threading.Thread(target=now_and_then, args=pace, daemon=True).start()
""",
    ),
    "message": Picture(
        [
            "add.send(1, 2)",
            'fetch.send("https://example.org/data.csv", timeout=30)',
            'summarise.send("may.csv")',
            'flaky.send("https://flaky.example.org")',
            "add.send_with_options(args=(3, 4), delay=60_000)",
        ],
        states("done", "running", "done", "retrying", "delayed"),
        before="""
@actor
def add(a, b):
    return a + b

@actor
def fetch(url, timeout):
    print("GET", url)
    time.sleep(0.4)
    print("200, 1.8 MB so far")
    progress(18, 40, "pages")
    time.sleep(60)

@actor
def summarise(path):
    print("reading", path)
    time.sleep(0.7)
    print("18,204 rows, 3 columns")
    return {"rows": 18204, "mean": 41.7, "columns": ["station", "day", "ozone"]}

@actor(max_retries=3, min_backoff=30_000)
def flaky(url):
    raise ConnectionError("the host did not answer within 5 s")
""",
    ),
    "failure": Picture(
        [
            "def mean(rows):\n    return sum(rows) / len(rows)",
            "@actor\ndef clean(path):\n    print('reading', path)\n    rows = load(path)\n"
            "    print(len(rows), 'rows')\n    return mean(rows)",
            'clean.send("empty.csv")',
        ],
        states("", "", "failed"),
        before="def load(path): return []",
    ),
    "group": Picture(
        ["g = resize.map(paths)\ng"],
        half_done,
        before="""
@actor
def resize(path):
    time.sleep(random.uniform(0.2, 0.6))
    if path in ("img_017.png", "img_031.png"):
        raise ValueError("cannot identify image file")
    return path

paths = [f"img_{number:03}.png" for number in range(100)]
""",
    ),
    "reprs": Picture(
        [
            "resize",
            "nbqueue.get_broker()",
            "pipeline([fetch.message(5), clean.message(), report.message()]).run()",
        ],
        lambda page: expect(card(page, 2, "pipeline")).to_have_attribute("data-nbqueue-state", "done"),
        before="""
@actor(max_retries=3, time_limit=30_000)
def resize(path, width=640):
    "Make a thumbnail next to the picture."
    time.sleep(0.05)
    return path

@actor
def fetch(month):
    return f"raw/2026-{month:02}.csv"

@actor
def clean(path):
    return [18_204, 41.7]

@actor
def report(numbers):
    return "report/2026-05.html"

[resize.send(str(number)).get_result() for number in range(12)]
""",
    ),
}


def take(name: str, lab: LabServer, browser: Browser) -> None:
    """Take the pictures of one notebook."""
    picture = PICTURES[name]
    context = browser.new_context(
        viewport={"width": WIDE, "height": HEIGHT}, device_scale_factor=1.25, reduced_motion="reduce"
    )
    page = NotebookPage(context.new_page(), lab)
    page.open(name, [f"{SETUP}{picture.before}", *picture.cells])
    page.run(*range(len(picture.cells) + 1))
    if picture.after:
        page.execute(picture.after)
    page.page.add_style_tag(content=BARE)
    picture.ready(page)
    for kind, dark in (("light", False), ("dark", True)):
        page.dark(dark)
        shoot(page, IMAGES / f"{name}-{kind}.png")
    page.dark(False)
    page.page.set_viewport_size({"width": NARROW + 2 * 33 + 110, "height": HEIGHT})
    shoot(page, IMAGES / f"{name}-480.png")
    page.shut_down()
    context.close()


def shoot(page: NotebookPage, path: Path) -> None:
    """Take a picture of the cells that are shown, without what is around them."""
    page.page.evaluate(
        """() => {
            document.activeElement.blur();
            window.jupyterapp.shell.currentWidget.content.activeCellIndex = 0;
        }"""
    )
    page.page.wait_for_selector("#jupyterlab-splash", state="detached")  # it fades out over a new theme
    cells = page.page.locator(".jp-Notebook .jp-Cell")
    cells.nth(1).scroll_into_view_if_needed()
    boxes = [box for cell in cells.all()[1:] if (box := cell.bounding_box()) is not None]
    left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
    width = max(box["x"] + box["width"] for box in boxes) - left
    height = max(box["y"] + box["height"] for box in boxes) - top
    page.page.screenshot(path=path, clip={"x": left, "y": top, "width": width, "height": height})
    print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    names = sys.argv[1:] or list(PICTURES)
    IMAGES.mkdir(exist_ok=True)
    expect.set_options(timeout=PATIENCE)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with LabServer() as lab, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        for name in names:
            take(name, lab, browser)
        browser.close()


if __name__ == "__main__":
    main()
