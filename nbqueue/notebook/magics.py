"""The `%nbqueue` magic: one line magic with commands."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from .. import inspection
from ..broker import Broker, get_broker
from ..embedded import EmbeddedBroker
from .reprs import signature

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

COMMANDS = ("status",)


def nbqueue(line: str) -> None:
    """Show the state of the task queue.

    %nbqueue           broker, worker, queues and actors
    %nbqueue status    the same
    """
    command = line.strip() or "status"
    if command not in COMMANDS:
        near = difflib.get_close_matches(command.split()[0], COMMANDS, 1)
        hint = f" Did you mean %nbqueue {near[0]}?" if near else ""
        print(f"%nbqueue has no command {command.split()[0]!r}.{hint} %nbqueue? lists the commands.")
        return
    print(status_text(get_broker()))


def status_text(broker: Broker) -> str:
    """Return the block that `%nbqueue` prints."""
    lines = [("broker", _broker_line(broker)), ("worker", _worker_line(broker))]
    statuses = inspection.queues(broker)
    width = max((len(status.name) for status in statuses), default=0)
    for number, status in enumerate(statuses):
        counts = f"{status.name:{width}}  {status.waiting:,} waiting  {status.running:,} running"
        if status.delayed:
            counts += f"  {status.delayed:,} delayed"
        counts += f"  {status.done:,} done  {status.failed:,} failed"
        lines.append(("" if number else "queues", counts))
    if not statuses:
        lines.append(("queues", ", ".join(sorted(broker.get_declared_queues())) or "none yet"))
    actors = "  ".join(signature(broker.actors[name]) for name in sorted(broker.actors))
    lines.append(("actors", actors or "none yet: decorate a function with @nbqueue.actor"))
    return "\n".join(f"{title:9}{text}" for title, text in lines)


def _broker_line(broker: Broker) -> str:
    if isinstance(broker, EmbeddedBroker):
        return "stub, in this kernel (messages are lost when it restarts)"
    return repr(broker)


def _worker_line(broker: Broker) -> str:
    if not isinstance(broker, EmbeddedBroker):
        return "none in this kernel"
    worker = broker.worker
    if worker is None:
        return "stopped: nbqueue.start() runs it"
    return f"{len(worker.workers)} threads, running {len(worker.running_messages())}"


def install(shell: InteractiveShell) -> None:
    shell.register_magic_function(nbqueue, "line", "nbqueue")
    shell.set_hook("complete_command", _complete, str_key="%nbqueue")


def uninstall(shell: InteractiveShell) -> None:
    shell.magics_manager.magics["line"].pop("nbqueue", None)


def _complete(_shell: object, event: object) -> list[str]:
    return list(COMMANDS)
