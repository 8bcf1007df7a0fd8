"""One worker process: imports the user's modules, runs a Worker until it is told to stop.

The main thread waits; messages run on the Worker's threads. A first signal, or the death of the master, stops
it: what runs may end, the rest goes back to the broker. A second signal ends the process at once.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import random
import sys
import threading
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from ..broker import Broker
from ..embedded import EmbeddedBroker
from ..errors import BrokerConnectionError
from ..logging import get_logger
from ..middleware import Middleware
from . import exit_codes
from .board import Board, NoteRunning
from .lifeline import Stopped, Stopper, forget_master, set_forks_free, unblock_signals
from .loading import extend_path, import_broker, import_named, users_traceback
from .logs import set_up_child
from .reports import BOOTED, FAILED, READY, RETIRE, Reporter
from .settings import ServeSettings

if TYPE_CHECKING:
    from ..broker import MessageProxy
    from ..worker import Worker

#: Seconds for which a server may keep silent when it is asked for the first time.
PATIENCE = 8.0
#: Seconds that threads and processes have to end which actors started, when all else has ended.
LAST_WORDS = 5.0


@dataclass
class WorkerStart:
    """What a worker process is started with."""

    settings: ServeSettings
    number: int
    #: Where it notes what it runs; None when the board is full.
    page: int | None
    board: Board
    reports: Connection
    lifeline: Connection
    #: The brokers of processes that died, whose messages this one returns first.
    dead: list[str]
    #: What a forked process has of its master and has to close.
    inherited: list[Any] = field(default_factory=list)


def run(start: WorkerStart) -> None:
    """The main function of the process; leaves with an exit code."""
    forget_master(start.inherited)
    stopper = Stopper(start.lifeline)
    stopper.install()
    set_forks_free()
    set_up_child(start.settings)
    unblock_signals()
    stopper.watch()
    random.seed()
    if not start.settings.json_logs:  # what it writes is no JSON
        faulthandler.enable(2, all_threads=False)  # where C crashed, without the threads that wait
    process = WorkerProcess(start, stopper)
    code = process.run()
    logging.shutdown()
    if not process.abandoned:
        # What actors have started and left, threads and processes, is waited for by the interpreter.
        patience = threading.Timer(LAST_WORDS, _leave_now, [code])
        patience.daemon = True
        patience.start()
        sys.exit(code)
    _leave_now(code)


def _leave_now(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Failed(Exception):
    """This process can't take messages."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class WorkerProcess:
    def __init__(self, start: WorkerStart, stopper: Stopper) -> None:
        self.start = start
        self.settings = start.settings
        self.stopper = stopper
        self.reporter = Reporter(start.reports)
        self.logger = get_logger("nbqueue", f"WorkerProcess({start.number})")
        #: Whether actors still run, although their time is over.
        self.abandoned = False

    def run(self) -> int:
        try:
            with self.stopper.interruptible():
                broker = self._boot()
            if self.stopper.asked:  # and the module that was being imported caught what told it
                return exit_codes.OK
            self.reporter.tell(BOOTED, identity=broker.identity)
            worker = self._start_worker(broker)
        except Stopped:
            return exit_codes.OK
        except Failed as failed:
            self.reporter.tell(FAILED, code=failed.code, text=str(failed))
            return failed.code
        self.reporter.tell(READY, forks=self._forks(broker))
        self.logger.info("Worker process is ready for action.")
        self.stopper.wait()
        self._stop(worker)
        broker.close()
        return exit_codes.OK

    # -- start -------------------------------------------------------------------------------------------

    def _boot(self) -> Broker:
        settings = self.settings
        try:
            extend_path(settings.path)
            _, broker = import_broker(settings.broker)
            broker.emit_after("process_boot")
            for module in settings.modules:
                import_named(module)
        except Stopped:
            raise
        except BrokerConnectionError as error:
            raise Failed(exit_codes.CONNECT, str(error)) from error
        except BaseException as error:
            raise Failed(exit_codes.IMPORT, users_traceback(error)) from error
        self._check(broker)
        return broker

    def _check(self, broker: Broker) -> None:
        """See that there is something to serve, and that it can be reached."""
        where = self.settings.broker
        if isinstance(broker, EmbeddedBroker):
            raise Failed(
                exit_codes.IMPORT,
                f"{where} sets no broker, so that no other process could send it messages. "
                "Say where they are: --broker-url redis://localhost (or NBQUEUE_BROKER_URL), "
                "or call nbqueue.set_broker(...) in the module.",
            )
        if self.settings.broker_url is not None and not broker.session_profile:
            raise Failed(
                exit_codes.IMPORT,
                f"{where} sets its own broker, {broker.address}: --broker-url can't change that. "
                "Leave out one of the two.",
            )
        if not broker.actors:
            self.logger.warning("%s declares no actors: there is nothing to run.", where)
        from ..brokers.stub import StubBroker

        if isinstance(broker, StubBroker):
            self.logger.warning(
                "%s uses a StubBroker: each worker process has a queue of its own, in memory, that only its "
                "own actors send to.",
                where,
            )
        self._reach(broker)

    def _reach(self, broker: Broker) -> None:
        from ..inspection import reach

        try:
            reach(broker, PATIENCE)
        except BrokerConnectionError as error:
            raise Failed(exit_codes.CONNECT, str(error)) from error
        except Exception as error:
            raise Failed(exit_codes.CONNECT, f"{broker.address} can't be used: {error}") from error

    def _start_worker(self, broker: Broker) -> Worker:
        from ..worker import Worker

        for identity in self.start.dead:
            self._return_messages(broker, identity)
        if self.start.page is not None:
            broker.add_middleware(NoteRunning(self.start.board, self.start.page))
        if self.settings.max_tasks_per_child:
            broker.add_middleware(Retirement(self.settings.max_tasks_per_child, self.reporter))
        worker = Worker(broker, queues=self.settings.queues, worker_threads=self.settings.threads)
        worker.start()
        return worker

    def _return_messages(self, broker: Broker, identity: str) -> None:
        """Put back what a process held that died; else that happens when it has been silent for long."""
        try:
            broker.reclaim(identity)
        except Exception:
            self.logger.warning("The messages of dead worker %s come later.", identity, exc_info=True)

    def _forks(self, broker: Broker) -> list[str]:
        names = []
        for middleware in broker.middleware:
            for fork in middleware.forks:
                names.append(fork if isinstance(fork, str) else f"{fork.__module__}:{fork.__qualname__}")
        return names

    # -- stop --------------------------------------------------------------------------------------------

    def _stop(self, worker: Worker) -> None:
        if self.stopper.orphaned:
            self.logger.warning("The master has died: this worker process stops.")
            self.start.board.unlink()
        self.logger.info("Stopping worker process...")
        worker.stop(timeout=self.settings.shutdown_timeout)
        running = worker.running_messages()
        if running:
            self.abandoned = True
            self.logger.warning(
                "%d messages still ran after %d ms and are cut short; they come again: %s.",
                len(running),
                self.settings.shutdown_timeout,
                ", ".join(str(message) for message in running[:5]),
            )


class Retirement(Middleware):
    """Asks for a replacement of this process once it has run so many messages."""

    def __init__(self, most: int, reporter: Reporter) -> None:
        self.most = most
        self.reporter = reporter
        self.lock = threading.Lock()
        self.count = 0

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        with self.lock:
            self.count += 1
            due = self.count % self.most == 0  # again, should the replacement have failed
        if due:
            self.reporter.tell(RETIRE, text=f"it has run {self.most:,} messages")
