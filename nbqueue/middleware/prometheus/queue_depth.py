"""How many messages are in the queues, asked from the broker by the exposition process.

The broker is the one of this process, if it has one; or else that of the module that `nbqueue serve` runs,
which it names in the variable `NBQUEUE_SERVE_BROKER` and which is imported here, too; or else that of
`NBQUEUE_BROKER_URL`.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from ... import broker as brokers
from ... import inspection
from ...broker import Broker
from ...common import q_name
from ...logging import get_logger

#: Seconds for which an answer is used again.
KEPT = 1.0
#: Seconds that a scrape waits for the broker. Prometheus gives up after 10.
PATIENCE = 3.0


def broker_of_run() -> Broker | None:
    """Return the broker whose queues are to be counted; None, having said why, when there is none."""
    logger = get_logger(__name__)
    if brokers.global_broker is not None:
        return brokers.global_broker
    spec, url = os.getenv("NBQUEUE_SERVE_BROKER"), os.getenv("NBQUEUE_BROKER_URL")
    if not spec and not url:
        logger.info(
            "Metrics tell nothing of queues: neither NBQUEUE_SERVE_BROKER nor NBQUEUE_BROKER_URL is set."
        )
        return None
    try:
        if spec:
            from ...serve.loading import import_broker

            broker = import_broker(spec)[1]
        else:
            broker = brokers.from_url(url or "")
    except (Exception, SystemExit) as error:
        logger.warning(
            "Metrics tell nothing of queues: the broker of %r is not to be had: %s: %s",
            spec or "NBQUEUE_BROKER_URL",
            type(error).__name__,
            error,
        )
        return None
    if not broker.remote:
        logger.info("Metrics tell nothing of queues: they are in the memory of the workers.")
        return None
    return broker


@dataclass(frozen=True)
class Answer:
    """What a broker last said. `address`: where it is, None when there is none; `error`: why it is silent."""

    address: str | None = None
    statuses: list[inspection.QueueStatus] = field(default_factory=list)
    error: str | None = None


class QueueDepth:
    """Asks the broker, at most once a second and one question at a time, in a thread for each.

    A broker that is slow to answer must not keep the other metrics from being read: whoever asks waits for
    `PATIENCE` only.
    """

    def __init__(self) -> None:
        self.logger = get_logger(__name__, type(self))
        self.broker: Broker | None = None
        # Guards what follows.
        self._changed = threading.Condition()
        self._asking = False
        self._asked = -math.inf
        self._answer = Answer()
        self._unable = False

    def use(self, broker: Broker | None) -> None:
        """Ask this broker from now on."""
        self.broker = broker

    def declare(self, queues: Iterable[str]) -> None:
        """Count these queues too: workers may know more of them than this process."""
        broker = self.broker
        if broker is None or not broker.remote:
            return
        for name in {q_name(queue) for queue in queues} - broker.get_declared_queues():
            broker.declare_queue(name)

    def latest(self) -> Answer:
        """Return what the broker says now, or said less than a second ago."""
        broker = self.broker
        if broker is None or self._unable:
            return self._answer
        with self._changed:
            if not self._asking and time.monotonic() - self._asked >= KEPT:
                self._asking = True
                thread = threading.Thread(
                    target=self._ask, args=(broker,), name="nbqueue-queue-depth", daemon=True
                )
                thread.start()
            if self._changed.wait_for(lambda: not self._asking, PATIENCE):
                return self._answer
            return Answer(broker.address, error=f"it did not answer within {PATIENCE:g} s")

    def _ask(self, broker: Broker) -> None:
        answer, unable = Answer(broker.address), False
        try:
            answer = Answer(broker.address, inspection.queues(broker))
        except NotImplementedError:
            unable = True
            self.logger.info("Metrics tell nothing of queues: %s does not count them.", type(broker).__name__)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            level = logging.DEBUG if self._answer.error else logging.WARNING  # once an outage
            self.logger.log(level, "The queues can't be counted: %s", text)
            answer = Answer(broker.address, error=text)
        with self._changed:
            self._answer, self._unable, self._asking = answer, unable, False
            self._asked = time.monotonic()
            self._changed.notify_all()
