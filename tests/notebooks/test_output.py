"""What actors print and log belongs to their message: it shows in the cell that waits, and nowhere else."""

from __future__ import annotations

from .conftest import Notebook

CHATTY = """
import logging, sys, threading, time, warnings
import nbqueue
log = logging.getLogger("lab")
gates = {}

@nbqueue.actor
def chat(name, lines):
    gates.setdefault(name, threading.Event()).wait(20)
    for number in range(lines):
        print(f"{name} {number}")
        time.sleep(0.002)
    return name

def send(name, lines):
    gates[name] = threading.Event()
    return chat.send(name, lines)
"""


def lines(name: str, count: int) -> str:
    return "".join(f"{name} {number}\n" for number in range(count))


def test_prints_show_in_the_cell_that_waits(loaded: Notebook) -> None:
    loaded.run(CHATTY)
    loaded.run("message = send('a', 3)")
    shown = loaded.run("gates['a'].set(); print('before'); value = message.get_result(); print('after')")
    assert shown.stdout == "before\n" + lines("a", 3) + "after\n"


def test_what_was_printed_before_the_wait_shows_too(loaded: Notebook) -> None:
    loaded.run(CHATTY)
    loaded.run("message = send('a', 3); gates['a'].set()")
    foreign = loaded.run("import time\nfor _ in range(500):\n    time.sleep(0.01)\n"
                         "    if message.state == 'done': break")  # fmt: skip
    assert foreign.stdout == ""
    assert loaded.run("message.get_result()").stdout == lines("a", 3)


def test_prints_of_actors_that_run_at_once_do_not_mix(loaded: Notebook) -> None:
    loaded.run(CHATTY)
    loaded.run("first, second = send('a', 40), send('b', 40)")
    shown = loaded.run("for gate in gates.values(): gate.set()\nsecond.get_result()")
    assert shown.stdout == lines("b", 40)
    assert loaded.run("first.get_result()").stdout == lines("a", 40)


def test_nothing_shows_in_a_cell_that_does_not_wait(loaded: Notebook) -> None:
    loaded.run(CHATTY)
    loaded.run("message = send('a', 5); failing = add.send(1, None)")
    foreign = loaded.run("gates['a'].set(); time.sleep(0.5); print('mine')")
    assert foreign.stdout == "mine\n"
    assert foreign.stderr == ""
    loaded.run("message.get_result()")
    last = loaded.run("print('later')")
    assert (last.stdout, last.stderr) == ("later\n", "")


def test_prints_go_on_in_the_waiting_cell_while_another_runs_later(loaded: Notebook) -> None:
    loaded.run(CHATTY)
    loaded.run("message = send('a', 5)")
    waiting = loaded.start("print('here', flush=True); gates['a'].set(); message.get_result()")
    after = loaded.start("print('next')")
    assert loaded.finish(waiting).stdout == "here\n" + lines("a", 5)
    assert loaded.finish(after).stdout == "next\n"


def test_asking_twice_in_one_cell_shows_the_output_once(loaded: Notebook) -> None:
    loaded.run(CHATTY)
    loaded.run("message = send('a', 2); gates['a'].set()")
    assert loaded.run("message.get_result(); message.get_result()").stdout == lines("a", 2)
    assert loaded.run("message.get_result()").stdout == lines("a", 2)


def test_logging_warnings_and_display_inside_an_actor_belong_to_its_message(loaded: Notebook) -> None:
    loaded.run(CHATTY)
    loaded.run(
        "@nbqueue.actor\ndef noisy():\n    log.warning('careful %s', 'now')\n    log.info('quiet')\n"
        "    warnings.warn('old')\n    print('err', file=sys.stderr)\n    display({'shown': 1})"
    )
    loaded.run("message = noisy.send(); time.sleep(0.2)")
    shown = loaded.run("message.get_result()")
    assert "WARNING lab: careful now\n" in shown.stderr
    assert "quiet" not in shown.stderr
    assert "UserWarning: old" in shown.stderr
    assert "err\n" in shown.stderr
    assert shown.stdout == "{'shown': 1}\n"


def test_a_failure_shows_its_traceback_and_what_was_printed_before(loaded: Notebook) -> None:
    loaded.run(CHATTY)
    loaded.run("@nbqueue.actor\ndef broken(x):\n    print('so far so good')\n    return 1 / x")
    shown = loaded.run("broken.send(0).get_result()")
    assert shown.stdout == "so far so good\n"
    assert shown.stderr == ""
    assert shown.error == "ResultFailure: actor raised ZeroDivisionError: division by zero"
    assert "return 1 / x" in shown.traceback
    assert "worker_thread.py" not in shown.traceback


def test_a_flood_is_bounded(loaded: Notebook) -> None:
    loaded.run("@nbqueue.actor\ndef flood():\n    for n in range(40_000): print('line', n)")
    loaded.run("message = flood.send()\nimport time\nwhile message.state != 'done': time.sleep(0.01)")
    shown = loaded.run("message.get_result()")
    text = shown.stdout + shown.stderr
    assert "characters dropped" in text
    assert text.startswith("line 0\n")
    assert shown.stdout.endswith("line 39999\n")
    assert len(text) < 70_000


def test_the_users_own_logging_set_up_stays_in_charge(loaded: Notebook) -> None:
    loaded.run(CHATTY)
    loaded.run(
        "logging.basicConfig(level=logging.INFO, format='%(name)s says %(message)s', stream=sys.stdout)"
    )
    loaded.run("@nbqueue.actor\ndef noisy(): log.info('hello')")
    loaded.run("message = noisy.send(); time.sleep(0.2)")
    assert loaded.run("message.get_result()").stdout == "lab says hello\n"


def test_the_output_of_a_message_can_be_asked_for(loaded: Notebook) -> None:
    loaded.run(CHATTY)
    loaded.run("message = send('a', 3); gates['a'].set(); message.get_result()")
    assert loaded.run("message.output").result == repr(lines("a", 3))
    assert loaded.run("message.broker.get_state().backend.get_many([message.message_id])"
                      "[message.message_id].output").result == repr(lines("a", 3))  # fmt: skip
    assert loaded.run("add.send(1, 2).output").result == "''"
