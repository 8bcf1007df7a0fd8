"""The arguments of `nbqueue serve`: those of the compatible command line, and some more."""

from __future__ import annotations

import argparse
import os
from typing import NoReturn

from .. import __version__
from ..serve.settings import ServeSettings

EXAMPLES = """\
examples:
  nbqueue serve tasks                                  the actors of tasks.py, on the broker that it sets
  nbqueue serve tasks --broker-url redis://localhost   or on this one
  nbqueue serve shop.tasks:broker shop.emails -p 4 -t 16
  nbqueue serve tasks -Q emails --pid-file serve.pid --log-file serve.log
  nbqueue serve tasks --watch .                        reload when a source file changes

signals to the first process:
  INT, TERM   stop: running actors may finish; a second one kills them now
  HUP         load the code anew, one worker process after another

exit codes:
  0 stopped, 1 killed, 2 a module can't be imported or an argument is wrong,
  3 the broker can't be reached, 4 the pid file is in use or can't be written
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help lists the arguments)\n")


def make_argument_parser() -> argparse.ArgumentParser:
    """Return the parser of `nbqueue serve`."""
    parser = _Parser(
        prog="nbqueue serve",
        description="Run worker processes for the actors of a module.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("broker", metavar="MODULE[:BROKER]", help="a module, a file, or a broker in a module")
    add("modules", metavar="MODULE", nargs="*", default=[], help="further modules to import")
    processes = _usable_cpus()
    add("--processes", "-p", type=_at_least_1, default=processes, metavar="N",
        help=f"worker processes (default: {processes}, the number of CPUs that it may use)")  # fmt: skip
    add("--threads", "-t", type=_at_least_1, default=8, metavar="N",
        help="worker threads in each (default: 8)")  # fmt: skip
    add("--path", "-P", nargs="*", default=["."], metavar="DIR",
        help="where to look for modules first (default: .)")  # fmt: skip
    add("--queues", "-Q", nargs="*", metavar="QUEUE", help="the queues to consume (default: all)")
    add("--broker-url", metavar="URL", help="where messages are: redis://, rediss://, amqp://, amqps://")
    add("--results-url", metavar="URL", help="where results are: redis://, memcached://")
    add("--state-url", metavar="URL", help="where message states are: redis://")
    add("--pid-file", metavar="FILE", help="write the id of the first process here")
    add("--log-file", metavar="FILE", help="append what is logged here (default: stderr)")
    add("--skip-logging", action="store_true", help="leave logging to the module")
    add("--json-logs", action="store_true", help="log one JSON object a line")
    add("--use-spawn", action="store_true", help="start processes afresh instead of forking them")
    add("--fork-function", "-f", action="append", type=_function, default=[], dest="forks",
        metavar="MODULE:NAME",
        help="run this function in a process of its own, too (repeatable)")  # fmt: skip
    add("--worker-fork-timeout", type=_fork_timeout, default=30_000.0, metavar="MS",
        help="wait so long for the workers before that (default: 30000)")  # fmt: skip
    add("--worker-shutdown-timeout", type=_at_least_0, default=600_000, metavar="MS",
        help="how long running actors may take when stopping (default: 600000)")  # fmt: skip
    add("--max-tasks-per-child", type=_at_least_1, metavar="N",
        help="replace a worker process after so many messages")  # fmt: skip
    add("--max-rss", type=_at_least_1, metavar="MB", help="replace a worker process that takes more memory")
    add("--max-restarts", type=_at_least_0, default=10, metavar="N",
        help="stop when a worker process dies so often in a row, each time within a minute; 0: at the "
        "first death (default: 10)")  # fmt: skip
    add("--health-port", type=_port, metavar="PORT", help="answer /healthz and /readyz here")
    add("--stop-on-eof", action="store_true", help="stop when standard input ends")
    add("--watch", metavar="DIR", help="reload when a source file below this folder changes")
    add("--watch-use-polling", action="store_true", help="look at the files again and again")
    add("--watch-include", "-i", action="append", default=[], metavar="PATTERN",
        help="watch these files as well as **.py (repeatable)")  # fmt: skip
    add("--watch-exclude", "-x", action="append", default=[], metavar="PATTERN",
        help="don't watch these (repeatable)")  # fmt: skip
    add("--version", action="version", version=__version__)
    add("--verbose", "-v", action="count", default=0, help="log more")
    return parser


def settings_from(asked: argparse.Namespace) -> ServeSettings:
    """Return what was asked for."""
    return ServeSettings(
        broker=asked.broker,
        modules=tuple(asked.modules),
        processes=asked.processes,
        threads=asked.threads,
        path=tuple(asked.path),
        queues=tuple(asked.queues) if asked.queues else None,
        pid_file=asked.pid_file,
        log_file=asked.log_file,
        skip_logging=asked.skip_logging,
        json_logs=asked.json_logs,
        verbose=asked.verbose,
        use_spawn=asked.use_spawn,
        fork_functions=tuple(asked.forks),
        fork_timeout=asked.worker_fork_timeout,
        shutdown_timeout=asked.worker_shutdown_timeout,
        watch=asked.watch,
        watch_use_polling=asked.watch_use_polling,
        watch_include=tuple(asked.watch_include),
        watch_exclude=tuple(asked.watch_exclude),
        broker_url=asked.broker_url,
        results_url=asked.results_url,
        state_url=asked.state_url,
        max_tasks_per_child=asked.max_tasks_per_child,
        max_rss=asked.max_rss,
        max_restarts=asked.max_restarts,
        health_port=asked.health_port,
        stop_on_eof=asked.stop_on_eof,
    )


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _at_least_1(text: str) -> int:
    return _whole(text, 1)


def _at_least_0(text: str) -> int:
    return _whole(text, 0)


def _port(text: str) -> int:
    number = _whole(text, 0)
    if number > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535")
    return number


def _whole(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if number < least:
        raise argparse.ArgumentTypeError(f"{text} is less than {least}")
    return number


def _function(text: str) -> str:
    module, _, name = text.rpartition(":")
    if not (module and name):
        raise argparse.ArgumentTypeError(f"{text!r} names no function: write MODULE:NAME")
    return text


def _fork_timeout(text: str) -> float:
    try:
        milliseconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError("worker-fork-timeout be a number.") from None
    if not milliseconds >= 10:  # nor is it "nan"
        raise argparse.ArgumentTypeError("worker-fork-timeout too small (minimum recommended: 10ms).")
    if milliseconds > 1_800_000:
        raise argparse.ArgumentTypeError("worker-fork-timeout too large (maximum: 30 minutes).")
    return milliseconds
