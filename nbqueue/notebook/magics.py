"""The `%nbqueue` magic: one line magic with commands, each a module of `commands`."""

from __future__ import annotations

import difflib
import shlex
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import BrokerError
from ..worker import Worker
from .commands import COMMANDS
from .commands.parsing import UsageError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

#: Milliseconds that stopping waits for running messages.
STOP_TIMEOUT = 10_000


class Magics:
    """The magic, and what its commands keep: the worker in this kernel for a broker on a server."""

    def __init__(self) -> None:
        self.worker: Worker | None = None

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
        except (UsageError, BrokerError, ValueError, LookupError, ImportError) as error:
            print(error)

    nbqueue.__doc__ = "Show and steer the task queue.\n\n" + "\n".join(
        f"        %nbqueue {f'{name} {arguments}'.strip() if name != 'status' else '':22} {does}"
        for name, (arguments, does) in COMMANDS.items()
    )

    def stop_worker(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.stop(timeout=STOP_TIMEOUT)

    # -- in the shell --------------------------------------------------------------------------------------

    def install(self, shell: InteractiveShell) -> None:
        shell.register_magic_function(self.nbqueue, "line", "nbqueue")
        shell.set_hook("complete_command", self._complete, str_key="%nbqueue")

    def uninstall(self, shell: InteractiveShell) -> None:
        self.stop_worker()
        shell.magics_manager.magics["line"].pop("nbqueue", None)

    def _complete(self, _shell: object, event: object) -> list[str]:
        return list(COMMANDS)
