"""What fleets share, whatever server they are on: a queue, messages of foreign programs, an actor."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

import nbqueue
from nbqueue import Broker

ROOT = Path(__file__).parents[2]
QUEUE = "work"


def wire(actor: str, *args: Any, queue: str = QUEUE, **fields: Any) -> bytes:
    """Return a message as a foreign program writes it."""
    return json.dumps(
        {
            "queue_name": queue,
            "actor_name": actor,
            "args": list(args),
            "kwargs": {},
            "options": {},
            "message_id": str(uuid.uuid4()),
            "message_timestamp": int(time.time() * 1000),
            **fields,
        }
    ).encode()


def noting(
    broker: Broker, queue: str = QUEUE, **options: Any
) -> tuple[nbqueue.Actor[[int], None], list[int]]:
    """Return an actor `note` of this process and the list in which it notes its arguments."""
    seen: list[int] = []

    @nbqueue.actor(broker=broker, queue_name=queue, actor_name="note", max_retries=0, **options)
    def note(number: int) -> None:
        seen.append(number)

    return note, seen


def now() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)
