"""`%nbqueue dashboard` in a kernel: what it publishes, when, and what it does that a page asks for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from ..servers import RedisServer
from .conftest import ADD, Notebook, Outputs

WIDGET = "application/vnd.jupyter.widget-view+json"

ACTORS = """
import threading, time
gate = threading.Event()

@nbqueue.actor
def gated(number):
    assert gate.wait(60)
    return number

@nbqueue.actor(queue_name="mail")
def fragile(name):
    raise ValueError(f"no {name}")
"""


class Dashboard:
    """What a page would know of a dashboard, and what it can say to the kernel."""

    def __init__(self, notebook: Notebook, view: str = "view-1") -> None:
        self.notebook = notebook
        self.view = view
        outputs = notebook.run("%nbqueue dashboard")
        assert outputs.error == outputs.stderr == outputs.stdout == ""
        self.bundle = bundle(outputs)
        self.comm = self.bundle[WIDGET]["model_id"]

    def _messages(self, kind: str) -> list[dict[str, Any]]:
        return [
            message["content"]["data"]
            for message in self.notebook.messages
            if message["msg_type"] == kind and message["content"]["comm_id"] == self.comm
        ]

    @property
    def snapshots(self) -> list[dict[str, Any]]:
        """All that came, the one it was opened with first."""
        states = [
            data["state"]
            for kind in ("comm_open", "comm_msg")
            for data in self._messages(kind)
            if "state" in data
        ]
        return [state["snapshot"] for state in states if "snapshot" in state]

    @property
    def now(self) -> dict[str, Any]:
        return self.snapshots[-1]

    @property
    def said(self) -> list[dict[str, Any]]:
        """What the kernel answered."""
        return [data["content"] for data in self._messages("comm_msg") if data["method"] == "custom"]

    def say(self, content: Any) -> None:
        """Send what a page would."""
        client = self.notebook.client
        data = {"method": "custom", "content": content}
        client.shell_channel.send(client.session.msg("comm_msg", {"comm_id": self.comm, "data": data}))

    def show(self, shown: bool = True) -> None:
        self.say({"view": self.view, "shown": shown})

    def click(self, word: str) -> str:
        """Send a word; return the sentence that the kernel answers."""
        before = len(self.said)
        self.say({"view": self.view, "do": word})
        self.notebook.wait_for(lambda: len(self.said) > before)
        answer = self.said[-1]
        assert (answer["view"], answer["done"]) == (self.view, word)
        return str(answer["said"])

    def wait_for(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for a snapshot of which the condition holds."""
        self.notebook.wait_for(lambda: condition(self.now))
        return self.now


def bundle(outputs: Outputs) -> dict[str, Any]:
    """Return the forms in which a cell displayed something."""
    (shown,) = [m["content"] for m in outputs.messages if m["msg_type"] == "display_data"]
    assert shown["transient"]["display_id"]
    data: dict[str, Any] = shown["data"]
    return data


def updates(notebook: Notebook) -> list[dict[str, Any]]:
    """Return the forms that took the place of what was displayed."""
    return [m["content"]["data"] for m in notebook.messages if m["msg_type"] == "update_display_data"]


def queue(snapshot: dict[str, Any], name: str = "default") -> dict[str, Any]:
    found: dict[str, Any] = next(row for row in snapshot["queues"] if row["name"] == name)
    return found


@pytest.fixture
def acting(loaded: Notebook) -> Notebook:
    assert loaded.run(ACTORS).error == ""
    return loaded


# -- what is shown ----------------------------------------------------------------------------------------


def test_it_is_a_widget_with_html_and_text_beside(acting: Notebook) -> None:
    acting.run("[add.send(n, 1).get_result() for n in range(5)]")
    acting.run("message = fragile.send('x')\nwhile message.state != 'failed': time.sleep(0.01)")
    dashboard = Dashboard(acting)
    assert set(dashboard.bundle) == {WIDGET, "text/html", "text/plain"}
    html = dashboard.bundle["text/html"]
    assert 'data-nbqueue="dashboard" role="region" aria-label="nbqueue dashboard"' in html
    assert 'data-nbqueue="queue" data-nbqueue-name="mail"' in html
    assert '<svg data-nbqueue-part="sparkline"' in html
    assert '<td data-nbqueue-part="done">5</td>' in html
    assert 'data-nbqueue="result" data-nbqueue-state="failed"' in html
    assert "ValueError: no x" in html
    assert "<button" not in html
    assert "<script" not in html
    text = dashboard.bundle["text/plain"]
    assert "default  0 waiting  0 running  5 done  0 failed" in text
    assert "mail     0 waiting  0 running  0 done  1 failed" in text
    snapshot = dashboard.now
    assert snapshot["totals"] | {"rate": None} == {
        "depth": 0, "running": 0, "threads": 8, "done": 5, "rate": None, "retries": 0, "failed": 1
    }  # fmt: skip
    assert snapshot["dead"] == 1
    assert [(row["state"], row["call"], row["text"]) for row in snapshot["results"]][:2] == [
        ("failed", "fragile('x')", "ValueError: no x"),
        ("done", "add(4, 1)", "5"),
    ]
    assert queue(snapshot)["median"] is not None


def test_calling_it_is_the_same(acting: Notebook) -> None:
    outputs = acting.run("from nbqueue import dashboard\ndashboard()")
    assert WIDGET in bundle(outputs)
    assert "execute_result" not in [message["msg_type"] for message in outputs.messages]


def test_the_numbers_follow_what_happens(acting: Notebook) -> None:
    dashboard = Dashboard(acting)
    acting.run("messages = [gated.send(n) for n in range(30)]")
    dashboard.wait_for(lambda now: (queue(now)["depth"], queue(now)["running"]) == (22, 8))
    acting.run("gate.set()")
    now = dashboard.wait_for(lambda now: queue(now)["done"] == 30)
    assert (queue(now)["depth"], queue(now)["running"]) == (0, 0)
    assert len(now["results"]) == 10
    assert {row["call"].partition("(")[0] for row in now["results"]} == {"gated"}


def test_a_retry_is_listed_with_its_next_try_until_it_has_begun(acting: Notebook) -> None:
    acting.run(
        "@nbqueue.actor(max_retries=3, min_backoff=60_000)\n"
        "def flaky(name):\n    raise OSError('the line is bad')"
    )
    dashboard = Dashboard(acting)
    acting.run("flaky.send('x'); None")
    now = dashboard.wait_for(lambda now: now["totals"]["retries"] == 1)
    (row,) = now["results"]
    assert (row["state"], row["call"], row["text"]) == ("retrying", "flaky('x')", "OSError, second try")
    assert row["due"] > now["now"]
    acting.run("%nbqueue flush")
    dashboard.wait_for(lambda now: [row["state"] for row in now["results"]] == ["cancelled"])


def test_a_snapshot_stays_small(acting: Notebook) -> None:
    acting.run("[fragile.send('x' * 1000) for n in range(20)]; add.send('y' * 1000, 'z' * 1000)")
    dashboard = Dashboard(acting)
    now = dashboard.wait_for(lambda now: now["totals"]["failed"] == 20 and now["totals"]["done"] == 1)
    assert len(repr(now)) < 5000


def test_what_comes_from_users_stays_text(loaded: Notebook) -> None:
    hostile = "<img src=x onerror=alert(1)>\\u202e\\x1b[31m"
    loaded.run(
        f"@nbqueue.actor(queue_name='a-b', actor_name={hostile!r})\ndef f(x): return x".replace("\\\\", "\\")
    )
    loaded.run(f"f.send('{hostile}').get_result()")
    dashboard = Dashboard(loaded)
    html = dashboard.bundle["text/html"]
    assert "<img" not in html
    assert "&lt;img src=x" in html
    for text in (html, repr(dashboard.now["results"])):
        assert "\u202e" not in text
        assert "\x1b" not in text


# -- when it is sent --------------------------------------------------------------------------------------


def settled(dashboard: Dashboard) -> int:
    """Wait until the rates are down; return how many snapshots there were."""
    dashboard.wait_for(lambda now: now["totals"]["rate"] == 0)
    return len(dashboard.snapshots)


def test_nothing_is_sent_while_nothing_changes(acting: Notebook) -> None:
    dashboard = Dashboard(acting)
    dashboard.show()
    acting.run("add.send(1, 2).get_result()")
    count = settled(dashboard)
    acting.collect(2.5)
    assert len(dashboard.snapshots) == count


def test_a_dashboard_that_nobody_looks_at_is_not_sent(acting: Notebook) -> None:
    dashboard = Dashboard(acting)
    dashboard.show()
    settled(dashboard)
    dashboard.show(False)
    screen = "nbqueue.notebook.dashboard.board.board"
    acting.wait_for(lambda: acting.run(f"{screen}.due").result == "inf")
    count = len(dashboard.snapshots)
    acting.run("add.send(1, 2).get_result()")
    acting.collect(2.5)
    assert len(dashboard.snapshots) == count
    dashboard.show()
    now = dashboard.wait_for(lambda now: queue(now)["done"] == 1)
    assert [row["call"] for row in now["results"]] == ["add(1, 2)"]
    acting.collect(0.5)
    assert len(dashboard.snapshots) == count + 1


def test_one_view_of_two_is_enough(acting: Notebook) -> None:
    dashboard = Dashboard(acting)
    dashboard.show()
    dashboard.say({"view": "view-2", "shown": True})
    dashboard.show(False)
    acting.run("add.send(1, 2).get_result()")
    dashboard.wait_for(lambda now: queue(now)["done"] == 1)


# -- what a page may ask ----------------------------------------------------------------------------------


def test_pause_and_resume(acting: Notebook) -> None:
    dashboard = Dashboard(acting)
    acting.run("messages = [gated.send(n) for n in range(20)]")
    dashboard.wait_for(lambda now: queue(now)["running"] == 8)
    assert dashboard.click("pause") == "Paused: 12 waiting, 8 still running."
    assert dashboard.wait_for(lambda now: now["live"] == "paused")["status"] == "paused, 12 waiting"
    acting.run("gate.set()")
    dashboard.wait_for(lambda now: (queue(now)["done"], queue(now)["running"]) == (8, 0))
    assert dashboard.now["totals"]["depth"] == 12
    assert dashboard.click("resume") == "Resumed."
    dashboard.wait_for(lambda now: (now["live"], queue(now)["done"]) == ("live", 20))


def test_flush_drops_what_waits_and_tells_whoever_waits_for_it(acting: Notebook) -> None:
    dashboard = Dashboard(acting)
    acting.run("messages = [gated.send(n) for n in range(20)]")
    assert dashboard.wait_for(lambda now: queue(now)["running"] == 8)["question"] == "Drop 12 messages?"
    assert dashboard.click("flush") == "Flushed 12 messages from default, mail."
    dashboard.wait_for(lambda now: (now["totals"]["depth"], now["totals"]["running"]) == (0, 8))
    acting.run("gate.set()")
    dashboard.wait_for(lambda now: queue(now)["done"] == 8)
    assert acting.run("sorted(m.state for m in messages).count('cancelled')").result == "12"


def test_retry_sends_the_failed_again(acting: Notebook) -> None:
    dashboard = Dashboard(acting)
    acting.run("messages = [fragile.send(n) for n in range(3)]")
    dashboard.wait_for(lambda now: now["dead"] == 3)
    acting.run("@nbqueue.actor(queue_name='mail')\ndef fragile(name): return 'mended'")
    assert dashboard.click("retry") == "Sent 3 messages again."
    now = dashboard.wait_for(lambda now: (now["dead"], queue(now, "mail")["done"]) == (0, 3))
    assert {(row["state"], row["text"]) for row in now["results"]} == {("done", "'mended'")}


NOT_OURS: list[Any] = [
    {"view": "view-1", "do": "stop"},
    {"view": "view-1", "do": "__class__"},
    {"view": "view-1", "do": ["flush"]},
    {"view": "view-1", "shown": "yes"},
    {"view": ["view-1"], "do": "flush"},
    {"view": "x" * 1000, "do": "flush"},
    {"do": "flush"},
    "flush",
    ["flush"],
    None,
]


def test_anything_else_is_ignored(acting: Notebook) -> None:
    acting.run("%nbqueue pause\nadd.send(1, 2)")
    dashboard = Dashboard(acting)
    for content in NOT_OURS:
        dashboard.say(content)
    assert dashboard.click("pause").startswith("Paused: 1 waiting")
    assert len(dashboard.said) == 1
    assert dashboard.now["totals"]["depth"] == 1


def test_what_fails_is_told_on_the_page(acting: Notebook) -> None:
    acting.run(
        "from nbqueue import inspection\ndef broken(*_): raise OSError('no way')\ninspection.retry = broken"
    )
    dashboard = Dashboard(acting)
    assert dashboard.click("retry") == "OSError: no way"


# -- the magics -------------------------------------------------------------------------------------------


def test_the_magics_do_what_the_buttons_do(acting: Notebook) -> None:
    assert acting.run("%nbqueue pause").stdout == "Paused: 0 waiting, 0 still running.\n"
    acting.run("message = add.send(1, 2)")
    assert acting.run("message.state").result == "'pending'"
    assert acting.run("%nbqueue resume").stdout == "Resumed.\n"
    assert acting.run("message.get_result()").result == "3"
    acting.run("nbqueue.stop()")
    assert "nbqueue.start()" in acting.run("%nbqueue pause").stdout


@pytest.mark.parametrize("line", ["%nbqueue stop", "%unload_ext nbqueue"])
def test_stopping_leaves_the_last_numbers_without_a_widget(acting: Notebook, line: str) -> None:
    dashboard = Dashboard(acting)
    acting.run("add.send(1, 2).get_result()")
    acting.run(line)
    acting.wait_for(lambda: bool(dashboard._messages("comm_close")))
    data = updates(acting)[-1]
    assert set(data) == {"text/html", "text/plain"}
    assert 'data-nbqueue-part="live" data-nbqueue-state="stopped"' in data["text/html"]
    assert '<td data-nbqueue-part="done">1</td>' in data["text/html"]


# -- without the widget -----------------------------------------------------------------------------------


def test_without_anywidget_it_is_html_that_goes_on(acting: Notebook) -> None:
    acting.run("import sys; sys.modules['anywidget'] = None")
    shown = bundle(acting.run("%nbqueue dashboard"))
    assert set(shown) == {"text/html", "text/plain"}
    assert "%nbqueue pause" in shown["text/html"]
    assert "pip install &quot;nbqueue[jupyter]&quot;" in shown["text/html"]
    acting.run("add.send(1, 2).get_result()")
    acting.wait_for(
        lambda: any('<td data-nbqueue-part="done">1</td>' in data["text/html"] for data in updates(acting))
    )
    assert all(set(data) == {"text/html", "text/plain"} for data in updates(acting))


def test_of_those_in_html_the_latest_goes_on(acting: Notebook) -> None:
    acting.run("import sys; sys.modules['anywidget'] = None")
    acting.run("%nbqueue dashboard")
    acting.run("%nbqueue dashboard")
    (left,) = [data for data in updates(acting) if 'data-nbqueue-state="stopped"' in data["text/html"]]
    assert "nbqueue[jupyter]" not in left["text/html"]


@pytest.mark.parametrize("before", ["", "import sys; sys.modules['IPython'] = None\n"])
def test_in_a_terminal_it_is_text(before: str) -> None:
    program = before + (
        "import nbqueue\n@nbqueue.actor\ndef add(a, b): return a + b\n"
        "add.send(1, 2).get_result()\nnbqueue.dashboard()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert "default  0 waiting  0 running  1 done  0 failed" in ended.stdout
    assert "actors   add(a, b)" in ended.stdout


# -- brokers on servers -----------------------------------------------------------------------------------

SERVED = """
import nbqueue
@nbqueue.actor
def add(a: int, b: int) -> int:
    return a + b
nbqueue.get_broker().emit_after("process_boot")
worker = nbqueue.Worker(nbqueue.get_broker(), worker_threads=2)
worker.start()
input()
worker.stop()
"""


def test_workers_elsewhere_are_seen_on_redis(loaded: Notebook) -> None:
    with RedisServer(password="open-sesame") as server:
        loaded.run(f"%nbqueue use {server.url}")
        dashboard = Dashboard(loaded)
        assert dashboard.now["workers"] == "no worker in this kernel"
        assert "%nbqueue workers 4" in dashboard.now["note"]
        assert dashboard.now["no_pause"].startswith("No worker runs in this kernel")
        assert dashboard.click("pause") == dashboard.now["no_pause"]
        loaded.run("messages = [add.send(n, 1) for n in range(20)]")
        now = dashboard.wait_for(lambda now: queue(now)["depth"] == 20)
        assert now["question"] == "Drop 20 messages, those of other programs too?"
        elsewhere = subprocess.Popen(
            [sys.executable, "-c", SERVED],
            stdin=subprocess.PIPE,
            env={**os.environ, "NBQUEUE_BROKER_URL": server.url},
        )
        try:
            now = dashboard.wait_for(lambda now: queue(now)["done"] == 20)
            assert {row["state"] for row in now["results"]} == {"done"}
            assert {row["call"] for row in now["results"]} <= {f"add({n}, 1)" for n in range(20)}
            assert all(row["text"].isdigit() and row["took"] is not None for row in now["results"])
            assert now["note"] == ""
        finally:
            elsewhere.communicate(b"\n", timeout=30)
        assert "open-sesame" not in repr(dashboard.snapshots) + repr(dashboard.bundle)


def test_pausing_on_a_server_is_for_the_threads_here(loaded: Notebook, redis_url: str) -> None:
    loaded.run(f"%nbqueue use {redis_url}")
    loaded.run("%nbqueue workers 2")
    dashboard = Dashboard(loaded)
    assert dashboard.now["workers"] == "2 threads in this kernel"
    assert dashboard.now["pauses"] == "Pauses the threads in this kernel; workers elsewhere go on."
    assert dashboard.click("pause").endswith("Workers elsewhere go on.")
    loaded.run("message = add.send(1, 2)")
    dashboard.wait_for(lambda now: (now["live"], queue(now)["depth"]) == ("paused", 1))
    dashboard.click("resume")
    dashboard.wait_for(lambda now: queue(now)["done"] == 1)


def test_a_server_that_goes_away_is_told_and_forgiven(loaded: Notebook) -> None:
    with RedisServer() as server:
        loaded.run(f"%nbqueue use {server.url}")
        loaded.run("add.send(1, 2)")
        dashboard = Dashboard(loaded)
        assert queue(dashboard.now)["depth"] == 1
        server.stop()
        now = dashboard.wait_for(lambda now: now["live"] == "trouble")
        assert now["status"] == "no answer"
        assert now["note"].endswith("The dashboard goes on as soon as it answers.")
        assert queue(now)["depth"] == 1
        server.start()
        assert dashboard.wait_for(lambda now: now["live"] == "live")["totals"]["depth"] == 0
        loaded.run("%nbqueue use stub://")


def test_without_states_it_says_what_to_add(loaded: Notebook, rabbitmq_url: str) -> None:
    loaded.run(f"%nbqueue use {rabbitmq_url}")
    loaded.run("message = add.send(1, 2)")
    dashboard = Dashboard(loaded)
    now = dashboard.wait_for(lambda now: queue(now)["depth"] == 1)
    assert (now["totals"]["done"], now["totals"]["failed"], now["totals"]["rate"]) == (None, None, None)
    assert now["results"] is None
    assert "--state redis://host" in now["note"]
    assert '<dd data-nbqueue-part="total-done">\u2013</dd>' in dashboard.bundle["text/html"]


def test_it_follows_the_notebook_to_another_broker(loaded: Notebook, redis_url: str) -> None:
    dashboard = Dashboard(loaded)
    assert dashboard.now["broker"] == "stub broker, in this kernel"
    loaded.run(f"%nbqueue use {redis_url}")
    dashboard.wait_for(lambda now: now["broker"].startswith("redis://"))


def test_it_works_without_the_extension(notebook: Notebook) -> None:
    notebook.run(ADD)
    assert WIDGET in bundle(notebook.run("nbqueue.dashboard()"))
