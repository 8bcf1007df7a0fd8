"""`nbqueue completion`, and what shells are told when they complete a word."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from nbqueue import Broker, Message

from .conftest import Shell


def completed(shell: Shell, line: str) -> list[str]:
    """Return what bash is told at the end of a line."""
    words = line.split(" ")
    printed = shell.ok(_NBQUEUE_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    return [item.partition(",")[2] for item in printed.split()]


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_a_script_is_printed_for_each_shell(shell: Shell, name: str) -> None:
    script = shell.ok("completion", name)
    assert "_NBQUEUE_COMPLETE" in script
    assert f"{name}_complete" in script


def test_bash_takes_the_script(shell: Shell) -> None:
    bash = shutil.which("bash")
    assert bash is not None, "This test needs bash: apt-get install bash."
    script = shell.ok("completion", "bash")
    done = subprocess.run(
        [bash, "--norc", "-c", f"{script}\ncomplete -p nbqueue"], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "nbqueue" in done.stdout


def test_commands_and_options_are_completed(shell: Shell) -> None:
    assert completed(shell, "nbqueue que") == ["queues"]
    assert completed(shell, "nbqueue failed re") == ["retry"]
    assert completed(shell, "nbqueue queues --js") == ["--json"]
    assert completed(shell, "nbqueue completion f") == ["fish"]


def test_actors_of_the_module_are_completed(shell: Shell) -> None:
    assert completed(shell, "nbqueue send --module tasks f") == ["fail", "forget"]
    assert completed(shell, "nbqueue send f") == []


def test_queues_are_completed_and_hostile_names_are_not(shell: Shell, broker: Broker) -> None:
    for name in ("orders", "other", "or\nqueue"):
        broker.declare_queue(name)
        broker.enqueue(Message(name, "nobody", (), {}, {}))
    assert completed(shell, "nbqueue queues --queue o") == ["orders", "other"]
    assert completed(shell, "nbqueue failed list -q or") == ["orders"]
    assert completed(shell, "nbqueue queues --module tasks --queue e") == ["emails"]


def test_what_can_not_be_completed_is_left_alone(bare_shell: Shell) -> None:
    assert completed(bare_shell, "nbqueue queues --queue o") == []
    assert completed(bare_shell, "nbqueue queues --broker-url redis://127.0.0.1:1 --queue o") == []
    bare_shell.write("broken.py", "1 / 0\n")
    assert completed(bare_shell, "nbqueue send --module broken a") == []
