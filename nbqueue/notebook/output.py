"""Where the output of actors goes: to their message, and from there to the cell that waits for it.

`OutputRouter` gives the kernel's own stdout and stderr another `write`, so that `%%capture`, `flush` and
everything else go on working. A write inside a running message (a context variable says which) is kept
with the message, bounded, and passed on to the cells that wait for it; a kernel writes into the cell whose
header stands in the context, so that each waiting cell's context is kept and the stream is written in it.
What other threads of nbqueue write goes to the terminal of the kernel, never into a cell.

The router's `_lock` guards the table of outputs; each `MessageOutput.lock` its text and its listeners.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .. import running
from ..running import running_message

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ..message import Message

#: Characters kept of a message's output: its beginning and its end.
HEAD, TAIL = 8 * 1024, 56 * 1024
#: Messages whose output is kept.
KEPT_MESSAGES = 1000

Piece = tuple[str, str]
Write = Callable[[str], Any]


class MessageOutput:
    """What one message has printed and logged, as (stream, text) pieces in order."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.listeners: list[Callable[[str, str], None]] = []
        self.shown_in: Any = None
        self.shown = 0
        self.total = 0
        self.dropped = 0
        self._head: list[Piece] = []
        self._tail: deque[Piece] = deque()
        self._head_size = self._tail_size = 0

    def append(self, stream: str, text: str) -> None:
        with self.lock:
            self.total += len(text)
            room = HEAD - self._head_size
            if room > 0:
                self._head.append((stream, text[:room]))
                self._head_size += min(room, len(text))
            if len(text) > room:
                self._append_tail(stream, text[max(room, 0) :])
            for listener in self.listeners:
                listener(stream, text)

    def _append_tail(self, stream: str, text: str) -> None:
        self._tail.append((stream, text))
        self._tail_size += len(text)
        while self._tail_size > TAIL:
            stream, oldest = self._tail.popleft()
            cut = min(len(oldest), self._tail_size - TAIL)
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


class OutputRouter:
    """Routes the output of actors while it is installed in a shell."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self._lock = threading.Lock()
        self._outputs: OrderedDict[str, MessageOutput] = OrderedDict()
        self._originals: dict[str, Write] = {}
        self._installed = False
        self._undo = contextlib.ExitStack()

    def install(self) -> None:
        self._installed = True
        for name in ("stdout", "stderr"):
            self._route_stream(name, getattr(sys, name))
        self._route_display()
        self._route_logging()
        running.watchers.append(self.echo)
        self._undo.callback(running.watchers.remove, self.echo)
        running.output_reader = self.read
        self._undo.callback(setattr, running, "output_reader", None)

    def uninstall(self) -> None:
        self._installed = False
        self._undo.close()

    def output_of(self, message_id: str) -> MessageOutput:
        """Return the output of a message, which may be empty."""
        with self._lock:
            output = self._outputs.get(message_id)
            if output is None:
                output = self._outputs[message_id] = MessageOutput()
                if len(self._outputs) > KEPT_MESSAGES:
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

    # -- writing -----------------------------------------------------------------------------------------

    def _route_stream(self, name: str, stream: Any) -> None:
        """Give the kernel's stream a class of its own, or put a proxy in its place where that can't be.

        The class has `write` as a property: IPython sets and resets that attribute around every cell.
        """
        kind = type(stream)
        self._originals[name] = kind.write.__get__(stream)
        current: Write = stream.write

        def get(_: Any) -> _RoutedWrite:
            return _RoutedWrite(self, name, current)

        def put(_: Any, value: Write) -> None:
            nonlocal current
            current = value.current if isinstance(value, _RoutedWrite) else value

        body = {"write": property(get, put), "__module__": kind.__module__}
        try:
            stream.__class__ = type(kind.__name__, (kind,), body)
        except TypeError:  # a class written in C: the stream of a terminal
            setattr(sys, name, type("Stream", (_Proxy,), body)(stream))
            self._undo.callback(setattr, sys, name, stream)
        else:
            self._undo.callback(vars(stream).pop, "write", None)
            self._undo.callback(setattr, stream, "__class__", kind)

    def write(self, name: str, text: str, current: Write) -> Any:
        """Write where the text belongs: to the running message, to the terminal, or as always."""
        message = running_message.get() if self._installed else None
        if message is not None and isinstance(text, str):
            self.output_of(message.message_id).append(name, text)
            return len(text)
        if self._installed and threading.current_thread().name.startswith("nbqueue-"):
            return _write_to_terminal(self._originals[name].__self__, text)  # type: ignore[attr-defined]
        return current(text)

    def _route_display(self) -> None:
        publisher = self.shell.display_pub
        original = publisher.publish

        def publish(data: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            message = running_message.get()
            if message is None:
                return original(data, *args, **kwargs)
            text = data.get("text/plain")
            if text:
                self.output_of(message.message_id).append("stdout", f"{text}\n")
            return None

        publisher.publish = publish
        self._undo.callback(vars(publisher).pop, "publish", None)

    def _route_logging(self) -> None:
        """Name level and logger where no logging is configured; keep the worker's records out of cells."""
        quiet = logging.NullHandler()
        logger = logging.getLogger("nbqueue")
        logger.addHandler(quiet)
        self._undo.callback(logger.removeHandler, quiet)
        last_resort = logging.lastResort
        if last_resort is not None:
            logging.lastResort = _LastResort(last_resort)
            self._undo.callback(setattr, logging, "lastResort", last_resort)

    # -- showing -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def echo(self, message: Message[Any]) -> Iterator[None]:
        """Show a message's output, what there is and what comes, in the cell that waits for it."""
        if running_message.get() is not None:
            yield
            return
        output = self.output_of(message.message_id)
        here = contextvars.copy_context()

        def show(stream: str, text: str) -> None:
            output.shown = output.total
            here.run(self._originals[stream], text)

        with output.lock:
            cell = getattr(self.shell, "execution_count", None)
            if output.shown_in != cell:
                output.shown_in, output.shown = cell, 0
            if output.shown < output.total:
                skip = max(0, output.shown - output.dropped)
                for stream, text in output.pieces():
                    if skip < len(text):
                        show(stream, text[skip:])
                    skip = max(0, skip - len(text))
            output.listeners.append(show)
        try:
            yield
        except KeyboardInterrupt:
            self._say_after_the_cell(f"{message} goes on.")
            raise
        finally:
            with output.lock:
                output.listeners.remove(show)

    def _say_after_the_cell(self, line: str) -> None:
        """Print a line below the traceback that the running cell is about to show."""

        def say(*_: Any) -> None:
            self.shell.events.unregister("post_run_cell", say)
            print(line, file=sys.stderr)

        self.shell.events.register("post_run_cell", say)


class _RoutedWrite:
    """The `write` of a routed stream, around the one that was there when it was looked up."""

    def __init__(self, router: OutputRouter, name: str, current: Write) -> None:
        self.router = router
        self.name = name
        self.current = current

    def __call__(self, text: str) -> Any:
        return self.router.write(self.name, text, self.current)


class _Proxy:
    """Stands in for a stream: everything but `write` is the stream's own."""

    write: Write

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _LastResort(logging.Handler):
    """What logging falls back to when nothing is configured, with the level and the logger inside actors."""

    def __init__(self, original: logging.Handler) -> None:
        super().__init__(original.level)
        self.original = original

    def emit(self, record: logging.LogRecord) -> None:
        if running_message.get() is None:
            self.original.handle(record)
            return
        text = f"{record.levelname} {record.name}: {self.format(record)}\n"
        sys.stderr.write(text)


def _write_to_terminal(stream: Any, text: str) -> int:
    """Write to where the kernel was started; its own file descriptors lead back into the notebook."""
    descriptor = getattr(stream, "_original_stdstream_copy", None)
    if descriptor is None:
        terminal = sys.__stderr__
        return 0 if terminal is None else terminal.write(text)
    with contextlib.suppress(OSError):
        os.write(descriptor, text.encode("utf-8", "replace"))
    return len(text)
