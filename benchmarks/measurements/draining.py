"""What measurements of draining share: messages wait, workers start, and the last message is acked."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from benchmarks.measurements.measurement import Bench, Numbers, wait_until
from benchmarks.peers.peer import Setup
from benchmarks.processes import BenchmarkError, PeerProcess

#: Seconds in which all messages have to be run, where only the server tells that they were.
PATIENCE = 600.0
#: Seconds in which the last ones have to run after the server has let go of them.
SETTLING = 10.0


def drain(bench: Bench, peer: str, setup: Setup) -> Numbers:
    """Have one worker run the messages that wait, to the last ack, or as many as are `enough`.

    Timed from the start of the first run to the start of the last one. The worker's CPU is what it used from
    its first run until everything was acked, or until there were enough.
    """
    count = setup.enough or setup.messages
    whole = not setup.enough
    with bench.producer(peer, setup) as producer:
        fill(bench, peer, producer, setup.messages)
        cpu = bench.on.cpu()
        with bench.worker(peer, setup) as worker:
            worker.receive("done")
            emptied = bench.expect(0, peer, producer) if whole else None
            server_cpu = bench.on.cpu() - cpu
            usage, report = worker.call("usage"), worker.call("report")
    started = sorted(filter(None, report["started"]))[:count]
    if len(started) < count:
        raise BenchmarkError(f"{peer}: {count - len(started)} of {count} messages never ran")
    first, enough = report["cpu"]
    numbers = {
        "rate": (count - 1) / (started[-1] - started[0]) * 1e9,
        "worker_cpu": ((usage["cpu"] if whole else enough) - first) / count * 1000,
        "server_cpu": server_cpu / count * 1000,
        "rss": usage["rss"],
    }
    if emptied is not None:
        numbers["emptied"] = max(0.0, (emptied - started[-1]) / 1e6)
        numbers["twice"] = report["runs"] - count
    return numbers


def drain_by_many(bench: Bench, peer: str, setup: Setup, processes: int) -> Numbers:
    """Have several worker processes, side by side, run the messages that wait.

    Timed while all of them run: from the first run of the one that comes last to the last run of the one that
    ends first.
    """
    with bench.producer(peer, setup) as producer, ExitStack() as stack:
        fill(bench, peer, producer, setup.messages)
        gated = replace(setup, gated=True)
        workers = [stack.enter_context(bench.worker(peer, gated)) for _ in range(processes)]
        cpu = bench.on.cpu()
        for worker in workers:
            worker.tell("begin")
        for worker in workers:
            worker.receive("answer")
        bench.expect(0, peer, producer, PATIENCE)
        server_cpu = bench.on.cpu() - cpu
        wait_for_runs(peer, workers, setup.messages)
        used = [worker.call("usage")["cpu"] for worker in workers]
        reports = [worker.call("report") for worker in workers]
    runs = [sorted(filter(None, report["started"])) for report in reports]
    missed = setup.messages - len({n for report in reports for n, at in enumerate(report["started"]) if at})
    if missed:
        raise BenchmarkError(f"{peer}: {missed} of {setup.messages} messages never ran")
    if not all(runs):
        raise BenchmarkError(f"{peer}: one worker ran everything before the other came; --count more")
    begin, end = max(own[0] for own in runs), min(own[-1] for own in runs)
    together = sum(begin <= moment <= end for own in runs for moment in own)
    if end <= begin or together < setup.messages / 4:
        raise BenchmarkError(f"{peer}: the workers hardly ran at the same time; --count more")
    cpu_used = sum(last - report["cpu"][0] for last, report in zip(used, reports, strict=True))
    return {
        "rate": together / (end - begin) * 1e9,
        "worker_cpu": cpu_used / setup.messages * 1000,
        "server_cpu": server_cpu / setup.messages * 1000,
    }


def wait_for_runs(peer: str, workers: list[PeerProcess], count: int) -> None:
    """Wait until the workers together have run so many: a peer without acks may still be about to."""
    wait_until(
        lambda: sum(count - worker.call("unstarted", 0, count) for worker in workers) >= count,
        f"{peer}: not all of {count} messages ran",
        SETTLING,
    )


def fill(bench: Bench, peer: str, producer: PeerProcess, count: int) -> None:
    """Have so many messages wait."""
    producer.call("fill", count)
    bench.expect(count, peer, producer)
