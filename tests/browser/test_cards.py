"""Cards in a real page: they change by themselves, end, and stay in the document."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from .lab import NotebookPage

SETUP = """
%load_ext nbqueue
import threading, nbqueue
gate = threading.Event()

@nbqueue.actor
def gated(number):
    print("begun", number)
    assert gate.wait(60)
    if number == 13:
        raise ValueError(f"no {number}")
    return number
"""

HOSTILE = """
hostile = "<img src=x onerror=window.hurt=1><script>window.hurt=1</script>"

@nbqueue.actor(actor_name=hostile)
def echo(value):
    print(value)
    raise ValueError(value)

echo.send(hostile)
"""


def card(page: NotebookPage, number: int, kind: str = "message") -> Locator:
    return page.output(number).locator(f'[data-nbqueue="{kind}"]')


def part(card: Locator, name: str) -> Locator:
    return card.locator(f'[data-nbqueue-part="{name}"]').first


@pytest.fixture(scope="module")
def opened(shared: NotebookPage) -> NotebookPage:
    shared.open("cards", [SETUP, "gated.send(7)", "gated.map(range(40))", "gated.send(13)", HOSTILE, "gated"])
    shared.run(0, 1, 2)
    return shared


def test_a_message_and_a_group_change_until_they_are_final(opened: NotebookPage, pictures: Path) -> None:
    message, group = card(opened, 1), card(opened, 2, "group")
    expect(message).to_have_attribute("data-nbqueue-state", "running")
    expect(message.locator("time")).to_have_attribute("datetime", re.compile(r"^\d{4}-"))
    expect(message).to_contain_text("begun 7")
    bar = group.locator('[role="progressbar"]')
    expect(bar).to_have_attribute("aria-valuemax", "40")
    expect(bar).to_have_attribute("aria-valuenow", "0")
    opened.execute("gate.set()")
    expect(message).to_have_attribute("data-nbqueue-state", "done")
    expect(part(message, "value")).to_have_text("7")
    expect(message.locator("time")).to_have_count(0)
    expect(group).to_have_attribute("data-nbqueue-state", "failed")
    expect(bar).to_have_attribute("aria-valuenow", "40")
    expect(group).to_contain_text("ValueError: no 13")
    opened.output(2).screenshot(path=pictures / "group.png")


def test_a_failure_shows_the_line(opened: NotebookPage, pictures: Path) -> None:
    opened.execute("gate.set()")
    opened.run(3)
    failure = card(opened, 3)
    expect(failure).to_have_attribute("data-nbqueue-state", "failed")
    expect(part(failure, "error")).to_have_text("ValueError: no 13")
    expect(part(failure, "traceback")).to_contain_text('raise ValueError(f"no {number}")')
    expect(part(failure, "traceback")).to_contain_text("In [1], line 10, in gated")
    expect(failure).to_contain_text("%nbqueue retry")
    for dark in (True, False):
        opened.dark(dark)
        opened.output(3).screenshot(path=pictures / f"failure-{'dark' if dark else 'light'}.png")


def test_hostile_text_stays_text(opened: NotebookPage) -> None:
    opened.run(4)
    failure = card(opened, 4)
    expect(failure).to_have_attribute("data-nbqueue-state", "failed")
    expect(part(failure, "error")).to_contain_text("<img src=x onerror=")
    expect(part(failure, "actor")).to_contain_text("<script>")
    assert failure.locator("img, script").count() == 0
    assert opened.page.evaluate("window.hurt === undefined")


def test_the_saved_notebook_holds_the_final_states(opened: NotebookPage) -> None:
    opened.execute("gate.set()")
    expect(card(opened, 1)).to_have_attribute("data-nbqueue-state", "done")
    opened.run(5)
    expect(card(opened, 5, "actor")).to_contain_text("gated")
    cells = opened.save()["cells"]
    html = "".join(cells[1]["outputs"][0]["data"]["text/html"])
    assert 'data-nbqueue="message"' in html
    assert 'data-nbqueue-state="done"' in html
    assert "<time" not in html
    assert "".join(cells[1]["outputs"][0]["data"]["text/plain"]) == "gated(7) = 7"


def test_a_card_of_a_kernel_that_is_gone_says_as_of_when(notebook: NotebookPage) -> None:
    notebook.open("gone", [SETUP, "gated.send(7)"])
    notebook.run(0, 1)
    message = card(notebook, 1)
    expect(message).to_have_attribute("data-nbqueue-state", "running")
    notebook.restart()
    expect(message).to_have_attribute("data-nbqueue-state", "running")
    expect(message.locator("time")).to_have_text(re.compile(r"as of \d\d:\d\d:\d\d"))
