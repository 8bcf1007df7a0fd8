"""What a consumer thread's messages end in: finished ones are gathered, and the broker is told in batches.

`_mutex` guards what has gathered; `_turn` lets one thread settle at a time. Hooks fire around the exchange
with the broker. A batch that could not be settled for lack of a connection stays and is tried again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from logging import Logger
from threading import Lock, RLock
from typing import TYPE_CHECKING

from ..errors import BrokerConnectionError

if TYPE_CHECKING:
    from ..broker import Broker
    from ..consumer import BatchConsumer, Consumer
    from ..proxy import MessageProxy

#: Seconds after which a finished message is settled at the latest.
SETTLE_LAG = 0.005


class Settling:
    """The finished messages of one consumer thread.

    Parameters:
      on_settled: called with how many messages are with the worker no longer, and how many of those were
        tasks of its ready queue.
    """

    def __init__(self, broker: Broker, logger: Logger, on_settled: Callable[[int, int], None]) -> None:
        self.broker = broker
        self.logger = logger
        self.on_settled = on_settled
        #: When what has gathered is to be settled, as `time.monotonic` counts; None when nothing has.
        self.due: float | None = None
        self._finished: deque[tuple[MessageProxy, bool]] = deque()
        self._mutex = Lock()
        self._turn = RLock()

    def __len__(self) -> int:
        return len(self._finished)

    def add(self, message: MessageProxy, queued: bool) -> bool:
        """Take a finished message; return whether it is the first since the last settling.

        Parameters:
          queued: whether it is a task of the ready queue.
        """
        with self._mutex:
            self._finished.append((message, queued))
            if self.due is not None:
                return False
            self.due = time.monotonic() + SETTLE_LAG
            return True

    def hurry(self) -> None:
        """Have what waits settled at once: the broker is back."""
        with self._mutex:
            if self._finished:
                self.due = time.monotonic()

    def settle(self, consumer: BatchConsumer, wanted: int) -> list[MessageProxy]:
        """Settle everything that is finished and fetch up to so many messages, in one exchange.

        Raises:
          BrokerConnectionError: nothing was settled; it will be tried again.
        """
        with self._turn:
            with self._mutex:
                batch = list(self._finished)
                self._finished.clear()
                self.due = None
            acked, rejected, again = self._sort([message for message, _ in batch])
            try:
                if again:
                    consumer.requeue(again)
                if wanted:
                    messages = consumer.exchange(acked, rejected, wanted)
                else:
                    messages = []
                    if acked or rejected:
                        consumer.settle(acked, rejected)
            except BrokerConnectionError as error:
                if batch:
                    self._keep(batch, error)
                raise
            except Exception:
                if batch:
                    self.logger.critical("Could not settle %d messages.", len(batch), exc_info=True)
                    self._close(batch)
                raise
            for message in acked:
                self.broker.emit_after("ack", message)
            for message in rejected:
                self.broker.emit_after("nack", message)
            if batch:
                self._close(batch)
            return messages

    def _sort(
        self, messages: list[MessageProxy]
    ) -> tuple[list[MessageProxy], list[MessageProxy], list[MessageProxy]]:
        """Return those to acknowledge, to reject and to run again; their hooks have been called."""
        acked: list[MessageProxy] = []
        rejected: list[MessageProxy] = []
        again: list[MessageProxy] = []
        for message in messages:
            if message.unfinished:
                again.append(message)
                continue
            try:
                self.broker.emit_before("nack" if message.failed else "ack", message)
            except Exception:
                self.logger.exception("Message %s was left unsettled by a middleware.", message)
            else:
                # A hook may have found that it has to run again: its result could not be stored.
                (again if message.unfinished else rejected if message.failed else acked).append(message)
        return acked, rejected, again

    def _keep(self, batch: list[tuple[MessageProxy, bool]], error: BrokerConnectionError) -> None:
        from .. import worker as settings

        pause = settings.POST_PROCESS_MESSAGE_RETRY_DELAY_SECS
        self.logger.warning(
            "Could not settle %d messages: %s. Trying again in %s s.", len(batch), error, pause
        )
        with self._mutex:
            self._finished.extendleft(reversed(batch))
            self.due = time.monotonic() + pause

    def _close(self, batch: list[tuple[MessageProxy, bool]]) -> None:
        tasks = 0
        for message, queued in batch:
            message.clear_exception()
            tasks += queued
        self.on_settled(len(batch), tasks)


def settle_singly(
    broker: Broker, consumer: Callable[[], Consumer | None], logger: Logger, message: MessageProxy
) -> None:
    """Settle one message with a consumer of the compatible contract, trying until its broker is reached.

    Parameters:
      consumer: returns the present one, None when the worker has given up.
    """
    from .. import worker as settings

    try:
        if message.unfinished:
            if (present := consumer()) is not None:
                present.requeue([message])
            return
        verb = "nack" if message.failed else "ack"
        broker.emit_before(verb, message)
        while (present := consumer()) is not None:
            try:
                getattr(present, verb)(message)
                break
            except BrokerConnectionError as error:
                logger.warning("Could not %s message %s: %s. Trying again.", verb, message, error)
                time.sleep(settings.POST_PROCESS_MESSAGE_RETRY_DELAY_SECS)
        broker.emit_after(verb, message)
    except Exception:
        logger.exception("Could not settle message %s.", message)
    finally:
        message.clear_exception()
