"""Runs are shaken while messages flow: processes and masters are killed, told to stop and to reload.

At the end everything that was sent has been done. The plan of a run is repeated by NBQUEUE_SERVE_SEED; the
processes still meet as they will.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import pytest

from .conftest import Run, Site, eventually

#: Seconds in which all that was sent has to be done, once the shaking is over. What a run held on Redis
#: that was killed with its master comes back when it has been silent for a minute.
SETTLE = 150.0
PROCESSES = 3


class Soak:
    """Two runs on one broker, a sender, and somebody who shakes them."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.seed = int(os.environ.get("NBQUEUE_SERVE_SEED") or random.randrange(10**9))
        self.random = random.Random(self.seed)
        self.sent = 0
        self.blows: list[str] = []
        self.runs: list[Run] = [self.start(), self.start()]

    def start(self) -> Run:
        return self.site.serve(
            "shaken",
            "-p",
            str(PROCESSES),
            "-t",
            "4",
            "--max-restarts",
            "1000000",
            "--worker-shutdown-timeout",
            "5000",
        )

    def send(self, count: int) -> None:
        arguments = [(f"n{self.sent + index}", 0.005 * self.random.random()) for index in range(count)]
        self.site.send_many("nap", arguments)
        self.sent += count

    def shake(self) -> None:
        """Do one harm to one of the runs, at any moment."""
        index = self.random.randrange(len(self.runs))
        run = self.runs[index]
        workers = run.workers()
        blow = self.random.choice(["child TERM", "child KILL", "child KILL", "HUP", "HUP", "TERM", "KILL"])
        self.blows.append(blow)
        if blow.startswith("child"):
            if workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.random.choice(workers), getattr(signal, f"SIG{blow.split()[1]}"))
        elif blow == "HUP":
            run.ready()  # before that it has no handler
            run.signal(signal.SIGHUP)
        elif blow == "TERM":
            run.ready()
            run.signal(signal.SIGTERM)
            assert run.ends(60) in (0, 1)  # 1 when a child was killed a moment before
            self.runs[index] = self.start()
        else:
            run.process.kill()
            run.process.wait()
            self.runs[index] = self.start()

    def play(self, seconds: float, pause: float, rate: int) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.send(rate)
            time.sleep(self.random.uniform(0, 2 * pause))
            self.shake()

    def check(self) -> None:
        """See that everything has been done, in the end."""
        site = self.site
        expected = {f"n{index}" for index in range(self.sent)}

        def missing() -> str:
            lost = sorted(expected - set(site.counts("did")))
            said = "\n".join(run.output[-3000:] for run in self.runs)
            return f"seed {self.seed}, {self.blows}: {len(lost)} of {self.sent} lost: {lost[:5]}\n{said}"

        eventually(lambda: expected <= set(site.counts("did")), missing, SETTLE)
        # The child that got the last blow may end just before its parent is told to.
        codes = (0, 1) if self.blows[-1].startswith("child") else (0,)
        for run in self.runs:
            run.ready()
            assert run.stop() in codes, f"{self.blows}\n{run.output[-5000:]}"
        assert set(site.counts("did")) == expected
        again = sum(count - 1 for count in site.counts("began").values())
        assert again <= 4 * PROCESSES * len(self.blows)  # only what ran when a process was killed


def play(site: Site, seconds: float, pause: float, rate: int, settings: str) -> None:
    # Messages that run when their processes are killed, again and again, are no poison here.
    text = (
        f"import nbqueue\n\nbroker = nbqueue.get_broker()\nbroker.max_deaths = 0\n{settings}\nimport tasks\n"
    )
    site.write("shaken.py", text)
    soak = Soak(site)
    print(f"seed {soak.seed}")
    soak.play(seconds, pause, rate)
    soak.check()
    print(f"{soak.sent} messages, {len(soak.blows)} blows")


def test_shaken_runs_lose_nothing(any_site: Site) -> None:
    play(any_site, seconds=6, pause=0.4, rate=50, settings="broker.heartbeat_timeout = 5000")


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_runs_that_are_shaken_for_long_lose_nothing(any_site: Site) -> None:
    play(any_site, seconds=180, pause=1.0, rate=200, settings="")
