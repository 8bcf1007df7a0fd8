"""`nbqueue promote`: what it prints, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbqueue.cli import main

from .promoting import Workbook

CELLS = ("import nbqueue", "@nbqueue.actor\ndef clean(path):\n    return 1")


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbook:
    monkeypatch.chdir(tmp_path)
    book = Workbook(tmp_path)
    book.write(*CELLS)
    return book


def test_it_writes_and_says_how_to_run_it(book: Workbook, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["promote", "report.ipynb", "-o", "tasks.py"]) == 0
    assert capsys.readouterr().out == "Wrote tasks.py: 1 actor, 1 import. Run: nbqueue serve tasks\n"
    assert "def clean" in book.text


def test_it_shows_what_would_change(book: Workbook, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["promote", "report.ipynb", "clean", "-o", "tasks.py", "--diff"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("--- tasks.py\n+++ tasks.py (new)\n")
    assert "+def clean(path):\n" in shown
    assert not book.module.exists()


def test_what_cannot_travel_is_exit_code_1(book: Workbook, capsys: pytest.CaptureFixture[str]) -> None:
    book.write("import nbqueue", "@nbqueue.actor\ndef clean(path):\n    return df, model")
    assert main(["promote", "report.ipynb", "-o", "tasks.py"]) == 1
    assert capsys.readouterr().err == (
        "nbqueue promote: tasks.py is not written: 2 things can't travel.\n"
        "  cell 2, line 3: `clean` uses `df`, defined by no cell. Define it, or import it, in a cell.\n"
        "  cell 2, line 3: `clean` uses `model`, defined by no cell. Define it, or import it, in a cell.\n"
    )


def test_a_hand_edited_file_is_exit_code_1_and_can_be_forced(
    book: Workbook, capsys: pytest.CaptureFixture[str]
) -> None:
    book.promote()
    book.module.write_text(book.text.replace("return 1", "return 2"))
    assert main(["promote", "report.ipynb", "-o", "tasks.py"]) == 1
    shown = capsys.readouterr()
    assert "-    return 2\n+    return 1\n" in shown.out
    assert "tasks.py was edited by hand" in shown.err
    assert main(["promote", "report.ipynb", "-o", "tasks.py", "--force"]) == 0
    assert "return 1" in book.text


def test_a_module_that_cannot_be_imported_is_exit_code_1(
    book: Workbook, capsys: pytest.CaptureFixture[str]
) -> None:
    book.write(
        "import nbqueue, a_module_that_is_missing as m", "@nbqueue.actor\ndef clean(path):\n    return m"
    )
    assert main(["promote", "report.ipynb", "-o", "tasks.py"]) == 1
    assert "ModuleNotFoundError: No module named 'a_module_that_is_missing'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.ipynb", "-o", "tasks.py"], "missing.ipynb can't be read"),
        (["report.ipynb", "-o", "tasks.txt"], "must end in .py"),
        (["report.ipynb", "nobody", "-o", "tasks.py"], "no actor 'nobody'"),
        (["report.ipynb"], "--output"),
    ],
)
def test_wrong_arguments_are_exit_code_2(
    book: Workbook, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["promote", *words]) == 2
    assert said in capsys.readouterr().err
    assert not book.module.exists()
