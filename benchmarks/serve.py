"""What serving costs, on Redis, with nbqueue and with Dramatiq: `python -m benchmarks.serve [--rounds N]`.

Each starts its command line with two worker processes, from the same interpreter. A message waits; `boot` is
the time from the start of the command to the start of its actor. Then nothing is sent: `master` and `worker`
are resident memory, `idle` the CPU that all processes of the run use.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks import environment
from benchmarks.processes import BenchmarkError, RedisServer

PEERS = ("nbqueue", "dramatiq")
PROCESSES = 2
#: Seconds for which a run is left alone, and then watched.
SETTLE, WATCHED = 3.0, 20.0
#: Seconds after which a run counts as stuck.
PATIENCE = 60.0

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
COLUMNS = {
    "boot": "boot to first message, ms",
    "master": "master, MB",
    "worker": "idle worker process, MB",
    "idle": "idle, % CPU",
}


def measure(server: RedisServer, peer: str, folder: Path) -> dict[str, float]:
    """Run the peer once; return a number for each column."""
    server.flush()
    environ = {**os.environ, "BENCH_URL": server.url, "PYTHONPATH": str(folder)}
    # Both are compiled once, in the first round, wherever they are installed.
    environ["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    moment = folder / "moment"
    moment.unlink(missing_ok=True)
    module = f"served_by_{peer}"
    (folder / f"{module}.py").write_text(MODULE.format(peer=peer))
    send = f"import {module}; {module}.first.send({str(moment)!r})"
    subprocess.run([environment.PYTHON, "-c", send], env=environ, check=True)
    command = [str(environment.PYTHON.with_name(peer)), *(["serve"] if peer == "nbqueue" else []), module]
    with (folder / "log").open("wb") as log:
        begun = time.time_ns()
        run = subprocess.Popen([*command, "-p", str(PROCESSES)], env=environ, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE
        while not (moment.exists() and moment.read_text().endswith("\n")):
            if run.poll() is not None or time.monotonic() > deadline:
                raise BenchmarkError(f"{peer} ran no message: {(folder / 'log').read_text()}")
            time.sleep(0.01)
        time.sleep(SETTLE)
        tree = tree_of(run.pid)
        cpu = sum(map(cpu_of, tree))
        time.sleep(WATCHED)
        used = sum(map(cpu_of, tree)) - cpu
        workers = sorted(map(resident, tree[1:]), reverse=True)[:PROCESSES]
        return {
            "boot": (int(moment.read_text()) - begun) / 1e6,
            "master": resident(run.pid),
            "worker": statistics.mean(workers),
            "idle": used / WATCHED * 100,
        }
    finally:
        run.send_signal(signal.SIGTERM)
        run.wait(PATIENCE)


def tree_of(pid: int) -> list[int]:
    """Return a process and those that it has started."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in listed for each in tree_of(int(child)))]


def resident(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_of(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="(5)")
    rounds = parser.parse_args().rounds
    environment.python()
    measured: dict[str, dict[str, list[float]]] = {peer: defaultdict(list) for peer in PEERS}
    with RedisServer() as server, tempfile.TemporaryDirectory(prefix="nbqueue-bench-") as folder:
        for turn in range(rounds):
            for peer in PEERS if turn % 2 == 0 else PEERS[::-1]:
                print(f"round {turn + 1} of {rounds}: {peer}", file=sys.stderr)
                for column, number in measure(server, peer, Path(folder)).items():
                    measured[peer][column].append(number)
    print(
        f"Median (smallest to largest) of {rounds} rounds, {PROCESSES} worker processes; ratio to Dramatiq's"
    )
    for column, title in COLUMNS.items():
        anchor = statistics.median(measured["dramatiq"][column])
        cells = []
        for peer in PEERS:
            numbers = measured[peer][column]
            middle = statistics.median(numbers)
            ratio = f", {middle / anchor:.2f}x" if anchor and peer != "dramatiq" else ""
            cells.append(f"{peer} {middle:.2f} ({min(numbers):.2f} to {max(numbers):.2f}{ratio})")
        print(f"{title:28} {'   '.join(cells)}")


if __name__ == "__main__":
    main()
