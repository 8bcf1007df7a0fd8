"""What a cell shows at once: of actors, brokers and workers, and of messages that are quick."""

from __future__ import annotations

from .conftest import Notebook, state_of


def test_a_quick_message_shows_its_result(loaded: Notebook) -> None:
    shown = loaded.run("add.send(1, 2)")
    assert shown.data["text/plain"] == "add(1, 2) = 3"
    assert 'data-nbqueue="message" data-nbqueue-state="done"' in shown.data["text/html"]
    assert '<pre class="nbq-value" data-nbqueue-part="value">3</pre>' in shown.data["text/html"]
    assert "<time" not in shown.data["text/html"]
    assert shown.display_id


def test_the_last_expression_is_still_kept_as_out(loaded: Notebook) -> None:
    loaded.run("add.send(1, 2)")
    assert loaded.run("_.get_result()").result == "3"
    assert loaded.run("Out[3].get_result()").result == "3"


def test_an_unfinished_message_says_as_of_when(loaded: Notebook) -> None:
    data = loaded.run("add.send_with_options(args=(1, 2), delay=60_000)").data
    assert data["text/plain"] == "add(1, 2) delayed"
    assert state_of(data) == "delayed"
    assert "<time datetime=" in data["text/html"]


def test_a_failed_message_shows_its_error_where_it_happened_and_what_to_do(loaded: Notebook) -> None:
    loaded.run("def halve(x):\n    half = x / 0\n    return half")
    loaded.run("@nbqueue.actor\ndef broken(x):\n    print('so far')\n    return halve(x)")
    data = loaded.run("broken.send(1)").data
    html = data["text/html"]
    assert data["text/plain"] == "broken(1) failed: ZeroDivisionError: division by zero"
    assert (
        '<p class="nbq-error" data-nbqueue-part="error"><b>ZeroDivisionError</b>: division by zero</p>'
        in html
    )
    assert "In [4], line 4, in broken" in html
    assert "In [3], line 2, in halve" in html
    assert "<mark>    2     half = x / 0</mark>" in html
    assert "2 of your frames" in html
    assert "worker_thread.py" not in html
    assert "so far" in html
    assert "<code>broken(1)</code>" in html
    retry = html.partition("%nbqueue retry ")[2].partition("<")[0]
    assert loaded.run(f"%nbqueue retry {retry}").stdout == "Sent 1 message again.\n"


def test_an_actor_shows_its_signature_its_docstring_its_messages_and_its_cell(loaded: Notebook) -> None:
    loaded.run("add.send(1, 2).get_result()")
    data = loaded.run("add").data
    assert data["text/plain"] == "add(a, b), actor on default"
    html = data["text/html"]
    assert 'data-nbqueue="actor"' in html
    assert "Add two numbers." in html
    assert "1 done" in html
    assert "defined in In [2]" in html
    assert "version" not in html


def test_an_actor_that_was_defined_anew_says_which_version_it_is(loaded: Notebook) -> None:
    source = "@nbqueue.actor\ndef add(a, b):\n    return {}"
    loaded.run(source.format("a * b"))
    assert "defined in In [3], second version; waiting messages use it" in loaded.run("add").data["text/html"]
    loaded.run(source.format("a * b"))
    assert "defined in In [5], second version" in loaded.run("add").data["text/html"]


def test_a_broker_and_a_worker_show_what_they_are(loaded: Notebook) -> None:
    broker = loaded.run("nbqueue.get_broker()").data
    assert broker["text/plain"] == "stub broker in this kernel, 8 threads"
    assert 'data-nbqueue="broker"' in broker["text/html"]
    assert "queues default" in broker["text/html"]
    worker = loaded.run("nbqueue.get_broker().worker").data
    assert worker["text/plain"] == "8 threads, 0 running"
    assert 'data-nbqueue="worker"' in worker["text/html"]


def test_a_broker_that_is_not_reached_says_so(loaded: Notebook) -> None:
    loaded.run(
        "from nbqueue.brokers.redis import RedisBroker\nfar = RedisBroker(url='redis://:open-sesame@127.0.0.1:1')"
    )
    html = loaded.run("far").data["text/html"]
    assert "not reached" in html
    assert "open-sesame" not in html


def test_html_from_users_is_escaped(loaded: Notebook) -> None:
    loaded.run("@nbqueue.actor\ndef echo(x): '<script>doc</script>'; print(x); return x")
    loaded.run("@nbqueue.actor\ndef fail(x): raise ValueError(x)")
    hostile = "'<img src=x onerror=1>\\u202e\\x1b[31m\\x07\\ud800'"
    for source in (f"echo.send({hostile})", "echo", f"fail.send({hostile})", f"echo.map([{hostile}])"):
        shown = loaded.run(source)
        assert shown.error == ""
        html = shown.data["text/html"]
        assert "<img" not in html
        assert "<script" not in html
        assert "\u202e" not in html
        assert "\x1b" not in html + shown.data["text/plain"]


def test_a_long_value_is_cut_and_says_how_much_is_missing(loaded: Notebook) -> None:
    loaded.run("@nbqueue.actor\ndef many(): return list(range(5_000))")
    data = loaded.run("many.send()").data
    assert "kB more, _.get_result() has all" in data["text/html"]
    assert data["text/plain"].count("\n") < 20
    assert len(data["text/html"]) < 6_000


def test_a_repr_that_fails_does_not_break_the_card(loaded: Notebook) -> None:
    loaded.run("nbqueue.set_encoder(nbqueue.PickleEncoder())\n%nbqueue use redis://127.0.0.1:1")
    loaded.run("class Odd:\n    def __repr__(self): raise RuntimeError('no')")
    loaded.run("import nbqueue.notebook.cards.value as value")
    assert loaded.run("value.pretty(Odd())[0]").result == "'<Odd, whose repr raised RuntimeError>'"


def test_messages_in_a_list_are_not_waited_for(loaded: Notebook) -> None:
    loaded.run("%nbqueue workers 0")
    assert loaded.run("[add.send(1, 2), add.send(3, 4)]").result == "[add(1, 2) pending, add(3, 4) pending]"


def test_what_was_not_sent_says_so_in_text(loaded: Notebook) -> None:
    assert loaded.run("add.message(1, 2)").data == {"text/plain": "add(1, 2), not sent"}
    group = loaded.run("nbqueue.group([add.message(1, 2), add.message(3, 4)])").data
    assert group == {"text/plain": "group of 2 messages, not sent: .run() sends it"}
    pipeline = loaded.run("add.message(1, 2) | add.message(3)").data
    assert pipeline == {"text/plain": "add → add, not sent: .run() sends it"}


def test_a_message_of_a_stopped_session_is_pending_and_says_what_to_run(loaded: Notebook) -> None:
    loaded.run("nbqueue.stop()")
    shown = loaded.run("message = add.send(1, 2); message")
    assert shown.result == "add(1, 2) pending"
    assert "nbqueue.start() runs it" in shown.data["text/html"]
    assert "nbqueue.start()" in loaded.run("message.get_result()").error
    loaded.run("nbqueue.start()")
    assert loaded.run("message.get_result()").result == "3"


def test_every_card_is_small_and_needs_nothing_from_elsewhere(loaded: Notebook) -> None:
    loaded.run("@nbqueue.actor\ndef broken(x):\n    print('so far')\n    return 1 / x")
    for source in ("add.send(1, 2)", "broken.send(0)", "add.map([(1,)])", "add", "nbqueue.get_broker()"):
        html = loaded.run(source).data["text/html"]
        assert len(html.encode()) <= 4_096, source
        assert html.count("<style>") == 1
        for word in ("http:", "https:", "url(", "@import", "<script", " on"):
            assert word not in html.partition("</style>")[0], word
