"""Says what a refusal of RabbitMQ means and what to do about it. Credentials never appear."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...errors import BrokerError, ConnectionClosed

_MISMATCH = re.compile(r"inequivalent arg '([^']*)' for queue '([^']*)'.*?received (.*?) but current is (.*)")

#: Milliseconds after which RabbitMQ, by default, closes the channel of a message that isn't acknowledged.
DEFAULT_CONSUMER_TIMEOUT = 1_800_000


class NotThere(ConnectionClosed):
    """The channel was closed because a queue or an exchange is not there."""


def addresses(parameters: Sequence[Any]) -> str:
    """Return where parameters lead to, without credentials."""
    return ", ".join(
        f"{'amqp' if p.ssl_options is None else 'amqps'}://{p.host}:{p.port}/{p.virtual_host.lstrip('/')}"
        for p in parameters
    )


def explain_connection(error: BaseException, parameters: Sequence[Any]) -> str:
    """Return why there is no connection."""
    where = addresses(parameters)
    text = _innermost(error)
    if "ACCESS_REFUSED" in text or "ProbableAuthentication" in text or "AuthenticationError" in text:
        return f"RabbitMQ at {where} refused the user or the password."
    if "NOT_ALLOWED" in text or "ProbableAccessDenied" in text or "not found" in text:
        vhost = parameters[0].virtual_host
        return (
            f"RabbitMQ at {where} has no virtual host {vhost!r}, or the user may not use it. Make it: "
            f"rabbitmqctl add_vhost {vhost}, then rabbitmqctl set_permissions -p {vhost} USER '.*' '.*' '.*'."
        )
    return f"RabbitMQ at {where} can't be reached: {text}"


def explain_channel(error: Any, what: str) -> BrokerError:
    """Return an error for a channel that the server closed, while `what` was done."""
    code = getattr(error, "reply_code", None)
    text = str(getattr(error, "reply_text", error))
    if code == 406:
        found = _MISMATCH.search(text)
        if found:
            argument, queue, wanted, present = found.groups()
            return BrokerError(
                f"Queue {queue!r} is there with {argument} = {present.strip()}, and this program wants "
                f"{wanted.strip()}. All programs need the same settings (max_priority, queue_type, "
                f"dramatiq_dead_message_ttl); or delete the queue: rabbitmqctl delete_queue {queue}."
            )
        return BrokerError(f"RabbitMQ refused {what}: {text}")
    if code == 403:
        return BrokerError(
            f"RabbitMQ refused {what}: {text}. The user needs configure, write and read permissions: "
            "rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'."
        )
    kind = NotThere if code == 404 else ConnectionClosed
    return kind(f"RabbitMQ closed the channel while {what}: {text}")


def _innermost(error: BaseException) -> str:
    """The text of the errors that pika has wrapped."""
    texts: list[str] = []
    waiting: list[BaseException] = [error]
    while waiting:
        present = waiting.pop(0)
        inner = getattr(present, "exceptions", None) or [
            found for found in (getattr(present, "exception", None), present.__cause__) if found is not None
        ]
        inner = inner or [found for found in present.args if isinstance(found, BaseException)]
        if inner:
            waiting += inner
        elif isinstance(present, OSError) and present.strerror:
            texts.append(f"{present.strerror.lower()}.")
        else:
            texts.append(f"{type(present).__name__}: {present}" if str(present) else repr(present))
    return "; ".join(dict.fromkeys(texts)) or repr(error)


def is_too_late(error: Any) -> bool:
    """Whether the server closed a channel because a message was not acknowledged in time."""
    return getattr(error, "reply_code", None) == 406 and "acknowledgement" in str(error.reply_text)
