"""One JupyterLab and one Chromium a session; a notebook in a page for each test."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from .lab import DEADLINE, LabServer, NotebookPage, chromium


@pytest.fixture(scope="session")
def lab() -> Iterator[LabServer]:
    with LabServer() as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = chromium()
    expect.set_options(timeout=DEADLINE)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@contextlib.contextmanager
def new_page(lab: LabServer, browser: Browser) -> Iterator[NotebookPage]:
    """A page. What the dashboard's script complains of fails the test; it comes as a blob."""
    context = browser.new_context(viewport={"width": 1100, "height": 1400}, reduced_motion="reduce")
    context.set_default_timeout(DEADLINE)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(error.stack or str(error)))
    notebook = NotebookPage(page, lab)
    yield notebook
    notebook.shut_down()
    context.close()
    assert [complaint for complaint in complaints if "blob:" in complaint] == []


@pytest.fixture
def notebook(lab: LabServer, browser: Browser) -> Iterator[NotebookPage]:
    """A page of the test's own."""
    with new_page(lab, browser) as notebook:
        yield notebook


@pytest.fixture(scope="module")
def shared(lab: LabServer, browser: Browser) -> Iterator[NotebookPage]:
    """A page of the module's tests together."""
    with new_page(lab, browser) as notebook:
        yield notebook


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots are left: the folder that NBQUEUE_PICTURES names, or a temporary one."""
    named = os.environ.get("NBQUEUE_PICTURES")
    folder = Path(named) if named else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
