"""What a cell shows of actors and messages."""

from __future__ import annotations

from .conftest import Notebook


def test_a_quick_message_shows_its_result(loaded: Notebook) -> None:
    data = loaded.run("add.send(1, 2)").data
    assert data["text/plain"] == "add(1, 2) = 3"
    assert 'data-nbqueue="message" data-nbqueue-state="done"' in data["text/html"]
    assert '<code data-nbqueue-part="value">3</code>' in data["text/html"]
    assert "<time" not in data["text/html"]


def test_an_unfinished_message_says_as_of_when(loaded: Notebook) -> None:
    data = loaded.run("add.send_with_options(args=(1, 2), delay=60_000)").data
    assert data["text/plain"] == "add(1, 2) delayed"
    assert 'data-nbqueue-state="delayed"' in data["text/html"]
    assert "<time datetime=" in data["text/html"]


def test_a_failed_message_shows_its_error(loaded: Notebook) -> None:
    data = loaded.run("add.send(1, None)").data
    assert data["text/plain"].startswith("add(1, None) failed: TypeError: unsupported operand")
    assert 'data-nbqueue-part="error"' in data["text/html"]
    assert 'data-nbqueue-part="traceback"' in data["text/html"]


def test_an_actor_shows_its_signature_and_docstring(loaded: Notebook) -> None:
    data = loaded.run("add").data
    assert data["text/plain"] == "add(a, b), actor on default"
    assert 'data-nbqueue="actor"' in data["text/html"]
    assert "Add two numbers." in data["text/html"]


def test_html_from_users_is_escaped(loaded: Notebook) -> None:
    loaded.run("@nbqueue.actor\ndef echo(x): '<script>doc</script>'; return x")
    for source in ("echo.send('<img src=x onerror=1>\\u202e')", "echo"):
        html = loaded.run(source).data["text/html"]
        assert "<img" not in html
        assert "<script" not in html
        assert "\u202e" not in html


def test_a_message_of_a_stopped_session_is_pending(loaded: Notebook) -> None:
    loaded.run("nbqueue.stop()")
    assert loaded.run("message = add.send(1, 2); message").result == "add(1, 2) pending"
    assert "nbqueue.start()" in loaded.run("message.get_result()").error
    loaded.run("nbqueue.start()")
    assert loaded.run("message.get_result()").result == "3"
