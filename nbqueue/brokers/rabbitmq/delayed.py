"""The consumer of a `.DQ`: hands out what is due soon, and sends the rest to where it waits for longer."""

from __future__ import annotations

from ...common import eta_of
from ...proxy import MessageProxy
from .consumer import RabbitmqConsumer
from .frames import Outgoing
from .proxy import RabbitmqMessageProxy
from .topology import delay_name


class DelayedConsumer(RabbitmqConsumer):
    """Hands out messages that are due soon, and sends the others to where they wait for longer."""

    def _take(self, n: int) -> list[MessageProxy]:
        soon: list[MessageProxy] = []
        later: dict[int, list[RabbitmqMessageProxy]] = {}
        for message in super()._take(n):
            assert isinstance(message, RabbitmqMessageProxy)
            eta = eta_of(message.options.get("eta"))
            delay = None if eta is None else self.broker.delay_until(eta)
            if delay is None:
                soon.append(message)
            else:
                later.setdefault(delay, []).append(message)
        for delay, messages in later.items():
            self._send_on(delay, messages)
        return soon

    def _send_on(self, delay: int, messages: list[RabbitmqMessageProxy]) -> None:
        broker = self.broker
        exchange = delay_name(delay)
        broker.publish(
            [Outgoing(self.queue_name, m._body, broker.properties_of(m), exchange) for m in messages],
            confirmed=True,
        )
        self._settled([message._tag for message in messages])
