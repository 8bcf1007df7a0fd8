"""The dashboard in a real page: numbers that move, buttons that work, text that stays text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from .lab import DEADLINE, NotebookPage

SETUP = """
%load_ext nbqueue
import os, threading, time, nbqueue
from nbqueue import inspection
gate = threading.Event()

@nbqueue.actor
def gated(number):
    assert gate.wait(60)
    return number

@nbqueue.actor(queue_name="mail")
def fragile(name):
    raise ValueError(f"no {name}")
"""

#: Makes a file, and blocks the kernel until another one is there.
BLOCK = "open('busy', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.02)"

HOSTILE = "<img src=x onerror=window.hurt=1><script>window.hurt=1</script>"


class Dashboard:
    """A dashboard in the output of a cell, in the words of its markup."""

    def __init__(self, output: Locator) -> None:
        self.root = output.locator('[data-nbqueue="dashboard"]')
        self.live = self.root.locator('[data-nbqueue-part="live"]')
        self.results = self.root.locator('[data-nbqueue="result"]')

    def queue(self, name: str = "default") -> Locator:
        return self.root.locator(f'[data-nbqueue="queue"][data-nbqueue-name="{name}"]')

    def part(self, part: str, name: str = "default") -> Locator:
        return self.queue(name).locator(f'[data-nbqueue-part="{part}"]')

    def button(self, action: str) -> Locator:
        return self.root.locator(f'button[data-nbqueue-action="{action}"]')

    def tile(self, part: str) -> Locator:
        return self.root.locator(f'dd[data-nbqueue-part="{part}"]')


@pytest.fixture(scope="module")
def opened(shared: NotebookPage) -> NotebookPage:
    shared.open("dashboard", [SETUP, "%nbqueue dashboard"])
    shared.run(0, 1)
    return shared


@pytest.fixture
def notebook_with_dashboard(opened: NotebookPage) -> Iterator[NotebookPage]:
    """The page of all, as it was opened: nothing waits, runs or has failed."""
    opened.execute("gate.clear()")
    yield opened
    opened.execute(
        "worker = nbqueue.start()\nworker.resume()\nnbqueue.get_broker().flush_all()\ngate.set()\n"
        "nbqueue.get_broker().join('default', timeout=20_000)"
    )


@pytest.fixture
def dashboard(notebook_with_dashboard: NotebookPage) -> Dashboard:
    return Dashboard(notebook_with_dashboard.output(1))


def points(queue: Locator) -> list[tuple[float, float]]:
    """Return the points of a queue's sparkline."""
    drawn = queue.locator("svg polyline").last.get_attribute("points") or ""
    return [(float(x), float(y)) for x, y in (point.split(",") for point in drawn.split())]


def contrast(page: Page, selector: str) -> list[tuple[str, float]]:
    """Return the contrast of each text under a selector with what is behind it, as WCAG 2 defines it."""
    found: list[list[Any]] = page.evaluate(
        """selector => {
            const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
            const pixel = (...layers) => {
                canvas.clearRect(0, 0, 1, 1);
                for (const layer of layers) { canvas.fillStyle = layer; canvas.fillRect(0, 0, 1, 1); }
                return [...canvas.getImageData(0, 0, 1, 1).data];
            };
            const luminance = ([r, g, b]) => [r, g, b].map(part => part / 255)
                .map(part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
                .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
            const found = [];
            for (const node of document.querySelectorAll(selector + " *")) {
                const text = [...node.childNodes].filter(child => child.nodeType === 3)
                    .map(child => child.data.trim()).join("");
                if (!text || !node.checkVisibility() || node.closest("style, :disabled")) continue;
                const behind = [];
                for (let up = node; up; up = up.parentElement) {
                    behind.unshift(getComputedStyle(up).backgroundColor);
                }
                const ground = pixel("white", ...behind);
                const ink = pixel("white", ...behind, getComputedStyle(node).color);
                const [low, high] = [luminance(ground), luminance(ink)].sort((a, b) => a - b);
                found.push([text, (high + 0.05) / (low + 0.05)]);
            }
            return found;
        }""",
        selector,
    )
    return [(text, ratio) for text, ratio in found]


def test_the_numbers_move(notebook_with_dashboard: NotebookPage, dashboard: Dashboard) -> None:
    expect(dashboard.root).to_have_attribute("role", "region")
    expect(dashboard.root).to_have_attribute("aria-label", "nbqueue dashboard")
    expect(dashboard.live).to_have_attribute("data-nbqueue-state", "live")
    before = int(dashboard.part("done").inner_text().replace(",", ""))
    notebook_with_dashboard.execute("messages = [gated.send(n) for n in range(40)]")
    expect(dashboard.part("depth")).to_have_text("32")
    expect(dashboard.part("running")).to_have_text("8")
    expect(dashboard.tile("total-running")).to_have_text("8 of 8")
    expect(dashboard.part("sparkline")).to_have_attribute(
        "aria-label", re.compile(r"depth over the last 60 seconds, highest 3\d")
    )
    notebook_with_dashboard.execute("gate.set()")
    expect(dashboard.part("done")).to_have_text(f"{before + 40:,}")
    expect(dashboard.part("depth")).to_have_text("0")
    expect(dashboard.results).to_have_count(10)
    expect(dashboard.results.first).to_have_attribute("data-nbqueue-state", "done")
    expect(dashboard.results.first).to_contain_text("gated(")
    drawn = points(dashboard.queue())
    assert len(drawn) >= 2
    assert min(y for _, y in drawn) == 2.0
    assert drawn[-1] == (100.0, 28.0)
    # It scrolls although nothing is sent.
    notebook_with_dashboard.page.wait_for_function(
        "([node, count]) => node.getAttribute('points').split(' ').length > count",
        arg=[dashboard.queue().locator("svg polyline").last.element_handle(), len(drawn)],
    )


def test_pause_and_resume_take_turns_on_one_button(
    notebook_with_dashboard: NotebookPage, dashboard: Dashboard
) -> None:
    dashboard.button("pause").click()
    expect(dashboard.live).to_have_attribute("data-nbqueue-state", "paused")
    expect(dashboard.button("resume")).to_have_text("Resume")
    expect(dashboard.button("pause")).to_have_count(0)
    notebook_with_dashboard.execute("gate.set(); messages = [gated.send(n) for n in range(5)]")
    expect(dashboard.live).to_have_text("paused, 5 waiting")
    assert notebook_with_dashboard.ask("{m.state for m in messages}") == "{'pending'}"
    dashboard.button("resume").click()
    expect(dashboard.live).to_have_attribute("data-nbqueue-state", "live")
    expect(dashboard.part("depth")).to_have_text("0")
    assert notebook_with_dashboard.ask("[m.get_result() for m in messages]") == "[0, 1, 2, 3, 4]"


def test_flush_asks_in_place(notebook_with_dashboard: NotebookPage, dashboard: Dashboard) -> None:
    page = notebook_with_dashboard.page
    expect(dashboard.button("flush")).to_be_disabled()
    notebook_with_dashboard.execute("messages = [gated.send(n) for n in range(20)]")
    expect(dashboard.part("depth")).to_have_text("12")
    expect(dashboard.button("flush")).to_have_text("Flush…")
    dashboard.button("flush").dblclick()  # the second half of a double click is no answer
    expect(dashboard.root.get_by_text("Drop 12 messages?")).to_be_visible()
    expect(dashboard.button("keep")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dashboard.root.get_by_text("Drop 12 messages?")).not_to_be_visible()
    expect(dashboard.part("depth")).to_have_text("12")
    dashboard.button("flush").click()
    dashboard.button("keep").click()
    expect(dashboard.part("depth")).to_have_text("12")
    dashboard.button("flush").click()
    dashboard.button("flush").click()
    expect(dashboard.part("depth")).to_have_text("0")
    expect(dashboard.root.get_by_role("status")).to_have_text("Flushed 12 messages from default, mail.")
    assert notebook_with_dashboard.ask("sorted(m.state for m in messages).count('cancelled')") == "12"


def test_retry_is_there_when_something_has_failed(
    notebook_with_dashboard: NotebookPage, dashboard: Dashboard
) -> None:
    expect(dashboard.button("retry")).not_to_be_visible()
    notebook_with_dashboard.execute("messages = [fragile.send(n) for n in range(3)]")
    expect(dashboard.button("retry")).to_have_text("Retry 3 failed")
    expect(dashboard.results.first).to_have_attribute("data-nbqueue-state", "failed")
    expect(dashboard.results.first).to_contain_text("ValueError: no ")
    notebook_with_dashboard.execute("broken = fragile.fn\nfragile.fn = lambda name: f'{name} is mended'")
    dashboard.button("retry").click()
    expect(dashboard.button("retry")).not_to_be_visible()
    expect(dashboard.part("done", "mail")).to_have_text("3")
    expect(dashboard.results.first).to_contain_text("is mended")
    notebook_with_dashboard.execute("fragile.fn = broken")


def test_hostile_text_stays_text(notebook_with_dashboard: NotebookPage, dashboard: Dashboard) -> None:
    page = notebook_with_dashboard.page
    notebook_with_dashboard.execute(
        f"hostile = {HOSTILE!r}\n"
        "@nbqueue.actor(actor_name=hostile, queue_name='hostile')\ndef echo(value): return value\n"
        "@nbqueue.actor(queue_name='hostile')\ndef fail(value): raise ValueError(value)\n"
        "echo.send(hostile + '\\u202e').get_result(); failed = fail.send(hostile)\n"
        "while failed.state != 'failed': time.sleep(0.01)"
    )
    expect(dashboard.results.first).to_contain_text("ValueError: <img src=x onerror=")
    expect(dashboard.results.nth(1)).to_contain_text("<script>window.hurt=1</script>")
    expect(dashboard.results.nth(1)).to_contain_text("\\u202e")
    assert page.evaluate("window.hurt === undefined")
    assert dashboard.root.locator("img, script").count() == 0


def test_what_is_scrolled_away_is_not_sent(
    notebook_with_dashboard: NotebookPage, dashboard: Dashboard
) -> None:
    page = notebook_with_dashboard.page
    due = "__import__('nbqueue.notebook.dashboard.board', fromlist=['board']).board.due"
    page.set_viewport_size({"width": 1100, "height": 160})
    page.locator(".jp-WindowedPanel-outer, .jp-Notebook").first.evaluate("node => node.scrollTo(0, 1e6)")
    expect(dashboard.root).not_to_be_in_viewport()
    _until(page, lambda: notebook_with_dashboard.ask(due) == "inf")
    notebook_with_dashboard.execute("messages = [gated.send(n) for n in range(9)]")
    assert notebook_with_dashboard.ask(due) == "inf"
    page.set_viewport_size({"width": 1100, "height": 1400})
    dashboard.root.scroll_into_view_if_needed()
    expect(dashboard.part("depth")).to_have_text("1")
    assert notebook_with_dashboard.ask(due) != "inf"


def _until(page: Page, condition: Any) -> None:
    for _ in range(DEADLINE // 100):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError("the condition never came true")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_can_be_read_and_used_without_a_mouse(
    notebook_with_dashboard: NotebookPage, dashboard: Dashboard, pictures: Path, dark: bool
) -> None:
    page = notebook_with_dashboard.page
    notebook_with_dashboard.dark(dark)
    notebook_with_dashboard.execute("failed = fragile.send('x')")
    expect(dashboard.button("retry")).to_be_visible()
    notebook_with_dashboard.execute("messages = [gated.send(n) for n in range(30)]")
    expect(dashboard.part("depth")).to_have_text("22")
    found = contrast(page, '[data-nbqueue="dashboard"]')
    assert {"Waiting", "default", "failed", "Pause", "Latest results"} <= {text for text, _ in found}
    assert [(text, round(ratio, 1)) for text, ratio in found if ratio < 4.5] == []
    for action in ("pause", "retry", "flush"):
        dashboard.button(action).focus()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        expect(dashboard.button(action)).to_be_focused()
        assert dashboard.button(action).evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
    dashboard.root.screenshot(path=pictures / f"dashboard-{'dark' if dark else 'light'}.png")


def test_it_folds_where_it_is_narrow(
    notebook_with_dashboard: NotebookPage, dashboard: Dashboard, pictures: Path
) -> None:
    notebook_with_dashboard.dark(False)
    dashboard.root.evaluate("node => { node.style.width = '480px' }")
    tiles = dashboard.root.locator(".nbq-tiles > div")
    tops = tiles.evaluate_all("nodes => nodes.map(node => node.getBoundingClientRect().top)")
    assert len(set(tops)) == 2
    expect(dashboard.part("median")).not_to_be_visible()
    expect(dashboard.part("failed")).to_be_visible()
    overflow = dashboard.root.evaluate("node => node.scrollWidth - node.clientWidth")
    assert overflow == 0
    dashboard.root.screenshot(path=pictures / "dashboard-480.png")
    dashboard.root.evaluate("node => { node.style.width = '' }")


def test_a_page_loaded_again_goes_on_and_tells_itself_that_the_kernel_restarted(
    notebook: NotebookPage, pictures: Path
) -> None:
    notebook.open("restart", [SETUP, "%nbqueue dashboard"])
    notebook.run(0, 1)
    dashboard = Dashboard(notebook.output(1))
    notebook.execute("message = gated.send(1)")
    expect(dashboard.part("running")).to_have_text("1")
    notebook.save()
    notebook.reload()
    expect(dashboard.live).to_have_attribute("data-nbqueue-state", "live")
    notebook.execute("messages = [gated.send(n) for n in range(9)]")
    expect(dashboard.part("depth")).to_have_text("2")
    notebook.restart()
    expect(dashboard.live).to_have_attribute("data-nbqueue-state", "stopped")
    expect(dashboard.live).to_have_text(re.compile(r"the kernel stopped, last seen \d\d:\d\d:\d\d"))
    for button in dashboard.root.locator("button").all():
        expect(button).to_be_disabled()
    expect(dashboard.part("depth")).to_have_text("2")
    dashboard.root.screenshot(path=pictures / "dashboard-stopped.png")
    notebook.run(0, 1)
    dashboard = Dashboard(notebook.output(1))
    expect(dashboard.live).to_have_attribute("data-nbqueue-state", "live")
    notebook.shut_down()
    expect(dashboard.live).to_have_attribute("data-nbqueue-state", "stopped")


def test_a_stopped_session_leaves_its_numbers_in_the_document(notebook: NotebookPage) -> None:
    notebook.open(
        "stop", [SETUP, "gate.set(); gated.send(7).get_result()", "%nbqueue dashboard", "%nbqueue stop"]
    )
    notebook.run(0, 1, 2, 3)
    dashboard = Dashboard(notebook.output(2))
    expect(dashboard.live).to_have_attribute("data-nbqueue-state", "stopped")
    expect(dashboard.root.locator("button")).to_have_count(0)
    saved = notebook.save()
    (output,) = saved["cells"][2]["outputs"]
    assert set(output["data"]) == {"text/html", "text/plain"}
    notebook.reload()
    expect(Dashboard(notebook.output(2)).part("done")).to_have_text("1")


def test_it_runs_in_notebook_7_where_a_click_waits_for_a_busy_kernel_and_says_so(
    notebook: NotebookPage, pictures: Path
) -> None:
    notebook.open("seven", [SETUP, "%nbqueue dashboard", BLOCK], front_end="notebooks")
    notebook.without_subshells()
    notebook.run(0, 1)
    dashboard = Dashboard(notebook.output(1))
    notebook.execute("messages = [gated.send(n) for n in range(10)]")
    expect(dashboard.part("depth")).to_have_text("2")
    folder = notebook.server.root
    notebook.start(2)
    _until(notebook.page, (folder / "busy").exists)
    try:
        dashboard.button("pause").click()
        expect(dashboard.button("pause")).to_have_text("queued, the kernel is busy")
        expect(dashboard.button("pause")).to_be_disabled()
        expect(dashboard.live).to_have_attribute("data-nbqueue-state", "live")
    finally:
        (folder / "go").touch()
    expect(dashboard.live).to_have_attribute("data-nbqueue-state", "paused")
    expect(dashboard.button("resume")).to_be_enabled()
    dashboard.root.screenshot(path=pictures / "dashboard-notebook-7.png")
    dashboard.button("resume").click()
    notebook.execute("gate.set()")
    expect(dashboard.part("done")).to_have_text("10")
