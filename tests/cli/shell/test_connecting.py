"""Where the commands look: servers that are wrong or silent, modules that can't be used, passwords."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.servers import RedisServer, free_port

from .conftest import Shell

COMMANDS = [
    ["queues", "-q", "default"],
    ["top", "-q", "default"],
    ["failed", "list", "-q", "default"],
    ["failed", "retry", "--all", "-q", "default"],
    ["send", "add"],
    ["cancel", "some-id"],
]
SECRET = "s3cr3t"


def is_one_line(text: str) -> bool:
    return text.endswith("\n") and text.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words[:2]))
@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_server_that_is_not_there_is_told_in_one_line(
    bare_shell: Shell, command: list[str], scheme: str
) -> None:
    port = free_port()
    done = bare_shell.run(*command, "--broker-url", f"{scheme}://jo:{SECRET}@127.0.0.1:{port}")
    assert (done.returncode, done.stdout) == (3, "")
    assert str(port) in done.stderr
    assert SECRET not in done.stderr
    assert is_one_line(done.stderr)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port of a server that accepts connections and never answers."""
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_server_that_keeps_silent_is_given_up(bare_shell: Shell, silent_port: int, scheme: str) -> None:
    done = bare_shell.run("queues", "-q", "x", "-b", f"{scheme}://jo:{SECRET}@127.0.0.1:{silent_port}")
    assert (done.returncode, done.stdout) == (3, "")
    assert "did not answer within 9 s" in done.stderr
    assert SECRET not in done.stderr
    assert is_one_line(done.stderr)


def test_a_wrong_password_is_not_repeated(bare_shell: Shell) -> None:
    with RedisServer(password="right") as server:
        done = bare_shell.run("queues", "-b", f"redis://:{SECRET}@127.0.0.1:{server.port}")
    assert (done.returncode, done.stdout) == (3, "")
    assert SECRET not in done.stderr
    assert is_one_line(done.stderr)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://jo:{SECRET}/part@127.0.0.1:6379",
        f"jo:{SECRET}@127.0.0.1",
        f"http://jo:{SECRET}@127.0.0.1",
        f"redis://jo:{SECRET}@127.0.0.1:port",
        f"amqp://jo:{SECRET}@127.0.0.1:port",
        "stub://",
        "nonsense\x1b[31m",
        "",
    ],
)
def test_a_url_that_leads_nowhere_is_a_wrong_argument(bare_shell: Shell, url: str) -> None:
    for env in ({}, {"NBQUEUE_BROKER_URL": url}):
        words = [] if env else ["--broker-url", url]
        done = bare_shell.run("queues", *words, **env)
        assert (done.returncode, done.stdout) == (2, "")
        assert SECRET not in done.stderr
        assert "\x1b" not in done.stderr
        assert is_one_line(done.stderr)


@pytest.mark.parametrize(
    ("option", "url", "said"),
    [
        ("--state-url", "memcached://127.0.0.1", "Message states can't be kept in 'memcached://'"),
        ("--results-url", f"http://jo:{SECRET}@127.0.0.1", "There are no results in 'http://'"),
        (
            "--results-url",
            f"redis://jo:{SECRET}@127.0.0.1:port",
            "--results-url 'redis://***@127.0.0.1:port'",
        ),
        ("--state-url", f"jo:{SECRET}@127.0.0.1", "--state-url '***@127.0.0.1' is no URL"),
    ],
)
def test_a_url_for_results_or_states_is_told_apart(shell: Shell, option: str, url: str, said: str) -> None:
    done = shell.run("queues", option, url)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert SECRET not in done.stderr
    assert is_one_line(done.stderr)


def test_results_and_states_on_servers_that_are_not_there_are_told_in_one_line(shell: Shell) -> None:
    port = free_port()
    for words in (
        ["queues", "-q", "default", "--state-url", f"redis://:{SECRET}@127.0.0.1:{port}"],
        ["send", "add", "--wait", "--results-url", f"redis://:{SECRET}@127.0.0.1:{port}"],
        ["send", "add", "--wait", "--results-url", f"memcached://127.0.0.1:{port}"],
    ):
        done = shell.run(*words)
        assert (done.returncode, done.stdout) == (3, "")
        assert str(port) in done.stderr
        assert SECRET not in done.stderr
        assert is_one_line(done.stderr)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_a_place_has_to_be_named(bare_shell: Shell, command: list[str]) -> None:
    done = bare_shell.run(*command)
    assert (done.returncode, done.stdout) == (2, "")
    assert "NBQUEUE_BROKER_URL" in done.stderr
    assert is_one_line(done.stderr)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "import os\n1 / 0\n",
            "broken can't be imported: ZeroDivisionError: division by zero (broken.py, line 2)",
        ),
        ("x = = 1\n", "broken can't be imported: SyntaxError: invalid syntax (broken.py, line 1)"),
        ("import not_there\n", "ModuleNotFoundError: No module named 'not_there' (broken.py, line 1)"),
        ("raise SystemExit('no')\n", "SystemExit: no (broken.py, line 1)"),
        ("raise ValueError('a\\nb\\x1b[31m')\n", "ValueError: a b\\u001b[31m (broken.py, line 1)"),
        ("", "broken sets no broker: say where its messages are by --broker-url"),
        (
            "import nbqueue\nfrom nbqueue.brokers.stub import StubBroker\nnbqueue.set_broker(StubBroker())\n",
            "The module keeps its messages in the memory of its own process",
        ),
    ],
)
def test_a_module_that_can_not_be_used_is_told_in_one_line(bare_shell: Shell, text: str, said: str) -> None:
    bare_shell.write("broken.py", text)
    done = bare_shell.run("queues", "--module", "broken")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert is_one_line(done.stderr)


def test_a_module_that_is_not_there_is_told_in_one_line(bare_shell: Shell) -> None:
    for spec in ("missing", "missing.py", "missing:broker"):
        done = bare_shell.run("queues", "-m", spec)
        assert done.returncode == 2
        assert f"There is no module {spec!r}" in done.stderr
    done = bare_shell.run("queues", "-m", "tasks:broker")
    assert done.returncode == 2
    assert "does not define a 'broker' variable" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["quues"], "There is no command 'quues'. Did you mean queues?"),
        (["failed", "lst"], "No such command 'lst'"),
        (["queues", "--jsno"], "No such option"),
        (["queues", "extra"], "unexpected extra argument"),
        (["failed", "list", "-n", "0"], "Invalid value for '--limit'"),
        (["queues", "--queue", ""], "--queue is empty"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(shell: Shell, words: list[str], said: str) -> None:
    done = shell.run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert is_one_line(done.stderr)
