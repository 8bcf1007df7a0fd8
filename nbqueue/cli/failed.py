"""`nbqueue failed`: the messages that failed for good, and what to do about them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click

from .. import inspection
from ..calls import call_text
from ..common import q_name
from ..dead_letters import DeadLetter
from . import exit_codes
from .app import did_you_mean
from .connecting import Place, Trouble, takes_place, takes_queues
from .printing import ago, cell, console, counted, print_json, table, visible, visible_lines

if TYPE_CHECKING:
    from ..broker import Broker

#: Messages that are listed unless told otherwise.
SHOWN = 50
#: Characters of an id that are shown at least.
SHORT_ID = 8

EXAMPLES = """\b
Examples:
  nbqueue failed list --broker-url redis://localhost
  nbqueue failed show 4f3c09d1 --module tasks
  nbqueue failed retry 4f3c09d1 77aa0e52 --module tasks
  nbqueue failed retry --all --queue emails --module tasks
  nbqueue failed delete --all --queue emails --yes --module tasks

The beginning of an id will do where it is the only one.
"""

_BY_QUEUE = "Of this queue only (repeatable)."


class InOrder(click.Group):
    """Lists its commands as they were written."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group("failed", cls=InOrder, epilog=EXAMPLES, invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """List, show, retry and delete messages that failed for good."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


LIST_EXAMPLES = """\b
Examples:
  nbqueue failed list --broker-url redis://localhost
  nbqueue failed list --queue emails -n 5 --json --module tasks
"""


@command.command("list", epilog=LIST_EXAMPLES)
@takes_queues(_BY_QUEUE)
@click.option("--limit", "-n", type=click.IntRange(1), default=SHOWN, metavar="N",
              help=f"List so many at most, the latest ({SHOWN}).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, one a message.")
@takes_place
def list_failed(place: Place, queues: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List the messages that failed, the latest first."""
    with place.open() as broker:
        names = _queues(place, broker, queues)
        letters = _latest(broker, names, limit)
        total = _total(broker, names)
    if as_json:
        for letter in letters:
            print_json(as_fields(letter))
        return
    if not letters:
        click.echo("No message has failed.", err=True)
        return
    made = table("id", "queue", "call", "error", "tries", "ago", long=["queue", "call", "error"],
                 numbers=["tries", "ago"])  # fmt: skip
    short = _short_ids(letters)
    for letter in letters:
        made.add_row(
            cell(short[letter.id], "cyan"),
            cell(letter.queue_name),
            cell(_call(letter)),
            cell(letter.error or "", "red"),
            cell(letter.attempts),
            cell(ago(letter.died)),
        )
    console().print(made)
    if total > len(letters):
        click.echo(f"These are the latest {len(letters)} of {total:,}: --limit N lists more.", err=True)


SHOW_EXAMPLES = """\b
Examples:
  nbqueue failed show 4f3c09d1 --module tasks
  nbqueue failed show 4f3c09d1 --json --broker-url redis://localhost
"""


@command.command("show", epilog=SHOW_EXAMPLES)
@click.argument("message_id", metavar="ID")
@takes_queues(_BY_QUEUE)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@takes_place
def show_failed(place: Place, message_id: str, queues: tuple[str, ...], as_json: bool) -> None:
    """Show a message that failed: arguments, error, traceback."""
    with place.open() as broker:
        letter = _find(broker, _queues(place, broker, queues), [message_id])[0]
    if as_json:
        print_json(as_fields(letter))
        return
    message = letter.message
    known = {
        "id": letter.id,
        "queue": letter.queue_name,
        "call": _call(letter),
        "sent": None if message is None else _moment(message.message_timestamp),
        "failed": _moment(letter.died),
        "tries": letter.attempts,
        "worker": letter.worker,
        "options": message.options if message is not None and message.options else None,
        "bytes": letter.body if message is None else None,
    }
    for name, value in known.items():
        if value is not None:
            click.echo(f"{name:8} {visible(value)}")
    if letter.error:
        click.echo(f"{'error':8} {visible(letter.error)}")
    if letter.traceback:
        click.echo()
        click.echo(visible_lines(letter.traceback.rstrip()))


RETRY_EXAMPLES = """\b
Examples:
  nbqueue failed retry 4f3c09d1 77aa0e52 --module tasks
  nbqueue failed retry --all --queue emails --broker-url redis://localhost
"""


@command.command("retry", epilog=RETRY_EXAMPLES)
@click.argument("message_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them, or all of --queue.")
@takes_queues(_BY_QUEUE)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@takes_place
def retry_failed(
    place: Place, message_ids: tuple[str, ...], everything: bool, queues: tuple[str, ...], as_json: bool
) -> int:
    """Send failed messages again, with all their tries before them."""
    _check_choice(message_ids, everything)
    with place.open() as broker:
        names = _queues(place, broker, queues)
        asked, count = _apply(inspection.retry, broker, names, message_ids)
    if as_json:
        print_json({"retried": count})
    elif count or asked:
        click.echo(f"Sent {counted(count, 'message')} again.")
    else:
        click.echo("No message has failed.")
    return _outcome(asked, count)


DELETE_EXAMPLES = """\b
Examples:
  nbqueue failed delete 4f3c09d1 --module tasks
  nbqueue failed delete --all --queue emails --yes -b redis://localhost
"""


@command.command("delete", epilog=DELETE_EXAMPLES)
@click.argument("message_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them, or all of --queue.")
@click.option("--yes", "-y", "confirmed", is_flag=True, help="Don't ask before deleting all.")
@takes_queues(_BY_QUEUE)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@takes_place
def delete_failed(
    place: Place,
    message_ids: tuple[str, ...],
    everything: bool,
    confirmed: bool,
    queues: tuple[str, ...],
    as_json: bool,
) -> int:
    """Delete failed messages for good."""
    _check_choice(message_ids, everything)
    if everything and not confirmed and not sys.stdin.isatty():
        raise click.UsageError("--all deletes without a way back, and nobody can be asked here: add --yes.")
    with place.open() as broker:
        names = _queues(place, broker, queues)
        if everything and not confirmed:
            total = _total(broker, names)
            where = visible(", ".join(sorted(names)))
            if total and not click.confirm(
                f"Delete {counted(total, 'failed message')} of {where}?", err=True
            ):
                click.echo("Nothing was deleted.", err=True)
                return exit_codes.FAILED
        asked, count = _apply(inspection.delete, broker, names, message_ids)
    if as_json:
        print_json({"deleted": count})
    elif count or asked:
        click.echo(f"Deleted {counted(count, 'failed message')}.")
    else:
        click.echo("No message has failed.")
    return _outcome(asked, count)


def as_fields(letter: DeadLetter) -> dict[str, Any]:
    """Return what machines are told of a message that failed. Times are in milliseconds since the epoch."""
    message = letter.message
    return {
        "id": letter.id,
        "queue": letter.queue_name,
        "actor": letter.actor_name,
        "args": None if message is None else message.args,
        "kwargs": None if message is None else message.kwargs,
        "options": None if message is None else message.options,
        "sent": None if message is None else message.message_timestamp,
        "died": letter.died,
        "tries": letter.attempts,
        "worker": letter.worker,
        "error": letter.error,
        "traceback": letter.traceback,
        "body": letter.body.decode("utf-8", "backslashreplace") if message is None else None,
    }


# -- which messages ---------------------------------------------------------------------------------------


def _check_choice(message_ids: tuple[str, ...], everything: bool) -> None:
    if bool(message_ids) == everything:
        raise click.UsageError("Name messages by their ids, or say --all.", click.get_current_context())


def _queues(place: Place, broker: Broker, named: tuple[str, ...]) -> set[str]:
    """Return the queues that are meant. Ends the command when one that is named is nowhere known."""
    known = {q_name(name) for name in broker.get_declared_queues()}  # those of the module
    names = place.declare(broker, named)
    for name in sorted(names - known if named else ()):
        if broker.has_queue(name) is False:
            hint = did_you_mean(name, known)
            if known and not hint:
                hint = f" {place.module} knows {', '.join(sorted(known))}."
            raise click.UsageError(f"There is no queue {name!r} on {broker.address}.{hint}")
    return names


def _latest(broker: Broker, names: Iterable[str], limit: int) -> list[DeadLetter]:
    letters = [letter for name in names for letter in inspection.dead_letters(broker, name, limit=limit)]
    return sorted(letters, key=lambda letter: letter.died or 0, reverse=True)[:limit]


def _total(broker: Broker, names: Iterable[str]) -> int:
    names = set(names)
    return sum(status.dead for status in inspection.queues(broker) if status.name in names)


def _find(broker: Broker, names: Iterable[str], message_ids: Iterable[str]) -> list[DeadLetter]:
    """Return the messages whose ids begin so. Ends the command when one isn't there or isn't the only one."""
    everything = _latest(broker, names, inspection.ALL)
    found: dict[str, DeadLetter] = {}
    for beginning in message_ids:
        letters = [letter for letter in everything if letter.id.startswith(beginning)]
        if len(letters) != 1:
            what = "No failed message has" if not letters else f"{len(letters)} failed messages have"
            raise Trouble(f"{what} an id that starts with {beginning!r}. Nothing was changed.")
        found[letters[0].id] = letters[0]
    return list(found.values())


def _apply(
    change: Callable[[Broker, Iterable[DeadLetter]], int],
    broker: Broker,
    names: set[str],
    message_ids: tuple[str, ...],
) -> tuple[int, int]:
    """Change the messages with these ids, or all; return how many were meant, and how many were changed."""
    if message_ids:
        letters = _find(broker, names, message_ids)
        return len(letters), change(broker, letters)
    # A server may show a part at a time. Those that fail anew meanwhile are not meant.
    total, count = _total(broker, names), 0
    while count < total:
        changed = change(broker, _latest(broker, names, inspection.ALL))
        if not changed:
            break
        count += changed
    return total, count


def _outcome(asked: int, count: int) -> int:
    if count < asked:
        click.echo(f"{counted(asked - count, 'message')} had gone meanwhile.", err=True)
        return exit_codes.FAILED
    return exit_codes.DONE


# -- how they are shown -----------------------------------------------------------------------------------


def _call(letter: DeadLetter) -> str:
    return "bytes that are no message" if letter.message is None else call_text(letter.message)


def _short_ids(letters: list[DeadLetter]) -> dict[str, str]:
    """Return the beginning of each id, as long as it takes to tell those that are listed apart."""
    ids = {letter.id for letter in letters}
    length = SHORT_ID
    while len({name[:length] for name in ids}) < len(ids):
        length += 4
    return {name: name[:length] for name in ids}


def _moment(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, timezone.utc).astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S %z} ({ago(milliseconds)} ago)"
