"""Where the output of actors goes: to their message, and from there to the cell that waits for it.

`OutputRouter` gives the kernel's own stdout and stderr another `write`, so that `%%capture`, `flush` and
everything else go on working. A write inside a running message (a context variable says which) is kept
with the message, bounded, and passed on to the cells that wait for it; a kernel writes into the cell whose
header stands in the context, so that each waiting cell's context is kept and the stream is written in it.
What other threads of nbqueue write goes to the terminal of the kernel, never into a cell.

What a message printed in another process comes with its record, where that process keeps it.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .. import running
from ..calls import call_text
from ..errors import BrokerError, ResultFailure
from ..output import MessageOutput, Outputs, RoutedStream
from ..running import running_message
from ..state import MessageRecord, StateBackend
from .markup import plain_output

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ..message import Message

#: Characters kept of a message's output: its beginning and its end.
HEAD, TAIL = 8 * 1024, 56 * 1024
#: Messages whose output is kept.
KEPT_MESSAGES = 1000

#: Seconds for which the output of a message that ran elsewhere may come after its result, and between looks.
OUTPUT_LAG, OUTPUT_LOOK = 0.25, 0.01
#: Seconds after which it is found out anew whether workers keep output.
KNOWLEDGE_LASTS = 10.0

Write = Callable[[str], Any]


class OutputRouter:
    """Routes the output of actors while it is installed in a shell."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.outputs = Outputs(keep=KEPT_MESSAGES, head=HEAD, tail=TAIL)
        self._originals: dict[str, Write] = {}
        self.installed = False
        #: Whether the latest record of a state backend said that output is kept there, and when.
        self._kept_elsewhere: WeakKeyDictionary[StateBackend, tuple[bool, float]] = WeakKeyDictionary()
        self._undo = contextlib.ExitStack()

    def install(self) -> None:
        self.installed = True
        for name in ("stdout", "stderr"):
            self._route_stream(name, getattr(sys, name))
        self._route_display()
        self._route_logging()
        running.watchers.append(self.echo)
        self._undo.callback(running.watchers.remove, self.echo)
        running.output_reader = self.outputs.read
        self._undo.callback(setattr, running, "output_reader", None)

    def uninstall(self) -> None:
        self.installed = False
        self._undo.close()

    def output_of(self, message_id: str) -> MessageOutput:
        """Return the output of a message, which may be empty."""
        return self.outputs.of(message_id)

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
            setattr(sys, name, type("Stream", (RoutedStream,), body)(stream))
            self._undo.callback(setattr, sys, name, stream)
        else:
            self._undo.callback(vars(stream).pop, "write", None)
            self._undo.callback(setattr, stream, "__class__", kind)

    def write(self, name: str, text: str, current: Write) -> Any:
        """Write where the text belongs: to the running message, to the terminal, or as always."""
        message = running_message.get() if self.installed else None
        if message is not None and isinstance(text, str):
            self.output_of(message.message_id).append(name, text)
            return len(text)
        if self.installed and threading.current_thread().name.startswith("nbqueue-"):
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
        # What goes wrong with drawing is told where the kernel was started.
        told = logging.StreamHandler(_Terminal(self._originals["stderr"].__self__))  # type: ignore[attr-defined]
        told.setLevel(logging.WARNING)
        notebook = logging.getLogger("nbqueue.notebook")
        notebook.addHandler(told)
        self._undo.callback(notebook.removeHandler, told)
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
        ended = True
        try:
            yield
        except BaseException as error:
            ended = isinstance(error, ResultFailure)
            if isinstance(error, KeyboardInterrupt):
                self.say_after_the_cell(f"{call_text(message)} goes on. %nbqueue flush drops what waits.")
            raise
        finally:
            with output.lock:
                output.listeners.remove(show)
            if ended and not output.total and (elsewhere := self._printed_elsewhere(message)):
                output.append("stdout", elsewhere)
                show("stdout", elsewhere)

    def _printed_elsewhere(self, message: Message[Any]) -> str:
        """Return what a message printed in another process that keeps it, or "".

        Its result may come a moment before its record. That is waited for where workers keep output, or may
        do so as far as is known.
        """
        broker = message.broker
        if broker is None or not broker.remote:
            return ""
        try:
            states = broker.get_state().backend
        except RuntimeError:  # it keeps no states
            return ""
        now = time.monotonic()
        kept, learned = self._kept_elsewhere.get(states, (True, now))
        patient = kept or now > learned + KNOWLEDGE_LASTS
        while True:
            try:
                record: MessageRecord | None = states.get_many([message.message_id]).get(message.message_id)
            except BrokerError:  # whoever waits is told of that already
                return ""
            over = not patient or time.monotonic() > now + OUTPUT_LAG
            if over or (record is not None and (record.final or not record.captured)):
                break
            time.sleep(OUTPUT_LOOK)
        if patient or record is not None:
            self._kept_elsewhere[states] = (record is not None and record.captured, time.monotonic())
        return "" if record is None else plain_output(record.output)

    def say_after_the_cell(self, line: str) -> None:
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


class _Terminal:
    """The terminal of the kernel as a stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return _write_to_terminal(self._stream, text)

    def flush(self) -> None:
        """Nothing is held back."""


def _write_to_terminal(stream: Any, text: str) -> int:
    """Write to where the kernel was started; its own file descriptors lead back into the notebook."""
    descriptor = getattr(stream, "_original_stdstream_copy", None)
    if descriptor is None:
        terminal = sys.__stderr__
        return 0 if terminal is None else terminal.write(text)
    with contextlib.suppress(OSError):
        os.write(descriptor, text.encode("utf-8", "replace"))
    return len(text)
