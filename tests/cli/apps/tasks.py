"""Actors of the tests of `nbqueue serve`. They write what happens to the file that LEDGER names."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbqueue

LEDGER = os.environ["LEDGER"]
#: Functions of it keep the interpreter's lock while they run, as careless C code does.
C_WITH_LOCK = ctypes.PyDLL(None)


def note(*words: object) -> None:
    """Append a line, whole, with the process's id."""
    descriptor = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, " ".join(map(str, [*words, os.getpid()])).encode() + b"\n")
    os.close(descriptor)


@nbqueue.actor(max_retries=0)
def work(name: str) -> str:
    note("did", name)
    return name


@nbqueue.actor(queue_name="aside", max_retries=0)
def work_aside(name: str) -> None:
    note("did", name)


@nbqueue.actor(max_retries=0)
def nap(name: str, seconds: float) -> None:
    """Sleep in short pieces, so that interrupts reach it."""
    note("began", name)
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            time.sleep(0.01)
    except BaseException as error:
        note(type(error).__name__, name)
        raise
    note("did", name)


@nbqueue.actor(max_retries=0)
def doze(name: str, seconds: float) -> None:
    """Sleep in one piece."""
    note("began", name)
    time.sleep(seconds)
    note("did", name)


@nbqueue.actor(max_retries=0)
def spin(name: str) -> None:
    """Compute for ever, without a pause for others."""
    note("began", name)
    while True:
        pass


@nbqueue.actor(max_retries=0)
def nap_until(name: str, path: str) -> None:
    """Run until a file is there."""
    note("began", name)
    while not Path(path).exists():
        time.sleep(0.01)
    note("did", name)


@nbqueue.actor(max_retries=0, notify_shutdown=True)
def notified(name: str) -> None:
    note("began", name)
    try:
        while True:
            time.sleep(0.01)
    except BaseException as error:
        note(type(error).__name__, name)
        raise


@nbqueue.actor(max_retries=0, time_limit=200)
def limited(name: str) -> None:
    note("began", name)
    try:
        while True:
            time.sleep(0.01)
    except BaseException as error:
        note(type(error).__name__, name)
        raise


@nbqueue.actor(max_retries=0)
def hold(name: str, seconds: int) -> None:
    """Sleep in C with the interpreter's lock held: no other thread of the process runs."""
    note("began", name)
    C_WITH_LOCK.sleep(seconds)
    note("did", name)


@nbqueue.actor(max_retries=0)
def die_once(name: str, how: str) -> None:
    """Kill the process at the first try: by a signal's name, "crash" or an exit code."""
    mark = Path(f"{LEDGER}.{name}")
    note("began", name)
    if not mark.exists():
        mark.touch()
        die(how)
    note("did", name)


@nbqueue.actor(max_retries=0)
def die_always(how: str) -> None:
    die(how)


def die(how: str) -> None:
    if how == "crash":
        ctypes.string_at(0)
    elif how.isdigit():
        os._exit(int(how))
    else:
        os.kill(os.getpid(), getattr(signal, how))
    time.sleep(60)


@nbqueue.actor(max_retries=0)
def speak(name: str) -> None:
    print(f"printed {name}")
    print(f"complained {name}", file=sys.stderr)
    logging.getLogger("tasks").warning("logged %s", name)
    note("did", name)


@nbqueue.actor(max_retries=0)
def speak_with_a_file(name: str, path: str) -> None:
    """Print, and have a file open meanwhile: what is printed must not end there."""
    with open(path, "w") as file:
        print("printed beside a file", flush=True)
        logging.getLogger("tasks").warning("logged beside a file")
        file.write("only this\n")
    note("did", name)


@nbqueue.actor(max_retries=0)
def shout(text: str) -> None:
    print(f"shouted {text}")
    logging.getLogger("tasks").warning("shouted %s", text)
    note("did")


@nbqueue.actor(max_retries=0)
def fail(name: str) -> None:
    raise ValueError(name)


@nbqueue.actor(max_retries=0)
def swell(name: str, megabytes: int) -> None:
    """Take memory and keep it."""
    kept.append(b"x" * (megabytes * 1_000_000))
    note("did", name)


kept: list[bytes] = []


@nbqueue.actor(max_retries=0)
def masks(name: str) -> None:
    """Note how many signals are blocked here and in processes that are started from here."""
    note("thread", name, blocked())
    code = "import signal; print(len(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    note("program", name, subprocess.check_output([sys.executable, "-c", code], text=True).strip())
    child = os.fork()
    if child == 0:
        note("fork", name, blocked())
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
        note("handlers", name, *(getattr(handler, "name", None) or handler.__name__ for handler in handlers))
        os._exit(0)
    os.waitpid(child, 0)
    note("did", name)


def blocked() -> int:
    return len(signal.pthread_sigmask(signal.SIG_BLOCK, []))


@nbqueue.actor(max_retries=0)
def leave_behind(name: str, kind: str, how: str) -> None:
    """Start a process that outlives this one, in a session of its own; then kill this one if asked to."""
    if kind == "program":
        code = "import time; time.sleep(300)"
        left = subprocess.Popen([sys.executable, "-c", code], close_fds=False, start_new_session=True).pid
    else:
        left = os.fork()
        if left == 0:
            os.setsid()
            time.sleep(300)
            os._exit(0)
    note("left", name, left)
    mark = Path(f"{LEDGER}.{name}")
    if how and not mark.exists():
        mark.touch()
        die(how)
    note("did", name)


@nbqueue.actor(max_retries=0)
def leave_thread(name: str) -> None:
    threading.Thread(target=time.sleep, args=(300,)).start()
    note("did", name)


@nbqueue.actor(max_retries=0)
def fan_out(name: str) -> None:
    """Use processes of its own, as numeric libraries do."""
    for _ in range(10):
        with multiprocessing.get_context("fork").Pool(4) as pool:
            total = sum(pool.map(abs, range(10)))
    note("sum", name, total)
    note("did", name)


def beside() -> int:
    """To be run by --fork-function."""
    note("beside")
    while True:
        time.sleep(0.05)


def beside_masks() -> int:
    note("beside-masks", blocked())
    return 0


def beside_that_stays() -> int:
    note("beside-that-stays")
    while True:
        try:
            time.sleep(300)
        except BaseException:
            note("stays")


def beside_that_ends() -> int:
    note("beside-that-ends")
    return 0


def beside_that_fails() -> int:
    note("beside-that-fails")
    raise RuntimeError("beside fails")
