"""Measures nbqueue beside its peers and prints tables: `python -m benchmarks --help` says how."""

from __future__ import annotations

import argparse
import json
import logging
import sys

from benchmarks import in_process, on_redis, tables
from benchmarks.peers import NAMES
from benchmarks.processes import BenchmarkError


def peers(text: str) -> list[str]:
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(NAMES)}")
    return chosen


def add_options(parser: argparse.ArgumentParser, *, default: bool) -> None:
    """Add what every command takes; an inner parser sets no defaults: they would override the outer ones."""

    def initial(value: object) -> object:
        return value if default else argparse.SUPPRESS

    parser.add_argument("--count", type=int, default=initial(10_000), help="messages a round (10000)")
    parser.add_argument("--rounds", type=int, default=initial(5), help="(5)")
    parser.add_argument(
        "--json", action="store_true", default=initial(False), help="print the numbers of every round"
    )


def run_in_process(arguments: argparse.Namespace) -> None:
    logging.getLogger("nbqueue").addHandler(logging.NullHandler())
    measured = in_process.run(arguments.count, arguments.rounds)
    if arguments.json:
        print(json.dumps({"count": arguments.count, "measured": measured}, indent=2))
        return
    title = f"In process: {arguments.count:,} no-ops with results, {in_process.THREADS} threads"
    title += f", rounds: {arguments.rounds}"
    tables.show(tables.table(title, measured, tables.IN_PROCESS, "ThreadPoolExecutor", {}))


def run_on_redis(arguments: argparse.Namespace) -> None:
    names = arguments.measurements or list(on_redis.MEASUREMENTS)
    found = on_redis.run(names, arguments.peers, arguments.count, arguments.rounds)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    anchor = "dramatiq" if "dramatiq" in arguments.peers else arguments.peers[0]
    notes = {peer: said["guarantee"] for peer, said in found["peers"].items()}
    drawn = []
    for name in names:
        title, columns = tables.ON_REDIS[name]
        title = title.format(count=arguments.count) + f", rounds: {arguments.rounds}"
        drawn.append(tables.table(title, found["measured"][name], columns, anchor, notes))
    tables.show(*drawn)
    versions = ", ".join(f"{peer} {said['version']}" for peer, said in found["peers"].items())
    print(f"Redis {found['redis']} without persistence, Python {sys.version.split()[0]}; {versions}.")
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
    for command in (inside, redis):
        add_options(command, default=False)
    redis.add_argument(
        "measurements", nargs="*", metavar="MEASUREMENT", help=f"of {', '.join(on_redis.MEASUREMENTS)} (all)"
    )
    redis.add_argument(
        "--peers", type=peers, default=NAMES, metavar="NAME,…", help=f"of {', '.join(NAMES)} (all)"
    )
    parser.set_defaults(run=run_in_process)
    redis.set_defaults(run=run_on_redis)
    arguments = parser.parse_args()
    unknown = set(getattr(arguments, "measurements", [])) - on_redis.MEASUREMENTS.keys()
    if unknown:
        redis.error(f"no such measurement: {', '.join(unknown)}")
    try:
        arguments.run(arguments)
    except BenchmarkError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
