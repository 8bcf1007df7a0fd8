"""What a type checker sees: actors keep their signature, messages know their result.

Groups and pipelines are checked for what they are made of; their results are `Any`.
"""

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

steps = add.message(1, 2) | add.message(3, 4)
reveal_type(steps)  # two steps
reveal_type(steps | add.message(5, 6))  # pipeline and step
reveal_type(steps.run(delay=5))  # running pipeline
reveal_type(steps.get_results(block=True))  # results of a pipeline
reveal_type(steps.completed_count)  # count
steps | nbqueue.group([])  # group as a step
steps.run(5)  # positional delay
members = nbqueue.group([add.message(1, 2), join.message(["a"]), steps, nbqueue.group([steps])])
reveal_type(members.run())  # running group
reveal_type(members.get_results())  # results of a group
reveal_type(members.completed)  # completed
members.add_completion_callback(nothing.message())
members.add_completion_callback(nothing)  # actor as a callback
nbqueue.group([1])  # number as a child
nbqueue.pipeline([members])  # group in a pipeline
reveal_type(add.map([1, 2]))  # map
reveal_type(add.starmap([(1, 2), [3, 4]]))  # starmap
add.map(1)  # map of no iterable
add.starmap([1])  # starmap of numbers
for child in members.as_completed(timeout=10):
    reveal_type(child)  # child


async def wait() -> None:
    reveal_type(await add.send(1, 2))  # awaited message
    reveal_type(await join.send(["a"]).get_result_async(timeout=5))  # awaited result
    reveal_type(await members)  # awaited group
    reveal_type(await steps)  # awaited pipeline
    awaited: str = await add.send(1, 2)  # awaited as something else


class Base(nbqueue.GenericActor):
    class Meta:
        abstract = True
        queue_name = "tasks"

    def double(self, number: int) -> int:
        return number * 2


class Total(Base):
    def perform(self, numbers: list[int], *, scale: int = 1) -> int:
        return sum(numbers) * self.double(scale)


reveal_type(Total.send([1], scale=2))  # generic send
reveal_type(Total.message([1]).get_result())  # generic result
reveal_type(Total.send_with_options(args=([1],), delay=5))  # generic with options
reveal_type(Total.queue_name)  # generic queue
Total.send("a")  # generic wrong type
Total.send([1], factor=2)  # generic wrong name
Total.no_such_thing  # generic unknown
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
        ("two steps", "nbqueue.composition.pipeline"),
        ("pipeline and step", "nbqueue.composition.pipeline"),
        ("running pipeline", "nbqueue.composition.pipeline"),
        ("results of a pipeline", "typing.Iterator[Any]"),
        ("count", "int"),
        ("running group", "nbqueue.composition.group"),
        ("results of a group", "typing.Iterator[Any]"),
        ("completed", "bool"),
        ("map", "nbqueue.composition.group"),
        ("starmap", "nbqueue.composition.group"),
        (
            "child",
            "nbqueue.message.Message[Any] | nbqueue.composition.pipeline | nbqueue.composition.group",
        ),
        ("awaited message", "int"),
        ("awaited result", "str"),
        ("awaited group", "list[Any]"),
        ("awaited pipeline", "Any"),
        ("generic send", "nbqueue.message.Message[int]"),
        ("generic result", "int"),
        ("generic with options", "nbqueue.message.Message[int]"),
        ("generic queue", "str"),
    ],
)
def test_the_type_is_revealed_as(findings: dict[str, list[str]], line: str, revealed: str) -> None:
    [text] = findings[line]
    # Versions of mypy differ in how they write unions.
    text = re.sub(
        r"Union\[([^\"]+)\]\"$", lambda m: m[1].replace(", ", " | ") + '"', text.replace("builtins.", "")
    )
    assert text == f'note: Revealed type is "{revealed}"'


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("wrong type", "arg-type"),
        ("too few", "call-arg"),
        ("too many", "call-arg"),
        ("wrong name", "call-arg"),
        ("wrong keyword", "arg-type"),
        ("none wanted", "call-arg"),
        ("group as a step", "operator"),
        ("positional delay", "call-arg|misc"),  # versions of mypy differ
        ("actor as a callback", "arg-type"),
        ("number as a child", "list-item"),
        ("group in a pipeline", "list-item"),
        ("map of no iterable", "arg-type"),
        ("starmap of numbers", "list-item"),
        ("awaited as something else", "assignment"),
        ("generic wrong type", "arg-type"),
        ("generic wrong name", "call-arg"),
        ("generic unknown", "attr-defined"),
    ],
)
def test_a_wrong_call_is_an_error(findings: dict[str, list[str]], line: str, code: str) -> None:
    assert findings[line]
    assert any(re.match(rf"error:.*\[({code})\]$", text) for text in findings[line])


def test_nothing_else_is_found(findings: dict[str, list[str]]) -> None:
    assert findings.get("", []) == []
