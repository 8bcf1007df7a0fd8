"""The `%nbqueue` magic: one line magic with commands, each a module of `commands`."""

from __future__ import annotations

import difflib
import shlex
import time
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import BrokerError
from ..worker import Worker
from .commands import COMMANDS
from .commands.actor import define_actor
from .commands.parsing import UsageError
from .commands.wait import run_and_wait
from .served import Served, ServeError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .cards import Cards
    from .history import CellHistory

#: Milliseconds that stopping waits for running messages.
STOP_TIMEOUT = 10_000


class Magics:
    """The magic, and what its commands keep.

    `worker` is the one in this kernel for a broker on a server, `served` the worker processes that were
    started from here, by module, `urls` what they are told of the broker in use, as environment variables.
    """

    def __init__(self, cards: Cards, history: CellHistory) -> None:
        self.cards = cards
        self.history = history
        self.worker: Worker | None = None
        self.served: dict[str, Served] = {}
        self.urls: dict[str, str] = {}

    def nbqueue(self, line: str) -> None:
        try:
            words = shlex.split(line)
            name, arguments = (words[0], words[1:]) if words else ("status", [])
            if name not in COMMANDS:
                near = difflib.get_close_matches(name, COMMANDS, 1)
                hint = f" Did you mean %nbqueue {near[0]}?" if near else ""
                raise UsageError(f"%nbqueue has no command {name!r}.{hint} %nbqueue? lists the commands.")
            said = import_module(f".commands.{name}", __package__).run(self, arguments)
            if said:
                print(said)
        except (UsageError, ServeError, BrokerError, ValueError, LookupError, ImportError) as error:
            print(error)
        self.cards.live.touch()  # what waits may have moved, or be lost

    nbqueue.__doc__ = "Show and steer the task queue.\n\n" + "\n".join(
        f"        %nbqueue {f'{name} {arguments}'.strip() if name != 'status' else '':22} {does}"
        for name, (arguments, does) in COMMANDS.items()
    )

    def nbqueue_cell(self, line: str, cell: str) -> None:
        """Run the cell, then wait for every message that it sent: `%%nbqueue wait`."""
        try:
            words = shlex.split(line)
            if words[:1] != ["wait"]:
                raise UsageError("%%nbqueue wait runs the cell and waits for the messages that it sends.")
            run_and_wait(self.cards, words[1:], cell)
        except UsageError as error:
            print(error)

    def actor_cell(self, line: str, cell: str) -> None:
        """Make the cell's last function an actor: `%%actor queue_name=emails max_retries=3`."""
        try:
            define_actor(self.cards.shell, line, cell)
        except UsageError as error:
            print(error)

    def stop_worker(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.stop(timeout=STOP_TIMEOUT)

    def stop_served(self, timeout: float = STOP_TIMEOUT / 1000) -> list[str]:
        """Stop the worker processes; return the modules of those that had to be cut short."""
        runs, self.served = self.served, {}
        for served in runs.values():
            served.stop()
        deadline = time.monotonic() + timeout
        return [
            module
            for module, served in runs.items()
            if not served.join(max(0.0, deadline - time.monotonic()))
        ]

    # -- in the shell --------------------------------------------------------------------------------------

    def install(self, shell: InteractiveShell) -> None:
        shell.register_magic_function(self.nbqueue, "line", "nbqueue")
        shell.register_magic_function(self.nbqueue_cell, "cell", "nbqueue")
        shell.register_magic_function(self.actor_cell, "cell", "actor")
        shell.set_hook("complete_command", self._complete, str_key="%nbqueue")

    def uninstall(self, shell: InteractiveShell) -> None:
        self.stop_worker()
        self.stop_served()
        shell.magics_manager.magics["line"].pop("nbqueue", None)
        for name in ("nbqueue", "actor"):
            shell.magics_manager.magics["cell"].pop(name, None)

    def _complete(self, _shell: object, event: object) -> list[str]:
        return list(COMMANDS)
