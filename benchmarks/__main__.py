"""Measures nbqueue beside its peers and prints tables: `python -m benchmarks --help` says how."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from types import ModuleType

from benchmarks import in_process, on_rabbitmq, on_redis, tables
from benchmarks.peers import NAMES
from benchmarks.peers import on_rabbitmq as rabbitmq_peers
from benchmarks.processes import BenchmarkError


def peers_of(names: list[str]) -> Callable[[str], list[str]]:
    """Return what reads a list of peers that are among these."""

    def peers(text: str) -> list[str]:
        chosen = text.split(",")
        unknown = [name for name in chosen if name not in names]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(names)}")
        return chosen

    return peers


def add_options(parser: argparse.ArgumentParser, *, default: bool) -> None:
    """Add what every command takes; an inner parser sets no defaults: they would override the outer ones."""

    def initial(value: object) -> object:
        return value if default else argparse.SUPPRESS

    parser.add_argument(
        "--count", type=int, default=initial(None), help="messages a round (10000, on RabbitMQ 5000)"
    )
    parser.add_argument("--rounds", type=int, default=initial(5), help="(5)")
    parser.add_argument(
        "--json", action="store_true", default=initial(False), help="print the numbers of every round"
    )


def add_server(
    parser: argparse.ArgumentParser, module: ModuleType, shown: tables.Tables, names: list[str]
) -> None:
    """Add what the command of a server takes: its measurements and peers."""
    parser.add_argument("measurements", nargs="*", metavar="MEASUREMENT", help=f"of {', '.join(shown)} (all)")
    parser.add_argument(
        "--peers", type=peers_of(names), default=names, metavar="NAME,…", help=f"of {', '.join(names)} (all)"
    )
    parser.set_defaults(run=run_on_server, module=module, tables=shown)


def run_in_process(arguments: argparse.Namespace) -> None:
    logging.getLogger("nbqueue").addHandler(logging.NullHandler())
    measured = in_process.run(arguments.count, arguments.rounds)
    if arguments.json:
        print(json.dumps({"count": arguments.count, "measured": measured}, indent=2))
        return
    title = f"In process: {arguments.count:,} no-ops with results, {in_process.THREADS} threads"
    title += f", rounds: {arguments.rounds}"
    tables.show(tables.table(title, measured, tables.IN_PROCESS, "ThreadPoolExecutor", {}))


def run_on_server(arguments: argparse.Namespace) -> None:
    names = arguments.measurements or list(arguments.module.MEASUREMENTS)
    found = arguments.module.run(names, arguments.peers, arguments.count, arguments.rounds)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    anchor = "dramatiq" if "dramatiq" in arguments.peers else arguments.peers[0]
    notes = {peer: said["guarantee"] for peer, said in found["peers"].items()}
    drawn = []
    for name in names:
        title, columns = arguments.tables[name]
        title = title.format(count=arguments.count) + f", rounds: {arguments.rounds}"
        drawn.append(tables.table(title, found["measured"][name], columns, anchor, notes))
    tables.show(*drawn)
    versions = ", ".join(f"{peer} {said['version']}" for peer, said in found["peers"].items())
    print(f"{found['server']}, Python {sys.version.split()[0]}; {versions}.")
    for peer, said in found["peers"].items():
        if said["most"] < arguments.count:
            print(f"{peer}: drain and enqueue of {said['most']:,} messages only.")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure nbqueue beside its peers; in process when not told where.",
    )
    add_options(parser, default=True)
    commands = parser.add_subparsers(title="where")
    inside = commands.add_parser("in-process", help="threads of one process, beside ThreadPoolExecutor")
    redis = commands.add_parser("redis", help="on a Redis server, beside other task queues")
    rabbitmq = commands.add_parser("rabbitmq", help="on a RabbitMQ node, beside other task queues")
    for command in (inside, redis, rabbitmq):
        add_options(command, default=False)
    add_server(redis, on_redis, tables.ON_REDIS, NAMES)
    add_server(rabbitmq, on_rabbitmq, tables.ON_RABBITMQ, rabbitmq_peers.NAMES)
    parser.set_defaults(run=run_in_process)
    arguments = parser.parse_args()
    if arguments.count is None:
        arguments.count = 5_000 if getattr(arguments, "module", None) is on_rabbitmq else 10_000
    unknown = set(getattr(arguments, "measurements", [])) - set(getattr(arguments, "tables", []))
    if unknown:
        parser.error(f"no such measurement: {', '.join(unknown)}")
    try:
        arguments.run(arguments)
    except BenchmarkError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
