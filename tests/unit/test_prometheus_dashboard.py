"""The Grafana dashboard asks for metrics and labels that there are, in queries that fit their type."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from nbqueue.inspection import QueueStatus

from .prometheus_site import Site, proxy_of

ROOT = Path(__file__).parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "nbqueue.json").read_text())
PAGE = (ROOT / "docs" / "metrics.md").read_text()
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
VARIABLES: dict[str, dict[str, Any]] = {each["name"]: each for each in DASHBOARD["templating"]["list"]}

#: What a selector may look like, with its range, if it has one.
SELECTOR = re.compile(r"(nbqueue_\w+)(?:\{([^}]*)\})?(\[[^\]]*\])?")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
FUNCTIONS = {"sum", "max", "rate", "increase", "histogram_quantile"}


@dataclass(frozen=True)
class Exported:
    """A metric as it is served: its type, and the labels of its series."""

    type: str
    labels: frozenset[str]


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Exported]:
    """Every name that the exposition process serves."""
    status = QueueStatus("default", waiting=1, delayed=1, running=1, done=None, failed=None, dead=1)
    monkeypatch.setattr("nbqueue.inspection.queues", lambda broker: [status])
    site = Site(tmp_path, monkeypatch)
    site.depth.use(site.broker)
    proxy = proxy_of()
    site.broker.emit_before("process_message", proxy)
    site.broker.emit_after("process_message", proxy)
    delayed = proxy_of(queue_name="default.DQ")
    site.broker.emit_before("delay_message", delayed)
    text = site.get()[1]
    site.close()
    return {
        sample.name: Exported(family.type, frozenset(sample.labels))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def selectors(query: str) -> list[tuple[str, dict[str, str], str, str]]:
    """Return the name, the matchers, the range and what is before it, of each selector of a query."""
    found = []
    for match in SELECTOR.finditer(query):
        name, inside, span = match.group(1), match.group(2) or "", match.group(3) or ""
        matchers = {label: value for label, _, value in MATCHER.findall(inside)}
        left = re.sub(r"[,\s]", "", MATCHER.sub("", inside))
        assert left == "", f"{left!r} in {query!r} is no matcher"
        found.append((name, matchers, span, query[: match.start()]))
    return found


@pytest.mark.parametrize(("title", "target"), QUERIES)
def test_a_query_asks_for_what_there_is_and_suits_its_type(
    title: str, target: dict[str, Any], exported: dict[str, Exported]
) -> None:
    query: str = target["expr"]
    assert query.count("(") == query.count(")")
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")}
    asked = selectors(query)
    assert asked
    for name, matchers, span, before in asked:
        assert name in exported, f"{name} is not served"
        about = exported[name]
        assert set(matchers) <= about.labels
        assert grouped <= about.labels, f"{name} has no labels {grouped - about.labels}"
        wrapped = re.search(r"(rate|increase)\($", before)
        if about.type == "gauge":
            assert not wrapped
            assert not span, f"{name} is a gauge"
        else:
            assert wrapped, f"{name} only rises: ask for its rate"
            assert span == "[$__rate_interval]"
        if name.endswith("_bucket"):
            assert "le" in grouped
    called = set(re.findall(r"([a-z_]+) ?(?:by \([^)]*\) )?\(", SELECTOR.sub("", query)))
    assert called <= FUNCTIONS | {"by"}
    if "histogram_quantile" in query:
        assert re.match(r"histogram_quantile\(0\.\d+, sum by \(([\w, ]*\b)?le\) \(rate\(\w+_bucket\{", query)
    outermost = re.match(r"(?:histogram_quantile\(0\.\d+, )?(?:sum|max) by \(([^)]*)\)", query)
    told = set(outermost.group(1).split(", ")) if outermost else set()
    legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    assert legend == (told - {"le"} if "histogram_quantile" in query else told)
    assert set(re.findall(r"\$(\w+)", query)) <= {*VARIABLES, "__rate_interval"}


def test_every_metric_is_shown(exported: dict[str, Exported]) -> None:
    shown = {name for _, target in QUERIES for name, *_ in selectors(target["expr"])}
    served = {name for name in exported if name.startswith("nbqueue_") and not name.endswith("_created")}
    assert shown == served


def test_the_variables_choose_data_source_queue_and_actor(exported: dict[str, Exported]) -> None:
    assert list(VARIABLES) == ["datasource", "queue", "actor"]
    assert VARIABLES["datasource"]["type"] == "datasource"
    for name, label in (("queue", "queue_name"), ("actor", "actor_name")):
        query = VARIABLES[name]["query"]["query"]
        asked = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
        assert asked is not None
        assert asked.group(2) == label
        ((metric, matchers, _, _),) = selectors(asked.group(1))
        assert {label, *matchers} <= exported[metric].labels
    everywhere = [*PANELS, *(target for _, target in QUERIES), VARIABLES["queue"], VARIABLES["actor"]]
    assert {each["datasource"]["uid"] for each in everywhere} == {"${datasource}"}


def test_retries_and_delayed_messages_are_asked_for_where_they_are_counted() -> None:
    for _, target in QUERIES:
        for name, matchers, _, _ in selectors(target["expr"]):
            if "retries" in name or "delayed" in name:
                chosen = matchers["queue_name"].replace("$queue", "(default|other)")
                assert re.fullmatch(chosen, "default.DQ")
                assert re.fullmatch(matchers["queue_name"].replace("$queue", ".*"), "default.DQ")
                assert not re.fullmatch(chosen, "third.DQ")


def test_panels_are_told_apart_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    for key in ("id", "title"):
        assert len({panel[key] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not taken & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert DASHBOARD["schemaVersion"] >= 39
    assert {panel["type"] for panel in PANELS} == {"stat", "timeseries", "heatmap"}


def test_the_page_tells_of_every_metric_and_its_type(exported: dict[str, Exported]) -> None:
    told = dict(re.findall(r"^\| `(nbqueue_\w+)` \| (\w+) \|", PAGE, re.M))
    served = {
        re.sub(r"(milliseconds)_(bucket|sum|count)$", r"\1", name): each for name, each in exported.items()
    }
    assert told == {name: about.type for name, about in served.items() if name.startswith("nbqueue_")}


def test_the_alerts_of_the_page_ask_for_what_there_is(exported: dict[str, Exported]) -> None:
    (text,) = re.findall(r"```yaml\n(groups:.*?)```", PAGE, re.S)
    rules = yaml.safe_load(text)["groups"][0]["rules"]
    asked = [selector for rule in rules for selector in selectors(rule["expr"])]
    assert len(asked) >= len(rules)
    for name, matchers, span, before in asked:
        assert set(matchers) <= exported[name].labels
        rising = re.search(r"(rate|increase)\($", before) is not None
        assert rising == (exported[name].type != "gauge")
        assert rising <= bool(span)
