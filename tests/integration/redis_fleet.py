"""Brokers, workers and worker processes in one namespace of a Redis, and what foreign programs do there.

`Fleet` makes them and ends those that are left. Foreign programs are played by plain commands on the
compatible layout, never by way of `nbqueue`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import redis

import nbqueue
from nbqueue import Worker
from nbqueue.brokers.redis import RedisBroker

from ..contract.conftest import wait_until
from .fleet import QUEUE, ROOT, noting, now, wire

DEADLINE = 30.0


class WorkerProcess:
    """A process that runs `redis_worker_program`."""

    def __init__(self, **settings: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.redis_worker_program", json.dumps(settings)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.broker_id = ""

    def wait_ready(self) -> WorkerProcess:
        assert self.process.stdout is not None
        self.broker_id = self.process.stdout.readline().decode().strip()
        assert self.broker_id, "The worker process ended before it worked."
        return self

    def kill(self) -> None:
        """End it without a chance to say goodbye."""
        self.process.kill()
        self.process.wait(DEADLINE)

    def freeze(self) -> None:
        """Stop it where it is, with its connections open."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it in good order."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(DEADLINE) == 0

    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Bytes of memory that are its own."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()


class Fleet:
    """What works on one namespace of one server."""

    def __init__(self, url: str, namespace: str | None = None) -> None:
        self.url = url
        self.namespace = f"test-{uuid.uuid4().hex[:8]}" if namespace is None else namespace
        self.client = redis.Redis.from_url(url)
        self.brokers: list[RedisBroker] = []
        self.workers: list[Worker] = []
        self.processes: list[WorkerProcess] = []

    # -- nbqueue -----------------------------------------------------------------------------------------

    def broker(self, queues: Iterable[str] = (QUEUE,), **settings: Any) -> RedisBroker:
        """Return a broker with these queues declared."""
        broker = RedisBroker(**{"url": self.url, "namespace": self.namespace, **settings})
        for queue in queues:
            broker.declare_queue(queue)
        self.brokers.append(broker)
        return broker

    def worker(self, broker: RedisBroker, threads: int = 2, **settings: Any) -> Worker:
        """Return a worker that runs."""
        worker = Worker(broker, worker_threads=threads, **settings)
        self.workers.append(worker)
        worker.start()
        return worker

    def process(self, threads: int = 2, queue: str = QUEUE, **settings: Any) -> WorkerProcess:
        """Return a worker process that works."""
        return self.start(threads, queue, **settings).wait_ready()

    def start(self, threads: int = 2, queue: str = QUEUE, **settings: Any) -> WorkerProcess:
        """Return a worker process that is starting: when one waits for it, it works."""
        known = {"url": self.url, "namespace": self.namespace, "queue": queue, "threads": threads}
        process = WorkerProcess(**known, **settings)
        self.processes.append(process)
        return process

    def actor(self, broker: RedisBroker, name: str, queue: str = QUEUE) -> nbqueue.Actor[[int], None]:
        """Return an actor whose messages the worker processes run: `note`, `hold` or `die`."""

        @nbqueue.actor(broker=broker, actor_name=name, queue_name=queue, max_retries=0)
        def sent(number: int) -> None:
            raise AssertionError("It runs in a worker process.")

        return sent

    def log(self, word: str = "") -> list[int]:
        """Return the arguments that the actors of worker processes noted with this word."""
        lines = [line.decode().split() for line in self.client.lrange(f"{self.namespace}.log", 0, -1)]
        return [int(number) for found, _, number in lines if found == word]

    def runners(self, word: str = "ran") -> list[int]:
        """Return the process ids of those who noted the word."""
        lines = [line.decode().split() for line in self.client.lrange(f"{self.namespace}.log", 0, -1)]
        return [int(pid) for found, pid, _ in lines if found == word]

    def holding(self) -> int:
        """Return how many actors of worker processes wait for `release` in the server, in that order."""
        return sum(client["cmd"] == "blpop" for client in self.client.client_list())

    def release(self) -> None:
        """Let the actors that hold end."""
        self.client.rpush(f"{self.namespace}.log.release", "go")

    # -- what lies in the server -------------------------------------------------------------------------

    def key(self, name: str) -> str:
        return f"{self.namespace}:{name}" if self.namespace else name

    def present(self) -> set[str]:
        """Return the keys of the namespace, without it."""
        prefix = self.key("")
        return {key.decode()[len(prefix) :] for key in self.client.scan_iter(match=f"{prefix}*", count=1000)}

    def held(self, queue: str = QUEUE) -> int:
        """Return how many ids of the queue anybody holds."""
        keys = [key for key in self.present() if key.startswith("__acks__.") and key.endswith(f".{queue}")]
        return sum(self.client.scard(self.key(key)) for key in keys if ":inbox:" not in key)

    # -- foreign programs --------------------------------------------------------------------------------

    def put(self, body: bytes, queue: str = QUEUE, redis_id: str | bytes | None = None) -> str | bytes:
        """Publish bytes as a foreign producer does; return the id."""
        redis_id = redis_id if redis_id is not None else str(uuid.uuid4())
        self.client.hset(self.key(f"{queue}.msgs"), redis_id, body)
        self.client.rpush(self.key(queue), redis_id)
        return redis_id

    def send(self, actor: str, *args: Any, queue: str = QUEUE, **options: Any) -> str | bytes:
        """Publish a message as a foreign producer with proper options does; return its id."""
        redis_id = str(uuid.uuid4())
        options["redis_message_id"] = redis_id
        return self.put(wire(actor, *args, queue=queue, options=options), queue, redis_id)

    def foreign_fetch(self, broker_id: str, queue: str = QUEUE) -> list[tuple[bytes, bytes | None]]:
        """Take a message as a foreign worker does."""
        self.client.zadd(self.key("__heartbeats__"), {broker_id: int(time.time() * 1000)})
        redis_id = self.client.lpop(self.key(queue))
        if redis_id is None:
            return []
        self.client.sadd(self.key(f"__acks__.{broker_id}.{queue}"), redis_id)
        return [(redis_id, self.client.hget(self.key(f"{queue}.msgs"), redis_id))]

    def foreign_ack(self, broker_id: str, redis_id: bytes, queue: str = QUEUE) -> bool:
        """Acknowledge a message as a foreign worker does."""
        if self.client.srem(self.key(f"__acks__.{broker_id}.{queue}"), redis_id):
            self.client.hdel(self.key(f"{queue}.msgs"), redis_id)
            return True
        return False

    def silence(self, broker_id: str, milliseconds: int = 600_000) -> None:
        """Let a broker seem silent for so long."""
        self.client.zadd(self.key("__heartbeats__"), {broker_id: int(time.time() * 1000) - milliseconds})

    def close(self) -> None:
        for process in self.processes:
            process.close()
        for worker in self.workers:
            worker.resume()
            worker.stop(timeout=5_000)
        for broker in self.brokers:
            broker.close()
        self.client.close()


__all__ = ["DEADLINE", "QUEUE", "ROOT", "Fleet", "WorkerProcess", "noting", "now", "wait_until", "wire"]
