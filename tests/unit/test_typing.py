"""What a type checker sees: actors keep their signature, messages know their result."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

SNIPPET = """
import nbqueue
from nbqueue.results import Results
from nbqueue.results.backends import StubBackend


@nbqueue.actor
def add(x: int, y: int) -> int:
    return x + y


@nbqueue.actor(max_retries=3, queue_name="fast")
def join(words: list[str], *, glue: str = " ") -> str:
    return glue.join(words)


@nbqueue.actor()
def nothing() -> None: ...


broker: nbqueue.Broker = nbqueue.get_broker()
broker.add_middleware(Results(backend=StubBackend()))
reveal_type(add.send(1, 2))  # bare send
reveal_type(add.send(1, y=2).get_result())  # bare result
reveal_type(add(1, 2))  # bare call
reveal_type(add.message(1, 2))  # bare message
reveal_type(add.send_with_options(args=(1, 2), delay=5).get_result(block=True, timeout=5))  # with options
reveal_type(join.send(["a"], glue="-"))  # decorated with options
reveal_type(join.send(["a"]).get_result())  # result of decorated with options
reveal_type(nothing.send())  # empty parentheses
add.send(1, "x")  # wrong type
add.send(1)  # too few
add.send(1, 2, 3)  # too many
add(1, z=2)  # wrong name
join.send("a", glue=1)  # wrong keyword
nothing.send(1)  # none wanted
add.fn(1, 2)
number: int = add.send(1, 2).get_result()
text: str = join(["a"])
"""


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return what mypy says about each line of the snippet, by the comment on that line."""
    folder = tmp_path_factory.mktemp("typing")
    (folder / "snippet.py").write_text(SNIPPET)
    (folder / "mypy.ini").write_text("[mypy]\n")
    ended = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir=cache", "snippet.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.stderr == ""
    comments = [line.partition("  # ")[2] for line in SNIPPET.splitlines()]
    found: dict[str, list[str]] = {}
    for line, text in re.findall(r"^snippet\.py:(\d+): (.*)$", ended.stdout, re.M):
        found.setdefault(comments[int(line) - 1], []).append(text)
    return found


@pytest.mark.parametrize(
    ("line", "revealed"),
    [
        ("bare send", "nbqueue.message.Message[int]"),
        ("bare result", "int"),
        ("bare call", "int"),
        ("bare message", "nbqueue.message.Message[int]"),
        ("with options", "int"),
        ("decorated with options", "nbqueue.message.Message[str]"),
        ("result of decorated with options", "str"),
        ("empty parentheses", "nbqueue.message.Message[None]"),
    ],
)
def test_the_type_is_revealed_as(findings: dict[str, list[str]], line: str, revealed: str) -> None:
    [text] = findings[line]
    assert re.sub(r"builtins\.", "", text) == f'note: Revealed type is "{revealed}"'


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("wrong type", "arg-type"),
        ("too few", "call-arg"),
        ("too many", "call-arg"),
        ("wrong name", "call-arg"),
        ("wrong keyword", "arg-type"),
        ("none wanted", "call-arg"),
    ],
)
def test_a_wrong_call_is_an_error(findings: dict[str, list[str]], line: str, code: str) -> None:
    assert findings[line]
    assert any(text.startswith("error:") and text.endswith(f"[{code}]") for text in findings[line])


def test_nothing_else_is_found(findings: dict[str, list[str]]) -> None:
    assert findings.get("", []) == []
