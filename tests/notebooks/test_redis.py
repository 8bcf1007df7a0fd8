"""`%nbqueue use redis://...`: the same actors on a server, no cell edited."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..servers import RedisServer
from .conftest import ADD, Notebook

SECRET = "open-sesame"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server with a password, which must show nowhere."""
    with RedisServer(password=SECRET) as server:
        yield server


def test_the_same_actors_run_on_a_server_after_one_line(loaded: Notebook, server: RedisServer) -> None:
    assert loaded.run("add.send(1, 2).get_result()").result == "3"
    loaded.run(f"import os; os.environ['QUEUE_URL'] = {server.url!r}")
    shown = loaded.run("%nbqueue use $QUEUE_URL")
    assert shown.error == shown.stderr == ""
    assert shown.stdout.startswith("Using redis://:***@127.0.0.1:")
    assert "(Redis " in shown.stdout
    assert "1 actor declared. No worker is seen yet: %nbqueue workers 4" in shown.stdout
    status = loaded.run("message = add.send(3, 4)\n%nbqueue").stdout
    assert "redis, redis://:***@127.0.0.1:" in status
    assert "0 threads" in status
    assert "default  1 waiting  0 running" in status
    assert loaded.run("%nbqueue workers 2").stdout == "2 threads.\n"
    assert loaded.run("message.get_result()").result == "7"
    assert loaded.run("sum(add.starmap([(n, n) for n in range(50)]).get_results())").result == "2450"
    assert SECRET not in status + shown.stdout
    assert "default  0 waiting  0 running  51 done  0 failed" in loaded.run("%nbqueue").stdout
    assert loaded.run("nbqueue.get_broker()").result.startswith("RedisBroker redis://:***@")
    assert loaded.run("%nbqueue stop").stdout == "Stopped. Nothing waits.\n"
    assert loaded.run("%nbqueue use stub://").stdout.startswith("Using the stub broker in this kernel.")
    assert loaded.run("add.send(5, 5).get_result()").result == "10"


def test_messages_that_wait_move_along_with_their_handles(loaded: Notebook, server: RedisServer) -> None:
    loaded.run("%nbqueue workers 0")
    loaded.run(
        "early = [add.send(n, 1) for n in range(3)]; late = add.send_with_options(args=(9, 9), delay=900)"
    )
    shown = loaded.run(f"%nbqueue use {server.url}")
    assert "4 messages that waited in this kernel were moved there." in shown.stdout
    loaded.run("%nbqueue workers 2")
    assert loaded.run("[message.get_result() for message in [*early, late]]").result == "[1, 2, 3, 18]"


def test_groups_and_pipelines_that_wait_move_along(loaded: Notebook, server: RedisServer) -> None:
    loaded.run("done = add.starmap([(1, 1), (2, 2)]); list(done.get_results())")
    loaded.run("%nbqueue workers 0")
    loaded.run("waiting = add.starmap([(n, 1) for n in range(5)])")
    loaded.run("steps = (add.message(1, 2) | add.message(3)).run()")
    assert "6 messages" in loaded.run(f"%nbqueue use {server.url}").stdout
    loaded.run("%nbqueue workers 2")
    assert loaded.run("list(waiting.get_results())").result == "[1, 2, 3, 4, 5]"
    assert loaded.run("waiting.completed_count").result == "5"
    assert loaded.run("steps.get_result()").result == "6"
    assert loaded.run("list(done.get_results())").result == "[2, 4]"
    assert loaded.run("await waiting").result == "[1, 2, 3, 4, 5]"


def test_drop_forgets_what_waits(loaded: Notebook, server: RedisServer) -> None:
    loaded.run("%nbqueue workers 0")
    loaded.run("early = [add.send(n, 1) for n in range(3)]")
    shown = loaded.run(f"%nbqueue use {server.url} --drop")
    assert "3 messages that waited in this kernel were dropped." in shown.stdout
    assert "default  0 waiting" in loaded.run("%nbqueue").stdout


def test_a_server_that_is_not_there_changes_nothing(loaded: Notebook) -> None:
    shown = loaded.run("%nbqueue use redis://:hidden@127.0.0.1:1/0")
    assert shown.error == ""
    assert "Redis at redis://127.0.0.1:1/0" in shown.stdout
    assert shown.stdout.count("\n") == 1
    assert "hidden" not in shown.stdout
    assert loaded.run("add.send(1, 2).get_result()").result == "3"


def test_nor_does_it_stop_the_worker_on_another_server(loaded: Notebook, server: RedisServer) -> None:
    loaded.run(f"%nbqueue use {server.url}")
    loaded.run("%nbqueue workers 2")
    assert "127.0.0.1:1/0" in loaded.run("%nbqueue use redis://127.0.0.1:1/0").stdout
    assert loaded.run("add.send(1, 2).get_result(timeout=20_000)").result == "3"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("%nbqueue use", "the following arguments are required: URL"),
        ("%nbqueue use localhost", "'localhost' is no URL"),
        ("%nbqueue use $NO_SUCH_NAME", "The environment variable NO_SUCH_NAME is not set."),
        ("%nbqueue use kafka://x", "There is no broker for 'kafka://'"),
        ("%nbqueue wrokers 3", "Did you mean %nbqueue workers?"),
        ("%nbqueue workers many", "invalid int value: 'many'"),
        ("%nbqueue flush nowhere", "There is no queue 'nowhere' here"),
    ],
)
def test_a_mistake_is_answered_in_one_line(loaded: Notebook, line: str, said: str) -> None:
    shown = loaded.run(line)
    assert said in shown.stdout
    assert shown.stdout.count("\n") == 1
    assert shown.error == ""


def test_failed_messages_are_listed_and_sent_again(loaded: Notebook, server: RedisServer) -> None:
    loaded.run(f"%nbqueue use {server.url}")
    loaded.run("%nbqueue workers 2")
    loaded.run(
        "broken = True\n@nbqueue.actor\ndef fragile(name):\n"
        "    if broken: raise ValueError(f'no {name}')\n    return name"
    )
    assert "ResultFailure" in loaded.run("message = fragile.send('x'); message.get_result()").error
    listed = loaded.run("%nbqueue failed").stdout
    assert "fragile('x')" in listed
    assert "ValueError: no x" in listed
    assert "%nbqueue retry sends them again." in listed
    loaded.run("broken = False")
    assert loaded.run("%nbqueue retry").stdout == "Sent 1 message again.\n"
    loaded.run("import time\nwhile message.state != 'done': time.sleep(0.01)")
    assert loaded.run("message.get_result()").result == "'x'"
    assert loaded.run("%nbqueue failed").stdout == "No message has failed.\n"


def test_an_environment_variable_names_the_broker_from_the_start(
    notebook: Notebook, server: RedisServer
) -> None:
    notebook.run(f"import os; os.environ['NBQUEUE_BROKER_URL'] = {server.url!r}")
    shown = notebook.run("%load_ext nbqueue")
    assert shown.stdout.startswith("nbqueue is ready: redis://:***@127.0.0.1:")
    assert shown.stdout.count("\n") == 1
    notebook.run(ADD)
    notebook.run("%nbqueue workers 1")
    assert notebook.run("add.send(1, 2).get_result()").result == "3"
