"""Cards outside a live page: in a terminal, in a saved notebook, and in what is made of that."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

CELLS = [
    "%load_ext nbqueue",
    "import nbqueue, time\n@nbqueue.actor\ndef slow(x):\n    print('working'); time.sleep(0.3); return x + 1",
    "message = slow.send(1)\nmessage",
    "group = slow.map(range(20))\ngroup",
    "message.get_result()",
    "%%nbqueue wait\nlast = slow.send(5)",
    "assert list(group.get_results()) == list(range(1, 21))\ntime.sleep(0.6)",
]


@pytest.fixture
def saved() -> nbformat.NotebookNode:
    """A notebook that nbclient has run."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    NotebookClient(notebook, timeout=60).execute()
    return notebook


def html(cell: nbformat.NotebookNode) -> str:
    return str(cell.outputs[-1]["data"]["text/html"])


def test_a_saved_notebook_holds_the_final_state(saved: nbformat.NotebookNode) -> None:
    message, group, value, waited = (saved.cells[number] for number in (2, 3, 4, 5))
    assert 'data-nbqueue="message" data-nbqueue-state="done"' in html(message)
    assert message.outputs[-1]["data"]["text/plain"] == "slow(1) = 2"
    assert 'data-nbqueue="group" data-nbqueue-state="done"' in html(group)
    assert 'aria-valuenow="20"' in html(group)
    assert value.outputs[0]["text"] == "working\n"
    assert 'data-nbqueue-state="done"' in html(waited)
    for cell in (message, group, waited):
        assert len(html(cell).encode()) <= 4096


def test_text_forms_hold_no_ids_and_no_times(saved: nbformat.NotebookNode) -> None:
    texts = [
        output["data"]["text/plain"] for cell in saved.cells for output in cell.outputs if "data" in output
    ]
    assert texts == ["slow(1) = 2", "slow.map, 20 messages", "2", "slow, 1 message"]


def test_nbconvert_shows_the_cards_without_scripts_of_ours(saved: nbformat.NotebookNode) -> None:
    page, _ = HTMLExporter().from_notebook_node(saved)
    cards = re.findall(r'<div [^>]*class="nbqueue" data-nbqueue="(\w+)"', page)
    assert cards == ["message", "group", "group"]
    ours = page.partition('data-nbqueue="message"')[2].partition("jp-Cell")[0]
    assert "slow" in ours
    assert "<script" not in ours


def test_a_terminal_shows_text(tmp_path: Path) -> None:
    lines = [
        *CELLS[:1],
        "import nbqueue",
        "@nbqueue.actor\ndef twice(x):\n    return 2 * x\n\n",
        "twice.send(4)",
    ]
    lines += ["twice", "[twice.message(1)]", "twice.map([1, 2])", "%nbqueue", "exit"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "IPython",
            "--simple-prompt",
            "--no-banner",
            "--no-confirm-exit",
            "--colors=NoColor",
        ],
        input="\n".join(lines) + "\n",
        env={**os.environ, "IPYTHONDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Out[4]: twice(4) = 8\n" in done.stdout
    assert "Out[5]: twice(x), actor on default\n" in done.stdout
    assert "Out[6]: [twice(1), not sent]\n" in done.stdout
    assert "Out[7]: twice.map, 2 messages\n" in done.stdout
    assert "stub, in this kernel" in done.stdout
    assert "<div" not in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
