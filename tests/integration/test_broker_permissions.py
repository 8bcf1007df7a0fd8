"""Users of the servers that may do what nbqueue needs, as the guide and `deploy/` make them, and no more."""

from __future__ import annotations

import re
import shlex
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
import redis

import nbqueue
from nbqueue import Broker, inspection
from nbqueue.broker import from_url
from nbqueue.errors import BrokerError
from nbqueue.rate_limits import WindowRateLimiter
from nbqueue.rate_limits.backends.redis import RedisBackend as RedisLimits
from nbqueue.results import ResultFailure

from ..contract.conftest import wait_until
from ..servers import RabbitmqServer, RedisServer

ROOT = Path(__file__).parents[2]
USERS = ROOT / "deploy" / "redis" / "users.conf"
GUIDE = ROOT / "docs" / "production.md"
#: Milliseconds for a result.
SOON = 30_000


class GuardedRedis(RedisServer):
    """A Redis whose users are those of `deploy/redis/users.conf`, and an administrator."""

    def __init__(self) -> None:
        super().__init__(config={"include": str(USERS), "user": "admin on >admin ~* &* +@all"})

    @property
    def url(self) -> str:
        return self.url_of("admin", "admin")

    def url_of(self, user: str, password: str) -> str:
        return f"redis://{user}:{password}@127.0.0.1:{self.port}/0"


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedRedis]:
    with GuardedRedis() as server:
        yield server


def use_everything(broker: Broker) -> None:
    """Send, delay, retry, fail, bury, look, retry and delete dead letters, give back; and drop it all."""
    seen: list[object] = []

    @nbqueue.actor(broker=broker, max_retries=1, min_backoff=1, max_backoff=1)
    def note(value: object) -> object:
        seen.append(value)
        if value == "fail":
            raise ValueError(value)
        return value

    broker.probe()
    worker = nbqueue.Worker(broker, worker_threads=2)
    worker.start()
    try:
        note.send(1)
        note.send_with_options(args=(2,), delay=50)
        note.send_with_options(args=(3,), delay=11_000)
        broker.enqueue_many([note.message("many") for _ in range(1_500)])
        note.send("fail")
        wait_until(lambda: {1, 2, "fail"} <= set(seen) and seen.count("many") == 1_500, timeout=30)
        for times in (2, 4):
            wait_until(lambda: inspection.dead_letters(broker), timeout=30)
            assert seen.count("fail") == times
            if times == 2:
                assert inspection.retry(broker, inspection.dead_letters(broker)) == 1
                wait_until(lambda: seen.count("fail") == 4, timeout=30)
        assert inspection.delete(broker, inspection.dead_letters(broker)) == 1
        assert [queue.name for queue in inspection.queues(broker)] == ["default"]
        wait_until(lambda: 3 in seen, timeout=60)
        broker.join("default", timeout=SOON)
    finally:
        worker.stop(timeout=5_000)
    note.send("dropped")
    broker.flush_all()


def test_a_user_of_redis_can_do_all_that_nbqueue_does(guarded: GuardedRedis) -> None:
    url = guarded.url_of("nbqueue", "change-me")
    broker = from_url(url, profile=True)
    called = threading.Event()

    @nbqueue.actor(broker=broker)
    def add(a: int, b: int) -> int:
        return a + b

    @nbqueue.actor(broker=broker)
    def call() -> None:
        called.set()

    @nbqueue.actor(broker=broker)
    def endless() -> None:
        pause = threading.Event()
        for step in range(10_000):
            nbqueue.progress(step, 10_000)
            pause.wait(0.01)

    use_everything(broker)
    other = from_url(url)
    other.declare_queue("default")
    worker = nbqueue.Worker(broker, worker_threads=2)
    add.send(1, 1)
    assert len(other.do_fetch("default", 1)) == 1  # type: ignore[attr-defined]
    assert broker.reclaim(other.identity or "") == 1
    worker.start()
    try:
        assert add.send(1, 2).get_result(timeout=SOON) == 3
        pipeline = nbqueue.pipeline([add.message(1, 2), add.message(3)], broker=broker)
        assert pipeline.run().get_result(block=True, timeout=SOON) == 6
        group = nbqueue.group([add.message(1, 1), add.message(2, 2)], broker=broker)
        group.add_completion_callback(call.message())
        assert list(group.run().get_results(block=True, timeout=SOON)) == [2, 4]
        assert called.wait(30)
        running = endless.send()
        wait_until(lambda: running.progress is not None, timeout=30)
        assert running.cancel()
        with pytest.raises(ResultFailure, match="Cancelled"):
            running.get_result(timeout=SOON)
        assert inspection.latest(broker)
    finally:
        worker.stop(timeout=5_000)
    other.close()
    broker.close()
    with guarded.client() as admin:
        assert admin.acl_log() == []
        for command in (["KEYS", "*"], ["FLUSHALL"], ["CONFIG", "GET", "*"], ["GET", "another"]):
            assert b"no permissions" in admin.execute_command("ACL DRYRUN", "nbqueue", *command), command


def test_a_rate_limit_needs_a_pattern_of_its_own(guarded: GuardedRedis) -> None:
    limiter = WindowRateLimiter(RedisLimits(url=guarded.url_of("nbqueue", "change-me")), "mail-out", limit=1)

    def passes() -> bool:
        with limiter.acquire(raise_on_failure=False) as passed:
            return bool(passed)

    with guarded.client() as admin:
        with pytest.raises((BrokerError, redis.exceptions.NoPermissionError)):
            passes()
        admin.acl_log_reset()
        admin.execute_command("ACL SETUSER", "nbqueue", "~mail-*")
        assert passes()
        assert admin.acl_log() == []


def test_the_user_of_the_autoscaler_reads_lengths_only(guarded: GuardedRedis) -> None:
    """The script is of the kind that KEDA runs: one for keys of every type."""
    script = """
        local kind = redis.call('type', KEYS[1]).ok
        local count = {list = 'llen', hash = 'hlen', set = 'scard', zset = 'zcard', none = 'llen'}
        return redis.call(count[kind], KEYS[1])
    """
    key = f"dramatiq:{uuid.uuid4().hex}"
    with guarded.client() as admin:
        admin.rpush(key, "one", "two")
        admin.hset(f"{key}.msgs", mapping={"one": "", "two": "", "running": ""})
    with redis.Redis.from_url(guarded.url_of("keda", "change-me-too")) as client:
        assert client.eval(script, 1, key) == 2
        assert client.eval(script, 1, f"{key}.msgs") == 3
        for command in (
            ["LPOP", key],
            ["RPUSH", key, "three"],
            ["HGETALL", f"{key}.msgs"],
            ["TYPE", "other"],
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)


def test_nobody_else_may_use_redis(guarded: GuardedRedis) -> None:
    with redis.Redis(port=guarded.port) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_a_user_of_rabbitmq_can_do_all_that_nbqueue_does(rabbitmq_server: RabbitmqServer) -> None:
    """With the commands of the guide, as they stand there; undone afterwards."""
    page = GUIDE.read_text()
    commands = [shlex.split(line)[1:] for line in re.findall(r"^rabbitmqctl .*$", page, re.M)]
    assert [command[0] for command in commands] == ["add_vhost", "add_user", "set_permissions"]
    try:
        for command in commands:
            rabbitmq_server.ctl(*command)
        url = f"amqp://shop:{commands[1][2]}@127.0.0.1:{rabbitmq_server.port}/shop"
        broker = from_url(url, profile=True)
        use_everything(broker)

        note = broker.get_actor("note")
        note.send("again")
        parameters = pika.URLParameters(url)
        with pika.BlockingConnection(parameters) as connection:  # a worker that dies with the message
            channel = connection.channel()
            wait_until(lambda: channel.basic_get("default")[0] is not None)
        again = nbqueue.Worker(broker, worker_threads=1)
        again.start()
        broker.join("default", timeout=SOON)
        again.stop(timeout=5_000)
        queues = {row["name"] for row in rabbitmq_server.rows("list_queues", "name", vhost="shop")}
        assert any(name.startswith("nbqueue.started.") for name in queues)
        assert "nbqueue.delay.10" in queues

        with pytest.raises(BrokerError, match="shop"):
            broker.declare_queue("another", ensure=True)  # type: ignore[call-arg]
        broker.close()
        with pytest.raises(pika.exceptions.ProbableAccessDeniedError):
            pika.BlockingConnection(pika.URLParameters(url.removesuffix("shop") + "%2F"))
    finally:
        rabbitmq_server.ctl("delete_user", "shop")
        rabbitmq_server.ctl("delete_vhost", "shop")
