"""`nbqueue send`: send a message to an actor, and wait for its result if that is wanted."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

from ..errors import ActorNotFound, ResultFailure, ResultMissing, ResultTimeout
from ..message import Message
from . import exit_codes
from .app import did_you_mean
from .connecting import Place, complete_actors, complete_queues, takes_place
from .parameters import duration, json_list, json_object
from .printing import print_json, visible, visible_lines

if TYPE_CHECKING:
    from ..broker import Broker

EXAMPLES = """\b
Examples:
  nbqueue send resize --args '["cat.jpg"]' --module tasks
  nbqueue send resize --kwargs '{"path": "cat.jpg"}' --module tasks --wait
  nbqueue send remind --delay 10m --queue emails -b redis://localhost

Durations are 500ms, 10s, 5m, 2h, 1d, or plain milliseconds.

\b
Exit codes:
  0 sent, or done with --wait; 1 the message failed; 2 an argument is wrong,
  or there is no such actor; 3 the broker can't be reached; 124 no result
  within --timeout (the message goes on)
"""


@click.command("send", epilog=EXAMPLES)
@click.argument("actor", metavar="ACTOR", shell_complete=complete_actors)
@click.option("--args", "arguments", type=json_list, default="[]", metavar="JSON",
              help="Positional arguments: a JSON list.")  # fmt: skip
@click.option("--kwargs", "keywords", type=json_object, default="{}", metavar="JSON",
              help="Keyword arguments: a JSON object.")  # fmt: skip
@click.option("--queue", "-q", metavar="NAME", shell_complete=complete_queues,
              help="The queue (else the actor's, or default).")  # fmt: skip
@click.option("--delay", type=duration, metavar="DURATION", help="Run it that much later.")
@click.option("--wait", is_flag=True, help="Wait for the result, and print it as JSON.")
@click.option("--timeout", type=duration, metavar="DURATION", help="Wait so long at most.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object about the message.")
@takes_place
def command(
    place: Place,
    actor: str,
    arguments: list[Any],
    keywords: dict[str, Any],
    queue: str | None,
    delay: int | None,
    wait: bool,
    timeout: int | None,
    as_json: bool,
) -> int:
    """Send a message to ACTOR.

    With --module the actor is looked up there; without, a worker has to know it.
    """
    context = click.get_current_context()
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for --wait.", context)
    with place.open() as broker:
        message = _message(place, broker, actor, arguments, keywords, queue)
        if wait:
            _check_results(place, broker, message)
        broker.declare_queue(message.queue_name)
        sent = broker.enqueue(message, delay=delay).sent_by(broker)
        about = {"id": sent.message_id, "queue": message.queue_name, "actor": sent.actor_name}
        if delay is not None:
            about["eta"] = sent.options["eta"]
        if wait:
            return _wait(sent, timeout, about if as_json else None)
    if as_json:
        print_json(about)
    else:
        click.echo(f"Sent {visible(actor)} to {visible(message.queue_name)}: {sent.message_id}")
    return exit_codes.DONE


def _message(
    place: Place,
    broker: Broker,
    name: str,
    arguments: list[Any],
    keywords: dict[str, Any],
    queue: str | None,
) -> Message[Any]:
    if not place.module:
        return Message(queue or "default", name, arguments, keywords, {})
    try:
        message = broker.get_actor(name).message_with_options(args=arguments, kwargs=keywords)
    except ActorNotFound:
        known = sorted(broker.get_declared_actors())
        hint = did_you_mean(name, known) or (f" It has {', '.join(known)}." if known else " It has none.")
        raise click.UsageError(f"{place.module} has no actor {name!r}.{hint}") from None
    return message if queue is None else message.copy(queue_name=queue)


def _check_results(place: Place, broker: Broker, message: Message[Any]) -> None:
    """See that a result can be waited for, before anything is sent."""
    from ..middleware.middleware import message_option
    from ..results import Results

    results = next((item for item in broker.middleware if isinstance(item, Results)), None)
    if results is None:
        raise click.UsageError(
            f"There are no results to wait for on {broker.address}: say where they are by --results-url, "
            "and to the workers as well."
        )
    if place.module and not message_option(broker, message, "store_results", default=results.store_results):
        raise click.UsageError(
            f"Actor {message.actor_name!r} keeps no results: leave out --wait, or give it store_results=True."
        )


def _wait(sent: Message[Any], timeout: int | None, about: dict[str, Any] | None) -> int:
    """Wait for the result; print it, or what is known of the message, and return the exit code."""
    state, more, code = "done", {}, exit_codes.DONE
    try:
        result = sent.get_result(block=True, timeout=math.inf if timeout is None else timeout)
        more = {"result": result}
        if about is None:
            click.echo(json.dumps(result, default=repr))
    except ResultFailure as failure:
        state, code = "failed", exit_codes.FAILED
        error = f"{failure.orig_exc_type}: {failure.orig_exc_msg}"
        more = {"error": error, "traceback": failure.traceback}
        if about is None:
            click.echo(visible_lines((failure.traceback or error).rstrip()), err=True)
    except ResultMissing as missing:
        state, code = "failed", exit_codes.FAILED
        more = {"error": str(missing)}
        if about is None:
            click.echo(visible(missing), err=True)
    except ResultTimeout:
        state, code = "timeout", exit_codes.TIMEOUT
        if about is None:
            click.echo(f"No result within {timeout} ms: message {sent.message_id} goes on.", err=True)
    except KeyboardInterrupt:
        click.echo(f"Stopped waiting: message {sent.message_id} goes on.", err=True)
        return exit_codes.INTERRUPTED
    if about is not None:
        print_json({**about, "state": state, **more})
    return code
