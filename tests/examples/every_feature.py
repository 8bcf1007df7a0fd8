"""A program for the compatible library that uses every feature which needs no server.

Only its first import names nbqueue. It prints what happened, the same each time.
"""

import asyncio
import threading
from datetime import timedelta

import nbqueue as dramatiq
from nbqueue.brokers.stub import StubBroker
from nbqueue.middleware import AsyncIO, CurrentMessage, GroupCallbacks, Middleware, Shutdown, SkipMessage
from nbqueue.rate_limits import Barrier, BucketRateLimiter, ConcurrentRateLimiter, WindowRateLimiter
from nbqueue.rate_limits.backends import StubBackend as Limits
from nbqueue.results import ResultFailure, ResultMissing, Results, ResultTimeout
from nbqueue.results.backends import StubBackend


class Trace(Middleware):
    """Third-party middleware: an option of its own, every kind of hook, and messages that are skipped."""

    actor_options = {"traced"}

    def __init__(self):
        self.hooks, self.lock = {}, threading.Lock()

    def before_process_message(self, broker, message):
        self.note("before_process_message")
        if message.options.get("skip"):
            raise SkipMessage("not today")

    def note(self, hook):
        with self.lock:
            self.hooks[hook] = self.hooks.get(hook, 0) + 1


for hook in [name for name in dir(Middleware) if name.startswith(("before_", "after_"))]:
    if hook not in vars(Trace):
        setattr(Trace, hook, lambda self, broker, *args, hook=hook, **kwargs: self.note(hook))

broker, limits, trace = StubBroker(), Limits(), Trace()
broker.add_middleware(trace, before=dramatiq.middleware.AgeLimit)
broker.add_middleware(Results(backend=StubBackend(), store_results=True, result_ttl=60_000))
broker.add_middleware(GroupCallbacks(limits))
broker.add_middleware(AsyncIO(), after=Results)
broker.add_middleware(CurrentMessage())
dramatiq.set_broker(broker)
assert dramatiq.get_broker() is broker
broker.emit_after("process_boot")

log, ready = [], threading.Event()
QUICK = {"min_backoff": 1, "max_backoff": 5}


@dramatiq.actor
def add(*numbers):
    return sum(numbers)


@dramatiq.actor(queue_name="ranked", priority=10)
def minor(n):
    log.append(f"minor {n}")


@dramatiq.actor(queue_name="ranked", priority=1, traced=True)
def major(n):
    log.append(f"major {n}")


@dramatiq.actor(max_retries=3, on_success="succeeded", on_failure="failed", **QUICK)
def third_time_lucky():
    tries = CurrentMessage.get_current_message().options.get("retries", 0)
    if tries == 1:
        raise dramatiq.Retry("once more", delay=2)
    if not tries:
        raise ValueError("the first time")
    return tries


@dramatiq.actor
def succeeded(message, result):
    log.append(f"{message['actor_name']} returned {result}")


@dramatiq.actor
def failed(message, error):
    log.append(f"{message['actor_name']} raised {error['type']}")


@dramatiq.actor(max_retries=1, on_retry_exhausted="exhausted", **QUICK)
def hopeless():
    raise RuntimeError("no way")


@dramatiq.actor
def exhausted(message, retries):
    log.append(f"{message['actor_name']} gave up after {retries['retries']} of {retries['max_retries']}")


@dramatiq.actor(throws=(KeyError,))
def expected():
    raise KeyError("known")


@dramatiq.actor(retry_when=lambda retries, error: retries < 2, **QUICK)
def as_long_as_it_makes_sense():
    log.append("a try")
    raise OSError("down")


@dramatiq.actor(time_limit=30, max_retries=0)
def endless():
    while True:
        pass


@dramatiq.actor(max_age=60_000)
def fresh():
    return "in time"


@dramatiq.actor(max_retries=0)
async def slowly(n):
    await asyncio.sleep(0.001)
    return n, CurrentMessage.get_current_message().actor_name


@dramatiq.actor(notify_shutdown=True, max_retries=0)
def until_shutdown():
    try:
        ready.set()
        while True:
            pass
    except Shutdown:
        log.append("cleaned up")
        raise


@dramatiq.actor(max_retries=0)
def limited(kind):
    with kind_of_limit(kind).acquire(), kind_of_limit(kind).acquire():
        return "never"


def kind_of_limit(kind):
    settings = {"bucket": {"bucket": 3_600_000}, "window": {"window": 60}}.get(kind, {})
    kinds = {"concurrent": ConcurrentRateLimiter, "bucket": BucketRateLimiter, "window": WindowRateLimiter}
    return kinds[kind](limits, f"limit-{kind}", limit=1, **settings)


class Task(dramatiq.GenericActor):
    class Meta:
        abstract = True
        queue_name = "tasks"
        max_retries = 0

    def perform(self, n):
        return self.compute(n)


class Square(Task):
    def compute(self, n):
        return n * n


def outcome(message, timeout=10_000):
    try:
        return message.get_result(block=True, timeout=timeout)
    except (ResultFailure, ResultTimeout) as error:
        return str(error) if isinstance(error, ResultFailure) else "too late"


def settled(*queues):
    for queue in queues or ("default",):
        broker.join(queue, fail_fast=False, timeout=10_000)
    noted, log[:] = list(log), []
    return noted


def main():
    print("call", add(1, 2), "|", str(add), "|", add.message(1, 2))
    early = add.send(1, 2)
    try:
        early.get_result()
    except ResultMissing:
        print("no worker, no result:", outcome(early, timeout=20))
    for n in range(3):
        minor.send(n)
        major.send(n)
    dramatiq.worker.QUEUE_PREFETCH = 100
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    print("result", early.get_result(block=True))
    print("priorities", settled("ranked"))
    print("delays", [outcome(add.send_with_options(args=(n,), delay=d)) for n, d in enumerate((0, 5))])
    print("timedelta", outcome(add.send_with_options(args=(7,), delay=timedelta(milliseconds=3))))

    third_time_lucky.send()
    print("retries and callbacks", settled())
    print("exhausted", outcome(hopeless.send()), settled())
    print("throws", outcome(expected.send()))
    print("retry_when", outcome(as_long_as_it_makes_sense.send()), settled())
    print("message options", outcome(hopeless.send_with_options(max_retries=0)), settled())
    print("time limit", outcome(endless.send()))
    print(
        "age", outcome(fresh.send()), "|", outcome(broker.enqueue(fresh.message().copy(message_timestamp=0)))
    )
    print("skipped", outcome(add.send_with_options(args=(1,), skip=True)))
    print("rate limits", [outcome(limited.send(kind)) for kind in ("concurrent", "bucket", "window")])
    print("async", outcome(slowly.send(4)))
    print("generic", outcome(Square.send(7)), Square.queue_name, Square(3), isinstance(Task, type))

    steps = add.message(1) | add.message(2) | add.message_with_options(args=(3,), pipe_ignore=True)
    steps = dramatiq.pipeline([steps, add.message_with_options(args=(4,), delay=3)]).run()
    print(
        "pipeline", steps.get_result(block=True), list(steps.get_results()), steps.completed_count, len(steps)
    )
    members = dramatiq.group([add.message(n) for n in range(3)] + [add.message(5) | add.message(6)])
    members.add_completion_callback(succeeded.message({"actor_name": "group"}, "everything"))
    members.run().wait(timeout=10_000)
    print("group", list(members.get_results()), members.completed, settled())
    nested = dramatiq.group([members, dramatiq.group([add.message(8)])]).run()
    print("nested", list(nested.get_results(block=True, timeout=10_000)))
    settled()

    barrier = Barrier(limits, "both")
    print("barrier", barrier.create(2), barrier.wait(block=False), barrier.wait())

    broker.enqueue(dramatiq.Message("default", "unknown", (), {}, {}))
    settled()
    last = until_shutdown.send()
    assert ready.wait(10)
    worker.stop()
    print("shutdown", outcome(last), settled())
    print("dead letters", sorted(message.actor_name for message in broker.dead_letters))
    broker.flush_all()
    print("hooks", sorted(set(trace.hooks)))
    print("hooks of messages", trace.hooks["after_skip_message"], trace.hooks["before_worker_boot"])
    broker.close()


if __name__ == "__main__":
    main()
