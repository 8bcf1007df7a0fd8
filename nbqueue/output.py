"""What messages print and log, kept with each of them, bounded.

`MessageOutput.lock` guards the text and the listeners of one message, `Outputs._lock` the table of all.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any

#: The stream that wrote ("stdout" or "stderr"), and what.
Piece = tuple[str, str]
Listener = Callable[[str, str], None]


class MessageOutput:
    """What one message has printed and logged, as (stream, text) pieces in order.

    Parameters:
      head, tail: how many characters of its beginning and of its end are kept.
    """

    def __init__(self, head: int, tail: int) -> None:
        self.lock = threading.Lock()
        self.listeners: list[Listener] = []
        #: The cell that has shown it, and how many characters of it.
        self.shown_in: Any = None
        self.shown = 0
        self.total = 0
        self.dropped = 0
        self._head_room, self._tail_limit = head, tail
        self._head: list[Piece] = []
        self._tail: deque[Piece] = deque()
        self._tail_size = 0

    def append(self, stream: str, text: str) -> None:
        with self.lock:
            self.total += len(text)
            beginning = text[: self._head_room]
            if beginning:
                self._head.append((stream, beginning))
                self._head_room -= len(beginning)
            if len(beginning) < len(text):
                self._append_tail(stream, text[len(beginning) :])
            for listener in self.listeners:
                listener(stream, text)

    def _append_tail(self, stream: str, text: str) -> None:
        self._tail.append((stream, text))
        self._tail_size += len(text)
        while self._tail_size > self._tail_limit:
            stream, oldest = self._tail.popleft()
            cut = min(len(oldest), self._tail_size - self._tail_limit)
            self._tail_size -= cut
            self.dropped += cut
            if cut < len(oldest):
                self._tail.appendleft((stream, oldest[cut:]))

    def pieces(self) -> list[Piece]:
        """Return what is kept; a note stands where something was dropped. Called with the lock held."""
        note = [("stderr", f"\n… {self.dropped:,} characters dropped …\n")] if self.dropped else []
        return [*self._head, *note, *self._tail]

    def text(self) -> str:
        """Return what is kept as one text."""
        with self.lock:
            return "".join(text for _, text in self.pieces())


class Outputs:
    """The outputs of the latest messages.

    Parameters:
      keep: of how many messages.
      head, tail: how many characters of each.
    """

    def __init__(self, *, keep: int, head: int, tail: int) -> None:
        self.keep, self.head, self.tail = keep, head, tail
        self._lock = threading.Lock()
        self._outputs: OrderedDict[str, MessageOutput] = OrderedDict()

    def of(self, message_id: str) -> MessageOutput:
        """Return the output of a message, which may be empty."""
        with self._lock:
            output = self._outputs.get(message_id)
            if output is None:
                output = self._outputs[message_id] = MessageOutput(self.head, self.tail)
                if len(self._outputs) > self.keep:
                    self._drop_oldest()
            return output

    def read(self, message_id: str) -> str:
        """Return the output of a message as text."""
        output = self._outputs.get(message_id)
        return "" if output is None else output.text()

    def _drop_oldest(self) -> None:
        for message_id, output in self._outputs.items():
            if not output.listeners:
                del self._outputs[message_id]
                return


class RoutedStream:
    """Stands in for a stream: everything but `write` is the stream's own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> Any:
        return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
