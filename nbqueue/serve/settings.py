"""What a run was asked for. Travels to the children, so that it holds plain values only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServeSettings:
    """Times are in milliseconds."""

    #: `module`, `module:attribute` or a path of a file; and further modules to import.
    broker: str
    modules: tuple[str, ...] = ()
    processes: int = 1
    threads: int = 8
    path: tuple[str, ...] = (".",)
    queues: tuple[str, ...] | None = None
    pid_file: str | None = None
    log_file: str | None = None
    skip_logging: bool = False
    json_logs: bool = False
    verbose: int = 0
    use_spawn: bool = False
    fork_functions: tuple[str, ...] = ()
    fork_timeout: float = 30_000
    shutdown_timeout: int = 600_000
    watch: str | None = None
    watch_use_polling: bool = False
    watch_include: tuple[str, ...] = ()
    watch_exclude: tuple[str, ...] = ()
    #: Where messages, results and states are, when the command line says so.
    broker_url: str | None = None
    results_url: str | None = None
    state_url: str | None = None
    #: A worker process is replaced once it has run so many messages, or takes so many MB; None: never.
    max_tasks_per_child: int | None = None
    max_rss: int | None = None
    #: How often in a row a worker process may die young before the run ends.
    max_restarts: int = 10
    health_port: int | None = None
    #: Whether to stop when standard input ends, for the one that started the run has died then.
    stop_on_eof: bool = False
