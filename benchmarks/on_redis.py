"""What is measured on Redis, peer beside peer: drain, enqueue, round trip, pickup and idling.

`run` is handed the names of measurements and peers; it has every peer do the same work in turn, round by
round, on one private server, and hands on the numbers of every round. Worker and producer are processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks import environment
from benchmarks.processes import BenchmarkError, PeerProcess, RedisServer
from benchmarks.rounds import WARM_UP, Numbers, interleaved, percentiles

#: Seconds between two messages of the pickup.
PAUSE = 0.3
#: Seconds an idle worker is left alone before it is watched: back-offs reach their largest pause.
SETTLE = 3.0
#: Seconds an idle worker is watched.
WATCHED = 10.0

Measurement = Callable[[RedisServer, str, int], Numbers]


def drain(server: RedisServer, peer: str, count: int) -> Numbers:
    """Messages wait before the worker starts; timed from the start of the first to the start of the last."""
    with PeerProcess(server, peer, "producer") as producer:
        count = min(count, producer.hello["most"])
        producer.call("send", count)
        cpu = server.cpu()
        with PeerProcess(server, peer, "worker", count=count) as worker:
            worker.receive("done")
            emptied = producer.call("emptied", 30)
            server_cpu = server.cpu() - cpu
            report, usage = worker.call("report"), worker.call("usage")
    started = report["started"]
    if emptied is None or not all(started):
        raise BenchmarkError(
            f"{peer}: {started.count(0)} of {count} messages never ran, or some weren't acked"
        )
    seconds = (max(started) - min(started)) / 1e9
    return {
        "rate": (count - 1) / seconds,
        "worker_cpu": (report["cpu"][1] - report["cpu"][0]) / count * 1000,
        "server_cpu": server_cpu / count * 1000,
        "emptied": max(0.0, (emptied - max(started)) / 1e6),
        "rss": usage["rss"],
        "twice": report["runs"] - count,
    }


def enqueue(server: RedisServer, peer: str, count: int) -> Numbers:
    """One producer sends, no worker runs: one by one, then through the bulk API where there is one."""
    numbers: Numbers = {}
    with PeerProcess(server, peer, "producer") as producer:
        count = min(count, producer.hello["most"])
        for name, prefix in [("send", "")] + [("send_bulk", "bulk_")] * producer.hello["bulk"]:
            producer.call(name, WARM_UP)
            cpu = server.cpu()
            took = producer.call(name, count)
            numbers[prefix + "rate"] = count / took["seconds"]
            numbers[prefix + "producer_cpu"] = took["cpu"] / count * 1000
            numbers[prefix + "server_cpu"] = (server.cpu() - cpu) / count * 1000
            server.flush()
    return numbers


def roundtrip(server: RedisServer, peer: str, count: int) -> Numbers:
    """Send one, wait for its result, send the next; the worker is idle but awake."""
    count = max(20, count // 50)
    with (
        PeerProcess(server, peer, "worker", count=count + WARM_UP, results=server.url),
        PeerProcess(server, peer, "producer", results=server.url) as producer,
    ):
        producer.call("ask", min(count, WARM_UP))
        return percentiles(producer.call("ask", count))


def pickup(server: RedisServer, peer: str, count: int) -> Numbers:
    """From the call that sends to the start of the task, after the worker was idle for `PAUSE`."""
    count = max(10, count // 300)
    with (
        PeerProcess(server, peer, "worker", count=count) as worker,
        PeerProcess(server, peer, "producer") as producer,
    ):
        producer.call("send", 1)
        worker.receive("first")  # the worker is up
        sent = producer.call("trickle", count, PAUSE)
        producer.call("emptied", 30)
        started = worker.call("report")["started"]
    if not all(started):
        raise BenchmarkError(f"{peer}: {started.count(0)} of {count} messages never ran")
    # the first one waits for the warm-up's ack with some peers
    return percentiles([(start - send) / 1e6 for start, send in zip(started[1:], sent[1:], strict=True)])


def idle(server: RedisServer, peer: str, count: int) -> Numbers:
    """A worker with nothing to do: the commands it sends and the CPU time it takes."""
    with (
        PeerProcess(server, peer, "producer") as producer,
        PeerProcess(server, peer, "worker", count=1) as worker,
    ):
        producer.call("send", 1)
        worker.receive("first")
        time.sleep(SETTLE)
        worker_cpu, server_cpu = worker.call("usage")["cpu"], server.cpu()
        ran = int(server.info("stats")["total_commands_processed"])
        sent = server.commands_sent(WATCHED)
        ran = int(server.info("stats")["total_commands_processed"]) - ran - 2  # INFO and MONITOR are ours
        usage = worker.call("usage")
        return {
            "sent": sent / WATCHED,
            "ran": ran / WATCHED,
            "worker_cpu": (usage["cpu"] - worker_cpu) / WATCHED * 100,
            "server_cpu": (server.cpu() - server_cpu) / WATCHED * 100,
            "rss": usage["rss"],
        }


MEASUREMENTS: dict[str, Measurement] = {
    "drain": drain,
    "enqueue": enqueue,
    "roundtrip": roundtrip,
    "pickup": pickup,
    "idle": idle,
}


def run(measurements: list[str], peers: list[str], count: int, rounds: int) -> dict[str, Any]:
    """Measure the peers in interleaved rounds.

    Return `server`, its name and version, `peers`, what each says of itself, and `measured`: the numbers of a
    column, round by round, under measurement and peer.
    Raises `BenchmarkError` when a peer fails or loses a message.
    """
    environment.python()
    with RedisServer() as server:
        described = {}
        for peer in peers:
            with PeerProcess(server, peer, "producer") as producer:
                described[peer] = producer.hello

        def measure(name: str, peer: str) -> Numbers:
            server.flush()
            return MEASUREMENTS[name](server, peer, count)

        measured = interleaved(measurements, peers, rounds, measure)
        version = f"Redis {server.info('server')['redis_version']} without persistence"
    return {"server": version, "count": count, "rounds": rounds, "peers": described, "measured": measured}
