"""The contract of a card: something that a cell shows and that goes on changing until it is final.

Cards take in what is known (`look`) and are drawn (`forms`); who reads the records, and when, is the business
of `live.LiveCards`. The cell's thread makes and first draws a card; from then on the display thread has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ...errors import ResultFailure, ResultMissing
from ..markup import Markup, joined
from ..stylesheet import style_for

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ...broker import Broker
    from ...message import Message
    from ...state import MessageRecord, StateBackend

Records = Mapping[str, "MessageRecord"]

#: Seconds without news of a message on a server after which its result is asked for. Workers write states a
#: moment later than results: one that is killed may leave a message that has ended without a final record.
QUIET = 2.0


class Card:
    """What is shown of one thing."""

    broker: Broker
    shell: InteractiveShell | None = None
    #: Whether nothing will change any more.
    final = False
    #: Whether this was shown before: what becomes final then is said by screen readers.
    shown = False

    def ids(self) -> Iterable[str]:
        """Return the ids of the messages whose records are wanted."""
        return ()

    def look(self, records: Records) -> bool:
        """Take in what is known now; return whether that shows.

        Raises:
          BrokerError: the server can't be reached.
        """
        raise NotImplementedError

    def ticks(self) -> float | None:
        """Return after how many seconds it looks different though nothing happened, None for never."""
        return None

    @property
    def behind(self) -> bool:
        """Whether there may be more to see than `look` looked at."""
        return False

    def text(self) -> str:
        """Return what a terminal shows: no ids, no times."""
        raise NotImplementedError

    def html(self) -> Markup:
        """Return what a page shows, without its stylesheet."""
        raise NotImplementedError

    def forms(self) -> dict[str, str]:
        """Return all forms, by MIME type."""
        return {"text/plain": self.text(), "text/html": str(page(self.html()))}

    def close(self) -> None:
        """Let go of what was listened to."""


def page(markup: Markup) -> Markup:
    """Return a card's HTML with the stylesheet it needs inside its first element."""
    opened = markup.index(">") + 1
    return joined(Markup(markup[:opened]), style_for(markup), Markup(markup[opened:]))


def states_of(broker: Broker) -> StateBackend | None:
    """Return where a broker keeps message states, None when it keeps none."""
    try:
        return broker.get_state().backend
    except RuntimeError:
        return None


class Outcome:
    """How a message ended: a value, or a failure. `there` is false when neither is kept (any more)."""

    def __init__(self, message: Message[Any], broker: Broker) -> None:
        self.there = True
        self.value: Any = None
        self.failure: ResultFailure | None = None
        try:
            self.value = broker.get_results_backend().get_result(message)
        except ResultFailure as failure:
            self.failure = failure
        except (ResultMissing, RuntimeError):
            self.there = False

    @property
    def state(self) -> str:
        if self.failure is None:
            return "done"
        return "cancelled" if self.failure.orig_exc_type == "Cancelled" else "failed"
