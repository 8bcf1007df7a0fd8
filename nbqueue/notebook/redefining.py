"""Running a cell again redefines its actor; when messages wait that the new one can't take, this says so."""

from __future__ import annotations

import sys
from typing import Any

from .. import running
from ..actor import Actor
from ..common import dq_name
from ..embedded import EmbeddedBroker
from ..errors import DecodeError
from ..message import Message
from .cards.words import counted, parameters, signature

#: Waiting messages that are looked at.
LOOKED_AT = 10_000


def install() -> None:
    running.redefined = _tell


def uninstall() -> None:
    running.redefined = None


def _tell(old: Actor[Any, Any], new: Actor[Any, Any]) -> None:
    moved = old.queue_name != new.queue_name
    if not moved and parameters(old) == parameters(new):
        return
    waiting = _waiting(old)
    if not waiting:
        return
    wait = "waits" if waiting == 1 else "wait"
    told = f"nbqueue: {counted(waiting, 'message')} of {old.actor_name} {wait} in {old.queue_name}"
    if parameters(old) != parameters(new):
        told += f", sent as {signature(old)}; {signature(new)} will be called with the same arguments"
    if moved:
        told += f"; new ones go to {new.queue_name}"
    print(f"{told}. %nbqueue flush {old.queue_name} drops what waits.", file=sys.stderr)


def _waiting(actor: Actor[Any, Any]) -> int:
    """Count the messages of an actor that wait in this kernel. On a server that can't be known."""
    broker = actor.broker
    if not isinstance(broker, EmbeddedBroker):
        return 0
    count = 0
    for name in (actor.queue_name, dq_name(actor.queue_name)):
        for body in list(broker.queues[name].queue)[:LOOKED_AT]:
            try:
                count += Message.decode(body).actor_name == actor.actor_name
            except DecodeError:  # no message of anybody's
                continue
    worker = broker.worker
    if worker is not None:
        held = [item.message for item in list(worker.work_queue.queue)]
        for consumer in list(worker.consumers.values()):
            held += [message for _, _, message in list(consumer.delay_queue.queue)]
        count += sum(message.actor_name == actor.actor_name for message in held)
    return count
