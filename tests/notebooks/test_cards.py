"""Cards are redrawn until they are final, in the cell that shows them, and then no more."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..servers import RedisServer
from .conftest import ADD, Notebook, state_of

GATE = """
import threading, time
gate, reached = threading.Event(), threading.Event()

@nbqueue.actor
def work(number=0):
    print("begun")
    reached.set()
    gate.wait(30)
    print("ended")
    return number
"""


@pytest.fixture
def gated(loaded: Notebook) -> Notebook:
    loaded.run(GATE)
    return loaded


def test_a_card_goes_from_running_to_done_while_other_cells_run(gated: Notebook) -> None:
    shown = gated.run("work.send(7)")
    assert state_of(shown.data) == "running"
    assert "begun" in shown.data["text/html"]
    foreign = gated.run("gate.set(); print('mine')")
    forms = gated.wait_for_state(shown, "done")
    assert forms["text/plain"] == "work(7) = 7"
    assert "begun\nended" in forms["text/html"]
    assert "<time" not in forms["text/html"]
    assert foreign.stdout == "mine\n"


def test_nothing_is_sent_after_the_last_change(gated: Notebook) -> None:
    shown = gated.run("work.send(7)")
    gated.run("gate.set()")
    gated.wait_for_state(shown, "done")
    count = len(gated.updates(shown))
    gated.run("add.send(1, 2).get_result()")
    assert gated.run("len(nbqueue.notebook.extension._session.cards.live)").result == "0"
    gated.collect(0.6)
    assert len(gated.updates(shown)) == count


def test_what_is_delayed_or_waits_sends_nothing(loaded: Notebook) -> None:
    shown = loaded.run("add.send_with_options(args=(1, 2), delay=60_000)")
    loaded.run("add.send(1, 2).get_result()")
    loaded.collect(1.0)
    assert len(loaded.updates(shown)) <= 1


def test_a_card_is_updated_at_most_four_times_a_second(loaded: Notebook) -> None:
    loaded.run(
        "@nbqueue.actor\ndef chatty():\n    import time\n"
        "    for number in range(300):\n        print(number); nbqueue.progress(number); time.sleep(0.005)"
    )
    shown = loaded.run("chatty.send()")
    loaded.wait_for_state(shown, "done")
    times = [m["header"]["date"] for m in loaded.updates(shown)]
    assert len(times) > 2
    assert all((later - sooner).total_seconds() > 0.2 for sooner, later in itertools.pairwise(times))


def test_the_same_message_in_two_cells_is_updated_in_both(gated: Notebook) -> None:
    first = gated.run("message = work.send(1); message")
    second = gated.run("message")
    gated.run("gate.set()")
    assert gated.wait_for_state(first, "done")["text/plain"] == "work(1) = 1"
    assert gated.wait_for_state(second, "done")["text/plain"] == "work(1) = 1"


def test_a_retry_shows_its_error_and_which_try_it_is(loaded: Notebook) -> None:
    loaded.run(
        "tries = []\n@nbqueue.actor(max_retries=3, min_backoff=600, max_backoff=900)\ndef flaky():\n"
        "    tries.append(1)\n    if len(tries) < 2: raise ConnectionError('no answer')\n    return 1"
    )
    shown = loaded.run("flaky.send()")
    forms = loaded.wait_for_state(shown, "retrying")
    assert "second try in" in forms["text/html"]
    assert "<b>ConnectionError</b>: no answer" in forms["text/html"]
    forms = loaded.wait_for_state(shown, "done")
    assert "second try, the first failed with ConnectionError" in forms["text/html"]


def test_a_cancelled_message_says_so(gated: Notebook) -> None:
    shown = gated.run("later = add.send_with_options(args=(1, 2), delay=60_000); later")
    gated.run("later.cancel()")
    assert gated.wait_for_state(shown, "cancelled")["text/plain"] == "add(1, 2) cancelled"


def test_a_flushed_message_is_cancelled(loaded: Notebook) -> None:
    loaded.run("%nbqueue workers 0")
    shown = loaded.run("add.send(1, 2)")
    loaded.run("%nbqueue flush")
    loaded.wait_for_state(shown, "cancelled")


def test_a_message_whose_broker_was_replaced_is_lost(loaded: Notebook, redis_url: str) -> None:
    loaded.run("%nbqueue workers 0")
    shown = loaded.run("message = add.send(1, 2); message")
    loaded.run(f"%nbqueue use {redis_url} --drop")
    forms = loaded.wait_for_state(shown, "lost")
    assert forms["text/plain"] == "add(1, 2) lost"
    assert "Send the call again" in forms["text/html"]
    assert loaded.run("message.state").result == "'lost'"


def test_a_message_that_moved_to_a_server_stays_live(loaded: Notebook, redis_url: str) -> None:
    loaded.run("%nbqueue workers 0")
    shown = loaded.run("message = add.send(1, 2); message")
    loaded.run(f"%nbqueue use {redis_url}")
    loaded.run("%nbqueue workers 1")
    assert loaded.wait_for_state(shown, "done")["text/plain"] == "add(1, 2) = 3"


def test_a_group_counts_what_is_where_and_folds_its_failures(gated: Notebook) -> None:
    gated.run(
        "@nbqueue.actor\ndef picky(number):\n    gate.wait(30)\n"
        "    if number < 3: raise ValueError('too small')"
    )
    shown = gated.run("picky.map(range(20))")
    assert shown.data["text/plain"] == "picky.map, 20 messages"
    assert 'role="progressbar"' in shown.data["text/html"]
    assert 'aria-valuemax="20" aria-valuenow="0"' in shown.data["text/html"]
    gated.run("gate.set()")
    html = gated.wait_for_state(shown, "failed")["text/html"]
    assert 'aria-valuenow="20"' in html
    assert html.count('role="progressbar"') == 1
    assert "3 failures, first of each kind" in html
    assert "ValueError: too small" in html
    assert "\N{MULTIPLICATION SIGN}3" in html
    assert "<time" not in html


def test_a_group_of_very_many_is_counted_to_the_end(loaded: Notebook) -> None:
    loaded.run("@nbqueue.actor\ndef noop(number): return number")
    shown = loaded.run("numbers = noop.map(range(30_000)); numbers")
    loaded.wait_for(lambda: state_of(loaded.now(shown)) == "done", timeout=60)
    html = loaded.now(shown)["text/html"]
    assert 'aria-valuenow="30000"' in html
    assert len(html.encode()) <= 4_096


def test_a_pipeline_shows_its_steps_with_their_values(gated: Notebook) -> None:
    shown = gated.run("(add.message(1, 2) | work.message() | add.message(1)).run()")
    assert shown.data["text/plain"] == "add → work → add"
    gated.wait_for(lambda: "step 2 of 3" in gated.now(shown)["text/html"])
    assert ">3</td>" in gated.now(shown)["text/html"]
    gated.run("gate.set()")
    html = gated.wait_for_state(shown, "done")["text/html"]
    assert ">4</td>" in html


def test_a_pipeline_that_fails_ends_there(loaded: Notebook) -> None:
    shown = loaded.run("(add.message(1, None) | add.message(1)).run()")
    html = loaded.wait_for_state(shown, "failed")["text/html"]
    assert "TypeError" in html
    assert "not run" in html


def test_a_group_of_pipelines_counts_pipelines(loaded: Notebook) -> None:
    shown = loaded.run("nbqueue.group([add.message(1, 2) | add.message(n) for n in range(5)]).run()")
    html = loaded.wait_for_state(shown, "done")["text/html"]
    assert 'aria-valuemax="5" aria-valuenow="5"' in html


def test_nbqueue_wait_runs_the_cell_and_waits_for_what_it_sent(loaded: Notebook) -> None:
    loaded.run("@nbqueue.actor\ndef nap(_=None):\n    import time\n    time.sleep(0.4)")
    shown = loaded.run("%%nbqueue wait\nmessages = [nap.send() for _ in range(3)]\nlater = nap.message() | nap.message()\nlater.run()\nlen(messages)")  # fmt: skip  # noqa: E501
    assert shown.error == ""
    assert state_of(loaded.now(shown)) == "done"
    assert 'aria-valuenow="4"' in loaded.now(shown)["text/html"]
    assert loaded.run("[m.state for m in messages]").result == "['done', 'done', 'done']"
    assert "This cell sent no messages" in loaded.run("%%nbqueue wait\n1").stdout
    assert loaded.run("%%nbqueue wait\n1 / 0").error == "ZeroDivisionError: division by zero"


def test_interrupting_nbqueue_wait_leaves_the_messages(gated: Notebook) -> None:
    cell = gated.start("%%nbqueue wait\nprint('sent', flush=True); message = work.send(1)")
    gated.wait_for(lambda: bool(gated.outputs(cell).data))
    gated.interrupt()
    shown = gated.finish(cell)
    assert shown.error.startswith("KeyboardInterrupt")
    assert "1 message go on. %nbqueue flush" in shown.stderr
    gated.run("gate.set()")
    assert gated.run("message.get_result()").result == "1"


def test_the_actor_magic_makes_the_last_function_an_actor(loaded: Notebook) -> None:
    shown = loaded.run(
        "%%actor queue_name=mail max_retries=3\ndef double(x): return 2 * x\ndef quad(x):\n"
        "    if x < 0: raise ValueError(x)\n    return double(double(x))"
    )
    assert (shown.stdout, shown.stderr, shown.error) == ("", "", "")
    assert loaded.run("quad.send(2).get_result()").result == "8"
    assert loaded.run("quad").result == "quad(x), actor on mail"
    assert loaded.run("quad.options, double(1)").result == "({'max_retries': 3}, 2)"
    loaded.run("@nbqueue.actor\ndef once(): pass")
    assert "none in it" in loaded.run("%%actor\nx = 1").stdout
    assert "is none" in loaded.run("%%actor fast\ndef f(): pass").stdout


def test_the_actor_magic_counts_lines_as_the_cell_does(loaded: Notebook) -> None:
    loaded.run("%%actor\n\ndef broken():\n    raise ValueError('no')")
    assert "In [3], line 4, in broken" in loaded.run("broken.send()").data["text/html"]


def test_a_changed_signature_with_waiting_messages_is_told(loaded: Notebook) -> None:
    loaded.run("%nbqueue workers 0")
    loaded.run("for number in range(3): add.send(1, number)")
    loaded.run("add.send_with_options(args=(1, 2), delay=60_000)")
    told = loaded.run("@nbqueue.actor\ndef add(a, b, c): return a")
    assert told.error == ""
    assert "4 messages of add wait in default, sent as add(a, b); add(a, b, c)" in told.stderr
    assert loaded.run("@nbqueue.actor\ndef add(a, b, c): return b").stderr == ""
    moved = loaded.run("@nbqueue.actor(queue_name='other')\ndef add(a, b, c): return b").stderr
    assert "new ones go to other" in moved


def test_unloading_leaves_cards_as_they_are_and_reloading_shows_new_ones(gated: Notebook) -> None:
    shown = gated.run("work.send(1)")
    gated.run("gate.set()")
    assert gated.run("%unload_ext nbqueue").error == ""
    count = len(gated.updates(shown))
    assert "Message(" in gated.run("add.message(1, 2)").result
    gated.run("%load_ext nbqueue")
    assert gated.run("add.send(1, 2)").data["text/plain"] == "add(1, 2) = 3"
    assert len(gated.updates(shown)) == count
    assert gated.run("%reload_ext nbqueue").error == ""
    assert gated.run("add.send(1, 2)").data["text/plain"] == "add(1, 2) = 3"


def test_a_message_shown_inside_an_actor_belongs_to_the_actors_output(loaded: Notebook) -> None:
    loaded.run("@nbqueue.actor\ndef outer():\n    display(add.send(1, 2)); display(add)")
    assert "add(a, b), actor on default\n" in loaded.run("outer.send().get_result()").stdout


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def test_cards_go_on_when_their_server_was_away(gated: Notebook, server: RedisServer) -> None:
    gated.run(f"%nbqueue use {server.url}")
    shown = gated.run("work.send(5)")
    assert "no worker is seen" in shown.data["text/html"]
    gated.run("%nbqueue workers 1")
    gated.wait_for_state(shown, "running")
    server.restart()
    gated.run("gate.set()")
    gated.wait_for_state(shown, "done")


def test_an_edited_module_is_redefined_by_autoreload(loaded: Notebook, tmp_path: Path) -> None:
    module = tmp_path / "jobs.py"
    source = "import nbqueue\n\n\n@nbqueue.actor\ndef job(x):\n    return x + {}\n"
    module.write_text(source.format(1))
    loaded.run(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.dont_write_bytecode = True")
    loaded.run("%load_ext autoreload\n%autoreload 2\nimport jobs")
    assert loaded.run("jobs.job.send(1)").data["text/plain"] == "job(1) = 2"
    module.write_text(source.format(1000))
    shown = loaded.run("jobs.job.send(1)")
    assert shown.error == ""
    assert shown.data["text/plain"] == "job(1) = 1001"


def test_cells_run_in_any_order_again_and_again(loaded: Notebook) -> None:
    for source in ("add.send(1, 2)", ADD, "add.map([1])", ADD, "add.send(1, 2)"):
        shown = loaded.run(source)
        assert (shown.error, shown.stderr) == ("", "")
    assert shown.data["text/plain"] == "add(1, 2) = 3"
