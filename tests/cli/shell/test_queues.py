"""`nbqueue queues`: the numbers of each queue."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nbqueue import Broker, Message
from nbqueue.brokers.redis import RedisBroker

from .conftest import Runner, Shell, Terminal, bury, eventually

FIELDS = ["queue", "waiting", "delayed", "running", "done", "failed", "dead", "retrying"]
HOSTILE = "a\x1b[31m\x07b\u202ec\nd"


def put(broker: Broker, queue: str, *, delay: int | None = None) -> None:
    broker.declare_queue(queue)
    broker.enqueue(Message(queue, "nobody", (), {}, {}), delay=delay)


def test_queues_with_messages_are_found_on_redis(shell: Shell, broker: Broker) -> None:
    put(broker, "default")
    put(broker, "default")
    put(broker, "later", delay=3_600_000)
    default, later = shell.json("queues")
    assert list(default) == FIELDS
    assert (default["queue"], default["waiting"], default["delayed"]) == ("default", 2, 0)
    assert (later["queue"], later["waiting"], later["delayed"]) == ("later", 0, 1)


def test_queues_of_live_workers_are_found_although_they_are_empty(shell: Shell, runner: Runner) -> None:
    assert runner.add.send(1).get_result(block=True) == 1
    eventually(lambda: {row["queue"] for row in shell.json("queues")} >= {"default", "emails"}, "both queues")


def test_done_and_failed_messages_and_dead_letters_are_counted(shell: Shell, runner: Runner) -> None:
    runner.add.send(1).get_result(block=True)
    runner.fail_with("no")

    def numbers() -> dict[str, tuple[int, int, int]]:
        return {row["queue"]: (row["done"], row["failed"], row["dead"]) for row in shell.json("queues")}

    eventually(lambda: numbers() == {"default": (1, 0, 0), "emails": (0, 1, 1)}, "all are counted")


def test_the_server_is_asked_for_its_keys_in_small_steps_only(shell: Shell, broker: RedisBroker) -> None:
    put(broker, "default")
    broker.client.config_resetstat()
    shell.ok("queues")
    commands = broker.client.info("commandstats")
    assert "cmdstat_scan" in commands
    assert "cmdstat_keys" not in commands


def test_only_queues_of_the_namespace_are_shown(shell: Shell, redis_url: str, broker: Broker) -> None:
    put(broker, "default")
    for namespace in ("other", "dramatiq:inner"):
        elsewhere = RedisBroker(url=redis_url, namespace=namespace)
        put(elsewhere, f"of-{namespace[:5]}")
        elsewhere.close()
    assert [row["queue"] for row in shell.json("queues")] == ["default"]
    assert [row["queue"] for row in shell.json("queues", "--namespace", "other")] == ["of-other"]


def test_queues_can_be_named(shell: Shell, broker: Broker) -> None:
    put(broker, "default")
    put(broker, "emails")
    rows = shell.json("queues", "--queue", "emails", "-q", "unknown.DQ")
    assert [(row["queue"], row["waiting"]) for row in rows] == [("emails", 1), ("unknown", 0)]


def test_a_module_knows_its_queues_and_what_it_prints_is_not_among_the_answers(
    shell: Shell, broker: Broker
) -> None:
    put(broker, "elsewhere")
    done = shell.run("queues", "--module", "tasks", "--json")
    assert [json.loads(line)["queue"] for line in done.stdout.splitlines()] == ["default", "emails"]
    assert "tasks is imported" in done.stderr


def test_without_any_queue_a_sentence_says_so(shell: Shell) -> None:
    done = shell.run("queues")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("No queue of redis://127.0.0.1")


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_whatever_the_queues_are_called(shell: Shell, broker: Broker, columns: int) -> None:
    for name in ("default", "x" * 255, HOSTILE, "長い名前" * 30):
        put(broker, name)
    lines = shell.ok("queues", COLUMNS=str(columns)).splitlines()
    assert len(lines) == 5
    assert all(len(line) <= columns for line in lines)
    assert all(line.split()[-1] == "0" for line in lines[1:])
    assert "waiting" in lines[0]
    assert "per second" not in lines[0]


def test_control_characters_of_names_are_written_out(shell: Shell, broker: Broker) -> None:
    put(broker, HOSTILE)
    assert "a\\u001b[31m\\u0007b\\u202ec\\nd" in shell.ok("queues")
    printed = shell.ok("queues", "--json")
    assert printed.count("\n") == 1
    assert printed.isascii()
    assert json.loads(printed)["queue"] == HOSTILE


def test_a_name_that_looks_like_markup_is_printed_as_it_is(shell: Shell) -> None:
    assert "[red]:smile:[/red]" in shell.ok("queues", "-q", "[red]:smile:[/red]")


def test_there_are_colours_on_a_terminal_unless_they_are_not_wanted(
    broker: Broker, terminal: Callable[..., Terminal]
) -> None:
    bury(broker, "default", "one")
    for env, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        shown = terminal("queues", **env)
        assert shown.ends() == 0
        assert "default" in shown.output
        assert ("\x1b[31m" in shown.output) is coloured


def test_output_that_is_no_terminal_has_no_escape_sequences(shell: Shell, broker: Broker) -> None:
    put(broker, "default")
    assert "\x1b" not in shell.ok("queues")


def test_output_that_takes_ascii_only_is_no_trouble(shell: Shell, broker: Broker) -> None:
    put(broker, "größe")
    assert "gr\\xf6\\xdfe" in shell.ok("queues", PYTHONIOENCODING="ascii")


def test_a_reader_that_goes_away_is_no_trouble(shell: Shell, broker: Broker) -> None:
    for number in range(50):
        put(broker, f"queue-{number}")
    process = shell.start("queues", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(30) in (0, 1)
    assert process.stderr.read() == ""
    process.stderr.close()


def test_rabbitmq_has_to_be_told_which_queues(bare_shell: Shell, rabbitmq_url: str) -> None:
    done = bare_shell.run("queues", "--broker-url", rabbitmq_url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--queue NAME" in done.stderr
    assert "--module MODULE" in done.stderr
    assert done.stderr.count("\n") == 1


def test_rabbitmq_counts_no_ended_messages_without_states(bare_shell: Shell, rabbitmq_url: str) -> None:
    sent = bare_shell.run("send", "add", "-b", rabbitmq_url, "--queue", "emails")
    assert sent.returncode == 0, sent
    [row] = bare_shell.json("queues", "-b", rabbitmq_url, "--queue", "emails")
    assert (row["waiting"], row["done"], row["failed"], row["dead"]) == (1, None, None, 0)
    table = bare_shell.ok("queues", "-b", rabbitmq_url, "--queue", "emails")
    assert table.splitlines()[1].split()[0] == "emails"
    assert "\N{EN DASH}" in table


def test_a_module_that_sets_its_own_broker_is_asked(
    bare_shell: Shell, redis_url: str, tmp_path: Path
) -> None:
    bare_shell.write(
        "shop.py",
        "import nbqueue\nfrom nbqueue.brokers.redis import RedisBroker\n"
        f"orders = RedisBroker(url={redis_url!r}, namespace='shop')\n"
        "@nbqueue.actor(broker=orders, queue_name='orders')\ndef order(): pass\n",
    )
    assert [row["queue"] for row in bare_shell.json("queues", "-m", "shop:orders")] == ["orders"]
    done = bare_shell.run("queues", "-m", "shop:orders", "-b", redis_url)
    assert done.returncode == 2
    assert "sets its own broker" in done.stderr
