"""`%load_ext nbqueue` and `%unload_ext nbqueue`: puts the pieces of the notebook experience in and out.

One `Session` a shell. Loading starts (or reuses) the embedded worker; everything else here is undone by
unloading, in reverse order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..broker import Broker, get_broker
from ..embedded import EmbeddedBroker
from . import dashboard, display, redefining
from .cards import Cards
from .history import CellHistory
from .magics import Magics
from .output import OutputRouter

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


class Session:
    """What loading put into a shell."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.router = OutputRouter(shell)
        self.cards = Cards(shell, self.router, display.thread)
        self.history = CellHistory(shell)
        self.magics = Magics(self.cards, self.history)

    def open(self) -> None:
        broker = get_broker()
        self.router.install()
        self.cards.install()
        redefining.install()
        self.history.install()
        self.magics.install(self.shell)
        if isinstance(broker, EmbeddedBroker):
            worker = broker.start()
            what = f"stub broker in this kernel, {len(worker.workers)} threads"
        else:
            what = f"{broker.address if broker.remote else type(broker).__name__}, no worker in this kernel"
        print(f"nbqueue is ready: {what}. %nbqueue? lists the commands.")

    def close(self) -> None:
        broker = get_broker()
        if isinstance(broker, EmbeddedBroker):
            broker.stop()
        dashboard.freeze()
        self.magics.uninstall(self.shell)
        self.history.uninstall()
        redefining.uninstall()
        self.cards.uninstall()
        display.thread.close()
        self.router.uninstall()


_session: Session | None = None


def wait_for_cards(broker: Broker, timeout: float) -> bool:
    """Wait up to so many seconds until the cards of a broker are final; return whether they are."""
    return _session is None or _session.cards.live.wait(broker, timeout)


def load(shell: InteractiveShell) -> None:
    """Start the session in this shell, unless it is there."""
    global _session
    if _session is None:
        session = Session(shell)
        session.open()
        _session = session


def unload(shell: InteractiveShell) -> None:
    """Stop the session and put everything back."""
    global _session
    session, _session = _session, None
    if session is not None:
        session.close()
