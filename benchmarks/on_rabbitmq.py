"""What is measured on RabbitMQ, peer beside peer: drain, enqueue and round trip.

`run` is handed the names of measurements and peers; it has every peer do the same work in turn, round by
round, on one private node, and hands on the numbers of every round. Each worker and producer is a process;
each measurement begins with an empty virtual host. Results are kept in a private Redis, as no peer keeps
them in RabbitMQ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import environment
from benchmarks.processes import BenchmarkError, PeerProcess, RedisServer
from benchmarks.rabbitmq_node import RabbitmqNode
from benchmarks.rounds import WARM_UP, Numbers, interleaved, percentiles

Measurement = Callable[[RabbitmqNode, RedisServer, str, int], Numbers]

#: The columns of the enqueue: what a producer is told to do, and whether it waits for confirmations.
WAYS = {
    "confirmed_": ("send", True),
    "threads_": ("send_threads", True),
    "bulk_": ("send_bulk", True),
    "unconfirmed_": ("send", False),
}


def drain(node: RabbitmqNode, kept: RedisServer, peer: str, count: int) -> Numbers:
    """Messages wait before the worker starts; timed from the start of the first to the start of the last.

    That each is acked is verified after that: the node, while the worker lives, comes to hold none.
    """
    with PeerProcess(node, peer, "producer") as producer:
        producer.call("send_threads", count)
        if not node.holds(count):
            raise BenchmarkError(f"{peer}: {node.held()} of {count} messages wait")
        cpu = producer.call("cpu_of", node.pid)
        with PeerProcess(node, peer, "worker", count=count) as worker:
            worker.receive("done")
            emptied = node.holds(0)
            server_cpu = producer.call("cpu_of", node.pid) - cpu
            report, usage = worker.call("report"), worker.call("usage")
    started = report["started"]
    if not emptied or not all(started):
        raise BenchmarkError(
            f"{peer}: {started.count(0)} of {count} messages never ran, or some weren't acked"
        )
    return {
        "rate": (count - 1) / ((max(started) - min(started)) / 1e9),
        "worker_cpu": (report["cpu"][1] - report["cpu"][0]) / count * 1000,
        "server_cpu": server_cpu / count * 1000,
        "rss": usage["rss"],
        "twice": report["runs"] - count,
    }


def enqueue(node: RabbitmqNode, kept: RedisServer, peer: str, count: int) -> Numbers:
    """One producer process sends in several ways, no worker runs; every message has to arrive."""
    numbers: Numbers = {}
    for prefix, (command, confirmed) in WAYS.items():
        node.renew()
        with PeerProcess(node, peer, "producer", confirmed=confirmed) as producer:
            if not (confirmed or producer.hello["unconfirmed"]):
                continue
            if command == "send_bulk" and not producer.hello["bulk"]:
                continue
            producer.call(command, WARM_UP)
            cpu = producer.call("cpu_of", node.pid)
            took = producer.call(command, count)
            numbers[prefix + "rate"] = count / took["seconds"]
            numbers[prefix + "producer_cpu"] = took["cpu"] / count * 1000
            numbers[prefix + "server_cpu"] = (producer.call("cpu_of", node.pid) - cpu) / count * 1000
            if not node.holds(count + WARM_UP):
                raise BenchmarkError(f"{peer}: {node.held()} of {count + WARM_UP} messages arrived")
    return numbers


def roundtrip(node: RabbitmqNode, kept: RedisServer, peer: str, count: int) -> Numbers:
    """Send one, confirmed, wait for its result, send the next; the worker is idle but awake."""
    count = max(20, count // 50)
    with (
        PeerProcess(node, peer, "worker", count=count + WARM_UP, results=kept.url),
        PeerProcess(node, peer, "producer", results=kept.url) as producer,
    ):
        producer.call("ask", min(count, WARM_UP))
        return percentiles(producer.call("ask", count))


MEASUREMENTS: dict[str, Measurement] = {"drain": drain, "enqueue": enqueue, "roundtrip": roundtrip}


def run(measurements: list[str], peers: list[str], count: int, rounds: int) -> dict[str, Any]:
    """Measure the peers in interleaved rounds.

    Return `server`, its name and version, `peers`, what each says of itself, and `measured`: the numbers of a
    column, round by round, under measurement and peer.
    Raises `BenchmarkError` when a peer fails or loses a message.
    """
    environment.python()
    with RabbitmqNode() as node, RedisServer() as kept:
        described = {}
        for peer in peers:
            with PeerProcess(node, peer, "producer") as producer:
                described[peer] = producer.hello

        def measure(name: str, peer: str) -> Numbers:
            node.renew()
            kept.flush()
            return MEASUREMENTS[name](node, kept, peer, count)

        measured = interleaved(measurements, peers, rounds, measure)
        server = f"RabbitMQ {node.version()}, durable queues, persistent messages"
    return {"server": server, "count": count, "rounds": rounds, "peers": described, "measured": measured}
