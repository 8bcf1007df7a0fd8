"""What visible cards cost nbqueue: no-ops sent and run in a kernel, with cards on the page and without.

Real kernels run in turn: one with nothing to see, one with a bar over the very messages, one with the
dashboard, and one with a bar and 1,000 cards of messages that wait. Each also times the flag that an actor's
thread flips, and a look at a group of 100,000.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

from jupyter_client.manager import KernelManager

from benchmarks.measurements.columns import MESSAGE_CPU, THROUGHPUT, Column
from benchmarks.measurements.measurement import Bench, Measurement, Numbers

SETUP = """
import time, json, nbqueue
get_ipython().run_line_magic("load_ext", "nbqueue")

@nbqueue.actor
def noop(number):
    return number

def measure(count, show):
    used, started = time.process_time(), time.perf_counter()
    messages = noop.map(range(count))
    if show:
        display(messages)
    results = list(messages.get_results())
    elapsed, used = time.perf_counter() - started, time.process_time() - used
    assert results == list(range(count))
    return count / elapsed, used / count * 1e6

measure(1000, False)
"""
DELAYED = """
delayed = [noop.send_with_options(args=(number,), delay=3_600_000) for number in range(1000)]
"""
CARDS = """
for message in delayed:
    display(message)
"""
FLAG = """
from nbqueue.notebook.extension import _session
live = _session.cards.live
rounds = 200_000
started = time.perf_counter()
for _ in range(rounds):
    live.touch()
print(json.dumps((time.perf_counter() - started) / rounds * 1e6))
"""
LOOK = """
from nbqueue.notebook.cards.group import GroupCard, LOOK_HERE
from nbqueue.notebook.cards.tally import parts_of
get_ipython().run_line_magic("nbqueue", "workers 0")
many = noop.map(range(100_000))
card = GroupCard(many.name, parts_of(many), many.broker)
times = []
for _ in range(20):
    started = time.perf_counter()
    card.look_for(LOOK_HERE)
    times.append((time.perf_counter() - started) * 1000)
print(json.dumps(max(times)))
"""


class Kernel:
    """A kernel in which cells are run."""

    def __init__(self) -> None:
        self.manager = KernelManager()
        self.manager.start_kernel()
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, source: str) -> Any:
        """Run a cell; return what it printed last, read as JSON."""
        printed: list[str] = []

        def hook(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])
            elif message["msg_type"] == "error":
                raise RuntimeError("\n".join(message["content"]["traceback"]))

        self.client.execute_interactive(source, output_hook=hook, timeout=300)
        lines = "".join(printed).strip().splitlines()
        return json.loads(lines[-1]) if lines and lines[-1][:1] in "0123456789[" else None

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


DASHBOARD = "display(nbqueue.dashboard())"
#: Whether a bar is shown over the messages, and what else is.
VARIANTS = {
    "nothing shown": (False, ""),
    "bar": (True, ""),
    "dashboard": (False, DASHBOARD),
    "bar, 1,000 cards": (True, CARDS),
}
#: Measurements in each kernel, of which the median counts: what came before them slows later ones.
REPEATED = 3


def cards(bench: Bench, variant: tuple[bool, str], count: int) -> Numbers:
    """Measure in a kernel of its own."""
    bar, shown = variant
    kernel = Kernel()
    try:
        kernel.run(SETUP)
        kernel.run(DELAYED)
        if shown:
            kernel.run(shown)
        found = [kernel.run(f"print(json.dumps(measure({count}, {bar})))") for _ in range(REPEATED)]
        rates, used = zip(*found, strict=True)
        numbers = {"throughput": statistics.median(rates), "cpu": statistics.median(used)}
        return numbers | {"flag": kernel.run(FLAG), "look": kernel.run(LOOK)}
    finally:
        kernel.close()


CARDS_SHOWN = Measurement(
    "Cards: {count:,} no-ops with results in a kernel, with cards on the page",
    (
        THROUGHPUT,
        MESSAGE_CPU,
        Column("flag", "the flag of an actor's thread, µs", 2, better="less"),
        Column("look", "a look at a group of 100,000, ms", 1, better="less"),
    ),
    cards,
    settings=VARIANTS,
    only_named=True,
)
