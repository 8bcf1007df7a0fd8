"""Promoting what a session has run: its values tell more than the text, the last run definition counts."""

from __future__ import annotations

import linecache
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nbqueue
from nbqueue.brokers.stub import StubBroker
from nbqueue.promote.cells import from_session
from nbqueue.promote.hashing import source_hash
from nbqueue.promote.ipython_syntax import to_python
from nbqueue.promote.refusals import CannotTravel
from nbqueue.promote.writing import Outcome, promote


class Session:
    """Cells that were run, one after the other, and the values that they left."""

    def __init__(self, folder: Path) -> None:
        self.module = folder / "tasks.py"
        self.executed: list[str] = []
        self.values: dict[str, Any] = {"__name__": "__main__"}

    def run(self, *cells: str) -> None:
        for cell in cells:
            cell = textwrap.dedent(cell).strip("\n")
            self.executed.append(cell)
            name = f"<cell {len(self.executed)} of {self.module}>"
            text = to_python(cell).python
            linecache.cache[name] = (len(text), None, [f"{line}\n" for line in text.split("\n")], name)
            try:
                exec(compile(text, name, "exec"), self.values)
            except ZeroDivisionError:
                continue  # as a cell that failed

    def promote(self, *actors: str) -> Outcome:
        outcome = promote(from_session(self.executed, self.values, "a notebook"), str(self.module), actors)
        assert outcome.failure is None
        return outcome

    def refusals(self) -> list[str]:
        with pytest.raises(CannotTravel) as refused:
            self.promote()
        return [str(refusal) for refusal in refused.value.refusals]

    @property
    def text(self) -> str:
        return self.module.read_text()


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setattr("sys.ps1", "", raising=False)  # actors may be defined again
    nbqueue.set_broker(StubBroker())
    yield Session(tmp_path)
    for name in [name for name in linecache.cache if name.endswith(f"of {tmp_path / 'tasks.py'}>")]:
        del linecache.cache[name]


CLEAN = "@nbqueue.actor\ndef clean(path):\n    return {}"


class DataFrame:
    """What a table of the library looks like from outside."""

    __module__ = "pandas.core.frame"
    columns = ("a", "b", "c")

    def memory_usage(self) -> int:
        return 1_200_000


def test_what_was_run_is_written(session: Session) -> None:
    session.run("import nbqueue", "N = 3", CLEAN.format("N"))
    assert str(session.promote()) == (
        f"Wrote {session.module}: 1 actor, 1 constant, 1 import. Run: nbqueue serve {session.module}"
    )
    assert '"""The actors of a notebook, written by `nbqueue promote`.' in session.text


def test_a_table_is_refused_with_its_size(session: Session) -> None:
    session.values["load"] = DataFrame
    session.run("import nbqueue\nstations = load()", CLEAN.format("stations"))
    assert session.refusals() == [
        "In [2], line 3: `clean` uses `stations`, a DataFrame of this notebook (3 columns, 1.2 MB) "
        "(In [1], line 2). Pass it as an argument, or load it inside `clean`."
    ]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("sum([1, 2])", "`x`, what `compute(…)` returned when the notebook ran (In [1], line 2). "
         "Its value is 3: write `x = 3` if it always is."),
        ("list(range(1000))", "`x`, a list of this notebook (1,000 items) (In [1], line 2). "
         "Pass it as an argument, or load it inside `clean`."),
        ("open('/dev/null')", "`x`, an open file of this notebook ('/dev/null') (In [1], line 2). "
         "Open it inside `clean`."),
        ("nbqueue.get_broker()", "`x`, a broker (In [1], line 2). Take broker=… out"),
        ("(lambda: lambda: n)()", "`x`, a function that running code made"),
        ("__import__('threading').Event()", "`x`, an Event of this notebook, a live object (In [1], line 2). "
         "Make it inside `clean`, or in a function with @functools.cache that `clean` calls."),
    ],
)  # fmt: skip
def test_a_computed_value_is_named_by_its_kind(session: Session, made: str, said: str) -> None:
    session.values["compute"] = lambda: eval(made)
    session.run("import nbqueue\nx = compute()", CLEAN.format("x"))
    (refusal,) = session.refusals()
    assert refusal.startswith(f"In [2], line 3: `clean` uses {said}")


def test_a_value_that_was_changed_is_refused_with_both(session: Session) -> None:
    session.run(
        "import nbqueue\nNAMES = ['a']\nA, B = 1, 2", "NAMES.append('b')\nB += 1", CLEAN.format("NAMES, A")
    )
    assert session.refusals() == [
        "In [3], line 3: `clean` uses `NAMES`, ['a'] at In [1], line 2, but ['a', 'b'] in the kernel. "
        "Run that cell again, or write the value there."
    ]


def test_a_change_that_left_no_trace_is_no_matter(session: Session) -> None:
    session.run("import nbqueue\nNAMES = ['a']", "NAMES.append('b')", "NAMES.pop()", CLEAN.format("NAMES"))
    session.promote()
    assert "NAMES = ['a']\n" in session.text


def test_a_counter_of_the_actor_is_only_warned_of(session: Session) -> None:
    session.run(
        "import nbqueue\ncount = 0",
        "@nbqueue.actor\ndef clean():\n    global count\n    count += 1\n    return count",
        "clean()",
    )
    assert str(session.promote()).endswith(
        "`count` is 1 in this kernel; the module starts with 0, in each process."
    )


def test_a_computed_constant_whose_part_changed_is_refused(session: Session) -> None:
    session.run("import nbqueue\nMINUTE = 60\nLIMIT = 3 * MINUTE", "MINUTE = 61", CLEAN.format("LIMIT"))
    (refusal,) = session.refusals()
    assert "`LIMIT`, 183 at In [1], line 3, but 180 in the kernel" in refusal


def test_the_definition_that_was_run_last_counts(session: Session) -> None:
    session.run("import nbqueue", "def helper():\n    return 1", CLEAN.format("helper()"))
    session.run("def helper():\n    return 2")
    session.promote()
    assert "return 2" in session.text
    assert "return 1" not in session.text


def test_running_a_cell_again_moves_nothing(session: Session) -> None:
    cells = ["import nbqueue", "def helper():\n    return 1", CLEAN.format("helper()"), "N = 1"]
    session.run(*cells)
    session.promote()
    before = session.text
    session.run(cells[1], cells[0], cells[2])
    assert not session.promote().written
    assert session.text == before


def test_a_cell_that_failed_before_its_definition_leaves_the_older_one(session: Session) -> None:
    session.run("import nbqueue", "def helper():\n    return 1", CLEAN.format("helper()"))
    session.run("1 / 0\ndef helper():\n    return 2")
    session.promote()
    assert "return 1" in session.text


def test_a_cell_that_cannot_be_parsed_is_no_matter(session: Session) -> None:
    session.run("import nbqueue", CLEAN.format("1"))
    session.executed.append("def broken(:")
    session.promote()


def test_a_name_that_is_gone_is_refused(session: Session) -> None:
    session.run("import nbqueue", "def helper():\n    return 1", CLEAN.format("helper()"))
    del session.values["helper"]
    assert session.refusals() == [
        "In [3], line 3: `clean` uses `helper`, gone from the kernel (In [2], line 1). Run its cell again."
    ]


def test_a_deleted_actor_is_not_written(session: Session) -> None:
    session.run("import nbqueue", CLEAN.format("1"), CLEAN.format("2").replace("clean", "other"), "del other")
    session.promote()
    assert "other" not in session.text


def test_an_actor_behind_a_decorator_of_the_notebook_is_found(session: Session) -> None:
    session.run(
        "import nbqueue\ndef task(fn):\n    return nbqueue.actor(fn, max_retries=3)",
        "@task\ndef clean():\n    return 1",
        "same = clean",
    )
    assert str(session.promote()).startswith(f"Wrote {session.module}: 1 actor, 1 helper, 1 import.")


def test_the_hash_tells_whether_the_notebook_changed_since(session: Session) -> None:
    generic = "class Add(nbqueue.GenericActor):\n    step = 1\n    def perform(self, x):\n        return x"
    session.run("import nbqueue", CLEAN.format("1"), generic)
    session.promote()
    clean, add = session.values["clean"], session.values["Add"]
    assert f"# nbqueue: actor clean {source_hash(clean)}\n" in session.text
    assert f"# nbqueue: actor Add {source_hash(add)}\n" in session.text
    session.run(CLEAN.format("2"), generic.replace("step = 1", "step = 2"))
    assert source_hash(session.values["clean"]) != source_hash(clean)
    assert source_hash(session.values["Add"]) != source_hash(add)
