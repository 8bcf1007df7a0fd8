"""Real kernels for the tests of the notebook experience."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager


class Notebook:
    """A kernel, and the outputs of the cells that ran in it, by cell as a front end would show them.

    Parameters:
      python: the interpreter that runs the kernel.
      settings: how the kernel is started, as `Popen` takes it.
    """

    def __init__(self, python: str = sys.executable, **settings: Any) -> None:
        self.manager = KernelManager()
        self.manager._kernel_spec = KernelSpec(
            argv=[python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="test",
            language="python",
        )
        self.manager.start_kernel(**settings)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.messages: list[dict[str, Any]] = []
        #: Whether the kernel is to keep cells in its history; some tools that run notebooks say no.
        self.store_history = True

    def start(self, source: str) -> str:
        """Start a cell; return its id."""
        return self.client.execute(source, store_history=self.store_history)

    def finish(self, cell: str, timeout: float = 30) -> Outputs:
        """Wait until the cell has ended; return what it shows."""
        self.wait_for(
            lambda: any(
                m["msg_type"] == "status" and m["content"]["execution_state"] == "idle"
                for m in self._of(cell)
            ),
            timeout,
        )
        return self.outputs(cell)

    def run(self, source: str, timeout: float = 30) -> Outputs:
        """Run a cell; return what it shows."""
        return self.finish(self.start(source), timeout)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 20) -> None:
        """Collect messages until the condition holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"timed out; seen: {[m['content'] for m in self.messages]}"
            self.collect(0.05)

    def collect(self, seconds: float) -> None:
        """Take in what the kernel publishes within some seconds."""
        import queue

        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                self.messages.append(self.client.get_iopub_msg(timeout=left))
            except queue.Empty:
                return

    def _of(self, cell: str) -> list[dict[str, Any]]:
        return [m for m in self.messages if m["parent_header"].get("msg_id") == cell]

    def outputs(self, cell: str) -> Outputs:
        return Outputs(self._of(cell))

    def updates(self, shown: Outputs) -> list[dict[str, Any]]:
        """Return the updates of what a cell shows, whichever cell ran when they came."""
        return [
            m
            for m in self.messages
            if m["msg_type"] == "update_display_data"
            and m["content"]["transient"]["display_id"] == shown.display_id
        ]

    def now(self, shown: Outputs) -> dict[str, str]:
        """Return the forms of what a cell shows by now."""
        updates = self.updates(shown)
        return updates[-1]["content"]["data"] if updates else shown.data

    def wait_for_state(self, shown: Outputs, state: str) -> dict[str, str]:
        """Wait until the card that a cell shows is in a state; return its forms."""
        self.wait_for(lambda: state_of(self.now(shown)) == state)
        return self.now(shown)

    def interrupt(self) -> None:
        self.manager.interrupt_kernel()

    def restart(self) -> None:
        self.manager.restart_kernel(now=False)
        self.client.wait_for_ready(timeout=60)
        self.messages.clear()

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def state_of(forms: dict[str, str]) -> str:
    """Return the state of a card."""
    return forms["text/html"].partition('data-nbqueue-state="')[2].partition('"')[0]


class Outputs:
    """What one cell shows."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.messages = messages

    def _text(self, stream: str) -> str:
        return "".join(
            m["content"]["text"]
            for m in self.messages
            if m["msg_type"] == "stream" and m["content"]["name"] == stream
        )

    @property
    def stdout(self) -> str:
        return self._text("stdout")

    @property
    def stderr(self) -> str:
        return self._text("stderr")

    @property
    def data(self) -> dict[str, str]:
        """The forms of the cell's last expression, as it was shown first."""
        for message in reversed(self.messages):
            if message["msg_type"] in ("execute_result", "display_data"):
                return message["content"]["data"]
        return {}

    @property
    def display_id(self) -> str:
        """The id by which what the cell shows is updated."""
        for message in reversed(self.messages):
            if message["msg_type"] == "display_data":
                return message["content"]["transient"]["display_id"]
        raise AssertionError("This cell shows nothing that can be updated.")

    @property
    def result(self) -> str:
        return self.data.get("text/plain", "")

    @property
    def error(self) -> str:
        """`Type: text` of the error that ended the cell, or nothing."""
        for message in self.messages:
            if message["msg_type"] == "error":
                return f"{message['content']['ename']}: {message['content']['evalue']}"
        return ""

    @property
    def traceback(self) -> str:
        for message in self.messages:
            if message["msg_type"] == "error":
                return "\n".join(message["content"]["traceback"])
        return ""


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    notebook = Notebook()
    yield notebook
    notebook.close()


@pytest.fixture
def loaded(notebook: Notebook) -> Notebook:
    """A notebook with the extension loaded and an actor defined."""
    assert notebook.run("%load_ext nbqueue").error == ""
    assert notebook.run(ADD).error == ""
    return notebook


ADD = """
import nbqueue

@nbqueue.actor
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b
"""
