"""The embedded default over many messages and while it idles. The long forms run in `make soak`."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nbqueue
from nbqueue.embedded import EmbeddedBroker

RELEASED = """
import gc, sys
import nbqueue

count = int(sys.argv[1])

@nbqueue.actor
def noop(n):
    return n

def send(count):
    for start in range(0, count, 1000):
        for message in [noop.send(n) for n in range(1000)]:
            message.get_result()

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

broker = nbqueue.get_broker()
send(max(count // 4, 12_000))
objects, memory = len(gc.get_objects()), resident()
send(count)
results = broker.results
print(len(results._results.values), len(results._handles), len(results._results.aside))
print(len(gc.get_objects()) - objects, resident() - memory)
"""

IDLE = """
import sys, time
import nbqueue

nbqueue.actor(print, actor_name="p")
nbqueue.start()
time.sleep(1)
before = time.process_time()
time.sleep(float(sys.argv[1]))
print(time.process_time() - before)
"""


def run(source: str, argument: float) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", source, str(argument)], capture_output=True, text=True, timeout=600, check=True
    )
    return [float(word) for word in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_messages_whose_handles_are_released_leave_no_growth(count: int) -> None:
    results, handles, aside, objects, memory = run(RELEASED, count)
    assert results <= 10_000
    assert handles < 1500
    assert aside == 0
    assert objects < 5_000
    assert memory < 8 * 2**20


@pytest.mark.parametrize("seconds", [pytest.param(30, marks=pytest.mark.soak), 5])
def test_an_idle_worker_uses_less_than_a_thousandth_of_a_processor(seconds: int) -> None:
    [used] = run(IDLE, seconds)
    assert used < seconds / 1000


def test_a_backlog_is_told_once_until_it_has_doubled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("nbqueue.embedded.BACKLOG", 10)
    broker = EmbeddedBroker()
    broker.stop()  # nothing runs: all that is sent waits

    @nbqueue.actor(broker=broker)
    def wait() -> None: ...

    def told() -> list[str]:
        return [r.getMessage() for r in caplog.records if "messages wait in queue" in r.getMessage()]

    for _ in range(19):
        wait.send()
    assert len(told()) == 1
    assert told()[0].startswith("10 messages wait in queue 'default'")
    wait.map(range(1))
    assert len(told()) == 2
