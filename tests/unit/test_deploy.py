"""What `deploy/` and the guides say: files that exist, times that fit, command lines that are understood."""

from __future__ import annotations

import configparser
import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from nbqueue.cli import make_argument_parser
from nbqueue.cli.app import app
from nbqueue.serve import exit_codes, health, master

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "nbqueue.service"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
COMPOSE_FILES = [ROOT / "compose.yaml", DEPLOY / "compose.yaml"]
GUIDES = [ROOT / "docs" / "serve.md", ROOT / "docs" / "production.md"]


def parsed(command: list[str]) -> Any:
    """Return what `nbqueue serve` makes of a command line; SystemExit when it doesn't understand it."""
    assert (Path(command[0]).name, command[1]) in (("nbqueue", "serve"), ("nbqueue-gevent", "serve")), command
    return make_argument_parser().parse_args(command[2:])


def longest_stop(command: list[str]) -> float:
    """Return the seconds after which a run has ended at the latest, once it was told to."""
    return 2 * parsed(command).worker_shutdown_timeout / 1000 + master.BEYOND + master.FORCE


# -- systemd ---------------------------------------------------------------------------------------------


def unit() -> dict[str, str]:
    """Return the [Service] section, with the names as they are written."""
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT)
    return dict(parser["Service"])


def test_the_unit_gives_workers_the_time_that_they_may_take() -> None:
    service = unit()
    assert int(service["TimeoutStopSec"]) > longest_stop(shlex.split(service["ExecStart"]))
    assert (service["KillMode"], service["KillSignal"]) == ("mixed", "SIGTERM")


def test_the_unit_is_told_when_workers_are_ready_and_reloads_them() -> None:
    service = unit()
    assert service["Type"] == "notify"
    assert shlex.split(service["ExecReload"]) == ["/bin/kill", "-HUP", "$MAINPID"]


def test_the_unit_starts_again_after_what_may_pass() -> None:
    service = unit()
    assert service["Restart"] == "on-failure"
    given_up = {int(code) for code in service["RestartPreventExitStatus"].split()}
    assert given_up == {exit_codes.IMPORT, exit_codes.PID_FILE}
    assert service["OOMPolicy"] == "continue"


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """By its own verifier where that is installed; else every line is a section, a comment or a setting."""
    text = UNIT.read_text()
    for line in text.splitlines():
        assert re.fullmatch(r"|#.*|\[(Unit|Service|Install)\]|[A-Z][A-Za-z]+=.*", line), line
    program = shutil.which("systemd-analyze")
    if program is not None:
        copy = tmp_path / UNIT.name
        copy.write_text(text.replace("/opt/shop/.venv/bin/nbqueue", sys.executable))
        done = subprocess.run([program, "verify", str(copy)], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_environment_file_sets_variables_that_are_read() -> None:
    lines = (DEPLOY / "systemd" / "nbqueue.env").read_text().splitlines()
    settings = [line.removeprefix("#") for line in lines if re.match(r"#?[A-Z]", line)]
    names = {line.partition("=")[0] for line in settings}
    assert names == {"NBQUEUE_BROKER_URL", "NBQUEUE_RESULTS_URL"}
    assert unit()["EnvironmentFile"] == "/etc/nbqueue/nbqueue.env"


# -- the container ---------------------------------------------------------------------------------------


def dockerfile() -> list[tuple[str, str]]:
    """Return its instructions, each with its arguments."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.M).replace("\\\n", "")
    words = [line.partition(" ") for line in text.splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in words]


def last(instruction: str) -> str:
    return [rest for word, rest in dockerfile() if word == instruction][-1]


def is_sent(path: str) -> bool:
    """Whether `.dockerignore` lets a path through to the builder: the last pattern that fits decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if not line or line.startswith("#"):
            continue
        parts = path.split("/")
        if pattern.startswith("**/"):
            fits = any(fnmatch.fnmatch(part, pattern.removeprefix("**/")) for part in parts)
        else:
            fits = any(fnmatch.fnmatch("/".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))
        if fits:
            sent = line.startswith("!")
    return sent


def copied() -> list[str]:
    """Return what is copied into the image from the builder's context."""
    found: list[str] = []
    for word, rest in dockerfile():
        if word == "COPY" and "--from" not in rest:
            found += rest.split()[:-1]
    return found


def test_what_the_container_copies_is_there_and_enough() -> None:
    for path in copied():
        assert (ROOT / path).exists(), path
        assert is_sent(path), path
    project = (ROOT / "pyproject.toml").read_text()
    named = re.findall(r"^(?:readme|license-files|packages|force-include) = (.*)$", project, re.M)
    needed = {"pyproject.toml", *re.findall(r'"([^"]+)"', " ".join(named))}
    assert len(needed) == 5
    assert needed <= set(copied())


@pytest.mark.parametrize(
    "path", [".git/config", ".venv/bin/python", "deploy/systemd/nbqueue.env", "deploy/app/.env", "tests/x.py"]
)
def test_the_container_gets_nothing_else(path: str) -> None:
    assert not is_sent(path)


def test_the_container_runs_workers_as_its_first_process() -> None:
    command = json.loads(last("CMD"))
    assert parsed(command).broker == "tasks"
    assert last("STOPSIGNAL") == "SIGTERM"
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last("USER"))
    check = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", last("HEALTHCHECK"))
    assert check is not None
    assert int(check[1]) == parsed(command).health_port
    assert health.answer(check[2], {"ready": 1, "processes": 1})[0] == 200
    assert check[1] in last("EXPOSE").split()
    assert not [rest for word, rest in dockerfile() if word == "ENV" and re.search("URL|PASS|SECRET", rest)]


# -- Kubernetes ------------------------------------------------------------------------------------------


def manifests() -> list[dict[str, Any]]:
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]


def kinds(kind: str) -> list[dict[str, Any]]:
    return [document for document in manifests() if document["kind"] == kind]


def pod() -> dict[str, Any]:
    (deployment,) = kinds("Deployment")
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def test_the_pod_is_given_the_time_that_its_workers_may_take() -> None:
    (worker,) = pod()["containers"]
    assert pod()["terminationGracePeriodSeconds"] > longest_stop(worker["command"])


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_the_probes_ask_where_workers_answer(probe: str) -> None:
    (worker,) = pod()["containers"]
    asked = worker[probe]["httpGet"]
    ports = {port["name"]: port["containerPort"] for port in worker["ports"]}
    assert ports[asked["port"]] == parsed(worker["command"]).health_port
    one_of_two = {"ready": 1, "processes": 2}
    wanted = 503 if probe == "readinessProbe" else 200
    assert health.answer(asked["path"], one_of_two)[0] == wanted
    assert health.answer(asked["path"], {"ready": 2, "processes": 2})[0] == 200


def test_the_pod_is_nobody_and_writes_to_tmp_only() -> None:
    (worker,) = pod()["containers"]
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert str(pod()["securityContext"]["runAsUser"]) == last("USER").partition(":")[0]
    assert worker["securityContext"]["readOnlyRootFilesystem"] is True
    assert worker["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert [mount["mountPath"] for mount in worker["volumeMounts"]] == ["/tmp"]
    assert worker["resources"]["limits"]["memory"]


def test_manifests_name_each_other_and_hold_no_secrets() -> None:
    (deployment,) = kinds("Deployment")
    name, labels = deployment["metadata"]["name"], deployment["spec"]["selector"]["matchLabels"]
    assert deployment["spec"]["template"]["metadata"]["labels"] == labels
    for budget in kinds("PodDisruptionBudget"):
        assert budget["spec"]["selector"]["matchLabels"] == labels
    accesses = {access["metadata"]["name"]: access["spec"] for access in kinds("TriggerAuthentication")}
    scaled = kinds("ScaledObject")
    assert {each["spec"]["triggers"][0]["type"] for each in scaled} == {"redis", "rabbitmq"}
    for each in scaled:
        assert each["spec"]["scaleTargetRef"]["name"] == name
        assert each["spec"]["minReplicaCount"] >= 1
        for trigger in each["spec"]["triggers"]:
            assert trigger["authenticationRef"]["name"] in accesses
    assert not kinds("Secret")


def test_the_autoscaler_counts_the_queue_as_it_is_called() -> None:
    from nbqueue.brokers.redis.keys import Keys
    from nbqueue.session import DEFAULT_NAMESPACE

    triggers = {
        each["spec"]["triggers"][0]["type"]: each["spec"]["triggers"][0] for each in kinds("ScaledObject")
    }
    assert triggers["redis"]["metadata"]["listName"] == Keys(DEFAULT_NAMESPACE).queue("default")
    assert triggers["rabbitmq"]["metadata"]["queueName"] == "default"
    assert all(isinstance(value, str) for each in triggers.values() for value in each["metadata"].values())


# -- compose ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=["root", "deploy"])
def test_compose_files_hang_together(path: Path) -> None:
    described = yaml.safe_load(path.read_text())
    services = described["services"]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (path.parent / source).exists(), source
            else:
                assert source in described["volumes"], source
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), port
        if "build" in service:
            context = path.parent / service["build"]["context"]
            assert (context / service["build"]["dockerfile"]).exists()
            command = service.get("command") or json.loads(last("CMD"))
            assert int(service["stop_grace_period"].removesuffix("s")) > longest_stop(command)
            for name in service["environment"].values():
                host = re.search(r"(?:@|//)(?:.*@)?([\w-]+):\d+", name)
                assert host is not None, name
                assert host[1] in services, name


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=["root", "deploy"])
def test_compose_accepts_its_files(path: Path) -> None:
    """By the program itself where it is installed (no engine is needed); else they are as it wants them."""
    for program in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(program[0])
            and not subprocess.run([*program, "version"], capture_output=True).returncode
        ):
            command = [*program, "--file", str(path), "config", "--quiet"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
    services = yaml.safe_load(path.read_text())["services"]
    assert all("image" in service for service in services.values())


def test_prometheus_asks_the_workers_of_the_compose_file() -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    (source,) = job["dns_sd_configs"]
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert set(source["names"]) <= set(services)
    assert str(source["port"]) in last("EXPOSE").split()


def test_grafana_finds_its_dashboard_and_its_source() -> None:
    grafana = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["grafana"]
    folders = dict(volume.split(":")[:2][::-1] for volume in grafana["volumes"])
    (provider,) = yaml.safe_load((DEPLOY / "provisioning/dashboards/nbqueue.yaml").read_text())["providers"]
    assert list((DEPLOY / folders[provider["options"]["path"]]).glob("*.json"))
    sources = yaml.safe_load((DEPLOY / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert [source["url"] for source in sources] == ["http://prometheus:9090"]


def test_redis_is_set_up_as_the_page_on_persistence_says() -> None:
    page = (ROOT / "docs" / "persistence.md").read_text()
    block = re.search(r"```conf\n(.*?)```", page, re.S)
    assert block is not None
    lines = (DEPLOY / "redis" / "redis.conf").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == block[1].splitlines()


# -- the guides ------------------------------------------------------------------------------------------


def command_lines(text: str) -> list[str]:
    """Return the command lines of nbqueue in a text: in blocks of code, in quoted words, in settings."""
    text = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(r"^    (?:[^#\n]* )?(nbqueue(?:-gevent)? \w[^#\n]*)$", text, re.M)
    lines += re.findall(r"=\S*/(nbqueue .*)$", text, re.M)
    lines += re.findall(r"`(?:\S*/)?(nbqueue(?:-gevent)? \w[^`…]*)`", text)
    return [line.strip() for line in lines]


def understand(command: click.Command, words: list[str]) -> None:
    """Have a command of the shell, and those in it, read their words; UsageError when they can't."""
    context = command.make_context(command.name, list(words))
    if isinstance(command, click.Group) and words:
        _, inner, rest = command.resolve_command(context, list(words))
        assert inner is not None
        understand(inner, rest)


SHOWN = [
    (path.name, line)
    for path in [*GUIDES, DEPLOY / "README.md", UNIT]
    for line in dict.fromkeys(command_lines(path.read_text()))
]


@pytest.mark.parametrize(("file", "line"), SHOWN, ids=[f"{file}: {line}" for file, line in SHOWN])
def test_every_command_line_that_is_shown_is_understood(
    file: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("report.ipynb").touch()
    words = shlex.split(line)
    if words[1] == "serve":
        if len(words) > 2:
            assert parsed(words).broker
    else:
        understand(app, words[1:])


def test_the_guides_show_command_lines() -> None:
    for guide in GUIDES:
        assert sum(file == guide.name for file, _ in SHOWN) >= 5, SHOWN


@pytest.mark.parametrize("guide", GUIDES, ids=["serve", "production"])
def test_guides_name_files_that_exist(guide: Path) -> None:
    text = guide.read_text()
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (guide.parent / link).exists(), link
    for path in re.findall(r"`((?:deploy|tests|docs)/[\w./-]+\.\w+)`", text):
        assert (ROOT / path).exists(), path


def test_the_page_on_serve_names_every_argument() -> None:
    text = GUIDES[0].read_text()
    for action in make_argument_parser()._actions:
        for option in action.option_strings:
            if option.startswith("--"):
                assert f"`{option}" in text, option
