"""Enqueueing, peer beside peer: one producer process, no worker; every message has to arrive."""

from __future__ import annotations

from benchmarks.measurements.columns import PRODUCER_CPU, SERVER_CPU, Column
from benchmarks.measurements.measurement import WARM_UP, Bench, Measurement, Numbers
from benchmarks.peers import NAMES
from benchmarks.peers import on_rabbitmq as rabbitmq_peers

#: What a producer is told to do, and whether it waits for confirmations, by the prefix of the columns.
Ways = dict[str, tuple[str, bool]]

REDIS_WAYS: Ways = {"": ("send", True), "bulk_": ("send_bulk", True)}
RABBITMQ_WAYS: Ways = {
    "confirmed_": ("send", True),
    "threads_": ("send_threads", True),
    "bulk_": ("send_bulk", True),
    "unconfirmed_": ("send", False),
}


def enqueue(bench: Bench, peer: str, count: int, ways: Ways) -> Numbers:
    """A new producer for each way that the peer knows."""
    numbers: Numbers = {}
    for prefix, (command, confirmed) in ways.items():
        bench.renew()
        with bench.producer(peer, bench.setup(confirmed=confirmed)) as producer:
            if not (confirmed or producer.hello["unconfirmed"]):
                continue
            if command == "send_bulk" and not producer.hello["bulk"]:
                continue
            producer.call(command, WARM_UP)
            cpu = bench.on.cpu()
            took = producer.call(command, count)
            numbers[prefix + "rate"] = count / took["seconds"]
            numbers[prefix + "producer_cpu"] = took["cpu"] / count * 1000
            numbers[prefix + "server_cpu"] = (bench.on.cpu() - cpu) / count * 1000
            bench.expect(count + WARM_UP, peer, producer)
    return numbers


def on_redis(bench: Bench, peer: str, count: int) -> Numbers:
    return enqueue(bench, peer, count, REDIS_WAYS)


def on_rabbitmq(bench: Bench, peer: str, count: int) -> Numbers:
    return enqueue(bench, peer, count, RABBITMQ_WAYS)


ON_REDIS = Measurement(
    "Enqueue: {count:,} messages from one producer; ratios of batched: to one by one",
    (
        Column("rate", "one by one, /s", 0, better="more"),
        PRODUCER_CPU,
        SERVER_CPU,
        Column("bulk_rate", "batched, /s", 0, better="more", against="rate"),
        Column("bulk_producer_cpu", "producer CPU s/1,000", 4, better="less", against="producer_cpu"),
        Column("bulk_server_cpu", "server CPU s/1,000", 4, better="less", against="server_cpu"),
    ),
    on_redis,
    NAMES,
)
ON_RABBITMQ = Measurement(
    "Enqueue: {count:,} messages from one process; ratios: to confirmed, one by one",
    (
        Column("confirmed_rate", "confirmed, one by one, /s", 0, better="more"),
        Column("confirmed_producer_cpu", "producer CPU s/1,000", 4, better="less"),
        Column("confirmed_server_cpu", "server CPU s/1,000", 4, better="less", steady=False),
        Column("threads_rate", "confirmed, 8 threads, /s", 0, better="more", against="confirmed_rate"),
        Column("bulk_rate", "confirmed, batched, /s", 0, better="more", against="confirmed_rate"),
        Column("unconfirmed_rate", "unconfirmed, one by one, /s (ratio: to unconfirmed)", 0, better="more"),
    ),
    on_rabbitmq,
    rabbitmq_peers.NAMES,
)
