"""The parts of the benchmarks that measure nothing: numbers are matched, compared, shown and drawn.

None of the peers needs to be installed here.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import baseline, markdown, marks, plot, rounds, tables
from benchmarks.__main__ import command_line, main
from benchmarks.marks import Mark
from benchmarks.measurements import ALL
from benchmarks.measurements.acks import gap, lags, seen
from benchmarks.measurements.columns import Column
from benchmarks.measurements.measurement import Bench, Measurement, Numbers, percentiles
from benchmarks.processes import BenchmarkError

EVERY = [(broker, name) for broker, measurements in ALL.items() for name in measurements]


def peer(guarantee: str = "runs again", most: int = 1_000_000) -> dict[str, Any]:
    return {"guarantee": guarantee, "version": "1.0", "most": most}


def found(rows: dict[str, Any], name: str = "drain", broker: str = "redis", anchor: str = "dramatiq") -> Any:
    """Return a document with one measurement."""
    return {
        "broker": broker,
        "server": "Redis 7",
        "python": "3.11",
        "cores": 2,
        "peers": {row: peer() for row in rows},
        "measured": {name: {"count": 100, "rounds": 3, "anchor": anchor, "rows": rows, "failures": []}},
    }


def drained(rate: float, worker_cpu: float) -> Any:
    return found(
        {
            "nbqueue": {"rate": [rate], "worker_cpu": [worker_cpu], "twice": [2.0], "ack_p99": [9.0]},
            "dramatiq": {"rate": [100.0], "worker_cpu": [1.0], "twice": [1.0], "ack_p99": [1.0]},
        }
    )


def ends_with(capsys: pytest.CaptureFixture[str], arguments: Sequence[str], *words: str) -> None:
    """Expect a command line to fail with a message that has all of the words."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code not in (0, None)
    said = capsys.readouterr().err + str(ended.value.code)
    for word in words:
        assert word in said


# -- acks --------------------------------------------------------------------------------------------------


def test_an_ack_is_seen_at_the_first_look_that_shows_it():
    assert seen([(10, 0), (20, 2), (30, 2), (40, 3)]) == [20, 20, 40]


def test_acks_before_the_first_look_are_seen_at_that_look():
    assert seen([(10, 1), (20, 2)]) == [10, 20]


def test_an_ack_that_is_taken_back_counts_when_it_comes_for_good():
    assert seen([(10, 0), (20, 1), (30, 0), (40, 1), (50, 2)]) == [40, 50]


def test_acks_that_never_come_are_not_seen():
    assert seen([(10, 0), (20, 1)]) == [20]


def test_the_nth_ack_is_matched_with_the_nth_end():
    millisecond = 1_000_000
    assert lags("a", [3 * millisecond, millisecond], [4 * millisecond, 8 * millisecond]) == [3.0, 5.0]


def test_a_message_that_never_ran_is_an_error():
    with pytest.raises(BenchmarkError, match="a: 1 of 2 messages never ran"):
        lags("a", [5, 0], [6, 7])


def test_a_message_that_was_never_acked_is_an_error():
    with pytest.raises(BenchmarkError, match="a: 1 acks were seen for 2 messages"):
        lags("a", [5, 6], [7])


def test_the_resolution_is_the_median_gap():
    assert gap([(0, 0), (1_000_000, 0), (2_000_000, 0), (9_000_000, 1)]) == 1.0


# -- numbers -----------------------------------------------------------------------------------------------


def test_percentiles_are_the_median_and_the_99th():
    numbers = percentiles(list(range(101)), "short_")
    assert numbers == {"short_p50": 50, "short_p99": 99}


def test_rounds_begin_with_another_row_each_and_keep_every_number():
    order = []

    def measure(bench: Bench, value: int, count: int) -> Numbers:
        order.append((value, count))
        return {"rate": float(len(order))}

    measurement = Measurement(
        "", [Column("rate", "rate", 0)], measure, settings={"one": 1, "two": 2}, share=2
    )
    measured = rounds.interleaved(Bench(), "name", measurement, measurement.settings, 50, 2, {"two": 70})
    assert order == [(1, 100), (2, 70), (2, 70), (1, 100)]
    assert measured == {
        "count": 100,
        "rounds": 2,
        "anchor": "one",
        "rows": {"one": {"rate": [1.0, 4.0]}, "two": {"rate": [2.0, 3.0]}},
        "failures": [],
    }


def test_a_row_that_fails_leaves_the_others_their_rounds(capsys: pytest.CaptureFixture[str]):
    def measure(bench: Bench, value: int, count: int) -> Numbers:
        if value == 2:
            raise BenchmarkError("a message was lost")
        return {"rate": 1.0}

    settings = {"one": 1, "two": 2}
    measurement = Measurement("", [Column("rate", "rate", 0)], measure, settings=settings)
    measured = rounds.interleaved(Bench(), "drain", measurement, settings, 50, 2, {})
    assert measured["rows"] == {"one": {"rate": [1.0, 1.0]}, "two": {}}
    assert measured["failures"] == [
        "drain, round 1, two: a message was lost",
        "drain, round 2, two: a message was lost",
    ]
    assert "drain, round 1, two: a message was lost" in capsys.readouterr().err


@pytest.mark.parametrize(("broker", "name"), EVERY)
def test_each_measurement_has_an_anchor_among_its_rows_and_known_columns(broker: str, name: str):
    measurement = ALL[broker][name]
    rows = list(measurement.rows(None))
    assert measurement.anchor_of(rows) in rows
    assert bool(measurement.peers) != bool(measurement.settings)
    keys = [column.key for column in measurement.columns]
    assert len(keys) == len(set(keys))
    assert {column.better for column in measurement.columns} <= {"more", "less", ""}
    assert {column.against for column in measurement.columns} <= {*keys, ""}
    assert measurement.title.format(count=1)


def test_peers_that_take_long_are_left_out_unless_they_are_named():
    measurement = ALL["redis"]["processes"]
    assert list(measurement.rows(None)) == ["nbqueue", "dramatiq"]
    assert list(measurement.rows(["huey", "nbqueue"])) == ["nbqueue", "huey"]


# -- tables ------------------------------------------------------------------------------------------------


def test_a_cell_has_the_median_its_ratio_and_the_span():
    whole, tenths = Column("a", "", 0, better="more"), Column("a", "", 1, better="more")
    assert tables.cell(whole, {"a": [3000.0, 1000.0, 2000.0]}, {"a": [4000.0]}) == "2,000  0.50x\n1,000-3,000"
    assert tables.cell(tenths, {"a": [1.5]}, {"a": [122.0]}) == "1.5  0.012x"
    assert tables.cell(tenths, {}, {"a": [4.0]}) == "-"


def test_there_is_no_ratio_to_nothing():
    assert tables.ratio({"a": [2.0]}, {"a": [4.0]}, "a", "a") == 0.5
    assert tables.ratio({"a": [2.0]}, {"b": [4.0]}, "a", "b") == 0.5
    assert tables.ratio({"a": [2.0]}, {"a": [0.0]}, "a", "a") is None
    assert tables.ratio({}, {"a": [4.0]}, "a", "a") is None


def test_a_saved_document_is_shown_with_guarantees_and_versions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    saved = tmp_path / "found.json"
    document = drained(700.0, 0.1)
    document["peers"]["nbqueue"] = peer("runs again: surely", most=10)
    saved.write_text(json.dumps(document))
    main(["--from", str(saved)])
    shown = capsys.readouterr().out
    assert "700  7.00x" in shown
    assert "runs again: surely" in shown
    assert "Redis 7, Python 3.11, 2 cores; nbqueue 1.0, dramatiq 1.0." in shown
    assert "nbqueue: measurements of 10 messages at most." in shown


def test_json_is_printed_alone_and_can_be_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    saved, copy = tmp_path / "found.json", tmp_path / "copy.json"
    saved.write_text(json.dumps(drained(700.0, 0.1)))
    main(["--from", str(saved), "--json", "-"])
    assert json.loads(capsys.readouterr().out) == drained(700.0, 0.1)
    main(["--from", str(saved), "--json", str(copy)])
    assert json.loads(copy.read_text()) == drained(700.0, 0.1)


# -- the baseline ------------------------------------------------------------------------------------------


def test_the_direction_of_a_change_is_that_of_its_column():
    assert baseline.worsening(2.0, 1.0, "more") == 0.5
    assert baseline.worsening(2.0, 3.0, "less") == 0.5
    assert baseline.worsening(2.0, 3.0, "more") == -0.5
    assert baseline.worsening(2.0, 1.0, "less") == -0.5


@pytest.mark.parametrize(
    ("rate", "cpu", "worse"),
    [
        (600.0, 0.110, []),  # 14.3 % slower, 10 % more
        (590.0, 0.100, ["rate"]),  # 15.7 % slower
        (700.0, 0.116, ["worker_cpu"]),  # 16 % more
        (100.0, 0.900, ["worker_cpu", "rate"]),  # the worst one first
        (9000.0, 0.001, []),
    ],
)
def test_a_ratio_that_is_over_15_percent_worse_is_a_regression(
    tmp_path: Path, rate: float, cpu: float, worse: list[str]
):
    path = tmp_path / "baseline.json"
    baseline.save(drained(700.0, 0.1), path)
    changes = baseline.compare(drained(rate, cpu), path)
    assert len(changes) == 2
    assert [change.column for change in baseline.regressions(changes)] == worse


def test_a_baseline_holds_ratios_and_keeps_those_of_other_measurements(tmp_path: Path):
    path = tmp_path / "baseline.json"
    baseline.save(drained(700.0, 0.1), path)
    settings = {"1 queue": {"rate": [50.0]}, "10 queues": {"rate": [40.0]}, "100 queues": {"rate": [30.0]}}
    baseline.save(found(settings, name="queues", anchor="1 queue"), path)
    assert json.loads(path.read_text()) == {
        "redis": {
            "drain": {"anchor": "dramatiq", "ratios": {"nbqueue": {"rate": 7.0, "worker_cpu": 0.1}}},
            "queues": {
                "anchor": "1 queue",
                "ratios": {"10 queues": {"rate": 0.8}, "100 queues": {"rate": 0.6}},
            },
        }
    }


def test_comparing_needs_a_baseline_all_its_columns_and_its_anchor(tmp_path: Path):
    path = tmp_path / "baseline.json"
    with pytest.raises(BenchmarkError, match="no ratios of drain: run it with --save-baseline"):
        baseline.compare(drained(700.0, 0.1), path)
    baseline.save(drained(700.0, 0.1), path)
    less = drained(700.0, 0.1)
    del less["measured"]["drain"]["rows"]["nbqueue"]["rate"]
    with pytest.raises(BenchmarkError, match=r"nbqueue: rate is in .* and wasn't measured"):
        baseline.compare(less, path)
    other = drained(700.0, 0.1)
    other["measured"]["drain"]["anchor"] = "huey"
    with pytest.raises(BenchmarkError, match="ratios to dramatiq, not to huey; add it to --peers"):
        baseline.save(other, path)


def test_compare_ends_with_1_and_lists_what_became_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    saved = tmp_path / "found.json"
    monkeypatch.setattr(baseline, "PATH", tmp_path / "baseline.json")
    saved.write_text(json.dumps(drained(700.0, 0.1)))
    main(["--from", str(saved), "--save-baseline"])
    main(["--from", str(saved), "--compare"])
    assert "0 of 2 ratios became worse by over 15%." in capsys.readouterr().err
    saved.write_text(json.dumps(drained(350.0, 0.1)))
    with pytest.raises(SystemExit) as ended:
        main(["--from", str(saved), "--compare"])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "drain, nbqueue, rate: 3.5x, was 7x, 50% worse" in said
    assert "1 of 2 ratios became worse by over 15%." in said


def test_what_failed_is_shown_and_neither_kept_nor_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    saved = tmp_path / "found.json"
    monkeypatch.setattr(baseline, "PATH", tmp_path / "baseline.json")
    document = drained(700.0, 0.1)
    document["measured"]["drain"]["failures"] = ["drain, round 1, huey: a message was lost"]
    saved.write_text(json.dumps(document))
    with pytest.raises(SystemExit, match="huey: a message was lost"):
        main(["--from", str(saved), "--save-baseline"])
    assert "700  7.00x" in capsys.readouterr().out
    assert not baseline.PATH.exists()


# -- the drawing -------------------------------------------------------------------------------------------


def test_a_plot_is_an_svg_without_background(tmp_path: Path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "peers.svg"
    rows = {"nbqueue": {"rate": [700.0, 800.0]}, "huey": {"rate": [300.0]}, "dramatiq": {"rate": [100.0]}}
    plot.plot(found(rows), path)
    drawing = ElementTree.parse(path).getroot()
    assert drawing.tag.endswith("svg")
    styles = [part.get("style", "") for part in drawing.iter()]
    assert sum(plot.OWN in style for style in styles) == 1
    assert sum(plot.OTHERS in style for style in styles) == 2
    assert not any("fill: #ffffff" in style for style in styles)


def test_a_plot_of_nothing_is_an_error_that_says_what_can_be_drawn(tmp_path: Path):
    with pytest.raises(BenchmarkError, match="--plot draws drain, enqueue"):
        plot.plot(found({"nbqueue": {"sent": [1.0]}}, name="idle"), tmp_path / "none.svg")


# -- the README --------------------------------------------------------------------------------------------


def test_the_readme_has_every_measurement_and_option():
    text = Path(baseline.__file__).with_name("README.md").read_text()
    lines = text.splitlines()
    for _, name in EVERY:
        assert any(line.startswith("| ") and name in line.split("|")[1] for line in lines), name
    for option in command_line().format_help().split():
        if option.startswith("--") and option.strip("[]:") not in ("--help", "--broker"):
            assert f"`{option.strip('[]:')}" in text, option


# -- the command line --------------------------------------------------------------------------------------


def test_an_unknown_measurement_is_named_with_those_there_are(capsys: pytest.CaptureFixture[str]):
    ends_with(capsys, ["drian", "--broker", "redis"], "drian: not measured with --broker redis", "drain, ")


def test_a_measurement_of_another_broker_is_named_with_that(capsys: pytest.CaptureFixture[str]):
    ends_with(capsys, ["drain"], "--broker redis has it", "--broker rabbitmq has it")


def test_an_unknown_peer_is_named_with_those_there_are(capsys: pytest.CaptureFixture[str]):
    ends_with(
        capsys, ["drain", "--broker", "redis", "--peers", "nbqueue,arq"], "--peers arq: not among nbqueue,"
    )


def test_peers_of_a_measurement_beside_itself_are_an_error(capsys: pytest.CaptureFixture[str]):
    ends_with(
        capsys, ["backlog", "--broker", "redis", "--peers", "huey"], "--peers huey", "leave out --peers"
    )


@pytest.mark.parametrize("option", ["--count", "--rounds"])
def test_a_number_below_1_is_an_error(option: str, capsys: pytest.CaptureFixture[str]):
    ends_with(capsys, [option, "0"], option, "0: give a number of at least 1")
    ends_with(capsys, [option, "many"], option, "many: give a number of at least 1")


def test_a_plot_needs_a_known_ending(capsys: pytest.CaptureFixture[str]):
    ends_with(capsys, ["--plot", "peers.gif"], "--plot peers.gif", ".svg or .png")


def test_a_missing_or_foreign_document_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    missing, foreign = tmp_path / "missing.json", tmp_path / "foreign.json"
    ends_with(capsys, ["--from", str(missing)], str(missing), "no such file", "--json")
    foreign.write_text('{"measured": []}')
    ends_with(capsys, ["--from", str(foreign)], str(foreign), "isn't what --json writes")


def test_a_document_is_not_measured_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    saved = tmp_path / "found.json"
    saved.write_text(json.dumps(drained(700.0, 0.1)))
    ends_with(capsys, ["drain", "--from", str(saved)], "--from", "drain", "leave it out")
    ends_with(capsys, ["--from", str(saved), "--count", "5"], "--from", "--count", "leave it out")


# -- pages -------------------------------------------------------------------------------------------------

PAGE = """Before.

<!-- measured: redis drain -->
old
<!-- end -->

<!-- measured: none drain -->
as it was
<!-- end -->
"""


def test_a_table_comes_into_its_place_in_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    markdown.update(page, found({"nbqueue": {"rate": [300.0, 500.0, 400.0]}, "dramatiq": {"rate": [100.0]}}))
    text = page.read_text()
    assert "| messages/s | 400, **4.00x**<br><small>300-500</small> | 100 |" in text
    assert "| | nbqueue 1.0 | dramatiq 1.0 |" in text
    assert "| a message whose worker dies | runs again | runs again |" in text
    assert "worker RSS" not in text  # nobody measured it
    assert "old" not in text
    assert text.startswith("Before.\n\n<!-- measured: redis drain -->\n\n")
    assert text.endswith(PAGE[PAGE.index("<!-- end -->") :])


def test_a_page_without_a_place_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    with pytest.raises(BenchmarkError, match="<!-- measured: redis enqueue -->"):
        markdown.update(page, found({"nbqueue": {"rate": [1.0]}}, "enqueue", anchor="nbqueue"))
    assert page.read_text() == PAGE


# -- marks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broker", ALL)
def test_marks_are_set_to_what_is_measured(broker: str) -> None:
    for mark in marks.MARKS[broker]:
        measurement = ALL[broker][mark.measurement]
        rows = [*measurement.rows(None), *measurement.optional]
        assert mark.row in rows
        assert not mark.to or mark.to in (*rows, marks.OTHERS)
        assert {mark.column, mark.against or mark.column} <= {column.key for column in measurement.columns}
        assert (mark.at_least is None) != (mark.at_most is None)


@pytest.mark.parametrize(
    ("mark", "bound", "shown", "verdict"),
    [
        (Mark("", "drain", "rate", at_least=2, to="dramatiq"), ">= 2x", "4x", "reached"),
        (Mark("", "drain", "rate", at_least=5, to="dramatiq"), ">= 5x", "4x", "missed by 20%"),
        (Mark("", "drain", "rate", at_least=1, to=marks.OTHERS), ">= 1x", "0.8x", "missed by 20%"),
        (Mark("", "drain", "cpu", at_most=0.5, to="dramatiq"), "<= 0.5x", "0.25x", "reached"),
        (Mark("", "drain", "cpu", at_most=1, unit="s"), "<= 1 s", "1.5 s", "missed by 50%"),
    ],
)
def test_a_mark_says_whether_it_is_reached(mark: Mark, bound: str, shown: str, verdict: str) -> None:
    rows = {
        "nbqueue": {"rate": [300.0, 400.0, 500.0], "cpu": [1.5]},
        "dramatiq": {"rate": [100.0], "cpu": [6.0]},
        "huey": {"rate": [500.0]},
    }
    number = mark.reached(rows)
    assert number is not None
    assert mark.line(number) == f"|  | {bound} | {shown} | {verdict} |"


def test_a_mark_says_nothing_of_what_was_not_measured() -> None:
    assert Mark("", "drain", "rate", at_least=2, to="dramatiq").reached({"nbqueue": {"rate": [1.0]}}) is None
    assert Mark("", "drain", "rate", at_least=2).reached({}) is None


RESULTS = sorted((Path(baseline.__file__).parent / "results").glob("*.json"))


def test_the_tables_of_the_documentation_are_what_was_measured() -> None:
    """`benchmarks/run --from benchmarks/results/redis.json --into docs/performance.md` renews them."""
    text = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    assert {path.stem for path in RESULTS} == set(ALL)
    for path in RESULTS:
        measured = json.loads(path.read_text())
        for name in ["marks", *measured["measured"]]:
            assert f"<!-- measured: {measured['broker']} {name} -->" in text
        assert markdown.updated(text, measured) == text, path.name
