"""`%nbqueue promote` in a real kernel: the session's actors as a module, which workers then serve."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import nbqueue
from nbqueue import Worker
from nbqueue.brokers.redis import RedisBroker
from nbqueue.results import Results
from nbqueue.results.backends import RedisBackend
from nbqueue.serve.loading import import_named

from ..unit.promoting import noted_hashes
from .conftest import Notebook

CELLS = (
    "import json, os, sys\nfrom pathlib import Path\n!true",
    "LIMIT = 3\n\ndef shorten(text):\n    return text[:LIMIT]",
    "@nbqueue.actor\ndef clean(path):\n    return shorten(Path(path).name)",
    "@nbqueue.actor\ndef both(first, second):\n    return json.dumps([clean(first), clean(second)])",
)


@pytest.fixture
def promoted(loaded: Notebook, tmp_path: Path) -> Notebook:
    """A notebook in a folder, with actors that use each other."""
    loaded.run(f"%cd -q {tmp_path}")
    for cell in CELLS:
        assert loaded.run(cell).error == ""
    return loaded


def test_the_actors_are_written_and_what_they_need(promoted: Notebook, tmp_path: Path) -> None:
    shown = promoted.run("%nbqueue promote tasks.py clean both")
    assert shown.stdout == (
        "Wrote tasks.py: 2 actors, 1 helper, 1 constant, 3 imports. Run: nbqueue serve tasks\n"
    )
    assert shown.stderr == shown.error == ""
    text = (tmp_path / "tasks.py").read_text()
    assert "IPython" not in text
    assert "def add" not in text
    assert promoted.run("%nbqueue promote tasks.py clean both").stdout.startswith(
        "tasks.py is up to date: 2 actors"
    )
    code = "from nbqueue.promote.hashing import source_hash\n[source_hash(clean), source_hash(both)]"
    assert promoted.run(code).result == repr(list(noted_hashes(text).values()))


def test_cells_that_the_kernel_does_not_keep_are_known_as_well(notebook: Notebook, tmp_path: Path) -> None:
    notebook.store_history = False
    notebook.run("%load_ext nbqueue\nimport nbqueue\nFACTOR = 2")
    notebook.run(f"%cd -q {tmp_path}")
    notebook.run("@nbqueue.actor\ndef double(number):\n    return number * FACTOR")
    shown = notebook.run("%nbqueue promote tasks.py")
    assert shown.stdout == "Wrote tasks.py: 1 actor, 1 constant, 1 import. Run: nbqueue serve tasks\n"


def test_the_difference_is_shown_and_only_the_part_replaced(promoted: Notebook, tmp_path: Path) -> None:
    promoted.run("%nbqueue promote tasks.py")
    module = tmp_path / "tasks.py"
    before = module.read_text()
    promoted.run(CELLS[1].replace("LIMIT = 3", "LIMIT = 4"))
    assert "-LIMIT = 3\n+LIMIT = 4\n" in promoted.run("%nbqueue promote tasks.py --diff").stdout
    assert module.read_text() == before
    module.write_text(before.replace("LIMIT = 3", "LIMIT = 5"))
    refused = promoted.run("%nbqueue promote tasks.py").stdout
    assert "-LIMIT = 5\n+LIMIT = 4\n" in refused
    assert "was edited by hand" in refused
    assert "Wrote tasks.py" in promoted.run("%nbqueue promote tasks.py --force").stdout
    assert "LIMIT = 4\n" in module.read_text()


def test_what_cannot_travel_is_named_by_its_cell_and_value(promoted: Notebook, tmp_path: Path) -> None:
    promoted.run("stations = list(map(int, range(1000)))")
    cell = int(promoted.run("len(In)").result)  # the number of the next cell
    promoted.run("@nbqueue.actor\ndef use(n):\n    display(n)\n    return stations[n]")
    shown = promoted.run("%nbqueue promote tasks.py")
    assert shown.error == shown.stderr == ""
    assert shown.stdout.splitlines() == [
        "tasks.py is not written: 2 things can't travel.",
        f"  In [{cell}], line 3: `use` uses `display`, a name of IPython's. Print or return text instead.",
        f"  In [{cell}], line 4: `use` uses `stations`, a list of this notebook (1,000 items) "
        f"(In [{cell - 2}], line 1). Pass it as an argument, or load it inside `use`.",
    ]
    assert not (tmp_path / "tasks.py").exists()


def test_a_mistake_is_a_sentence(promoted: Notebook) -> None:
    assert "FILE.py" in promoted.run("%nbqueue promote").stdout
    assert "must end in .py" in promoted.run("%nbqueue promote tasks.txt").stdout
    assert "no actor 'claen'. Did you mean clean?" in promoted.run("%nbqueue promote tasks.py claen").stdout


def test_workers_serve_what_the_notebook_sends(
    promoted: Notebook, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted.run("%nbqueue promote tasks.py")
    promoted.run(f"%nbqueue use {redis_url}")
    promoted.run("message = both.send('data/abcdef.csv', 'x')")
    broker = RedisBroker(url=redis_url)
    broker.add_middleware(Results(backend=RedisBackend(url=redis_url), store_results=True))
    monkeypatch.setattr(nbqueue.broker, "global_broker", broker)
    monkeypatch.setattr(sys, "path", list(sys.path))
    import_named(str(tmp_path / "tasks.py"))
    del sys.modules["tasks"]
    worker = Worker(broker, worker_threads=1)
    worker.start()
    try:
        assert promoted.run("message.get_result(timeout=20_000)").result == """'["abc", "x"]'"""
    finally:
        worker.stop()
        broker.close()
