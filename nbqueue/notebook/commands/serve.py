"""`%nbqueue serve MODULE`: worker processes for a module, beside the notebook and on its broker."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...broker import Broker, get_broker
from ...embedded import EmbeddedBroker
from ..served import Served
from .parsing import Parser, UsageError

if TYPE_CHECKING:
    from ..magics import Magics

#: Worker processes unless told otherwise.
PROCESSES = 2


def run(magics: Magics, words: list[str]) -> str:
    parser = Parser("serve")
    parser.add_argument("module", metavar="MODULE", nargs="?")
    parser.add_argument("-p", "--processes", metavar="N", type=int, default=PROCESSES)
    parser.add_argument("-t", "--threads", metavar="N", type=int, default=8)
    parser.add_argument("--log", action="store_true")
    asked = parser.parse_args(words)
    if asked.log:
        return _logs(magics, asked.module)
    if asked.module is None:
        raise UsageError("Which module? %nbqueue serve tasks runs the actors of tasks.py.")
    present = magics.served.get(asked.module)
    if present is not None and present.lives:
        if (present.processes, present.threads) == (asked.processes, asked.threads):
            present.reload()
            return f"Serving {asked.module} already: it is loaded anew. %nbqueue stop ends it."
        present.stop()
        present.join(10.0)
    broker = get_broker()
    if isinstance(broker, EmbeddedBroker):
        raise UsageError(
            "The stub broker is in this kernel, where no other process can reach it. "
            "%nbqueue use redis://localhost first."
        )
    served = Served(asked.module, asked.processes, asked.threads, _environment(magics, broker))
    magics.served[asked.module] = served
    threads = f"{served.threads} thread{'' if served.threads == 1 else 's'}"
    processes = f"{served.processes} process{'' if served.processes == 1 else 'es'}"
    return (
        f"Serving {served.module} with {processes} x {threads} on {broker.address}, "
        f"pid {served.process.pid}. %nbqueue stop ends it."
    )


def _environment(magics: Magics, broker: Broker) -> dict[str, str]:
    """What the processes are told: where messages, results and states are, and to keep actors' output."""
    environment = {"NBQUEUE_OUTPUT": os.environ.get("NBQUEUE_OUTPUT", "results")}
    environment.update(magics.urls)
    if not broker.session_profile:  # the program's own: the module has to set it as well
        environment.pop("NBQUEUE_BROKER_URL", None)
    return environment


def _logs(magics: Magics, module: str | None) -> str:
    if module is not None and module not in magics.served:
        raise UsageError(f"{module} is not served from this notebook.")
    runs = [magics.served[module]] if module is not None else list(magics.served.values())
    if not runs:
        return "Nothing is served from this notebook: %nbqueue serve MODULE starts it."
    return "\n\n".join(f"{served.describe()}\n{served.log()}" for served in runs)
