"""What a run logs, in which form and where."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from typing import Any

import pytest

from .conftest import Run, Site, eventually

#: `[time] [PID n] [thread] [logger] [LEVEL] message`
LINE = re.compile(r"\[\d{4}-\d\d-\d\d [\d:,]+\] \[PID (\d+)\] \[(.+?)\] \[(.+?)\] \[([A-Z]+)\] (.+)")


def test_lines_say_when_who_and_how_grave(site: Site) -> None:
    run = site.serve("tasks", "-p", "1", "-f", "tasks:beside").ready()
    run.says("Fork process")
    site.send("speak", "a")
    site.noted("did", "a")
    assert run.stop() == 0
    found = [LINE.fullmatch(line) for line in run.output.splitlines() if line.rpartition(" ")[2] != "a"]
    assert all(found), run.output
    by = {(match[3], match[4]) for match in found if match is not None}
    assert {("nbqueue.MainProcess", "INFO"), ("nbqueue.WorkerProcess(0)", "INFO")} <= by
    assert ("nbqueue.ForkProcess(0)", "INFO") in by


def test_what_actors_print_and_log_comes_along(site: Site) -> None:
    run = site.serve("tasks", "-p", "1", stdout=subprocess.DEVNULL).ready()
    site.send("speak", "a")
    site.noted("did", "a")
    run.says("printed a\n")
    run.says("complained a\n")
    assert re.search(r"\[nbqueue-worker-\d+\] \[tasks\] \[WARNING\] logged a\n", run.output)


def test_more_is_logged_if_asked_for(site: Site) -> None:
    run = site.serve("tasks", "-p", "1", "-v").ready()
    assert run.stop() == 0
    assert "[DEBUG]" in run.output
    quiet = site.serve("tasks", "-p", "1").ready()
    assert quiet.stop() == 0
    assert "[DEBUG]" not in quiet.output


def test_logging_can_be_left_to_the_module(site: Site) -> None:
    site.write(
        "own_logging.py",
        "import logging, sys\n"
        "logging.basicConfig(stream=sys.stderr, level=logging.INFO, format='MINE %(message)s', force=True)\n"
        "import tasks\n",
    )
    run = site.serve("own_logging", "-p", "1", "--skip-logging")
    run.says("MINE Worker process is ready for action.")
    assert run.stop() == 0
    assert all(line.startswith("MINE ") for line in run.output.splitlines()), run.output


def test_the_log_file_gets_it_all_and_is_appended_to(site: Site) -> None:
    path = site.folder / "serve.log"
    path.write_text("before ümlaut\n", encoding="utf-8")
    run = site.serve("tasks", "-p", "2", "--log-file", str(path))
    eventually(
        lambda: path.read_text().count("Worker process is ready for action") == 2, "it is logged there"
    )
    site.send("speak", "ä")
    site.noted("did", "ä")
    assert run.stop() == 0
    text = path.read_text(encoding="utf-8")
    assert text.startswith("before ümlaut\n")
    assert "printed ä\n" in text
    assert "logged ä\n" in text
    assert run.output == ""


def json_lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.output.splitlines()]


def test_json_logs_are_json_line_by_line(site: Site) -> None:
    run = site.serve("tasks", "-p", "2", "--json-logs", "-f", "tasks:beside", "--watch", ".").ready(2)
    message = site.send("speak", "ä")
    failing = site.send("fail", "b")
    site.noted("did", "ä")
    run.says("ValueError")
    eventually(lambda: site.broker.queue_sizes()[0].in_flight == 0, "they are acknowledged")
    site.send("die_once", "c", "crash")
    site.noted("did", "c")
    run.says("was killed by SIGSEGV")
    run.signal(signal.SIGHUP)
    run.says("Reloaded.")
    assert run.stop() == 0
    lines = json_lines(run)
    by_text = {line["message"]: line for line in lines}
    for text in ("printed ä", "complained ä", "logged ä"):
        assert by_text[text]["message_id"] == message.message_id
        assert by_text[text]["actor"] == "speak"
    [failed] = [line for line in lines if "exception" in line]
    assert "ValueError: b" in failed["exception"]
    assert failed["level"] == "ERROR"
    assert (failed["message_id"], failed["actor"]) == (failing.message_id, "fail")
    [given_up] = [line for line in lines if line["message"].startswith("Retries exceeded")]
    assert (given_up["message_id"], given_up["actor"]) == (failing.message_id, "fail")
    ready = [line for line in lines if line["message"] == "Worker process is ready for action."]
    assert len({line["pid"] for line in ready}) >= 2
    assert "message_id" not in ready[0]


def test_json_logs_are_json_when_a_run_can_not_begin(site: Site) -> None:
    site.write("broken.py", "1 / 0\n")
    run = site.serve("broken", "-p", "1", "--json-logs")
    assert run.ends() == 2
    assert any("ZeroDivisionError" in line["message"] for line in json_lines(run))


@pytest.mark.parametrize("how", [[], ["--json-logs"]])
def test_lines_of_many_processes_do_not_mix(site: Site, how: list[str]) -> None:
    run = site.serve("tasks", "-p", "4", "-t", "4", *how).ready(4)
    site.send_many("shout", [("x" * 300,)] * 400)
    site.noted("did", times=400)
    assert run.stop() == 0
    said = [line for line in run.output.splitlines() if "shouted" in line]
    assert len(said) == 2 * 400
    if how:
        assert {line["message"] for line in json_lines(run) if "shouted" in line["message"]} == {
            "shouted " + "x" * 300
        }
    else:
        assert {line[line.index("shouted") :] for line in said} == {"shouted " + "x" * 300}


# -- where output can't go -----------------------------------------------------------------------------------


def test_a_run_whose_output_nobody_reads_any_more_goes_on(site: Site) -> None:
    run = site.serve("tasks", "-p", "2", stderr=subprocess.PIPE)
    assert run.process.stderr is not None
    while b"ready for action" not in run.process.stderr.readline():
        pass
    run.process.stderr.close()
    for index in range(20):
        site.send("speak", f"n{index}")
    site.noted("did", times=20)
    site.send("die_once", "d", "SIGKILL")
    site.noted("did", "d")
    run.signal(signal.SIGHUP)
    site.send("speak", "e")
    site.noted("did", "e")
    assert run.stop() == 0


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_run_with_closed_streams_works(site: Site, closed: str) -> None:
    command = f'exec "$0" -m nbqueue serve tasks -p 2 -f tasks:beside --health-port 0 {closed}'
    run = site.run("/bin/sh", "-c", command, sys.executable)
    site.send("speak", "a")
    site.noted("did", "a")
    site.noted("beside")
    site.send("speak_with_a_file", "b", str(site.folder / "file"))
    site.noted("did", "b")
    assert run.stop() == 0
    assert (site.folder / "file").read_text() == "only this\n"


def test_a_log_file_that_is_full_does_not_stop_it(site: Site) -> None:
    run = site.serve("tasks", "-p", "1", "--log-file", "/dev/full")
    site.send("speak", "a")
    site.noted("did", "a")
    run.signal(signal.SIGTERM)
    assert run.ends() == 0


def test_a_log_file_that_can_be_a_pipe(site: Site) -> None:
    path = site.folder / "pipe"
    os.mkfifo(path)
    assert stat.S_ISFIFO(path.stat().st_mode)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    run = site.serve("tasks", "-p", "1", "--log-file", str(path))
    os.set_blocking(reader, True)
    text = b""
    while b"ready for action" not in text:
        text += os.read(reader, 4096)
    assert run.stop() == 0
    os.close(reader)
