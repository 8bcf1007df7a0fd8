"""What `nbqueue serve` is told on its command line, and what it makes of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import nbqueue
from nbqueue.cli import make_argument_parser

from .conftest import APPS, Site, eventually

SCRIPT = str(Path(sys.executable).with_name("nbqueue"))
TASKS = """
import os
import nbqueue

@nbqueue.actor
def hello(name):
    with open(os.environ["LEDGER"], "a") as ledger:
        ledger.write(f"did {name} {os.getpid()}\\n")
"""


# -- how it is called ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "program",
    [
        (sys.executable, "-m", "nbqueue", "serve"),
        (sys.executable, "-m", "nbqueue"),
        (SCRIPT, "serve"),
    ],
    ids=["module", "module alone", "script"],
)
def test_it_serves_however_it_is_called(site: Site, program: tuple[str, ...]) -> None:
    run = site.serve("tasks", "-p", "1", program=program).ready()
    site.send("work", "a")
    site.noted("did", "a")
    assert run.stop() == 0


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_flags_that_only_tell_something_end_well(bare_site: Site, flag: str) -> None:
    run = bare_site.serve(flag)
    assert run.ends() == 0
    assert (
        (run.output == f"{nbqueue.__version__}\n") if flag == "--version" else ("exit codes:" in run.output)
    )


def test_the_program_alone_shows_its_commands(bare_site: Site) -> None:
    run = bare_site.run(SCRIPT, "--help")
    assert run.ends() == 0
    assert "serve" in run.output


def test_a_command_that_is_none_is_refused_in_a_few_lines(bare_site: Site) -> None:
    run = bare_site.run(SCRIPT, "frobnicate")
    assert run.ends() == 2
    assert "frobnicate" in run.output
    assert "Traceback" not in run.output


def test_a_mistyped_command_is_not_taken_for_a_module(bare_site: Site) -> None:
    run = bare_site.run(sys.executable, "-m", "nbqueue", "quues", "--json")
    assert run.ends() == 2
    assert "there is no command and no module 'quues'. Did you mean queues?" in run.output


@pytest.mark.parametrize("place", [(), ("--path", "elsewhere")])
def test_a_module_is_served_however_much_its_name_is_like_a_command(
    site: Site, place: tuple[str, ...]
) -> None:
    site.write(os.path.join(*place[1:], "quues.py"), TASKS)
    site.serve("quues", "-p", "1", *place, program=(sys.executable, "-m", "nbqueue"))
    site.send("hello", "a")
    site.noted("did", "a")


# -- what is served --------------------------------------------------------------------------------------


def test_a_module_in_this_folder(site: Site) -> None:
    site.write("greetings.py", TASKS)
    site.serve("greetings", "-p", "1")
    site.send("hello", "a")
    site.noted("did", "a")


def test_a_file(site: Site) -> None:
    site.write("greetings.py", TASKS)
    site.serve("greetings.py", "-p", "1")
    site.send("hello", "a")
    site.noted("did", "a")


def test_a_file_elsewhere_that_belongs_to_a_package(site: Site) -> None:
    site.write("shop/inner/__init__.py", "")
    site.write("shop/__init__.py", "")
    site.write("shop/inner/greetings.py", TASKS + "\nfrom . import __name__ as package\n")
    site.serve(str(site.folder / "shop/inner/greetings.py"), "-p", "1")
    site.send("hello", "a")
    site.noted("did", "a")


def test_a_module_of_a_package(site: Site) -> None:
    site.write("shop/__init__.py", "")
    site.write("shop/greetings.py", TASKS)
    site.serve("shop.greetings", "-p", "1")
    site.send("hello", "a")
    site.noted("did", "a")


def test_further_modules_are_imported_too(site: Site) -> None:
    site.write("greetings.py", TASKS)
    site.serve("tasks", "greetings", "-p", "1")
    site.send("hello", "a")
    site.send("work", "b")
    site.noted("did", "a")
    site.noted("did", "b")


def test_modules_are_looked_for_where_path_says(site: Site) -> None:
    site.write("first/greetings.py", TASKS)
    site.write("second/others.py", TASKS.replace("hello", "bye"))
    site.serve("greetings", "others", "-p", "1", "--path", "first", "second")
    site.send("hello", "a")
    site.send("bye", "b")
    site.noted("did", "a")
    site.noted("did", "b")


@pytest.mark.parametrize(
    "named",
    ["own:broker", "own:shop.settings.broker", "own:make", "own:shop.make", str(APPS / "own.py") + ":broker"],
)
def test_a_broker_that_is_named(redis_url: str, bare_site: Site, named: str) -> None:
    bare_site.url = redis_url
    bare_site.serve(named, "-p", "1", env={"OWN_URL": redis_url})
    bare_site.send("own", "a")
    bare_site.noted("did", "a")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("own:number", "'own:number' is not a Broker."),
        ("own:missing", "Module 'own' does not define a 'missing' variable."),
        ("own:shop.missing", "Module 'own' does not define a 'shop.missing' variable."),
        ("missing", "no module 'missing'"),
        ("missing.py", "no file 'missing.py'"),
        ("own.missing:broker", "own.missing"),
    ],
)
def test_what_can_not_be_served_is_named(redis_url: str, bare_site: Site, named: str, said: str) -> None:
    run = bare_site.serve(named, "-p", "1", env={"OWN_URL": redis_url})
    assert run.ends() == 2
    assert said in run.output
    assert "Traceback" not in run.output


# -- how much of it --------------------------------------------------------------------------------------


def test_as_many_processes_and_threads_as_asked_for(site: Site) -> None:
    run = site.serve("tasks", "--processes", "3", "--threads", "2").ready(3)
    assert len(set(run.workers())) == 3
    gate = site.folder / "gate"
    for number in range(20):  # a process takes more than it has threads for
        site.send("nap_until", f"n{number}", str(gate))
    site.noted("began", times=6)
    assert len(site.lines("began")) == 6
    gate.touch()
    site.noted("did", times=20)
    assert len({words[2] for words in site.lines("began")}) == 3


def test_only_the_queues_that_are_named_are_consumed(site: Site) -> None:
    site.serve("tasks", "-p", "1", "-Q", "aside", "unknown").ready()
    site.send("work", "a")
    site.send("work_aside", "b", queue="aside")
    site.noted("did", "b")
    site.serve("tasks", "-p", "1", "--queues", "default")
    site.noted("did", "a")
    assert [words[1] for words in site.lines("did")] == ["b", "a"]


def test_the_broker_of_the_command_line_goes_before_that_of_the_environment(
    redis_url: str, bare_site: Site
) -> None:
    bare_site.url = redis_url
    run = bare_site.serve(
        "tasks", "-p", "1", "--broker-url", redis_url, env={"NBQUEUE_BROKER_URL": "redis://127.0.0.1:1/0"}
    ).ready()
    bare_site.send("work", "a")
    bare_site.noted("did", "a")
    assert run.stop() == 0


def test_results_and_states_are_kept_where_they_are_to_be(
    rabbitmq_url: str, redis_url: str, bare_site: Site
) -> None:
    bare_site.url = rabbitmq_url
    results, states = redis_url[:-1] + "1", redis_url[:-1] + "2"
    bare_site.serve(
        "tasks", "-p", "1", "--broker-url", rabbitmq_url, "--results-url", results, "--state-url", states
    ).ready()
    message = bare_site.send("work", "a")
    from nbqueue.session import results_from_url, state_from_url

    assert results_from_url(results).get_result(message, block=True, timeout=20_000) == "a"
    backend = state_from_url(states)
    eventually(lambda: backend.get_many([message.message_id]), "the state is kept")
    assert results_from_url(states).client.dbsize() > 0  # type: ignore[attr-defined]


def test_a_broker_of_the_module_and_one_of_the_command_line_contradict_each_other(
    redis_url: str, bare_site: Site
) -> None:
    run = bare_site.serve("own:make", "-p", "1", "--broker-url", redis_url, env={"OWN_URL": redis_url})
    assert run.ends() == 2
    assert "--broker-url can't change that" in run.output


def test_a_module_without_a_broker_is_refused_with_what_to_do(bare_site: Site) -> None:
    run = bare_site.serve("tasks", "-p", "2")
    assert run.ends() == 2
    assert "--broker-url" in run.output
    assert "Traceback" not in run.output


def test_a_broker_in_memory_is_served_with_a_warning(bare_site: Site) -> None:
    bare_site.write(
        "inside.py",
        "import nbqueue\nfrom nbqueue.brokers.stub import StubBroker\nnbqueue.set_broker(StubBroker())\n"
        + TASKS,
    )
    run = bare_site.serve("inside", "-p", "1").ready()
    assert "uses a StubBroker" in run.output
    assert run.stop() == 0


def test_spawned_processes_do_what_forked_ones_do(site: Site) -> None:
    run = site.serve("tasks", "-p", "2", "--use-spawn", "--fork-function", "tasks:beside").ready(2)
    site.send("work", "a")
    site.noted("did", "a")
    site.send("die_once", "b", "SIGKILL")
    site.noted("did", "b")
    run.says("while it ran die_once")
    site.noted("beside")
    assert run.stop() == 0
    assert list(site.temporary.glob("nbqueue-*")) == []


# -- arguments that can't be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "MODULE"),
        (["tasks", "--frobnicate"], "--frobnicate"),
        (["tasks", "-p", "0"], "less than 1"),
        (["tasks", "-p", "two"], "'two' is no whole number"),
        (["tasks", "-t", "-1"], "less than 1"),
        (["tasks", "--worker-fork-timeout", "soon"], "worker-fork-timeout be a number."),
        (
            ["tasks", "--worker-fork-timeout", "9"],
            "worker-fork-timeout too small (minimum recommended: 10ms).",
        ),
        (
            ["tasks", "--worker-fork-timeout", "1_800_001"],
            "worker-fork-timeout too large (maximum: 30 minutes).",
        ),
        (["tasks", "--worker-fork-timeout", "nan"], "worker-fork-timeout"),
        (["tasks", "--worker-shutdown-timeout", "-1"], "less than 0"),
        (["tasks", "--health-port", "70000"], "0 to 65535"),
        (["tasks", "--watch", "nowhere"], "nowhere"),
        (["tasks", "--broker-url", "http://somewhere"], "http://"),
        (["tasks", "--broker-url", "somewhere"], "somewhere"),
        (["tasks", "--results-url", "http://somewhere"], "http://"),
        (["tasks", "--state-url", "memcached://somewhere"], "memcached://"),
        (["tasks", "--log-file", "no/such/folder/log"], "no/such/folder/log"),
        (["tasks", "--fork-function", "no_colon"], "names no function: write MODULE:NAME"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_argument_that_can_not_be_is_refused_in_one_line(
    site: Site, arguments: list[str], said: str
) -> None:
    run = site.serve(*arguments)
    assert run.ends() == 2
    assert said in run.output
    assert len(run.output.splitlines()) == 1, run.output


def test_a_fork_function_that_can_not_be_imported_ends_the_run(site: Site) -> None:
    run = site.serve("tasks", "-p", "1", "--fork-function", "tasks:nowhere")
    assert run.ends() == 2
    assert "does not define a 'nowhere' variable" in run.output
    assert "Traceback" not in run.output


def test_arguments_can_be_abbreviated() -> None:
    asked = make_argument_parser().parse_args(
        [
            "app:broker",
            "more",
            "--fork",
            "a:b",
            "--fork",
            "c:d",
            "--proc",
            "3",
            "--worker-shut",
            "5",
            "--pid",
            "x",
        ]
    )
    assert (asked.broker, asked.modules) == ("app:broker", ["more"])
    assert asked.forks == ["a:b", "c:d"]
    assert (asked.processes, asked.worker_shutdown_timeout, asked.pid_file) == (3, 5, "x")


def test_arguments_of_the_compatible_command_line_are_understood() -> None:
    words = "app -p 2 -t 3 -P a b --use-spawn --skip-logging --watch . --watch-use-polling -i *.html -i *.css"
    words += " -x *.tmp --worker-fork-timeout 1_800_000 --pid-file p --log-file l -vv -f m:f -Q a b"
    asked = make_argument_parser().parse_args(words.split())
    assert (asked.processes, asked.threads, asked.path, asked.queues) == (2, 3, ["a", "b"], ["a", "b"])
    assert asked.watch_include == ["*.html", "*.css"]
    assert asked.watch_exclude == ["*.tmp"]
    assert asked.worker_fork_timeout == 1_800_000
    assert asked.verbose == 2
    assert asked.use_spawn
    assert asked.skip_logging
    assert asked.watch_use_polling
