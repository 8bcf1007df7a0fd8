"""A worker with nothing to do: the commands that it sends, the CPU time and the memory that it takes."""

from __future__ import annotations

import time

from benchmarks.measurements.columns import RSS, Column
from benchmarks.measurements.measurement import Bench, Measurement, Numbers
from benchmarks.peers import NAMES

#: Seconds it is left alone, so that back-offs reach their largest pause, and seconds it is watched then.
SETTLE, WATCHED = 3.0, 10.0


def idle(bench: Bench, peer: str, count: int, queues: int = 1) -> Numbers:
    setup = bench.setup(messages=1, queues=queues)
    server = bench.redis
    with bench.producer(peer, setup) as producer, bench.worker(peer, setup) as worker:
        producer.call("send", 1)
        worker.receive("first")
        time.sleep(SETTLE)
        worker_cpu, server_cpu = worker.call("usage")["cpu"], server.cpu()
        ran = server.commands_run()
        sent = server.commands_sent(WATCHED)
        ran = server.commands_run() - ran - 2  # INFO and MONITOR are ours
        usage = worker.call("usage")
        return {
            "sent": sent / WATCHED,
            "ran": ran / WATCHED,
            "worker_cpu": (usage["cpu"] - worker_cpu) / WATCHED * 100,
            "server_cpu": (server.cpu() - server_cpu) / WATCHED * 100,
            "rss": usage["rss"],
        }


def idle_queues(bench: Bench, peer: str, count: int) -> Numbers:
    return idle(bench, peer, count, queues=100)


COLUMNS = (
    Column("sent", "commands sent/s", 1, better="less"),
    Column("ran", "with those in scripts/s", 1, better="less"),
    Column("worker_cpu", "worker CPU, %", 2, better="less", steady=False),
    Column("server_cpu", "server CPU, %", 2, better="less", steady=False),
    RSS,
)
ON_REDIS = Measurement(
    "Idle: one worker process with nothing to do, 10 s",
    COLUMNS,
    idle,
    NAMES,
    rounds=2,
    optional=("rq", "celery"),
)
QUEUES = Measurement(
    "Idle, many queues: one worker process of 100 queues with nothing to do, 10 s",
    COLUMNS,
    idle_queues,
    ("nbqueue", "dramatiq"),
    rounds=2,
)
