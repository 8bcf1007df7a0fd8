"""`nbqueue cancel`: messages that wait, run, or have ended."""

from __future__ import annotations

from nbqueue import Broker, inspection

from .conftest import Runner, Shell, eventually


def test_a_delayed_message_is_cancelled(shell: Shell, broker: Broker) -> None:
    [sent] = shell.json("send", "resize", "--delay", "1h")
    assert shell.ok("cancel", sent["id"]) == "Cancelled resize.\n"
    assert broker.get_state().backend.get_many([sent["id"]])[sent["id"]].state == "cancelled"
    done = shell.run("cancel", sent["id"])
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "resize has ended already: cancelled.\n")


def test_a_running_message_is_interrupted(shell: Shell, runner: Runner) -> None:
    sent = runner.hold.send()
    assert runner.started.wait(30)
    eventually(lambda: sent.state == "running", "its state says so")
    printed = shell.ok("cancel", sent.message_id)
    assert printed.startswith(("Told hold to stop: it runs on ", "Cancelled hold."))
    eventually(lambda: sent.state == "cancelled", "it is cancelled")
    [told] = [record for record in inspection.latest(runner.broker) or [] if record.state == "cancelled"]
    assert told.call == "hold()"


def test_a_message_that_waits_is_marked_and_not_run(shell: Shell, broker: Broker) -> None:
    [cancelled] = shell.json("send", "add", "--args", "[1]")
    [other] = shell.json("send", "add", "--args", "[2]")
    assert shell.json("cancel", cancelled["id"]) == [
        {"id": cancelled["id"], "accepted": True, "state": "pending"}
    ]
    runner = Runner(broker)
    try:
        states = broker.get_state().backend
        ids = [cancelled["id"], other["id"]]

        def ended() -> list[str]:
            records = states.get_many(ids)
            return [records[each].state for each in ids if each in records and records[each].final]

        eventually(lambda: ended() == ["cancelled", "done"], "both have ended")
        assert runner.ran == [2]
    finally:
        runner.close()


def test_a_message_that_is_done_can_not_be_cancelled(shell: Shell, runner: Runner) -> None:
    sent = runner.add.send(1)
    sent.get_result(block=True)
    done = shell.run("cancel", sent.message_id, "--json")
    assert done.returncode == 1
    assert '"accepted": false, "state": "done"' in done.stdout


def test_without_states_a_sentence_says_what_is_missing(bare_shell: Shell, rabbitmq_url: str) -> None:
    done = bare_shell.run("cancel", "whatever", "--broker-url", rabbitmq_url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--state-url" in done.stderr
