"""What command lines cost, nbqueue beside Dramatiq: to start, to import, and to keep running.

Each starts from the same interpreter. A message waits; `boot` is the time from the start of the command to
the start of its actor.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks import environment
from benchmarks.measurements.columns import BOOT, Column
from benchmarks.measurements.measurement import Bench, Measurement, Numbers
from benchmarks.processes import BenchmarkError

PEERS = ("nbqueue", "dramatiq")
#: Worker processes of a run that is watched; seconds for which it's left alone, and then watched.
PROCESSES, SETTLE, WATCHED = 2, 3.0, 10.0
#: Seconds after which a run counts as stuck.
PATIENCE = 60.0
#: Fresh interpreters for the time of an import.
IMPORTS = 9
#: Where bytecode is kept between rounds, so that only the first start of all compiles.
COMPILED = tempfile.TemporaryDirectory(prefix="nbqueue-bench-compiled-")

MODULE = """
import os, time
import {peer}
from {peer}.brokers.redis import RedisBroker

{peer}.set_broker(RedisBroker(url=os.environ["BENCH_URL"]))

@{peer}.actor
def first(path):
    with open(path, "w") as file:
        file.write(str(time.time_ns()) + "\\n")
"""


@contextmanager
def serving(bench: Bench, peer: str, processes: int) -> Iterator[tuple[psutil.Process, float]]:
    """Serve; once the actor of a message that waits has started, yield the run and the ms that took."""
    with tempfile.TemporaryDirectory(prefix="nbqueue-bench-") as temporary:
        folder = Path(temporary)
        moment, module = folder / "moment", f"served_by_{peer}"
        (folder / f"{module}.py").write_text(MODULE.format(peer=peer))
        environ = compiling() | {"BENCH_URL": bench.on.url, "PYTHONPATH": temporary}
        send = f"import {module}; {module}.first.send({str(moment)!r})"
        subprocess.run([environment.PYTHON, "-c", send], env=environ, check=True)
        command = [str(environment.PYTHON.with_name(peer)), *(["serve"] if peer == "nbqueue" else []), module]
        with (folder / "log").open("wb") as log:
            begun = time.time_ns()
            run = psutil.Popen([*command, "-p", str(processes)], env=environ, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + PATIENCE
            while not (moment.exists() and moment.read_text().endswith("\n")):
                if run.poll() is not None or time.monotonic() > deadline:
                    raise BenchmarkError(f"{peer} ran no message: {(folder / 'log').read_text()}")
                time.sleep(0.01)
            yield run, (int(moment.read_text()) - begun) / 1e6
        finally:
            run.send_signal(signal.SIGTERM)
            run.wait(PATIENCE)


def compiling() -> dict[str, str]:
    """Return this environment, with bytecode kept."""
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": COMPILED.name}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    return environ


def start(bench: Bench, peer: str, count: int) -> Numbers:
    """The boot of one worker process, and what an import adds to the start of an interpreter."""
    run_once(peer)  # compiles
    with serving(bench, peer, 1) as (run, boot):
        tree = [run, *run.children(recursive=True)]
        cpu = sum(cpu_of(each) for each in tree)
        processes = len(tree)
    bare = statistics.median(run_once("") for _ in range(IMPORTS))
    imported = statistics.median(run_once(peer) for _ in range(IMPORTS))
    return {"boot": boot, "boot_cpu": cpu * 1000, "import": imported - bare, "processes": processes}


def run_once(module: str) -> float:
    """Return the milliseconds that a fresh interpreter takes, which imports the module if there is one."""
    started = time.perf_counter()
    subprocess.run(
        [environment.PYTHON, "-c", f"import {module}" if module else ""], env=compiling(), check=True
    )
    return (time.perf_counter() - started) * 1000


def serve(bench: Bench, peer: str, count: int) -> Numbers:
    """A run of several worker processes, with nothing to do."""
    with serving(bench, peer, PROCESSES) as (run, boot):
        time.sleep(SETTLE)
        others = run.children(recursive=True)
        cpu = sum(cpu_of(each) for each in [run, *others])
        time.sleep(WATCHED)
        used = sum(cpu_of(each) for each in [run, *others]) - cpu
        workers = sorted((each.memory_info().rss for each in others), reverse=True)[:PROCESSES]
        return {
            "boot": boot,
            "master": run.memory_info().rss / 2**20,
            "worker": statistics.mean(workers) / 2**20,
            "idle": used / WATCHED * 100,
        }


def cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


START = Measurement(
    "Start: `nbqueue serve -p 1` and `dramatiq -p 1`, bytecode compiled",
    (
        BOOT,
        Column("boot_cpu", "CPU of all processes until then, ms", 0, better="less"),
        Column("processes", "processes", 0, better="less"),
        Column("import", "import, ms more than bare", 0, better="less"),
    ),
    start,
    PEERS,
)
SERVE = Measurement(
    f"Serve: `nbqueue serve` and `dramatiq`, -p {PROCESSES}, with nothing to do, {WATCHED:.0f} s",
    (
        BOOT,
        Column("master", "master RSS, MiB", 0, better="less"),
        Column("worker", "idle worker process RSS, MiB", 0, better="less"),
        Column("idle", "idle, % CPU of all", 2, better="less", steady=False),
    ),
    serve,
    PEERS,
    rounds=2,
)
