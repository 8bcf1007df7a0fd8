"""Measures nbqueue beside its peers and prints tables: `python -m benchmarks --help` says how."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import baseline, markdown, plot, rounds, tables
from benchmarks.measurements import ALL, COUNTS
from benchmarks.processes import BenchmarkError


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a number of at least 1")
    return int(text)


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/run",
        description="Measure nbqueue beside its peers, in turns in one run, and print tables of the ratios.",
        epilog="\n".join(
            f"--broker {broker}: {', '.join(measurements)}" for broker, measurements in ALL.items()
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("measurements", nargs="*", metavar="MEASUREMENT", help="what is measured (all)")
    parser.add_argument("--broker", choices=list(ALL), default="none", help="where (none: in process)")
    parser.add_argument("--peers", type=lambda text: text.split(","), metavar="NAME,…", help="beside whom")
    parser.add_argument(
        "--count", type=positive, help="messages of a drain; others take a share (10000, on RabbitMQ 5000)"
    )
    parser.add_argument("--rounds", type=positive, help="(5, of slow measurements fewer)")
    parser.add_argument(
        "--json", metavar="FILE", help="write every round's numbers there; - prints them alone"
    )
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="show saved JSON, measure nothing"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the peers beside each other")
    parser.add_argument(
        "--into", type=Path, metavar="PAGE.md", help="write the tables into their places in a page"
    )
    parser.add_argument(
        "--save-baseline",
        action="store_true",
        help=f"keep nbqueue's ratios in benchmarks/{baseline.PATH.name}",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help=f"fail when a ratio is more than {baseline.TOLERANCE:.0%} worse than the baseline's".replace(
            "%", "%%"
        ),
    )
    return parser


def check(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """End with an error that names what is wrong, and what would be right."""
    if given.source:
        check_source(parser, given)
    else:
        check_choice(parser, given)
    if given.into and not given.into.is_file():
        parser.error(f"--into {given.into}: no such page")
    if given.plot and given.plot.suffix not in (".svg", ".png"):
        parser.error(f"--plot {given.plot}: name a file that ends in .svg or .png")
    if given.save_baseline and given.compare:
        parser.error("--save-baseline and --compare: compare first, then save in a second call")


def check_source(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Check what is asked of a document: that it's there, and that nothing is to be measured."""
    if not given.source.is_file():
        parser.error(f"--from {given.source}: no such file; --json {given.source} writes one")
    options = {"--peers": given.peers, "--count": given.count, "--rounds": given.rounds}
    for word in [*given.measurements, *(option for option, value in options.items() if value)]:
        parser.error(f"--from {given.source} shows what was measured, all of it; {word}: leave it out")


def check_choice(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Check that the measurements and the peers exist."""
    known = ALL[given.broker]
    for name in given.measurements:
        if name not in known:
            elsewhere = [f"; --broker {broker} has it" for broker, others in ALL.items() if name in others]
            there = f"not measured with --broker {given.broker}, which has {', '.join(known)}"
            parser.error(f"{name}: {there}{''.join(elsewhere)}")
    for name in given.measurements or known:
        if given.measurements and given.peers and not known[name].rows(given.peers):
            parser.error(f"--peers {','.join(given.peers)}: {name} has none of them; leave out --peers")
    peers = list(dict.fromkeys(peer for name in given.measurements or known for peer in known[name].peers))
    for peer in given.peers or []:
        if peer not in peers:
            parser.error(f"--peers {peer}: not among {', '.join(peers) or 'any; leave out --peers'}")


def chosen_measurements(arguments: argparse.Namespace) -> list[str]:
    """Return what was named, or all that some of the chosen peers are in."""
    known = ALL[arguments.broker]
    if arguments.measurements:
        return list(dict.fromkeys(arguments.measurements))
    return [name for name, each in known.items() if not each.only_named and each.rows(arguments.peers)]


def loaded(path: Path) -> dict[str, Any]:
    """Read a document that --json wrote."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        unknown = found["measured"].keys() - ALL[found["broker"]].keys()
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BenchmarkError(f"{path} isn't what --json writes ({error!r}); measure again.") from error
    if unknown:
        raise BenchmarkError(f"{path} has unknown measurements: {', '.join(unknown)}; measure again.")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line()
    given = parser.parse_args(arguments)
    check(parser, given)
    try:
        if given.source:
            found = loaded(given.source)
        else:
            count = given.count or COUNTS[given.broker]
            found = rounds.run(given.broker, chosen_measurements(given), given.peers, count, given.rounds)
        hand_over(found, given)
    except BenchmarkError as error:
        sys.exit(str(error))


def hand_over(found: dict[str, Any], given: argparse.Namespace) -> None:
    """Write, show, draw, keep and compare what was found, as asked.

    Ends with 1 when something failed, and then keeps and compares nothing, or when something became worse.
    """
    text = json.dumps(found, indent=2)
    if given.json == "-":
        print(text)
    else:
        if given.json:
            Path(given.json).write_text(text + "\n")
        tables.show(found)
    if given.plot:
        plot.plot(found, given.plot)
    if failures := [failure for each in found["measured"].values() for failure in each["failures"]]:
        sys.exit("\n".join([f"{len(failures)} times a measurement failed:", *failures]))
    if given.into:
        markdown.update(given.into, found)
    if given.save_baseline:
        baseline.save(found, baseline.PATH)
    if given.compare:
        changes = baseline.compare(found, baseline.PATH)
        worse = baseline.regressions(changes)
        for change in worse:
            print(change, file=sys.stderr)
        print(
            f"{len(worse)} of {len(changes)} ratios became worse by over {baseline.TOLERANCE:.0%}.",
            file=sys.stderr,
        )
        if worse:
            sys.exit(1)


if __name__ == "__main__":
    main()
