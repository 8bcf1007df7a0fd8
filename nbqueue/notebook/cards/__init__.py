"""What a cell shows of messages, groups, pipelines, actors, brokers and workers, one file each.

`Cards` registers the forms with a shell and takes them back. Messages, and groups and pipelines that were
run, are shown with a display id and redrawn until they are final; the others are shown once. A terminal,
which can't redraw, shows text.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ... import composition
from ...actor import Actor
from ...broker import Broker
from ...calls import call_text
from ...common import q_name
from ...errors import BrokerError, ResultError
from ...message import Message
from ...running import running_message
from ...worker import Worker
from .. import display
from ..display import DisplayThread
from . import actor as actor_card
from . import broker as broker_card
from . import worker as worker_card
from .card import Card, page, states_of
from .group import GroupCard
from .live import Live, LiveCards
from .message import MessageCard
from .pipeline import PipelineCard
from .tally import parts_of

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.lib.pretty import RepresentationPrinter

    from ..output import OutputRouter

#: Milliseconds that a cell waits for a quick actor before it shows its message.
QUICK = 50


class Cards:
    """The cards of a shell."""

    def __init__(self, shell: InteractiveShell, router: OutputRouter, thread: DisplayThread) -> None:
        self.shell = shell
        self.router = router
        self.live = LiveCards(shell, thread)
        self._undo: list[Callable[[], Any]] = []

    def install(self) -> None:
        texts: list[tuple[type, Callable[[Any], str]]] = [
            (Actor, actor_card.text),
            (Broker, broker_card.text),
            (Worker, worker_card.text),
        ]
        pages: list[tuple[type, Callable[[Any], Any]]] = [
            (Actor, partial(actor_card.html, shell=self.shell)),
            (Broker, broker_card.html),
            (Worker, worker_card.html),
        ]
        self.shell.events.register("post_run_cell", self.live.catch_up)
        self._undo.append(partial(self.shell.events.unregister, "post_run_cell", self.live.catch_up))
        formatters = self.shell.display_formatter.formatters
        for kind, text in texts:
            self._register(formatters["text/plain"], kind, partial(_write, text))
        for kind, form in pages:
            self._register(formatters["text/html"], kind, partial(_page, form))
        cards: list[tuple[type, Callable[[Any], Card | None]]] = [
            (Message, self.of_message),
            (composition.group, self.of_group),
            (composition.pipeline, self.of_pipeline),
        ]
        for kind, make in cards:
            self._register(formatters["text/plain"], kind, partial(self._write_text, make))
            if display.has_front_end(self.shell):
                self._register(
                    self.shell.display_formatter.ipython_display_formatter, kind, partial(self._show, make)
                )

    def _register(self, formatter: Any, kind: type, form: Callable[..., Any]) -> None:
        formatter.for_type(kind, form)
        self._undo.append(partial(formatter.pop, kind, None))

    def uninstall(self) -> None:
        while self._undo:
            self._undo.pop()()
        self.live.close()

    # -- making cards --------------------------------------------------------------------------------------

    def of_message(self, message: Message[Any]) -> MessageCard | None:
        """Return the card of a message, None when it was not sent."""
        if message.broker is None:
            return None
        output = self.router.output_of(message.message_id) if self.router.installed else None
        return MessageCard(message, shell=self.shell, output=output)

    def of_group(self, sent: composition.group) -> GroupCard | None:
        """Return the card of a group, None when it was not run."""
        return GroupCard(sent.name, parts_of(sent), sent.broker) if sent.ran else None

    def of_pipeline(self, sent: composition.pipeline) -> PipelineCard | None:
        """Return the card of a pipeline, None when it was not run."""
        return PipelineCard(sent) if sent.ran else None

    # -- showing them --------------------------------------------------------------------------------------

    def _show(self, make: Callable[[Any], Card | None], sent: Any) -> None:
        card = make(sent)
        if card is None:
            display.show(self.shell, {"text/plain": _unsent(sent)})
        else:
            self.show(card)

    def show(self, card: Card) -> Live | None:
        """Show a card in the cell that runs, and keep it up to date; return it unless it is final."""
        settle_quickly(card)
        if isinstance(card, MessageCard) and not card.final:
            card.advice = _advice(card)
        display_id = display.show(self.shell, card.forms())
        if card.final or running_message.get() is not None:
            return None
        if isinstance(card, MessageCard):
            card.listen(self.live.touch)
        with contextlib.suppress(RuntimeError):  # no threads here (Pyodide): the card stays as it is
            return self.live.add(card, display_id)
        return None

    def _write_text(
        self, make: Callable[[Any], Card | None], sent: Any, printer: RepresentationPrinter, _cycle: bool
    ) -> None:
        card = make(sent)
        if card is None:
            printer.text(_unsent(sent))
            return
        if len(printer.stack) == 1:
            settle_quickly(card)
            printer.text(card.text())
        else:
            _look(card)
            printer.text(card.text().partition("\n")[0])


def settle_quickly(card: Card) -> None:
    """Look at a card after giving a quick actor a moment to finish."""
    _look(card)
    broker = card.broker
    if isinstance(card, MessageCard) and card.state in ("pending", "running") and broker.session_profile:
        # Raises when nothing runs (no need to wait then), or when the result is a failure.
        with contextlib.suppress(BrokerError, ResultError, RuntimeError):
            broker.before_wait(card.message)
            broker.get_results_backend().get_result(card.message, block=True, timeout=QUICK)
        _look(card)


def _look(card: Card) -> None:
    states = states_of(card.broker)
    with contextlib.suppress(BrokerError):  # the server is away: the card says what was known before
        card.look(states.get_many(card.ids()) if states is not None else {})


def _advice(card: MessageCard) -> str:
    """Say what is to be done when nobody will run a message on a server."""
    broker = card.broker
    if card.state != "pending" or not broker.remote:
        return ""
    with contextlib.suppress(BrokerError):
        if broker.listens(q_name(card.message.queue_name)) is False:
            return "no worker is seen: %nbqueue workers 4 runs some here"
    return ""


def _unsent(sent: Any) -> str:
    if isinstance(sent, composition.group):
        number = len(sent)
        return f"group of {number:,} message{'' if number == 1 else 's'}, not sent: .run() sends it"
    if isinstance(sent, composition.pipeline):
        return f"{' → '.join(message.actor_name for message in sent.messages)}, not sent: .run() sends it"
    return f"{call_text(sent)}, not sent"


def _write(text: Callable[[Any], str], value: Any, printer: RepresentationPrinter, _cycle: bool) -> None:
    printer.text(text(value))


def _page(form: Callable[[Any], Any], value: Any) -> str:
    return str(page(form(value)))
