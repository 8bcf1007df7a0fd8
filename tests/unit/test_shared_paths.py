"""The list of paths that processes share, and the small things that old programs import."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest

from nbqueue.canteen import Canteen, canteen_add, canteen_get, canteen_try_init
from nbqueue.compat import StreamablePipe, file_or_stderr
from nbqueue.watcher import setup_file_watcher


def test_paths_are_there_once_they_are_complete() -> None:
    shared = multiprocessing.Value(Canteen)
    assert canteen_get(shared, timeout=0.01) == []
    with canteen_try_init(shared) as first:
        assert first
        canteen_add(shared, "tasks:metrics")
        canteen_add(shared, "tasks:health")
    with canteen_try_init(shared) as first:
        assert not first
    assert canteen_get(shared) == ["tasks:metrics", "tasks:health"]


def test_paths_cross_processes() -> None:
    context = multiprocessing.get_context("fork")
    shared = context.Value(Canteen)
    process = context.Process(target=_fill, args=(shared,))
    process.start()
    assert canteen_get(shared, timeout=20) == ["tasks:metrics"]
    process.join()


def _fill(shared: Canteen) -> None:
    with canteen_try_init(shared):
        canteen_add(shared, "tasks:metrics")


def test_a_full_canteen_says_so_and_keeps_what_it_has() -> None:
    canteen = Canteen()
    for _ in range(1023):
        canteen_add(canteen, "0" * 1024)
    with pytest.raises(RuntimeError, match="full"):
        canteen_add(canteen, "0" * 1024)
    canteen.initialized = True
    assert len(canteen_get(canteen)) == 1023


def test_text_goes_through_a_pipe() -> None:
    reader, writer = multiprocessing.Pipe(duplex=False)
    stream = StreamablePipe(writer)
    assert stream.write("grün\n") == 5
    stream.flush()
    assert StreamablePipe(reader).read() == "grün\n"
    stream.close()


def test_a_log_file_is_appended_to_or_stderr_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in ("one\n", "two\n"):
        with file_or_stderr(str(tmp_path / "log")) as file:
            file.write(line)
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    with file_or_stderr(None) as file:
        file.write("three\n")
    assert capsys.readouterr().err == "three\n"


@pytest.mark.parametrize("polling", [False, True])
def test_a_changed_source_file_sends_hangup(tmp_path: Path, polling: bool) -> None:
    came = threading.Event()
    before = signal.signal(signal.SIGHUP, lambda *_: came.set())
    watcher = setup_file_watcher(
        str(tmp_path), use_polling=polling, include_patterns=["*.toml"], exclude_patterns=["*/made.py"]
    )
    try:
        deadline = threading.Event()
        threading.Timer(60, deadline.set).start()
        number = 0
        while not came.wait(0.05):  # watching begins in a thread: write until it is noticed
            assert not deadline.is_set()
            number += 1
            (tmp_path / "settings.toml").write_text(str(number))
    finally:
        watcher.stop()
        watcher.join(20)
        signal.signal(signal.SIGHUP, before)


def test_the_patterns_say_what_is_watched() -> None:
    from nbqueue.watcher import _matches

    assert _matches(os.path.join("shop", "tasks.py"), ["**.py"])
    assert not _matches(os.path.join("shop", "tasks.pyc"), ["**.py"])
    assert _matches(os.path.join("shop", "made.py"), ["*/made.py"])
