"""A run whose metrics are kept in a temporary folder and served on a free port, for tests."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import nbqueue.broker
from nbqueue import Message, MessageProxy
from nbqueue.brokers.stub import StubBroker
from nbqueue.middleware import prometheus
from nbqueue.middleware.prometheus import Prometheus
from nbqueue.middleware.prometheus.exposition import Server, handler
from nbqueue.middleware.prometheus.queue_depth import QueueDepth
from nbqueue.middleware.prometheus.run_folder import EXPOSITION, RunFolder

from .conftest import prompt_middleware, stop_time_limit

Labels = frozenset[tuple[str, str]]

#: Those of an actor `add`, and of messages that name it and are made by `proxy_of`.
ADD = {"queue_name": "default", "actor_name": "add"}


def proxy_of(actor_name: str = "add", queue_name: str = "default") -> MessageProxy:
    """Return a message as a worker would hold it."""
    return MessageProxy(
        Message[Any](queue_name=queue_name, actor_name=actor_name, args=(), kwargs={}, options={})
    )


class Site:
    """What reads the metrics lives in the folder, as an exposition process does."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in prometheus.CLIENT_VARIABLES:
            monkeypatch.setenv(name, "")
        monkeypatch.setattr(prometheus, "DB_PATH", str(path / "db"))
        self.path = path / "db"
        self.folder = RunFolder(str(self.path))
        self.depth = QueueDepth()
        self._presence = self.folder.join(EXPOSITION)
        self._server = Server("127.0.0.1", 0, handler(self.folder, self.depth))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @cached_property
    def broker(self) -> StubBroker:
        """The broker of the process, whose messages are counted."""
        broker = StubBroker([*prompt_middleware(), Prometheus()])
        nbqueue.broker.global_broker = broker
        broker.emit_after("process_boot")
        return broker

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        os.close(self._presence)
        if "broker" in self.__dict__:
            self.broker.flush_all()
            stop_time_limit(self.broker)

    def files(self, suffix: str = "") -> list[str]:
        return sorted(name for name in os.listdir(self.path) if name.endswith(suffix))

    def get(self, path: str = "/metrics", **headers: str) -> tuple[int, str]:
        """Return the status and the text of a page."""
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def samples(self) -> dict[tuple[str, Labels], float]:
        """Return the value of each series, by name and labels."""
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.get()[1])
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of a series, None when there is none."""
        return self.samples().get((name, frozenset(labels.items())))

    def sum(self, name: str) -> float:
        """Return the sum of all series of a name."""
        return sum(value for (of, _), value in self.samples().items() if of == name)
