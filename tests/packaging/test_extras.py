"""Each extra is enough for what it is for: a fresh environment has it alone, and does something with it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from ..notebooks.conftest import Notebook
from ..servers.server import free_port
from .conftest import DEADLINE, EXTRAS, IMPORT_ALL, KERNEL, Distributions, Environment

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]


@pytest.fixture
def environment(
    request: pytest.FixtureRequest, distributions: Distributions, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """An environment with the extra that the name of the test names, and no other."""
    (extra,) = (name for name in (*EXTRAS, "all") if request.node.name == f"test_{name}_alone")
    return Environment(tmp_path_factory.mktemp(extra), f"{distributions.wheel}[{extra}]")


def test_every_extra_is_tried() -> None:
    tried = {
        name.removeprefix("test_").removesuffix("_alone") for name in globals() if name.endswith("_alone")
    }
    assert tried == {*EXTRAS, "all"}


@contextlib.contextmanager
def served(environment: Environment, *command: str, **variables: str) -> Iterator[Path]:
    """Serve as users do, and stop as they do; gives the file with what is said meanwhile."""
    said = environment.work / "said"
    with said.open("wb") as output:
        process = subprocess.Popen(
            [str(environment.programs / command[0]), *command[1:]],
            cwd=environment.work,
            env=environment.variables(PYTHONUNBUFFERED="1", **variables),
            stdout=output,
            stderr=output,
        )
    try:
        yield said
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0, said.read_text()
    finally:
        process.kill()
        process.wait()


def wait_until_it_says(said: Path, text: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while text not in said.read_text():
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.05)


#: A program that sends a hundred messages to a server and runs them itself.
ON_A_SERVER = """
import nbqueue
from nbqueue.brokers.{module} import {broker}

broker = {broker}(url={url!r})
nbqueue.set_broker(broker)
done = []

@nbqueue.actor
def double(n):
    done.append(2 * n)

worker = nbqueue.Worker(broker, worker_threads=2)
worker.start()
for n in range(100):
    double.send(n)
broker.join("default", timeout=30_000)
worker.stop()
broker.close()
print(sum(done))
"""

#: A module for `nbqueue serve` with a broker in memory: what it sends when it is imported runs right there.
IN_MEMORY = """
import time
import nbqueue
from nbqueue.brokers.stub import StubBroker

broker = StubBroker()
{more}
nbqueue.set_broker(broker)

@nbqueue.actor
def say(what):
    time.sleep(1)
    print("actor:", what)

{send}
"""


def test_redis_alone(environment: Environment, redis_url: str) -> None:
    program = ON_A_SERVER.format(module="redis", broker="RedisBroker", url=redis_url)
    assert environment.python(program) == "9900\n"
    environment.write("tasks.py", "import nbqueue\n\n@nbqueue.actor\ndef double(n): return 2 * n\n")
    with served(environment, "nbqueue", "serve", "tasks", "--processes", "1", NBQUEUE_BROKER_URL=redis_url):
        program = "import sys; sys.path.insert(0, ''); import tasks; "
        program += "print(tasks.double.send(4).get_result(timeout=30_000))"
        assert environment.python(program, NBQUEUE_BROKER_URL=redis_url) == "8\n"
        assert "default" in environment.run("nbqueue", "queues", "--broker-url", redis_url).stdout


def test_rabbitmq_alone(environment: Environment, rabbitmq_url: str) -> None:
    program = ON_A_SERVER.format(module="rabbitmq", broker="RabbitmqBroker", url=rabbitmq_url)
    assert environment.python(program) == "9900\n"


def test_memcached_alone(environment: Environment, memcached_url: str) -> None:
    program = f"""
import nbqueue
from nbqueue.brokers.stub import StubBroker
from nbqueue.rate_limits import ConcurrentRateLimiter
from nbqueue.rate_limits.backends import MemcachedBackend as Limits
from nbqueue.results import Results
from nbqueue.results.backends import MemcachedBackend

broker = StubBroker()
broker.add_middleware(Results(backend=MemcachedBackend(url={memcached_url!r}), store_results=True))
nbqueue.set_broker(broker)
limiter = ConcurrentRateLimiter(Limits(url={memcached_url!r}), "one", limit=1)

@nbqueue.actor
def double(n):
    with limiter.acquire():
        return 2 * n

worker = nbqueue.Worker(broker, worker_threads=1)
worker.start()
print(double.send(4).get_result(block=True, timeout=30_000))
worker.stop()
"""
    assert environment.python(program) == "8\n"


def test_prometheus_alone(environment: Environment) -> None:
    metered = "from nbqueue.middleware.prometheus import Prometheus\nbroker.add_middleware(Prometheus())"
    environment.write("tasks.py", IN_MEMORY.format(more=metered, send="say.send('counted')"))
    port = str(free_port())
    with served(
        environment,
        *("nbqueue", "serve", "tasks", "--processes", "1"),
        NBQUEUE_PROM_HOST="127.0.0.1",
        NBQUEUE_PROM_PORT=port,
    ) as said:
        wait_until_it_says(said, "actor: counted")
        wanted = 'nbqueue_messages_total{actor_name="say",queue_name="default"} 1'
        deadline = time.monotonic() + DEADLINE
        shown = ""
        while wanted not in shown:
            assert time.monotonic() < deadline, shown
            with contextlib.suppress(OSError):
                shown = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()


def test_jupyter_alone(environment: Environment) -> None:
    environment.install(KERNEL)
    kernel = Notebook(
        str(environment.programs / "python"), cwd=str(environment.work), env=environment.variables()
    )
    try:
        assert kernel.run("%load_ext nbqueue").error == ""
        shown = kernel.run("%nbqueue dashboard")
        assert shown.error == ""
        assert "application/vnd.jupyter.widget-view+json" in shown.data
        assert "pip install" not in shown.data["text/html"]
    finally:
        kernel.close()


def test_watch_alone(environment: Environment) -> None:
    module = IN_MEMORY.format(more="print('version one')", send="")
    environment.write("tasks.py", module)
    with served(environment, "nbqueue", "serve", "tasks", "--processes", "1", "--watch", ".") as said:
        wait_until_it_says(said, "version one")
        # The file may have been seen before the watch began: it is written until somebody sees it.
        deadline = time.monotonic() + DEADLINE
        while "version two" not in said.read_text():
            assert time.monotonic() < deadline, said.read_text()
            environment.write("tasks.py", module.replace("one", "two"))
            time.sleep(1)


def test_gevent_alone(environment: Environment) -> None:
    environment.write("tasks.py", IN_MEMORY.format(more="", send="for n in range(200): say.send(n)"))
    with served(
        environment, *("nbqueue-gevent", "serve", "tasks", "--processes", "1", "--threads", "200")
    ) as said:
        for n in range(200):
            wait_until_it_says(said, f"actor: {n}\n")


def test_all_alone(environment: Environment) -> None:
    lines = environment.python(IMPORT_ALL).splitlines()
    assert len(lines) > 150
    assert [line for line in lines if not line.startswith("there")] == []
    assert environment.run("python", "-m", "pip", "check").returncode == 0
