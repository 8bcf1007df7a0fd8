"""`nbqueue send`: sending a message, and waiting for its result."""

from __future__ import annotations

import json
import signal

import click
import pytest

from nbqueue import Broker, MessageProxy, inspection
from nbqueue.cli.parameters import duration
from nbqueue.common import current_millis

from .conftest import Runner, Shell, eventually


def received(broker: Broker, queue: str) -> MessageProxy:
    """Take the next message of a queue."""
    consumer = broker.consume(queue, prefetch=1, timeout=5000)
    message = next(consumer)
    assert message is not None
    consumer.ack(message)
    consumer.close()
    return message


def waiting(broker: Broker) -> int:
    return sum(status.waiting + status.delayed for status in inspection.queues(broker))


def test_a_message_for_an_actor_that_only_workers_know_is_sent(shell: Shell, broker: Broker) -> None:
    printed = shell.ok("send", "resize", "--args", '["cat.jpg", 2]', "--kwargs", '{"fast": true}')
    message = received(broker, "default")
    assert printed == f"Sent resize to default: {message.message_id}\n"
    assert (message.actor_name, message.args, message.kwargs) == ("resize", ("cat.jpg", 2), {"fast": True})


def test_a_message_goes_to_the_queue_that_is_named(shell: Shell, broker: Broker) -> None:
    [sent] = shell.json("send", "resize", "--queue", "emails")
    assert sent == {"id": received(broker, "emails").message_id, "queue": "emails", "actor": "resize"}


def test_with_a_module_it_goes_to_the_queue_of_the_actor_unless_another_is_named(
    shell: Shell, broker: Broker
) -> None:
    [sent] = shell.json("send", "fail", "--args", '["x"]', "-m", "tasks")
    assert received(broker, "emails").message_id == sent["id"]
    [sent] = shell.json("send", "fail", "--args", '["x"]', "-m", "tasks", "-q", "other")
    assert received(broker, "other").message_id == sent["id"]


def test_an_actor_that_the_module_does_not_have_is_refused_and_the_nearest_named(
    shell: Shell, broker: Broker
) -> None:
    done = shell.run("send", "ad", "-m", "tasks")
    assert (done.returncode, done.stdout) == (2, "")
    assert "tasks has no actor 'ad'. Did you mean add?" in done.stderr
    done = shell.run("send", "zzz\x1b[31m", "-m", "tasks")
    assert done.returncode == 2
    assert "It has add, fail, forget." in done.stderr
    assert "\x1b" not in done.stderr
    assert waiting(broker) == 0


def test_a_delayed_message_says_when_it_is_due(shell: Shell, broker: Broker) -> None:
    before = current_millis()
    [sent] = shell.json("send", "resize", "--delay", "2h")
    after = current_millis()
    assert before <= sent["eta"] - 7_200_000 <= after
    [row] = shell.json("queues", "-q", "default")
    assert (row["waiting"], row["delayed"]) == (0, 1)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("2h", 7_200_000), ("1d", 86_400_000), ("250", 250),
     ("1.5s", 1_500), (" 3 s ", 3_000), ("0", 0)],
)  # fmt: skip
def test_durations_have_units(text: str, milliseconds: int) -> None:
    assert duration(text) == milliseconds


@pytest.mark.parametrize("text", ["", "soon", "-5s", "5 weeks", "1e3", "٣s", "9" * 30, "5ss"])
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(click.BadParameter):
        duration(text)


def test_the_result_is_printed_as_json(shell: Shell, runner: Runner) -> None:
    assert shell.ok("send", "add", "--args", "[1, 2]", "--wait") == "3\n"
    assert json.loads(shell.ok("send", "add", "--args", "[[1], [null]]", "--wait", "-m", "tasks")) == [
        1,
        None,
    ]
    [sent] = shell.json("send", "add", "--args", '["a", "\\u001b"]', "--wait")
    assert (sent["state"], sent["result"]) == ("done", "a\x1b")


def test_the_error_of_a_failed_message_goes_to_stderr(shell: Shell, runner: Runner) -> None:
    done = shell.run("send", "fail", "--args", '["no\\u001b[31m tea"]', "--wait", "-m", "tasks")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.rstrip().endswith("ValueError: no\\u001b[31m tea")
    done = shell.run("send", "fail", "--args", '["no"]', "--queue", "emails", "--wait", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["state"], told["error"]) == ("failed", "ValueError: no")


def test_waiting_ends_with_its_time(shell: Shell, broker: Broker) -> None:
    done = shell.run("send", "resize", "--wait", "--timeout", "100ms")
    assert (done.returncode, done.stdout) == (124, "")
    assert done.stderr.startswith("No result within 100 ms: message ")
    done = shell.run("send", "resize", "--wait", "--timeout", "1", "--json")
    assert (done.returncode, json.loads(done.stdout)["state"]) == (124, "timeout")
    assert waiting(broker) == 2


def test_ctrl_c_ends_the_waiting_and_not_the_message(shell: Shell, broker: Broker) -> None:
    process = shell.start("send", "resize", "--wait")
    eventually(lambda: waiting(broker) == 1, "it is sent")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert waiting(broker) == 1


def test_nothing_is_sent_when_there_could_be_no_result(
    shell: Shell, bare_shell: Shell, broker: Broker, rabbitmq_url: str
) -> None:
    done = shell.run("send", "forget", "--wait", "-m", "tasks")
    assert done.returncode == 2
    assert "keeps no results" in done.stderr
    assert waiting(broker) == 0
    place = ["--broker-url", rabbitmq_url]
    done = bare_shell.run("send", "add", "--wait", *place)
    assert done.returncode == 2
    assert "--results-url" in done.stderr
    [row] = bare_shell.json("queues", "--queue", "default", *place)
    assert row["waiting"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Missing argument 'ACTOR'"),
        (["add", "--args", "{}"], "is no JSON list"),
        (["add", "--args", "[1"], "is no JSON list"),
        (["add", "--args", "[" * 100_000], "nested too deeply"),
        (["add", "--kwargs", "[]"], "is no JSON object"),
        (["add", "--delay", "soon"], "'soon' is no duration"),
        (["add", "--timeout", "1s"], "--timeout is for --wait"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(shell: Shell, words: list[str], said: str) -> None:
    done = shell.run("send", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
