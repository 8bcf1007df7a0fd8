"""`%load_ext nbqueue` in a real kernel: what it says, what it starts, what it puts back."""

from __future__ import annotations

from .conftest import ADD, Notebook

THREADS = """
import threading
sorted(t.name for t in threading.enumerate() if t.name.startswith("nbqueue"))
"""


def test_loading_says_in_one_line_what_it_started(notebook: Notebook) -> None:
    shown = notebook.run("%load_ext nbqueue")
    assert shown.stdout == (
        "nbqueue is ready: stub broker in this kernel, 8 threads. %nbqueue? lists the commands.\n"
    )
    assert shown.stderr == ""
    assert shown.error == ""


def test_loading_twice_and_reloading_are_harmless(loaded: Notebook) -> None:
    before = loaded.run(THREADS).result
    assert loaded.run("%load_ext nbqueue").error == ""
    assert loaded.run("nbqueue.load_ipython_extension(get_ipython())").stdout == ""
    assert loaded.run(THREADS).result == before
    assert loaded.run("%reload_ext nbqueue").error == ""
    assert loaded.run("add.send(1, 2).get_result()").result == "3"


def test_unloading_stops_the_threads_and_puts_everything_back(notebook: Notebook) -> None:
    notebook.run("import sys; before = type(sys.stdout), sys.stdout, sys.displayhook")
    notebook.run("%load_ext nbqueue")
    notebook.run(ADD)
    notebook.run("add.send(1, 2).get_result()")
    assert notebook.run("%unload_ext nbqueue").error == ""
    assert notebook.run(THREADS).result == "[]"
    check = "(type(sys.stdout), sys.stdout, sys.displayhook) == before"
    assert notebook.run(check).result == "True"
    assert "nbqueue" in notebook.run("%nbqueue").stderr + notebook.run("%nbqueue").error
    assert notebook.run("%load_ext nbqueue").error == ""
    assert notebook.run("add.send(2, 2).get_result()").result == "4"


def test_everything_works_again_after_a_restart(loaded: Notebook) -> None:
    loaded.run("add.send(1, 2).get_result()")
    loaded.restart()
    assert loaded.run("%load_ext nbqueue").error == ""
    assert loaded.run(ADD).error == ""
    assert loaded.run("add.send(3, 4).get_result()").result == "7"


def test_running_the_cell_again_replaces_the_actor(loaded: Notebook) -> None:
    assert loaded.run("add.send(1, 2).get_result()").result == "3"
    assert loaded.run(ADD.replace("a + b", "a * b")).error == ""
    assert loaded.run("add.send(3, 3).get_result()").result == "9"


def test_messages_that_wait_run_the_new_code(loaded: Notebook) -> None:
    loaded.run("later = add.send_with_options(args=(3, 3), delay=1500)")
    loaded.run(ADD.replace("a + b", "a * b"))
    assert loaded.run("later.get_result()").result == "9"


def test_the_status_names_broker_threads_queues_and_actors(loaded: Notebook) -> None:
    loaded.run("[add.send(n, n).get_result() for n in range(5)]")
    loaded.run("@nbqueue.actor(queue_name='other')\ndef fail(): 1 / 0")
    loaded.run("fail.send().get_result()")
    shown = loaded.run("%nbqueue").stdout
    assert "stub, in this kernel" in shown
    assert "8 threads, running 0" in shown
    assert "default  0 waiting  0 running  5 done  0 failed" in shown
    assert "other    0 waiting  0 running  0 done  1 failed" in shown
    assert "add(a, b)  fail()" in shown


def test_an_unknown_command_names_the_nearest(loaded: Notebook) -> None:
    shown = loaded.run("%nbqueue statsu").stdout
    assert "no command 'statsu'" in shown
    assert "%nbqueue status" in shown


def test_a_broker_that_the_program_set_is_kept(notebook: Notebook) -> None:
    notebook.run("import nbqueue\nfrom nbqueue.brokers.stub import StubBroker\nmine = StubBroker()")
    notebook.run("nbqueue.set_broker(mine)")
    shown = notebook.run("%load_ext nbqueue")
    assert shown.error == ""
    assert "StubBroker, no worker in this kernel" in shown.stdout
    assert notebook.run("nbqueue.get_broker() is mine").result == "True"


def test_interrupting_the_wait_leaves_the_message_running(loaded: Notebook) -> None:
    loaded.run(
        "import threading, time\nstarted, go_on = threading.Event(), threading.Event()\n"
        "@nbqueue.actor\ndef slow():\n    started.set(); go_on.wait(30); return 'done'"
    )
    loaded.run("message = slow.send(); started.wait(10)")
    cell = loaded.start("print('waiting', flush=True); message.get_result()")
    loaded.wait_for(lambda: "waiting" in loaded.outputs(cell).stdout)
    loaded.interrupt()
    shown = loaded.finish(cell)
    assert shown.error.startswith("KeyboardInterrupt")
    assert "slow() goes on." in shown.stderr
    loaded.run("go_on.set()")
    assert loaded.run("message.get_result()").result == "'done'"
    assert loaded.run("add.send(1, 2).get_result()").result == "3"


def test_a_bad_argument_is_explained_in_the_cell_that_sends(loaded: Notebook) -> None:
    error = loaded.run("add.send(1, object())").error
    assert "add.send()" in error
    assert "'b'" in error
    assert "object" in error
    assert "0 waiting" in loaded.run("%nbqueue").stdout


def test_results_of_the_broker_in_this_kernel_can_be_kept_nowhere_else(loaded: Notebook) -> None:
    shown = loaded.run("%nbqueue use stub:// --results redis://localhost")
    assert "keeps its results and message states in this process" in shown.stdout
    assert loaded.run("add.send(1, 2).get_result()").result == "3"
