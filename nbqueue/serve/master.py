"""The master: starts the processes of a run, passes signals on, replaces what dies.

One thread. `run` waits until a signal, a child's report, a child's end or a moment (`_next_moment`) wants it.
Workers are replaced one after another (`_replace_next`): the new process has to be ready before the old one
is told to stop, so that the queues never stand still.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import time
from collections import deque
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..logging import get_logger
from . import exit_codes, fork_process, reports, worker_process
from .beside import Beside
from .board import Board, Note
from .child import Child
from .fork_process import ForkStart
from .lifeline import Lifeline
from .pid_file import PidFile
from .resident import resident_megabytes
from .settings import ServeSettings
from .signals import Signals
from .systemd import notify
from .worker_process import WorkerStart
from .worker_slot import BACK_OFF, WorkerSlot

if TYPE_CHECKING:
    import socket

STDIN = 0
#: Seconds between two looks at the memory of the worker processes, when that is limited.
LOOK_AT_MEMORY = 1.0
#: Seconds that a process may boot before a further reload ends it.
PATIENCE = 2.0
#: Seconds that a process has to end after a second signal, and one that has been told to beyond its time.
FORCE, BEYOND = 2.0, 10.0


class Master:
    """One run. `sock` listens on the health port."""

    def __init__(self, settings: ServeSettings, pid_file: PidFile | None, sock: socket.socket | None) -> None:
        self.settings = settings
        self.pid_file = pid_file
        self.sock = sock
        self.logger = get_logger("nbqueue", "MainProcess")
        self.context = get_context("spawn" if settings.use_spawn or not hasattr(os, "fork") else "fork")
        self.signals = Signals()
        self.lifeline = Lifeline()
        named = self.context.get_start_method() != "fork"
        self.board = Board(settings.processes * 3, settings.threads, named=named)
        self.free_pages = list(range(self.board.pages))
        self.pages: dict[Child, int] = {}
        self.slots = [WorkerSlot(number) for number in range(settings.processes)]
        self.beside: list[Beside] = []
        #: Slots whose process is to be replaced, each with the reason.
        self.replacements: deque[tuple[WorkerSlot, str]] = deque()
        self.reloading = self.reloaded = False
        self.forks_known = False
        self.forks_at = time.monotonic() + settings.fork_timeout / 1000
        self.memory_at = time.monotonic() + LOOK_AT_MEMORY
        self.stops = 0
        self.exit_code = exit_codes.OK
        self.selector = selectors.DefaultSelector()

    # -- the loop ----------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until everything has ended; return the exit code."""
        with self.signals.blocked():
            self.signals.install()
            self.selector.register(self.signals.bell, selectors.EVENT_READ)
            if self.settings.stop_on_eof:
                self.selector.register(STDIN, selectors.EVENT_READ)
            for slot in self.slots:
                slot.current = self._start_worker(slot)
            self._plan_beside()
        self.logger.info("nbqueue %r is booting up.", __version__)
        if self.sock is not None:
            self.logger.info("/healthz and /readyz are answered on port %d.", self.sock.getsockname()[1])
        try:
            while not self._ended():
                ready = self.selector.select(self._pause())
                if any(key.fd == STDIN for key, _ in ready) and not os.read(STDIN, 4096):
                    self.selector.unregister(STDIN)
                    self.stop("the end of standard input")
                self._turn()
        finally:
            self._close()
        return self.exit_code

    def _turn(self) -> None:
        for number in self.signals.take():
            self._on_signal(number)
        for slot in self.slots:
            for child in slot.children():
                self._hear(slot, child)
        self._reap()
        now = time.monotonic()
        for child in self._all_children():
            if child.kill_at is not None and now >= child.kill_at:
                self.logger.critical("%s (PID %d) did not stop in time: killed.", child.kind, child.pid)
                self.exit_code = self.exit_code or exit_codes.KILLED
                child.kill()
        if not self.stops:
            for slot in self.slots:
                if slot.start_at is not None and now >= slot.start_at:
                    slot.start_at = None
                    slot.current = self._start_worker(slot)
            self._replace_next()
            self._plan_forks(now)
            self._start_beside(now)
            self._look_at_memory(now)
        self._post_health()

    def _pause(self) -> float | None:
        """Seconds until the next moment at which something is to be done without being woken."""
        moments = [child.kill_at for child in self._all_children() if child.kill_at is not None]
        if not self.stops:
            moments += [slot.start_at for slot in self.slots if slot.start_at is not None]
            waiting = [beside for beside in self.beside if beside.child is None]
            moments += [beside.start_at for beside in waiting if beside.start_at is not None]
            if not self.forks_known:
                moments.append(self.forks_at)
            if self.settings.max_rss:
                moments.append(self.memory_at)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _all_children(self) -> list[Child]:
        workers = [child for slot in self.slots for child in slot.children()]
        return [*workers, *(beside.child for beside in self.beside if beside.child is not None)]

    def _ended(self) -> bool:
        """Whether a run that is to stop has stopped: its own processes go last."""
        if not self.stops:
            return False
        if any(slot.children() for slot in self.slots):
            return False
        for beside in self.beside:
            if beside.child is not None and not beside.child.stopping:
                beside.child.stop(within=FORCE)
        return not self._all_children()

    # -- signals -----------------------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        if number == getattr(signal, "SIGHUP", None):
            self._reload()
        elif not self.stops:
            self.stop(signal.Signals(number).name)
        else:
            self._force()

    def stop(self, why: str, exit_code: int = exit_codes.OK) -> None:
        """Tell all workers to stop. Only the first code counts."""
        self.exit_code = self.exit_code or exit_code
        if self.stops:
            return
        self.stops = 1
        notify("STOPPING=1")
        workers = [child for slot in self.slots for child in slot.children()]
        running = [call for child in workers for call in self._running(child)]
        awaited = f"{len(workers)} worker process{'' if len(workers) == 1 else 'es'}"
        if running:
            awaited += f", which run {_named(running)}"
        if exit_code == exit_codes.OK:
            self.logger.info(
                "Stopping, because of %s: waiting for %s. Ctrl-C or SIGTERM once more kills them now.",
                why,
                awaited,
            )
        self.replacements.clear()
        for child in workers:
            child.stop(self._time_to_stop if child.ready else BEYOND)

    @property
    def _time_to_stop(self) -> float:
        """Seconds. A worker process uses its time twice: for its actors, and then for its consumers."""
        return 2 * self.settings.shutdown_timeout / 1000 + BEYOND

    def _force(self) -> None:
        self.stops += 1
        self.exit_code = self.exit_code or exit_codes.KILLED
        if self.stops == 2:
            self.logger.warning("Killing the worker processes now: what they run comes again.")
        for child in self._all_children():
            if self.stops > 2:
                child.kill()
            else:
                child.force(within=FORCE)

    # -- workers -----------------------------------------------------------------------------------------

    def _inherited(self, *more: Connection, but: socket.socket | None = None) -> list[Any]:
        """What a forked child has to close, for it is the master's or another child's."""
        if self.settings.use_spawn:
            return []
        # The selector first: with gevent it watches the others, which then must still be there.
        present: list[Any] = [self.selector, self.lifeline.writer, *more, self.sock]
        present += [child.reports for child in self._all_children()]
        return [each for each in present if each is not None and each is not but]

    def _start_worker(self, slot: WorkerSlot) -> Child:
        reader, writer = Pipe(duplex=False)
        page = self.free_pages.pop(0) if self.free_pages else None
        if page is not None:
            self.board.clear(page)
        start = WorkerStart(
            settings=self.settings,
            number=slot.number,
            page=page,
            board=self.board,
            reports=writer,
            lifeline=self.lifeline.reader,
            dead=slot.dead,
            inherited=self._inherited(reader),
        )
        with self.signals.blocked():
            kind = f"Worker process {slot.number}"
            child = Child.start(self.context, kind, worker_process.run, (start,), reader)
        writer.close()
        child.dead, slot.dead = slot.dead, []
        if page is not None:
            self.pages[child] = page
        self._watch(child)
        return child

    def _watch(self, child: Child) -> None:
        """Wake when a child ends or tells something."""
        self.selector.register(child.process.sentinel, selectors.EVENT_READ)
        if child.reports is not None:
            self.selector.register(child.reports, selectors.EVENT_READ)

    def _running(self, child: Child) -> list[Note]:
        page = self.pages.get(child)
        return [] if page is None else self.board.running(page)

    def _what_it_ran(self, child: Child, running: list[Note]) -> str:
        """Return " while it ran …", or what it ran last, for the log."""
        if running:
            return f" while it ran {_named(running)}"
        page = self.pages.get(child)
        last = None if page is None else self.board.last(page)
        return "" if last is None else f"; its last message was {last}"

    def _hear(self, slot: WorkerSlot, child: Child) -> None:
        if child.reports is None or child.reports.closed:
            return
        try:
            for report in reports.read(child.reports):
                self._on_report(slot, child, report)
        except EOFError:
            self._hear_no_more(child)

    def _hear_no_more(self, child: Child) -> None:
        assert child.reports is not None
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(child.reports)
        child.reports.close()

    def _on_report(self, slot: WorkerSlot, child: Child, report: dict[str, Any]) -> None:
        if report["kind"] == reports.BOOTED:
            child.identity = report["identity"]
        elif report["kind"] == reports.READY:
            child.ready = True
            child.dead = []
            child.forks = report["forks"]
            if child.stopping and self.stops < 2:  # it was told to while it booted, and may run actors
                child.kill_at = time.monotonic() + self._time_to_stop
            if child is slot.incoming:
                self._hand_over(slot)
            if all(slot.current is not None and slot.current.ready for slot in self.slots):
                notify("READY=1")
        elif report["kind"] == reports.FAILED:
            child.failure = (report["code"], report["text"])
        elif report["kind"] == reports.RETIRE and not self.stops and child is slot.current:
            self._want_replaced(slot, report["text"])

    def _hand_over(self, slot: WorkerSlot) -> None:
        """Let the new process of a slot be the one that works, and tell the old one to stop."""
        old, slot.current, slot.incoming = slot.current, slot.incoming, None
        if old is not None:
            slot.leaving.append(old)
            old.stop(self._time_to_stop)

    # -- replacing ---------------------------------------------------------------------------------------

    def _reload(self) -> None:
        if self.stops:
            return
        self.logger.info("Reloading: the worker processes are replaced one after another.")
        self.reloading = True
        waiting = {slot.number for slot, _ in self.replacements}
        for slot in self.slots:
            incoming = slot.incoming
            # It may have loaded the code of before: it is replaced in its turn. One that takes long may hang.
            if incoming is not None and time.monotonic() - incoming.started > PATIENCE:
                incoming.stop(within=FORCE)
                slot.leaving.append(incoming)
                slot.incoming = None
            if slot.number not in waiting:
                self.replacements.append((slot, ""))

    def _want_replaced(self, slot: WorkerSlot, why: str) -> None:
        if slot.incoming is None and all(slot is not waiting for waiting, _ in self.replacements):
            self.replacements.append((slot, why))

    def _replace_next(self) -> None:
        """Start the next replacement, unless one is on its way."""
        if any(slot.incoming is not None for slot in self.slots):
            return
        if not self.replacements:
            if self.reloading:
                self.reloading, self.reloaded = False, True
                self.logger.info("Reloaded.")
                self._reload_beside()
            return
        slot, why = self.replacements.popleft()
        if why:
            self.logger.info("Worker process %d is replaced: %s.", slot.number, why)
        if slot.current is None:  # it died, and the next one loads the new code anyway
            slot.start_at = time.monotonic()
            return
        slot.incoming = self._start_worker(slot)

    def _give_up_reload(self, child: Child) -> None:
        """The new code can't be served: go on with the processes that there are."""
        self.replacements.clear()
        self.reloading = False
        text = child.failure[1] if child.failure else f"The new one {child.how_it_ended()}."
        self.logger.error("Not reloaded: the worker processes go on with the code of before. %s", text)

    # -- the dead ----------------------------------------------------------------------------------------

    def _reap(self) -> None:
        for slot in self.slots:
            for child in slot.children():
                if child.exit_code is not None:
                    self._hear(slot, child)  # what it said last
                    self._bury(slot, child)
        for beside in self.beside:
            ended = beside.child
            if ended is not None and ended.exit_code is not None:
                text = beside.note_end()
                if ended.exit_code == exit_codes.NO_FUNCTION and not self.reloaded:
                    self.stop("a function can't be imported", exit_codes.IMPORT)
                elif text and not self.stops:
                    self.logger.error("%s", text)
                self._forget(ended)

    def _bury(self, slot: WorkerSlot, child: Child) -> None:
        code = child.exit_code or 0
        running = self._running(child)
        slot.dead += child.dead
        if child in slot.leaving:
            slot.leaving.remove(child)
            if child.identity is not None and (code or running):
                slot.dead.append(child.identity)  # its messages are returned by the next one
        elif child is slot.incoming:
            slot.incoming = None
            if child.identity is not None:
                slot.dead.append(child.identity)
            if not child.stopping:
                self._give_up_reload(child)
        else:
            slot.current = None
            if not child.stopping:
                self._on_death(slot, child, running)
        if child.stopping and code and not child.failure:
            self.exit_code = self.exit_code or (code if code > 0 else exit_codes.KILLED)
        self._forget(child)

    def _on_death(self, slot: WorkerSlot, child: Child, running: list[Note]) -> None:
        """A worker process has died that nobody told to."""
        if self.stops:
            return
        code, text = child.failure or (child.exit_code or 0, "")
        if text:
            self.logger.critical("%s can't start: %s", child.kind, text)
        else:
            during = self._what_it_ran(child, running)
            self.logger.critical("%s (PID %d) %s%s.", child.kind, child.pid, child.how_it_ended(), during)
        booted = any(other.ready for each in self.slots for other in each.children() if other is not child)
        final = code if code > 0 else exit_codes.KILLED
        if not child.ready and not booted and slot.deaths_in_row == 0:
            self.stop("a worker process can't start", final)
            return
        slot.note_death(child)
        unreachable = child.failure is not None and code == exit_codes.CONNECT
        if slot.deaths_in_row > self.settings.max_restarts and not unreachable:
            self.logger.critical(
                "Worker process %d died %d times in a row: stopping.", slot.number, slot.deaths_in_row
            )
            self.stop("a worker process dies again and again", final)
            return
        delay = BACK_OFF[min(slot.deaths_in_row - 1, len(BACK_OFF) - 1)]
        self.logger.info(
            "Worker process %d starts again %s.", slot.number, f"in {delay:g} s" if delay else "now"
        )

    def _forget(self, child: Child) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(child.process.sentinel)
        if child.reports is not None and not child.reports.closed:
            self._hear_no_more(child)
        page = self.pages.pop(child, None)
        if page is not None:
            self.free_pages.append(page)
        child.close()

    # -- the processes beside the workers ----------------------------------------------------------------

    def _plan_beside(self) -> None:
        reader = self.lifeline.reader
        if self.sock is not None:
            self.beside.append(
                Beside(
                    "The health process",
                    _answer_health,
                    lambda: (self.board, self.sock, reader, self._inherited(but=self.sock)),
                )
            )
        if self.settings.watch is not None:
            from . import watching

            self.beside.append(
                Beside(
                    "The watching process",
                    watching.run,
                    lambda: (self.settings, os.getpid(), reader, self._inherited()),
                )
            )

    def _plan_forks(self, now: float) -> None:
        """Have the functions run beside the workers, once those are ready or have had their time."""
        if self.forks_known:
            return
        ready = [slot.current for slot in self.slots if slot.current is not None and slot.current.ready]
        if len(ready) < len(self.slots) and now < self.forks_at:
            return
        self.forks_known = True
        functions = list(dict.fromkeys([*self.settings.fork_functions, *(ready[0].forks if ready else [])]))
        for number, function in enumerate(functions):
            self.beside.append(
                Beside(
                    f"Fork process {number}",
                    fork_process.run,
                    lambda number=number, function=function: (  # type: ignore[misc]
                        ForkStart(self.settings, number, function, self.lifeline.reader, self._inherited()),
                    ),
                    reloads=True,
                )
            )

    def _start_beside(self, now: float) -> None:
        if any(beside.child is not None and beside.child.stopping for beside in self.beside):
            return  # it may still have the port that its successor wants
        self.beside = [each for each in self.beside if each.child is not None or each.start_at is not None]
        for beside in self.beside:
            if beside.child is None and beside.start_at is not None and now >= beside.start_at:
                beside.start_at = None
                with self.signals.blocked():
                    beside.child = Child.start(self.context, beside.kind, beside.target, beside.arguments())
                self._watch(beside.child)

    def _reload_beside(self) -> None:
        """End what runs the user's functions; it starts anew when that is gone."""
        for beside in self.beside:
            if beside.reloads:
                beside.start_at = None
                if beside.child is not None:
                    beside.child.stop(within=FORCE)
        self.forks_known = False

    def _look_at_memory(self, now: float) -> None:
        limit = self.settings.max_rss
        if not limit or now < self.memory_at:
            return
        self.memory_at = now + LOOK_AT_MEMORY
        for slot in self.slots:
            child = slot.current
            if child is not None and child.ready:
                taken = resident_megabytes(child.pid)
                if taken is not None and taken > limit:
                    self._want_replaced(slot, f"it takes {taken:,.0f} MB, more than {limit:,}")

    def _post_health(self) -> None:
        ready = sum(slot.current is not None and slot.current.ready for slot in self.slots)
        self.board.post({"ready": ready, "processes": len(self.slots), "stopping": bool(self.stops)})

    def _close(self) -> None:
        for child in self._all_children():  # only when the loop has failed
            child.kill()
        self.selector.close()
        self.board.unlink()
        if self.sock is not None:
            self.sock.close()
        if self.pid_file is not None:
            self.pid_file.remove()
        self.signals.ignore()
        sys.stderr.flush()


def _answer_health(*arguments: Any) -> None:
    """Run the health process, which alone needs an HTTP server: the workers boot without importing one."""
    from . import health

    health.run(*arguments)


def _named(notes: list[Note]) -> str:
    """Return a few messages by name, and how many more there are."""
    more = f" and {len(notes) - 3} more" if len(notes) > 3 else ""
    return "; ".join(str(note) for note in notes[:3]) + more
