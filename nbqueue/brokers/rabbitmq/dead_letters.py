"""Looks at the dead letters of a queue, and takes some out, without losing any if this dies half-way.

RabbitMQ can't look without taking: a bounded window is read without acknowledging and given back when the
channel closes. One is taken out by publishing its successor, with the server's word for it, before it is
acknowledged.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from hashlib import sha1
from typing import TYPE_CHECKING, Any

from ...common import q_name
from ...dead_letters import DeadLetter, fresh_start, from_body
from .frames import Outgoing
from .proxy import WHY_HEADER
from .topology import names

if TYPE_CHECKING:
    from .broker import RabbitmqBroker

#: Dead letters that are looked at when some are to be taken out.
WINDOW = 10_000


def read(channel: Any, queue_name: str, limit: int) -> list[DeadLetter]:
    """Return the latest dead letters, the oldest first. Closing the channel gives all of them back."""
    return [letter for _, letter in _window(channel, queue_name)][-limit:]


def _window(channel: Any, queue_name: str) -> list[tuple[int, DeadLetter]]:
    letters: list[tuple[int, DeadLetter]] = []
    _, _, dead = names(queue_name)
    while len(letters) < WINDOW:
        method, properties, body = channel.basic_get(dead)
        if method is None:
            break
        headers = properties.headers or {}
        died = properties.timestamp * 1000 if properties.timestamp else None
        fallback = sha1(body, usedforsecurity=False).hexdigest()
        why = headers.get(WHY_HEADER)
        letter = from_body(
            queue_name, body, fallback_id=fallback, died=died, why=why if why else _reason(headers)
        )
        letters.append((method.delivery_tag, letter))
    return letters


def _reason(headers: dict[str, Any]) -> str | None:
    """What the server itself says of a message that a foreign worker rejected."""
    deaths = headers.get("x-death") or []
    return json.dumps({"error": f"rejected by a worker ({deaths[0].get('reason')})"}) if deaths else None


def take_out(broker: RabbitmqBroker, letters: Iterable[DeadLetter], *, retry: bool) -> int:
    """Take dead letters out, into their queue or for good; return how many were there."""
    by_queue: dict[str, Counter[str]] = {}
    for letter in letters:
        by_queue.setdefault(letter.queue_name, Counter())[letter.id] += 1
    count = 0
    for queue_name, wanted in by_queue.items():
        with broker.short_connection() as open_channel:
            channel = open_channel()
            for tag, letter in _window(channel, queue_name):
                if not wanted[letter.id]:
                    continue
                wanted[letter.id] -= 1
                if retry:
                    broker.publish([_revived(broker, letter)], confirmed=True)
                channel.basic_ack(tag)
                count += 1
    return count


def _revived(broker: RabbitmqBroker, letter: DeadLetter) -> Outgoing:
    target = q_name(letter.queue_name)
    if letter.message is None:
        import pika

        return Outgoing(target, letter.body, pika.BasicProperties(delivery_mode=2))
    message = fresh_start(letter.message, target)
    return Outgoing(target, message.encode(), broker.properties_of(message))
