"""`nbqueue serve`: checks the arguments, takes the pid file and the health port, runs the master."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

from ..serve import exit_codes
from ..serve.logs import open_streams
from ..serve.settings import ServeSettings
from .arguments import make_argument_parser, settings_from

#: The settings that travel to all processes in the environment.
VARIABLES = {
    "broker_url": "NBQUEUE_BROKER_URL",
    "results_url": "NBQUEUE_RESULTS_URL",
    "state_url": "NBQUEUE_STATE_URL",
}


def main(arguments: Sequence[str]) -> int:
    """Serve as the arguments say; return the exit code."""
    open_streams()
    try:
        asked = make_argument_parser().parse_args(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else exit_codes.IMPORT
    settings = settings_from(asked)
    try:
        sock = _prepare(settings)
    except ValueError as error:
        print(f"nbqueue serve: {error}", file=sys.stderr)
        return exit_codes.IMPORT
    return serve(settings, sock)


def serve(settings: ServeSettings, sock: socket.socket | None = None) -> int:
    """Run until told to stop. `sock` listens on the health port."""
    from ..logging import get_logger
    from ..serve.logs import set_up
    from ..serve.master import Master
    from ..serve.pid_file import PidFile, PidFileError

    try:
        set_up(settings)
    except OSError as error:
        print(f"The log file {settings.log_file!r} can't be written: {error.strerror}.", file=sys.stderr)
        return exit_codes.IMPORT
    pid_file = PidFile(settings.pid_file) if settings.pid_file else None
    if pid_file is not None:
        try:
            pid_file.write()
        except PidFileError as error:
            get_logger("nbqueue", "MainProcess").critical("%s", error)
            return exit_codes.PID_FILE
    return Master(settings, pid_file, sock).run()


def _prepare(settings: ServeSettings) -> socket.socket | None:
    """Check what can be checked before anything starts.

    Raises:
      ValueError: an argument can't be; says which.
    """
    from .. import session

    for name, variable in VARIABLES.items():
        value = getattr(settings, name)
        if value is not None:
            getattr(session, f"check_{name}")(value)
            os.environ[variable] = value
    os.environ["NBQUEUE_SERVE_BROKER"] = settings.broker
    if settings.watch is not None:
        if not os.path.isdir(settings.watch):
            raise ValueError(f"--watch: there is no folder {settings.watch!r}.")
        if importlib.util.find_spec("watchfiles") is None:
            raise ValueError('--watch needs watchfiles: pip install "nbqueue[watch]".')
    if settings.health_port is None:
        return None
    from ..serve.health import listen

    try:
        return listen(settings.health_port)
    except OSError as error:
        raise ValueError(f"--health-port {settings.health_port} can't be used: {error.strerror}.") from error


def _command() -> Any:
    """The entry in the list of commands; `nbqueue.cli.main` parses `serve` itself."""
    import click

    @click.command("serve", add_help_option=False, context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> int:
        return main(arguments)

    return command


def __getattr__(name: str) -> Any:
    if name == "command":
        return _command()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
