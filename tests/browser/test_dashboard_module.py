"""The dashboard's module by itself, in an empty page with a model that the test plays."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

import nbqueue

MODULE = Path(nbqueue.__file__).parent / "notebook" / "static" / "dashboard.js"

#: A model as anywidget gives it to `render`; `play` is what the kernel would send.
MODEL = """
async (source) => {
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const { default: widget } = await import(url);
    const listeners = new Map();
    window.sent = [];
    window.model = {
        snapshot: null,
        get: () => window.model.snapshot,
        on: (name, callback) => listeners.set(name, callback),
        off: (name) => listeners.delete(name),
        send: (content) => {
            if (window.model.broken) throw new Error("Cannot send");
            window.sent.push(content);
        },
    };
    window.play = (snapshot) => {
        window.model.snapshot = snapshot;
        listeners.get("change:snapshot")?.();
    };
    window.answer = (content) => listeners.get("msg:custom")?.(content);
    window.gone = () => listeners.get("comm_live_update")?.();
    window.show = () => { window.cleanup = widget.render({ model: window.model, el: document.body }); };
    window.listening = () => listeners.size;
}
"""


def snapshot(**changes: Any) -> dict[str, Any]:
    row = {
        "name": "default",
        "depth": 3,
        "running": 1,
        "done": 1234,
        "failed": 0,
        "rate": 0.5,
        "median": 61_000,
    }
    result = {"state": "retrying", "call": "f(1)", "text": "OSError, second try", "took": 5000}
    now = int(time.time() * 1000)
    totals = {"depth": 3, "running": 1, "threads": 8, "done": 1234, "rate": 0.5, "retries": 1, "failed": 0}
    return {
        "now": now,
        "broker": "stub broker, in this kernel",
        "workers": "8 threads",
        "live": "live",
        "status": "live",
        "no_pause": "",
        "pauses": "",
        "dead": 0,
        "droppable": 3,
        "question": "Drop 3 messages?",
        "totals": totals,
        "queues": [row],
        "results": [{**result, "at": now - 125_000, "due": now + 30_000}],
        "note": "",
        **changes,
    }


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    page.evaluate(MODEL, MODULE.read_text("utf-8"))
    yield page
    page.close()


def live(page: Page) -> Any:
    return expect(page.locator('[data-nbqueue-part="live"]'))


def test_numbers_and_times_are_shown_as_people_say_them(page: Page) -> None:
    page.evaluate("snapshot => { play(snapshot); show(); }", snapshot())
    expect(page.locator('[data-nbqueue="queue"] td')).to_have_text(
        ["default", "", "3", "1", "1,234", "0.5", "1 min 1 s", "0"]
    )
    expect(page.locator('[data-nbqueue="result"] td')).to_have_text(
        [
            re.compile("retrying"),
            "f(1)",
            re.compile(r"OSError, second try in (29|30) s"),
            "5.0 s",
            "2 min ago",
        ]
    )
    page.evaluate("snapshot => play(snapshot)", snapshot(queues=[], results=None, note="Add a place."))
    expect(page.locator('[data-nbqueue="queue"], [data-nbqueue="result"]')).to_have_count(0)
    expect(page.get_by_text("No queue yet")).to_be_visible()
    expect(page.get_by_text("Add a place.")).to_be_visible()


def test_old_numbers_are_grey_until_there_are_new_ones(page: Page) -> None:
    page.evaluate("snapshot => { play(snapshot); show(); }", snapshot(now=int(time.time() * 1000) - 60_000))
    live(page).to_have_attribute("data-nbqueue-state", "stopped")
    live(page).to_have_text(re.compile(r"as of \d\d:\d\d:\d\d"))
    expect(page.locator('button[data-nbqueue-action="pause"]')).to_be_disabled()
    page.wait_for_function("sent.some(content => content.shown)")  # it asks for new ones all the same
    page.evaluate("snapshot => play(snapshot)", snapshot())
    live(page).to_have_attribute("data-nbqueue-state", "live")
    expect(page.locator('button[data-nbqueue-action="pause"]')).to_be_enabled()


def test_a_kernel_that_can_not_be_reached_has_gone(page: Page) -> None:
    page.evaluate("snapshot => { play(snapshot); show(); }", snapshot())
    page.wait_for_function("sent.length === 1")
    page.evaluate("model.broken = true")
    page.locator('button[data-nbqueue-action="pause"]').click()
    live(page).to_have_text(re.compile(r"the kernel stopped, last seen \d\d:\d\d:\d\d"))
    expect(page.locator('button[data-nbqueue-action="pause"]')).to_have_text("Pause")
    expect(page.locator('button[data-nbqueue-action="pause"]')).to_be_disabled()


def test_a_click_is_one_word_and_its_answer_is_shown(page: Page) -> None:
    page.evaluate("snapshot => { play(snapshot); show(); }", snapshot(dead=2))
    retry = page.locator('button[data-nbqueue-action="retry"]')
    retry.click()
    expect(retry).to_have_text("queued, the kernel is busy")
    view, word = page.evaluate("[sent.at(-1).view, sent.at(-1).do]")
    assert word == "retry"
    page.evaluate("answer({ view: 'another', done: 'retry', said: 'Not for us.' })")
    expect(retry).to_be_disabled()
    page.evaluate("view => answer({ view, done: 'retry', said: '<b>Sent</b> 2 again.' })", view)
    expect(page.get_by_role("status")).to_have_text("<b>Sent</b> 2 again.")
    expect(retry).to_be_enabled()


def test_a_view_that_is_closed_leaves_nothing_behind(page: Page) -> None:
    page.evaluate(
        """() => {
            window.timers = new Set();
            const { setInterval, clearInterval } = window;
            window.setInterval = (...args) => {
                const timer = setInterval(...args);
                timers.add(timer);
                return timer;
            };
            window.clearInterval = (timer) => {
                timers.delete(timer);
                clearInterval(timer);
            };
        }"""
    )
    page.evaluate("snapshot => { play(snapshot); show(); }", snapshot())
    page.wait_for_function("timers.size === 1 && sent.length === 1")
    page.evaluate("cleanup()")
    assert page.evaluate("[timers.size, listening(), document.body.children.length]") == [0, 0, 0]
    assert page.evaluate("sent.map(content => content.shown)") == [True, False]


def test_nothing_moves_while_it_is_out_of_sight(page: Page) -> None:
    page.evaluate("snapshot => { play(snapshot); show(); }", snapshot())
    page.wait_for_function("sent.length === 1")
    page.evaluate("document.querySelector('[data-nbqueue]').style.display = 'none'")
    page.wait_for_function("sent.length === 2 && sent[1].shown === false")
    page.evaluate("document.querySelector('[data-nbqueue]').style.display = ''")
    page.wait_for_function("sent.length === 3 && sent[2].shown === true")
