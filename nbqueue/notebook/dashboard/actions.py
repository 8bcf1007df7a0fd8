"""What the buttons of the dashboard and the magics of the same names do; each returns a sentence about it."""

from __future__ import annotations

from ... import inspection
from ...broker import Broker
from ...embedded import EmbeddedBroker
from ...worker import Worker
from ..cards.words import counted


def workers_here(broker: Broker) -> list[Worker]:
    """Return the workers of this process that run on the broker."""
    found = [getattr(middleware, "worker", None) for middleware in broker.middleware]
    return [worker for worker in found if isinstance(worker, Worker) and worker.running]


def paused(broker: Broker) -> bool:
    """Whether there are workers here, all of them paused."""
    workers = workers_here(broker)
    return bool(workers) and all(worker.paused for worker in workers)


def why_no_pause(broker: Broker) -> str:
    """Return why workers can't be paused from here; nothing when they can."""
    if workers_here(broker):
        return ""
    if isinstance(broker, EmbeddedBroker):
        return "No worker runs: nbqueue.start() starts one."
    return "No worker runs in this kernel, and workers elsewhere can only be paused there."


def pause(broker: Broker) -> str:
    """Have the workers here take no more messages; those that run go on."""
    reason = why_no_pause(broker)
    if reason:
        return reason
    for worker in workers_here(broker):
        worker.pause(wait=False)
    statuses = inspection.queues(broker)
    waiting = sum(status.waiting for status in statuses)
    running = sum(len(worker.running_messages()) for worker in workers_here(broker))
    elsewhere = " Workers elsewhere go on." if broker.remote else ""
    return f"Paused: {waiting:,} waiting, {running:,} still running.{elsewhere}"


def resume(broker: Broker) -> str:
    """Have the workers here take messages again."""
    reason = why_no_pause(broker)
    if reason:
        return reason
    for worker in workers_here(broker):
        worker.resume()
    return "Resumed."


def retry(broker: Broker) -> str:
    """Send every failed message again, with all its tries before it."""
    count = inspection.retry(broker, inspection.dead_letters(broker, limit=inspection.ALL))
    return f"Sent {counted(count, 'message')} again."


def flush(broker: Broker) -> str:
    """Drop what waits and what is delayed, in every queue."""
    count = 0
    statuses = inspection.queues(broker)
    for status in statuses:
        count += status.waiting + status.delayed
        broker.flush(status.name)
    names = ", ".join(status.name for status in statuses) or "no queue"
    return f"Flushed {counted(count, 'message')} from {names}."


#: The words that a page may send.
ACTIONS = {"pause": pause, "resume": resume, "retry": retry, "flush": flush}
