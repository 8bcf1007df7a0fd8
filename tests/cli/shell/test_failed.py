"""`nbqueue failed`: listing, showing, retrying and deleting dead letters."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from nbqueue import Broker, inspection
from nbqueue.brokers.redis import RedisBroker

from .conftest import Runner, Shell, Terminal, bury, eventually

FIELDS = [
    "id",
    "queue",
    "actor",
    "args",
    "kwargs",
    "options",
    "sent",
    "died",
    "tries",
    "worker",
    "error",
    "traceback",
    "body",
]


def test_failed_messages_are_listed_with_their_errors_the_latest_first(shell: Shell, runner: Runner) -> None:
    first, second = runner.fail_with("no tea", "no milk")
    rows = shell.json("failed", "list")
    assert [row["id"] for row in rows] == [second, first]
    assert list(rows[0]) == FIELDS
    assert (rows[0]["queue"], rows[0]["actor"], rows[0]["args"]) == ("emails", "fail", ["no milk"])
    assert rows[0]["error"] == "ValueError: no milk"
    lines = shell.ok("failed", "list").splitlines()
    assert lines[0].split() == ["id", "queue", "call", "error", "tries", "ago"]
    assert lines[1].startswith(f"{second[:8]}  emails  fail('no milk')  ValueError: no milk")


def test_the_list_can_be_limited_to_a_queue_and_a_number(shell: Shell, broker: Broker) -> None:
    bury(broker, "default", "one", "two", "three")
    bury(broker, "emails", "four")
    assert {row["id"] for row in shell.json("failed", "list")} == {"one", "two", "three", "four"}
    assert {row["id"] for row in shell.json("failed", "list", "-q", "emails")} == {"four"}
    done = shell.run("failed", "list", "--queue", "default", "-n", "2")
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == "These are the latest 2 of 3: --limit N lists more.\n"


@pytest.mark.parametrize("columns", [80, 120])
def test_the_list_fits_and_keeps_its_columns(shell: Shell, runner: Runner, columns: int) -> None:
    [failed] = runner.fail_with("\x1b[31m\u202e a long story\n" * 20)
    header, row = shell.ok("failed", "list", COLUMNS=str(columns)).splitlines()
    assert header.split() == ["id", "queue", "call", "error", "tries", "ago"]
    assert row.startswith(failed[:8])
    assert row.endswith(" s")
    assert len(row) <= columns
    assert "\x1b" not in row


def test_ids_are_as_long_as_it_takes_to_tell_them_apart(shell: Shell, broker: Broker) -> None:
    bury(broker, "default", "order-number-1", "order-number-2")
    rows = shell.ok("failed", "list").splitlines()[1:]
    assert {row.split()[0] for row in rows} == {"order-number-1", "order-number-2"}


def test_where_nothing_has_failed_a_sentence_says_so(shell: Shell, broker: Broker) -> None:
    for words in (["list"], ["retry", "--all"], ["delete", "--all", "--yes"]):
        done = shell.run("failed", *words)
        assert done.returncode == 0
        assert "No message has failed." in done.stdout + done.stderr


def test_all_that_is_known_of_a_message_is_shown(shell: Shell, runner: Runner) -> None:
    [failed] = runner.fail_with("no\x1b[31m tea")
    shown = shell.ok("failed", "show", failed[:6])
    assert f"id       {failed}\n" in shown
    assert "call     fail('no\\x1b[31m tea')\n" in shown
    assert "error    ValueError: no\\u001b[31m tea\n" in shown
    assert "Traceback (most recent call last):\n" in shown
    assert "\x1b" not in shown
    [row] = shell.json("failed", "show", failed)
    assert list(row) == FIELDS
    assert "raise ValueError(text)" in row["traceback"]


@pytest.mark.parametrize("command", ["show", "retry", "delete"])
def test_an_id_has_to_be_that_of_one_message(shell: Shell, broker: Broker, command: str) -> None:
    bury(broker, "default", "same-1", "same-2")
    for beginning, said in (("other", "No failed message has"), ("same", "2 failed messages have")):
        done = shell.run("failed", command, beginning)
        assert done.returncode == 1
        assert done.stderr == f"nbqueue: {said} an id that starts with {beginning!r}. Nothing was changed.\n"
    assert len(inspection.dead_letters(broker)) == 2


def test_a_message_is_sent_again(shell: Shell, broker: Broker) -> None:
    bury(broker, "default", "one", "two")
    assert shell.ok("failed", "retry", "on") == "Sent 1 message again.\n"
    assert [letter.id for letter in inspection.dead_letters(broker)] == ["two"]
    [status] = [status for status in inspection.queues(broker) if status.name == "default"]
    assert (status.waiting, status.dead) == (1, 1)


def test_all_messages_of_a_queue_are_sent_again(shell: Shell, broker: Broker) -> None:
    bury(broker, "default", "one", "two")
    bury(broker, "emails", "three")
    assert shell.json("failed", "retry", "--all", "--queue", "default") == [{"retried": 2}]
    assert [letter.id for letter in inspection.dead_letters(broker)] == ["three"]
    assert shell.ok("failed", "retry", "--all") == "Sent 1 message again.\n"
    assert inspection.dead_letters(broker) == []


def test_messages_that_fail_again_are_not_retried_twice(shell: Shell, runner: Runner) -> None:
    runner.fail_with("a", "b", "c")
    assert shell.json("failed", "retry", "--all") == [{"retried": 3}]
    eventually(lambda: len(runner.dead()) == 3, "all have failed again")
    assert [letter.attempts for letter in runner.dead()] == [1, 1, 1]


@pytest.mark.parametrize("command", ["retry", "delete"])
@pytest.mark.parametrize("words", [[], ["one", "--all"]])
def test_messages_are_named_or_all_are_meant(shell: Shell, command: str, words: list[str]) -> None:
    done = shell.run("failed", command, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Name messages by their ids, or say --all." in done.stderr


def test_messages_are_deleted_by_their_ids(shell: Shell, broker: Broker) -> None:
    bury(broker, "default", "one", "two", "three")
    assert shell.ok("failed", "delete", "one", "three") == "Deleted 2 failed messages.\n"
    assert [letter.id for letter in inspection.dead_letters(broker)] == ["two"]


def test_all_are_deleted_only_when_that_is_confirmed(shell: Shell, broker: Broker) -> None:
    bury(broker, "default", "one", "two")
    refused = shell.run("failed", "delete", "--all")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert len(inspection.dead_letters(broker)) == 2
    assert shell.json("failed", "delete", "--all", "--yes") == [{"deleted": 2}]
    assert inspection.dead_letters(broker) == []


def test_on_a_terminal_deleting_all_is_asked_about(broker: Broker, terminal: Callable[..., Terminal]) -> None:
    bury(broker, "default", "one", "two")
    for answer, code, left in (("n", 1, 2), ("y", 0, 0)):
        asking = terminal("failed", "delete", "--all", "--queue", "default")
        asking.sees("Delete 2 failed messages of default? [y/N]: ")
        asking.press(f"{answer}\n")
        assert asking.ends() == code
        assert len(inspection.dead_letters(broker)) == left


def test_bytes_that_are_no_message_are_listed_shown_and_deleted(shell: Shell, broker: RedisBroker) -> None:
    broker.client.zadd("dramatiq:default.XQ", {"strange": 1_700_000_000_000})
    broker.client.hset("dramatiq:default.XQ.msgs", "strange", b"\xff\x1b[2J{")
    [row] = shell.json("failed", "list")
    assert (row["id"], row["actor"], row["body"]) == ("strange", None, "\\xff\x1b[2J{")
    assert "bytes that are no message" in shell.ok("failed", "list")
    assert "\x1b" not in shell.ok("failed", "show", "strange")
    shell.ok("failed", "delete", "strange")
    assert shell.json("failed", "list") == []


def test_failed_messages_of_rabbitmq_are_listed_and_sent_again(bare_shell: Shell, rabbitmq_url: str) -> None:
    from nbqueue.broker import from_url

    broker = from_url(rabbitmq_url)
    bury(broker, "default", "one", "two")
    place = ["--broker-url", rabbitmq_url, "--queue", "default"]
    eventually(lambda: len(inspection.dead_letters(broker, "default")) == 2, "both are dead letters")
    assert {json.dumps(row["args"]) for row in bare_shell.json("failed", "list", *place)} == {
        '["one"]',
        '["two"]',
    }
    assert bare_shell.ok("failed", "retry", "one", *place) == "Sent 1 message again.\n"
    assert bare_shell.json("failed", "delete", "--all", "--yes", *place) == [{"deleted": 1}]
    broker.close()


def test_a_queue_that_rabbitmq_does_not_have_is_named_and_not_declared(
    bare_shell: Shell, rabbitmq_url: str
) -> None:
    from nbqueue.broker import from_url

    broker = from_url(rabbitmq_url)
    bury(broker, "default", "one")
    for words in (["list"], ["show", "one"], ["retry", "--all"], ["delete", "--all", "--yes"]):
        done = bare_shell.run("failed", *words, "--broker-url", rabbitmq_url, "--queue", "defualt")
        assert (done.returncode, done.stdout) == (2, "")
        assert "There is no queue 'defualt' on amqp://" in done.stderr
    bare_shell.write(
        "shop.py",
        "import nbqueue\n@nbqueue.actor\ndef order(): pass\n"
        "@nbqueue.actor(queue_name='emails')\ndef tell(): pass\n",
    )
    for queue, hint in (("defualt", "Did you mean default?"), ("nowhere", "shop knows default, emails.")):
        done = bare_shell.run("failed", "list", "-b", rabbitmq_url, "-m", "shop", "-q", queue)
        assert (done.returncode, done.stdout) == (2, "")
        assert hint in done.stderr
    done = bare_shell.run("failed", "list", "-b", rabbitmq_url, "-m", "shop", "-q", "emails")
    assert (done.returncode, done.stderr) == (0, "No message has failed.\n")
    assert broker.has_queue("default") is True
    assert [name for name in ("defualt", "nowhere", "emails") if broker.has_queue(name)] == []
    broker.close()
