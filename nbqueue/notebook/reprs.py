"""What a cell shows of an Actor, a Message and a Broker: text without ids and times, and escaped HTML."""

from __future__ import annotations

import contextlib
import inspect
import reprlib
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .. import inspection
from ..actor import Actor
from ..broker import Broker
from ..embedded import EmbeddedBroker
from ..errors import ResultTimeout
from ..inspection import MessageStatus
from ..message import Message
from .markup import Markup, element

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

#: Milliseconds that a cell waits for a quick actor before it shows its message.
QUICK = 50

MARKS = {
    "pending": "○",
    "delayed": "◷",
    "running": "●",
    "done": "✓",
    "failed": "✕",
    "retrying": "↻",
    "cancelled": "⊘",
    "not sent": "○",
}

_BOX = (
    "display:inline-block;max-width:100%;box-sizing:border-box;padding:.4em .8em;border-radius:6px;"
    "border:1px solid var(--jp-border-color2,#8888);font-family:var(--jp-code-font-family,monospace);"
    "font-size:var(--jp-code-font-size,13px);color:var(--jp-ui-font-color1,inherit)"
)
_QUIET = "opacity:.75"
_PRE = "margin:.4em 0 0;white-space:pre-wrap;background:none;color:inherit"

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlist = _short.maxtuple = _short.maxdict = 6


def call_text(message: Message[Any]) -> str:
    """Return the call of a message, with long arguments shortened."""
    arguments = [_short.repr(value) for value in message.args]
    arguments += [f"{name}={_short.repr(value)}" for name, value in message.kwargs.items()]
    return f"{message.actor_name}({', '.join(arguments)})"


def signature(actor: Actor[Any, Any]) -> str:
    """Return the actor's name with its parameters."""
    try:
        parameters = ", ".join(str(p) for p in _without_annotations(actor))
    except (TypeError, ValueError):
        parameters = "…"
    return f"{actor.actor_name}({parameters})"


def _without_annotations(actor: Actor[Any, Any]) -> list[inspect.Parameter]:
    parameters = inspect.signature(actor.fn).parameters.values()
    return [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]


def actor_text(actor: Actor[Any, Any]) -> str:
    return f"{signature(actor)}, actor on {actor.queue_name}"


def actor_html(actor: Actor[Any, Any]) -> str:
    doc = (inspect.getdoc(actor.fn) or "").partition("\n")[0]
    options = "".join(f" · {name}={_short.repr(value)}" for name, value in sorted(actor.options.items()))
    lines = [
        element("strong", signature(actor), data_nbqueue_part="signature"),
        element("span", f" actor on {actor.queue_name}{options}", style=_QUIET),
    ]
    if doc:
        lines.append(element("div", doc))
    return element("div", *lines, data_nbqueue="actor", style=_BOX)


def settle_quickly(message: Message[Any]) -> MessageStatus:
    """Return the status of a message after giving a quick actor a moment to finish."""
    status = inspection.message(message)
    broker = message.broker
    if status.state in ("pending", "running") and broker is not None and broker.session_profile:
        with contextlib.suppress(Exception):
            broker.before_wait(message)  # raises when nothing runs: no need to wait then
            with contextlib.suppress(ResultTimeout):
                broker.get_results_backend().get_result(message, block=True, timeout=QUICK)
        status = inspection.message(message)
    return status


def message_text(message: Message[Any]) -> str:
    status = settle_quickly(message)
    if status.state == "done":
        return f"{call_text(message)} = {_short.repr(status.value)}"
    if status.state == "failed" and status.failure is not None:
        return f"{call_text(message)} failed: {status.failure.orig_exc_type}: {status.failure.orig_exc_msg}"
    return f"{call_text(message)} {status.state}"


def message_html(message: Message[Any]) -> str:
    status = settle_quickly(message)
    name, _, arguments = call_text(message).partition("(")
    parts: list[Markup] = [
        element("strong", name, data_nbqueue_part="actor"),
        element("span", f"({arguments}", data_nbqueue_part="args"),
        Markup(" "),
        element("span", f"{MARKS[status.state]} {status.state}", data_nbqueue_part="state"),
    ]
    if not status.final:
        now = datetime.now().astimezone()
        moment = element("time", f"as of {now:%H:%M:%S}", datetime=now.isoformat(timespec="seconds"))
        parts += [Markup(" "), element("span", moment, style=_QUIET)]
    elif status.failure is None:
        value = element("code", _short.repr(status.value), data_nbqueue_part="value")
        parts.append(element("div", value))
    else:
        error = f"{status.failure.orig_exc_type}: {status.failure.orig_exc_msg}"
        parts.append(element("div", error, data_nbqueue_part="error"))
        if status.failure.traceback:
            trace = element("pre", status.failure.traceback, data_nbqueue_part="traceback", style=_PRE)
            parts.append(element("details", element("summary", "traceback"), trace))
    return element(
        "div", *parts, data_nbqueue="message", data_nbqueue_state=status.state.replace(" ", "-"), style=_BOX
    )


def broker_text(broker: Broker) -> str:
    if isinstance(broker, EmbeddedBroker):
        worker = broker.worker
        return f"stub broker in this kernel, {f'{len(worker.workers)} threads' if worker else 'stopped'}"
    return repr(broker)


def broker_html(broker: Broker) -> str:
    return element("div", broker_text(broker), data_nbqueue="broker", style=_BOX)


_FORMS = {
    Actor: (actor_text, actor_html),
    Message: (message_text, message_html),
    Broker: (broker_text, broker_html),
}


def install(shell: InteractiveShell) -> None:
    formatters = shell.display_formatter.formatters
    for kind, (text, markup) in _FORMS.items():
        formatters["text/plain"].for_type(
            kind, lambda value, printer, _cycle, text=text: printer.text(text(value))
        )
        formatters["text/html"].for_type(kind, lambda value, markup=markup: str(markup(value)))


def uninstall(shell: InteractiveShell) -> None:
    formatters = shell.display_formatter.formatters
    for kind in _FORMS:
        formatters["text/plain"].pop(kind, None)
        formatters["text/html"].pop(kind, None)
