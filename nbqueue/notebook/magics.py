"""The `%nbqueue` magic: one line magic with commands, each a method that returns the text to print."""

from __future__ import annotations

import argparse
import difflib
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from .. import inspection
from ..broker import Broker, get_broker
from ..common import current_millis
from ..embedded import EmbeddedBroker
from ..errors import BrokerError
from ..worker import Worker
from .reprs import call_text, signature
from .switching import resolve, switch

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

#: Milliseconds that stopping waits for running messages.
STOP_TIMEOUT = 10_000
#: Failed messages that are listed unless told otherwise.
FAILED_SHOWN = 10


class UsageError(Exception):
    """A command that can't be carried out, with the sentence that says why."""


class _Parser(argparse.ArgumentParser):
    """Arguments of one command; a mistake is a sentence, not the end of the kernel."""

    def __init__(self, command: str) -> None:
        super().__init__(prog=f"%nbqueue {command}", add_help=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.format_usage().strip()}: {message}")


class Magics:
    """The commands, and the worker that they run in this kernel for a broker on a server."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.commands: dict[str, Callable[[list[str]], str]] = {
            "status": self.status,
            "use": self.use,
            "workers": self.workers,
            "stop": self.stop,
            "flush": self.flush,
            "failed": self.failed,
            "retry": self.retry,
        }

    def nbqueue(self, line: str) -> None:
        """Show and steer the task queue.

        %nbqueue                    broker, worker, queues and actors
        %nbqueue use URL            run on another broker: redis://host, stub://, or $NAME of a variable;
                                    --results URL, --state URL, --drop (forget what waits in this kernel)
        %nbqueue workers N          so many threads in this kernel, 0 for none
        %nbqueue stop               stop the threads in this kernel
        %nbqueue flush [QUEUE]      empty one queue or all; --yes on a server
        %nbqueue failed [N]         the latest messages that failed
        %nbqueue retry [ID]         send failed messages again: one, by the start of its id, or all
        """
        try:
            words = shlex.split(line)
            name, arguments = (words[0], words[1:]) if words else ("status", [])
            command = self.commands.get(name)
            if command is None:
                near = difflib.get_close_matches(name, self.commands, 1)
                hint = f" Did you mean %nbqueue {near[0]}?" if near else ""
                raise UsageError(f"%nbqueue has no command {name!r}.{hint} %nbqueue? lists the commands.")
            print(command(arguments))
        except (UsageError, BrokerError, ValueError, LookupError, ImportError) as error:
            print(error)

    # -- the commands --------------------------------------------------------------------------------------

    def status(self, arguments: list[str]) -> str:
        _Parser("status").parse_args(arguments)
        return status_text(get_broker(), self.worker)

    def use(self, arguments: list[str]) -> str:
        parser = _Parser("use")
        parser.add_argument("url", metavar="URL")
        parser.add_argument("--results", metavar="URL")
        parser.add_argument("--state", metavar="URL")
        parser.add_argument("--drop", action="store_true")
        asked = parser.parse_args(arguments)
        self._stop_worker()
        done = switch(
            resolve(asked.url),
            results_url=resolve(asked.results) if asked.results else None,
            state_url=resolve(asked.state) if asked.state else None,
            drop=asked.drop,
        )
        actors = f"{done.actors} actor{'' if done.actors == 1 else 's'} declared."
        if done.server is None:
            return f"Using the stub broker in this kernel. {actors}"
        lines = [f"Using {done.broker.address} ({done.server}). {actors}"]
        if done.moved:
            lines.append(f"{done.moved:,} messages that waited in this kernel were moved there.")
        if done.dropped:
            lines.append(f"{done.dropped:,} messages that waited in this kernel were dropped.")
        lines += _what_is_missing(done.broker)
        if not any(done.broker.listens(name) for name in done.broker.get_declared_queues()):
            lines.append("No worker is seen yet: %nbqueue workers 4 runs some here.")
        return " ".join(lines)

    def workers(self, arguments: list[str]) -> str:
        parser = _Parser("workers")
        parser.add_argument("number", metavar="N", type=int)
        number = parser.parse_args(arguments).number
        if number < 0:
            raise UsageError(f"The number of threads must not be negative, and {number} is.")
        broker = get_broker()
        if isinstance(broker, EmbeddedBroker):
            if number:
                broker.start(threads=number)
            else:
                broker.stop(timeout=STOP_TIMEOUT)
        else:
            self._stop_worker()
            if number:
                self.worker = Worker(broker, worker_threads=number)
                broker.emit_after("process_boot")
                self.worker.start()
        return f"{number} thread{'' if number == 1 else 's'}."

    def stop(self, arguments: list[str]) -> str:
        _Parser("stop").parse_args(arguments)
        broker = get_broker()
        self._stop_worker()
        if isinstance(broker, EmbeddedBroker):
            broker.stop(timeout=STOP_TIMEOUT)
        waiting = {queue.name: queue.waiting for queue in inspection.queues(broker) if queue.waiting}
        told = ", ".join(f"{count:,} in {name}" for name, count in waiting.items())
        return f"Stopped. Messages wait: {told}." if told else "Stopped. Nothing waits."

    def flush(self, arguments: list[str]) -> str:
        parser = _Parser("flush")
        parser.add_argument("queue", metavar="QUEUE", nargs="?")
        parser.add_argument("--yes", action="store_true")
        asked = parser.parse_args(arguments)
        broker = get_broker()
        queues = {queue.name: queue for queue in inspection.queues(broker)}
        if asked.queue is not None and asked.queue not in queues:
            raise UsageError(f"There is no queue {asked.queue!r} here, only {', '.join(sorted(queues))}.")
        names = [asked.queue] if asked.queue else sorted(queues)
        count = sum(queues[name].waiting + queues[name].delayed for name in names)
        if broker.remote and not asked.yes:
            raise UsageError(
                f"{broker.address} may hold messages of others: {count:,} in {', '.join(names)}. "
                f"%nbqueue flush {asked.queue or ''} --yes drops them.".replace("  ", " ")
            )
        for name in names:
            broker.flush(name)
        return f"Flushed {count:,} messages from {', '.join(names) or 'no queue'}."

    def failed(self, arguments: list[str]) -> str:
        parser = _Parser("failed")
        parser.add_argument("number", metavar="N", type=int, nargs="?", default=FAILED_SHOWN)
        letters = inspection.dead_letters(get_broker(), limit=parser.parse_args(arguments).number)
        if not letters:
            return "No message has failed."
        lines = []
        for letter in letters:
            call = "bytes that are no message" if letter.message is None else call_text(letter.message)
            lines.append((letter.id[:8], letter.queue_name, call, letter.error or "", _age(letter.died)))
        widths = [max(len(line[column]) for line in lines) for column in range(4)]
        table = [
            "  ".join([*(text.ljust(width) for text, width in zip(line, widths, strict=False)), line[4]])
            for line in lines
        ]
        return "\n".join([*table, "%nbqueue retry sends them again."])

    def retry(self, arguments: list[str]) -> str:
        parser = _Parser("retry")
        parser.add_argument("id", metavar="ID", nargs="?")
        prefix = parser.parse_args(arguments).id
        broker = get_broker()
        if prefix:
            letters = [inspection.find_dead(broker, prefix)]
        else:
            letters = inspection.dead_letters(broker, limit=1_000_000)
        count = inspection.retry(broker, letters)
        return f"Sent {count:,} message{'' if count == 1 else 's'} again."

    def _stop_worker(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.stop(timeout=STOP_TIMEOUT)

    # -- in the shell --------------------------------------------------------------------------------------

    def install(self, shell: InteractiveShell) -> None:
        shell.register_magic_function(self.nbqueue, "line", "nbqueue")
        shell.set_hook("complete_command", self._complete, str_key="%nbqueue")

    def uninstall(self, shell: InteractiveShell) -> None:
        self._stop_worker()
        shell.magics_manager.magics["line"].pop("nbqueue", None)

    def _complete(self, _shell: object, event: object) -> list[str]:
        return list(self.commands)


def status_text(broker: Broker, worker: Worker | None = None) -> str:
    """Return the block that `%nbqueue` prints."""
    lines = [("broker", _broker_line(broker)), ("worker", _worker_line(broker, worker))]
    statuses = inspection.queues(broker)
    width = max((len(status.name) for status in statuses), default=0)
    for number, status in enumerate(statuses):
        counts = f"{status.name:{width}}  {status.waiting:,} waiting  {status.running:,} running"
        if status.delayed:
            counts += f"  {status.delayed:,} delayed"
        counts += f"  {_count(status.done)} done  {_count(status.failed)} failed"
        lines.append(("" if number else "queues", counts))
    if not statuses:
        lines.append(("queues", "none yet"))
    actors = "  ".join(signature(broker.actors[name]) for name in sorted(broker.actors))
    lines.append(("actors", actors or "none yet: decorate a function with @nbqueue.actor"))
    return "\n".join(f"{title:9}{text}" for title, text in lines)


def _what_is_missing(broker: Broker) -> list[str]:
    """Say what a broker on a server that keeps messages alone does without, and what to add."""
    told = []
    for kept, ask, option in (
        ("results", broker.get_results_backend, "--results redis://host or memcached://host"),
        ("message states", broker.get_state, "--state redis://host"),
    ):
        try:
            ask()
        except RuntimeError:
            told.append(f"It keeps no {kept}: add {option}.")
    return told


def _count(number: int | None) -> str:
    return "\N{EN DASH}" if number is None else f"{number:,}"


def _broker_line(broker: Broker) -> str:
    if isinstance(broker, EmbeddedBroker):
        return "stub, in this kernel (messages are lost when it restarts)"
    return f"{type(broker).__name__.removesuffix('Broker').lower()}, {broker.address}"


def _worker_line(broker: Broker, worker: Worker | None) -> str:
    if isinstance(broker, EmbeddedBroker):
        worker = broker.worker
        if worker is None:
            return "stopped: nbqueue.start() runs it"
    if worker is None:
        return "0 threads in this kernel: %nbqueue workers 4 runs some"
    return f"{len(worker.workers)} threads, running {len(worker.running_messages())}"


def _age(died: int | None) -> str:
    if died is None:
        return ""
    seconds = max(0, (current_millis() - died) // 1000)
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"
