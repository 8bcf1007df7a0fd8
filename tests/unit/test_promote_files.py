"""The file that promote writes: its form, and what stays when it is written again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import nbqueue
from nbqueue import Worker
from nbqueue.brokers.stub import StubBroker
from nbqueue.promote import writing
from nbqueue.promote.cells import from_file
from nbqueue.promote.hashing import source_hash
from nbqueue.promote.refusals import EditedByHand, PromoteError
from nbqueue.results import Results
from nbqueue.results.backends import StubBackend
from nbqueue.serve.loading import import_named

from .promoting import Workbook, environment

CELLS = (
    "%load_ext nbqueue\nimport os, sys\nimport nbqueue",
    """
    # How many rows a file may have.
    LIMIT = 10

    class Rows(list):
        def first(self):
            return self[0]
    """,
    """
    # Removes what is no row.
    @nbqueue.actor(max_retries=3)
    def clean(path: str) -> str:
        # Names only.
        return os.path.basename(path)[:LIMIT]  # cut


    @nbqueue.actor
    def count(path):
        return len(Rows(path))
    """,
)

EXPECTED = '''\
# nbqueue: begin f83a7cb7145e, edit report.ipynb and promote it again
# nbqueue: actor clean 86ace64b5d5a
# nbqueue: actor count be008ef4880a
"""The actors of report.ipynb, written by `nbqueue promote`.

`nbqueue serve tasks` runs them on the broker that NBQUEUE_BROKER_URL names; without it,
and without --broker-url, it refuses to start. Actors that name no max_retries are
retried up to 20 times there, and not at all in a notebook.
"""

import os

import nbqueue

# How many rows a file may have.
LIMIT = 10


class Rows(list):
    def first(self):
        return self[0]


# Removes what is no row.
@nbqueue.actor(max_retries=3)
def clean(path: str) -> str:
    # Names only.
    return os.path.basename(path)[:LIMIT]  # cut


@nbqueue.actor
def count(path):
    return len(Rows(path))


# nbqueue: end
'''


@pytest.fixture
def book(tmp_path: Path) -> Workbook:
    return Workbook(tmp_path)


def imported(book: Workbook) -> ModuleType:
    """Import the module as a worker does, and forget it again."""
    path = list(sys.path)
    try:
        return import_named(str(book.module))
    finally:
        sys.path[:] = path
        del sys.modules["tasks"]


def test_the_file_holds_the_users_text_in_the_form_of_a_formatter(book: Workbook) -> None:
    outcome = book.promote(*CELLS)
    assert book.text == EXPECTED
    assert book.lint() == ""
    assert book.format() == ""
    assert str(outcome) == (
        f"Wrote {book.module}: 2 actors, 1 helper, 1 constant, 2 imports. Run: nbqueue serve {book.module}"
    )


def test_a_module_here_is_served_by_its_name(book: Workbook, monkeypatch: pytest.MonkeyPatch) -> None:
    book.write(*CELLS)
    monkeypatch.chdir(book.folder)
    outcome = writing.promote(from_file("report.ipynb"), "tasks.py")
    assert str(outcome).endswith("Run: nbqueue serve tasks")


def test_the_same_notebook_gives_the_same_bytes(book: Workbook) -> None:
    program = (
        "from nbqueue.promote.cells import from_file; from nbqueue.promote.writing import promote; "
        "print(promote(from_file('report.ipynb'), 'tasks.py'))"
    )
    book.write(*CELLS)
    written = set()
    for seed in ("1", "2", "3"):
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=book.folder, env={**environment(), "PYTHONHASHSEED": seed}, check=True, timeout=60,
        )  # fmt: skip
        written.add(book.module.read_bytes())
        book.module.unlink()
    assert len(written) == 1


def test_some_actors_are_written_with_what_they_need(book: Workbook) -> None:
    bodies = {
        "first": "second.send()",
        "second": "third.send_with_options(on_failure='report', args=(sys.path,))",
        "third": "1",
        "report": "1",
        "alone": "os.getcwd()",
    }
    cells = [f"@nbqueue.actor\ndef {name}():\n    return {body}" for name, body in bodies.items()]
    cells[0] = cells[0].replace("actor\n", "actor(actor_name='start')\n")
    book.promote("import nbqueue, os, sys", *cells, actors=["start"])
    assert [name for name in bodies if f"def {name}(" in book.text] == ["first", "second", "third", "report"]
    assert "import os" not in book.text
    assert list(book.noted_hashes()) == ["start", "second", "third", "report"]


def test_written_again_only_the_part_between_the_marks_changes(book: Workbook) -> None:
    book.promote(*CELLS)
    own_before, own_after = "# My tasks.\n\n", "\n\nnbqueue.get_logger(__name__)\n"
    book.module.write_text(own_before + book.text + own_after)
    outcome = book.promote(*CELLS[:2], CELLS[2].replace("cut", "short"))
    assert book.text.startswith(own_before)
    assert book.text.endswith(own_after)
    assert "# short" in book.text
    assert "-    return os.path.basename(path)[:LIMIT]  # cut\n" in str(outcome)
    assert "+    return os.path.basename(path)[:LIMIT]  # short\n" in str(outcome)
    again = book.promote()
    assert str(again).startswith(f"{book.module} is up to date: 2 actors")
    assert not again.written


def test_only_the_difference_is_shown_when_asked_for(book: Workbook) -> None:
    outcome = book.promote(*CELLS, only_diff=True)
    assert not book.module.exists()
    assert "+def count(path):" in str(outcome)
    assert str(outcome).endswith(
        f"Not written: 2 actors, 1 helper, 1 constant, 2 imports would be in {book.module}."
    )


def test_a_part_edited_by_hand_is_kept_unless_forced(book: Workbook) -> None:
    book.promote(*CELLS)
    edited = book.text.replace("LIMIT = 10", "LIMIT = 11")
    book.module.write_text(edited)
    with pytest.raises(EditedByHand, match="was edited by hand between its marks") as refused:
        book.promote()
    assert "-LIMIT = 11\n+LIMIT = 10\n" in refused.value.diff
    assert book.text == edited
    book.promote(force=True)
    assert book.text == EXPECTED


def test_blanks_at_ends_and_windows_line_ends_are_no_edit_and_stay(book: Workbook) -> None:
    book.promote(*CELLS)
    book.module.write_bytes(book.text.replace("\n", " \r\n").encode())
    book.promote()
    assert book.module.read_bytes() == EXPECTED.replace("\n", "\r\n").encode()


def test_a_file_of_ones_own_gets_the_part_at_its_end(book: Workbook) -> None:
    book.module.write_text("import os\n\nHERE = os.getcwd()\n")
    book.promote(*CELLS)
    assert book.text.startswith("import os\n\nHERE = os.getcwd()\n\n\n# nbqueue: begin ")
    assert "# The actors of report.ipynb, written by `nbqueue promote`.\n" in book.text
    assert book.format() == ""


def test_future_imports_must_stand_above_own_code(book: Workbook) -> None:
    book.module.write_text("HERE = 1\n")
    cells = ("from __future__ import annotations\nimport nbqueue\n@nbqueue.actor\ndef f(x: 'y'): pass",)
    with pytest.raises(PromoteError, match="must stand above your own code in"):
        book.promote(*cells)
    book.module.write_text("from __future__ import annotations\n\nHERE = 1\n")
    book.promote(*cells)
    assert book.text.count("__future__") == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("# nbqueue: end", ""),
        lambda text: text + text,
        lambda text: text.replace("# nbqueue: begin", "# nbqueue: begin nothing"),
    ],
)
def test_damaged_marks_are_refused(book: Workbook, damage: object) -> None:
    book.promote(*CELLS)
    book.module.write_text(damage(book.text))  # type: ignore[operator]
    with pytest.raises(PromoteError, match="should hold one part"):
        book.promote(force=True)


def test_a_write_that_fails_leaves_the_old_file(book: Workbook, monkeypatch: pytest.MonkeyPatch) -> None:
    book.promote(*CELLS)

    def fail(*paths: str) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        book.promote("import nbqueue\n@nbqueue.actor\ndef f(): pass")
    assert book.text == EXPECTED
    assert sorted(os.listdir(book.folder)) == ["report.ipynb", "tasks.py"]


def test_a_link_and_the_permissions_stay(book: Workbook) -> None:
    target = book.folder / "real.py"
    target.write_text("")
    target.chmod(0o640)
    book.module.symlink_to("real.py")
    book.promote(*CELLS)
    assert book.module.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert "def clean" in target.read_text()


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("TABLE = {'a': 1}\nX = TABLE['b']\n@nbqueue.actor\ndef f(): return X", "line 13: KeyError: 'b'"),
        ("@nbqueue.actor(unheard_of=3)\ndef f(): pass", "ValueError: These actor options are not known here"),
        (
            "import missing_one\n@nbqueue.actor\ndef f(): missing_one",
            "line 10: ModuleNotFoundError: No module",
        ),
        (
            "@nbqueue.actor\ndef f():\n    return 1\n    nonlocal_ = await g\n",
            "SyntaxError: 'await' outside async",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_in_one_line(book: Workbook, cell: str, said: str) -> None:
    book.write("import nbqueue\ng = 1", cell)
    outcome = writing.promote(from_file(str(book.notebook)), str(book.module))
    assert outcome.failure is not None
    assert said in outcome.failure
    assert "\n" not in outcome.failure
    assert f"It can't be imported: {outcome.failure}" in str(outcome)


def test_a_module_that_ends_the_interpreter_is_told(book: Workbook) -> None:
    book.module.write_text("import os\n\nos._exit(3)\n")
    book.write(*CELLS)
    outcome = writing.promote(from_file(str(book.notebook)), str(book.module))
    assert outcome.failure == "the interpreter ended with code 3"


def test_importing_starts_no_thread_and_needs_no_server(
    book: Workbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NBQUEUE_BROKER_URL", "redis://127.0.0.1:1")
    book.promote(*CELLS)
    program = "import threading, tasks; print([t.name for t in threading.enumerate()])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=book.folder, env=environment(), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "['MainThread']\n"


def test_a_cell_magic_that_makes_an_actor_becomes_a_decorator(book: Workbook) -> None:
    book.promote(
        '%%actor queue_name=emails max_retries=3 actor_name="it\'s"\n'
        "def helper(): return 1\n# Sends.\ndef mail(): return helper()"
    )
    decorator = '@nbqueue.actor(queue_name="emails", max_retries=3, actor_name="it\'s")'
    assert f"# Sends.\n{decorator}\ndef mail(): return helper()\n" in book.text
    assert "\nimport nbqueue\n" in book.text
    assert book.lint() == ""


def test_the_noted_hash_is_that_of_the_function_wherever_it_is(book: Workbook) -> None:
    nbqueue.set_broker(StubBroker())
    book.promote(
        *CELLS,
        "async def late(): pass\nlater = nbqueue.actor(late)",
        "class Add(nbqueue.GenericActor):\n    def perform(self, x):\n        return x",
    )
    module = imported(book)
    noted = book.noted_hashes()
    assert set(noted) == {"clean", "count", "late", "Add"}
    found = {actor: source_hash(getattr(module, {"late": "later"}.get(actor, actor))) for actor in noted}
    assert found == noted
    assert source_hash(len) is None


def test_a_worker_runs_the_written_module(book: Workbook) -> None:
    broker = StubBroker()
    broker.add_middleware(Results(backend=StubBackend(), store_results=True))
    nbqueue.set_broker(broker)
    book.promote(*CELLS)
    module = imported(book)
    worker = Worker(broker, worker_threads=1)
    worker.start()
    try:
        assert (
            module.clean.send("data/a-long-name.csv").get_result(block=True, timeout=10_000) == "a-long-nam"
        )
        assert module.count.send("abc").get_result(block=True, timeout=10_000) == 3
    finally:
        worker.stop()
