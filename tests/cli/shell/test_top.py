"""`nbqueue top`: snapshots, and live on a terminal that is given back as it was."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from nbqueue import Broker
from tests.servers import RedisServer

from .conftest import Runner, Shell, Terminal, eventually

ENTER, LEAVE, SHOW_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


@pytest.mark.parametrize("columns", [80, 120])
def test_without_a_terminal_one_snapshot_is_printed(shell: Shell, runner: Runner, columns: int) -> None:
    runner.fail_with("no tea, nor milk, " * 20)
    runner.add.send(1, 2).get_result(block=True)
    printed = shell.ok("top", COLUMNS=str(columns))
    assert "\x1b" not in printed
    lines = printed.splitlines()
    assert all(len(line) <= columns for line in lines)
    assert lines[0].split()[:3] == ["queue", "waiting", "delayed"]
    assert any(line.startswith("✕ failed") and "fail('no tea" in line for line in lines)
    assert any(line.startswith("✓ done") and "add(1, 2)" in line for line in lines)


def test_json_is_one_object_a_look_with_rates_from_the_second_one_on(shell: Shell, broker: Broker) -> None:
    first, second = shell.json("top", "--count", "2", "-q", "default")
    assert list(first) == ["time", "broker", "queues"]
    assert first["queues"][0]["queue"] == "default"
    assert first["queues"][0]["per_second"] is None
    assert second["queues"][0]["per_second"] == 0.0
    assert second["time"] > first["time"]


@pytest.mark.parametrize("keys", ["q", "Q", "xyq", "\x03"], ids=["q", "Q", "others", "Ctrl-C"])
def test_a_key_ends_it_and_the_terminal_is_as_before(
    broker: Broker, terminal: Callable[..., Terminal], keys: str
) -> None:
    top = terminal("top", "-q", "default")
    top.sees("q ends")
    top.press(keys)
    assert top.ends() == 0
    assert top.is_restored()
    assert top.output.rindex(LEAVE) > top.output.index(ENTER)
    assert SHOW_CURSOR in top.output[top.output.index(ENTER) :]
    assert "Traceback" not in top.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_the_terminal_is_as_before(
    broker: Broker, terminal: Callable[..., Terminal], number: signal.Signals
) -> None:
    top = terminal("top", "-q", "default")
    top.sees("q ends")
    top.process.send_signal(number)
    assert top.ends() == 128 + number
    assert top.is_restored()
    assert LEAVE in top.output
    assert "Traceback" not in top.output


def test_ctrl_z_does_not_leave_the_terminal_in_the_middle(
    broker: Broker, terminal: Callable[..., Terminal]
) -> None:
    top = terminal("top", "-q", "default")
    top.sees("q ends")
    top.press("\x1aq")
    assert top.ends() == 0
    assert top.is_restored()


def test_it_is_redrawn_with_what_has_changed(
    shell: Shell, runner: Runner, terminal: Callable[..., Terminal]
) -> None:
    top = terminal("top", "--count", "0")
    top.sees("q ends")
    assert "add(20, 3)" not in top.output
    runner.add.send(20, 3).get_result(block=True)
    top.sees("add(20, 3)")
    top.press("q")
    assert top.ends() == 0


def test_a_lost_server_is_told_and_found_again(tmp_path: Path) -> None:
    with RedisServer() as server:
        shell = Shell(tmp_path, server.url)
        top = Terminal(shell, "top", "-q", "default")
        try:
            top.sees("q ends")
            server.kill()
            top.sees("lost, trying again")
            server.start()
            seen = len(top.read())

            def is_back() -> bool:
                return "q ends" in top.read()[seen:]

            eventually(is_back, "it shows the queues again")
            top.press("q")
            assert top.ends() == 0
            assert top.is_restored()
        finally:
            top.close()


def test_more_queues_than_there_are_lines_are_counted(
    shell: Shell, broker: Broker, terminal: Callable[..., Terminal]
) -> None:
    names = [f"queue-{number:02}" for number in range(30)]
    words = [word for name in names for word in ("-q", name)]
    top = terminal("top", *words, rows=20)
    top.sees("more: --queue NAME shows one of them")
    assert "queue-00" in top.output
    assert "queue-29" not in top.output
    top.press("q")
    assert top.ends() == 0


def test_each_line_of_json_can_be_read_at_once(shell: Shell, broker: Broker) -> None:
    process = shell.start("top", "--json", "--count", "0", "-q", "default")
    assert process.stdout is not None
    for _ in range(2):
        assert json.loads(process.stdout.readline())["queues"]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
