"""Where the commands look: the options that say so, and the broker that they lead to.

Either a server is named, by `--broker-url` or the environment, and its queues are looked for there; or a
module is, which is imported for its broker, its actors and their queues.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import click

from ..common import q_name
from ..errors import BrokerConnectionError, BrokerError
from . import exit_codes

if TYPE_CHECKING:
    from ..broker import Broker

#: The options that name a place, and the variables by which everything else hears of them.
VARIABLES = {
    "broker_url": "NBQUEUE_BROKER_URL",
    "results_url": "NBQUEUE_RESULTS_URL",
    "state_url": "NBQUEUE_STATE_URL",
    "namespace": "NBQUEUE_NAMESPACE",
}
#: Seconds that completing a word may take to reach a server.
PATIENCE_OF_COMPLETION = 2.0

#: The schemes of URLs that name one server, with a port that is a number.
_WITH_PORT = ("redis", "rediss", "amqp", "amqps")
_CREDENTIALS = re.compile(r"(?<=//).*@|^[^/]*@")


class Trouble(click.ClickException):
    """What ends a command, in one line."""

    exit_code = exit_codes.FAILED


class Unreachable(Trouble):
    """The broker, or what keeps the results or states, can't be reached."""

    exit_code = exit_codes.CONNECT


@dataclass(frozen=True)
class Place:
    """Where to look, as the options say."""

    broker_url: str | None = None
    results_url: str | None = None
    state_url: str | None = None
    namespace: str | None = None
    module: str | None = None

    @contextlib.contextmanager
    def open(self, patience: float | None = None) -> Iterator[Broker]:
        """Connect; yields the broker. Its errors, here and inside, end the command with their exit codes.

        Parameters:
          patience: seconds for which the server may keep silent at first.
        """
        from .. import inspection

        broker = self._broker()
        with _troubles():
            inspection.reach(broker, patience or inspection.PATIENCE)
            yield broker
            broker.close()  # after a failure it would only wait for the server again

    def _broker(self) -> Broker:
        for option, variable in VARIABLES.items():
            value = getattr(self, option)
            if value is not None:
                os.environ[variable] = value
            if option.endswith("_url"):
                _check_url(option, os.environ.get(variable, ""))
        broker = self._broker_of_module(self.module) if self.module else self._broker_of_url()
        from ..brokers.stub import StubBroker

        if isinstance(broker, StubBroker):
            raise click.UsageError(
                f"{'The module' if self.module else 'stub://'} keeps its messages in the memory of its own "
                "process: nothing can be seen from here. Name a server: --broker-url redis://localhost."
            )
        return broker

    def _broker_of_url(self) -> Broker:
        url = os.environ.get("NBQUEUE_BROKER_URL")
        if not url:
            raise click.UsageError(
                "Where are the queues? Say --broker-url URL or --module MODULE, or set NBQUEUE_BROKER_URL."
            )
        from ..broker import from_url

        try:
            return from_url(url, profile=True)
        except (ImportError, ValueError) as error:
            raise click.UsageError(str(error)) from error

    def _broker_of_module(self, spec: str) -> Broker:
        from ..embedded import EmbeddedBroker
        from ..serve.loading import LoadingError, extend_path, import_broker

        extend_path((".",))
        try:
            # What a module prints as it is imported must not get between the answers.
            with contextlib.redirect_stdout(sys.stderr):
                _, broker = import_broker(spec)
        except KeyboardInterrupt:
            raise
        except LoadingError:
            raise click.UsageError(f"There is no module {spec!r}, neither here nor installed.") from None
        except BaseException as error:
            _refuse_module(spec, error)
        if isinstance(broker, EmbeddedBroker):
            raise click.UsageError(
                f"{spec} sets no broker: say where its messages are by --broker-url or NBQUEUE_BROKER_URL."
            )
        if self.broker_url is not None and not broker.session_profile:
            raise click.UsageError(
                f"{spec} sets its own broker, {broker.address}: leave out --broker-url or --module."
            )
        return broker

    def declare(self, broker: Broker, names: Iterable[str] = ()) -> set[str]:
        """Have the broker know the queues that are asked about, and return those.

        Without names they are those of the module, or else all that are on the server.
        """
        from .. import inspection

        wanted = {q_name(name) for name in names}
        if "" in wanted:
            raise click.UsageError("A queue has a name: --queue is empty.")
        for name in wanted:
            broker.declare_queue(name)
        if wanted:
            return wanted
        if not self.module and not inspection.discover(broker):
            raise click.UsageError(
                f"{broker.address} can't list its queues: name them by --queue NAME (once for each), "
                "or say --module MODULE, which knows them."
            )
        return {q_name(name) for name in broker.get_declared_queues()}


def _check_url(option: str, url: str) -> None:
    """Refuse what is no URL, before a client library quotes what it took for a port: a part of a password."""
    for part in filter(None, url.split(";")):
        if not _is_url(part):
            raise click.UsageError(
                f"--{option.replace('_', '-')} {_CREDENTIALS.sub('***@', part)!r} is no URL: "
                "write redis://localhost:6379/0 or amqp://user:password@host/vhost."
            )


def _is_url(text: str) -> bool:
    scheme, separator, _ = text.partition("://")
    if scheme not in _WITH_PORT:
        return bool(separator)
    try:
        return urlsplit(text).port != 0
    except ValueError:
        return False


def takes_place(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where to look; the function gets them as `place`."""

    @functools.wraps(function)
    def command(**values: Any) -> Any:
        place = Place(**{name: values.pop(name) for name in (*VARIABLES, "module")})
        return function(place=place, **values)

    for option in (
        click.option("--namespace", metavar="NAME", help="What the keys in Redis start with."),
        click.option("--state-url", metavar="URL", help="Where message states are: redis://"),
        click.option("--results-url", metavar="URL", help="Where results are: redis://, memcached://"),
        click.option(
            "--module", "-m", metavar="MODULE[:BROKER]", help="Import this for its broker, actors, queues."
        ),
        click.option("--broker-url", "-b", metavar="URL", help="The server (else $NBQUEUE_BROKER_URL)."),
    ):
        command = option(command)
    return command


def takes_queues(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the option --queue, which can be given several times."""
    return click.option(
        "--queue", "-q", "queues", metavar="NAME", multiple=True, help=text, shell_complete=complete_queues
    )


def complete_queues(context: click.Context, parameter: click.Parameter, beginning: str) -> list[str]:
    """Return the names of the queues that begin so."""
    return _complete(context, beginning, lambda place, broker: place.declare(broker))


def complete_actors(context: click.Context, parameter: click.Parameter, beginning: str) -> list[str]:
    """Return the names of the actors of `--module` that begin so."""
    if not context.params.get("module"):
        return []
    return _complete(context, beginning, lambda place, broker: broker.get_declared_actors(), reach=False)


def _complete(
    context: click.Context,
    beginning: str,
    names: Callable[[Place, Broker], Iterable[str]],
    *,
    reach: bool = True,
) -> list[str]:
    place = Place(**{name: context.params.get(name) for name in (*VARIABLES, "module")})
    try:
        if not reach:
            found = names(place, place._broker())
        else:
            with place.open(PATIENCE_OF_COMPLETION) as broker:
                found = names(place, broker)
    except click.ClickException:
        return []  # a shell that completes a word has no place for errors: the command itself tells them
    return sorted(name for name in found if name.startswith(beginning) and name.isprintable())


@contextlib.contextmanager
def _troubles() -> Iterator[None]:
    try:
        yield
    except BrokerConnectionError as error:
        raise Unreachable(str(error)) from error
    except BrokerError as error:
        raise Trouble(str(error)) from error


def _refuse_module(spec: str, error: BaseException) -> NoReturn:
    """Say in one line what went wrong in a module, and where."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    ours = str(Path(__file__).parents[1]) + os.sep
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<", ours)) and "importlib" not in frame.filename
    ]
    if isinstance(error, SyntaxError) and error.filename:
        where = f" ({os.path.basename(error.filename)}, line {error.lineno})"
        text = f"SyntaxError: {error.msg}"
    else:
        where = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    raise click.UsageError(f"{spec} can't be imported: {text}{where}") from error
