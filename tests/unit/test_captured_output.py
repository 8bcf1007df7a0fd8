"""What is kept of a message's output: its beginning and its end, in bounded memory."""

from __future__ import annotations

from nbqueue.output import MessageOutput, Outputs, RoutedStream


def test_the_beginning_and_the_end_are_kept() -> None:
    output = MessageOutput(10, 20)
    for number in range(100):
        output.append("stdout", f"{number:03}\n")
    text = output.text()
    assert text.startswith("000\n001\n00")
    assert text.endswith("098\n099\n")
    assert "370 characters dropped" in text
    assert (output.total, output.dropped) == (400, 370)


def test_one_write_may_be_larger_than_what_is_kept() -> None:
    output = MessageOutput(0, 5)
    output.append("stdout", "0123456789")
    assert output.pieces()[-1] == ("stdout", "56789")


def test_listeners_hear_all_of_it() -> None:
    heard: list[tuple[str, str]] = []
    output = MessageOutput(1, 1)
    output.listeners.append(lambda stream, text: heard.append((stream, text)))
    output.append("stderr", "abc")
    assert heard == [("stderr", "abc")]


def test_only_the_latest_messages_are_remembered_and_those_that_are_listened_to() -> None:
    outputs = Outputs(keep=3, head=10, tail=10)
    outputs.of("heard").listeners.append(lambda *_: None)
    for number in range(10):
        outputs.of(str(number)).append("stdout", "x")
    outputs.of("heard").append("stdout", "y")
    assert [outputs.read(key) for key in ("heard", "0", "7", "8", "9")] == ["y", "", "", "x", "x"]


def test_a_routed_stream_is_otherwise_the_stream_itself() -> None:
    written: list[str] = []

    class Stream:
        encoding = "utf-8"

        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    stream = RoutedStream(Stream())
    stream.writelines(["a", "b"])
    assert (written, stream.encoding) == (["a", "b"], "utf-8")
