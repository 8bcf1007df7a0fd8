"""`binder/` makes an environment, by the conventions of repo2docker, in which every tutorial runs.

Source of the conventions: repo2docker.readthedocs.io, "Configuration files". The packages of apt.txt and
requirements.txt are installed, postBuild runs in the root of the checkout, and start runs before the front
end, whose command line it is given; both run as a plain user.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
import redis
from pymemcache.client.base import Client

from ..servers.server import free_port
from .conftest import DEADLINE, EXTRAS, PROJECT, ROOT, Environment, copy_project

BINDER = ROOT / "binder"
TUTORIALS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
SCRIPTS = ("postBuild", "start")
#: What only tests need of what tools/services installs.
FOR_TESTS = {"chromium"}


def lines(name: str) -> list[str]:
    """Return the lines of a file that are no comments."""
    text = (BINDER / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


# -- what the files say ------------------------------------------------------------------------------------


def test_there_is_every_server_that_tests_start() -> None:
    services = (ROOT / "tools" / "services").read_text()
    needed = re.search(r"^needed=\((.*)\)$", services, re.M)
    assert needed is not None
    packages = {pair.partition(":")[2] for pair in needed[1].split()}
    assert packages >= FOR_TESTS
    assert packages - FOR_TESTS <= set(lines("apt.txt"))


def test_there_is_every_program_that_a_tutorial_calls() -> None:
    """In cells for the shell, and from Python; the first word of each command."""
    called = set()
    for name in TUTORIALS:
        text = (ROOT / "notebooks" / name).read_text(encoding="utf-8")
        called |= set(re.findall(r"subprocess\.run\(\[\\\"(\w+)\\\"", text))
        called |= set(re.findall(r"^    \"(redis-cli) ", text, re.M))
    package = {"perl": "perl", "redis-cli": "redis-tools"}
    assert called == set(package)
    assert set(package.values()) <= set(lines("apt.txt"))


def test_the_requirements_are_those_of_the_project() -> None:
    wanted = {*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["notebook"]}
    assert lines("requirements.txt") == sorted(wanted.union(*EXTRAS.values()))


def test_the_python_is_one_that_nbqueue_says_it_runs_on() -> None:
    (runtime,) = lines("runtime.txt")
    number = runtime.removeprefix("python-")
    assert f"Programming Language :: Python :: {number}" in PROJECT["project"]["classifiers"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_can_be_run(name: str) -> None:
    script = BINDER / name
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/bin/bash\n")
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=20)


def test_what_is_given_to_start_takes_its_place() -> None:
    assert lines("start")[-1] == 'exec "$@"'


# -- what they do ------------------------------------------------------------------------------------------


class Session:
    """What `start` is told, and the processes that it starts: a session of their own, ended as a whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = ("REDIS_PORT", "AMQP_PORT", "MEMCACHED_PORT", "RABBITMQ_DIST_PORT", "ERL_EPMD_PORT")
        self.variables = {name: str(free_port()) for name in names}
        self.variables |= {"HOME": str(folder), "SERVERS_FOLDER": str(folder / "servers")}

    @contextlib.contextmanager
    def started(self, script: Path, command: str, **settings: Any) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [str(script), "bash", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **settings,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(DEADLINE)

    def logs(self) -> str:
        found = sorted((self.folder / "servers").glob("*/log"))
        return "\n".join(f"{path}\n{path.read_text()[-2000:]}" for path in found)


@pytest.fixture
def session() -> Iterator[Session]:
    """A session whose folder is open to plain users, which those of pytest aren't."""
    folder = Path(tempfile.mkdtemp(prefix="nbqueue-binder-"))
    yield Session(folder)
    shutil.rmtree(folder, ignore_errors=True)


def as_plain_user(session: Session) -> dict[str, Any]:
    """Put `start` into the session's folder; return the settings of Popen with which a plain user runs it."""
    shutil.copy(BINDER / "start", session.folder)
    settings = {"env": {"PATH": "/usr/bin:/bin", **session.variables}, "cwd": session.folder}
    if os.geteuid() != 0:
        return settings
    nobody = pwd.getpwnam("nobody")
    os.chown(session.folder, nobody.pw_uid, nobody.pw_gid)
    return {**settings, "user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def test_the_servers_start_for_a_plain_user(session: Session) -> None:
    command = 'echo "$REDIS_URL $AMQP_URL $MEMCACHED_URL"; sleep 60'
    with session.started(session.folder / "start", command, **as_plain_user(session)) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert len(line.split()) == 3, line + session.logs()
        redis_url, amqp_url, memcached_url = line.split()
        with redis.Redis.from_url(redis_url) as client:
            assert client.ping()
        with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
            assert connection.channel().queue_declare("", exclusive=True).method.queue
        memcached = Client(memcached_url.removeprefix("memcached://"))
        assert memcached.version()
        memcached.close()


def test_a_server_that_does_not_start_is_named_and_the_rest_goes_on(session: Session) -> None:
    session.variables["REDIS_PORT"] = "99999"
    with session.started(session.folder / "start", "echo goes on", **as_plain_user(session)) as process:
        output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    log = session.folder / "servers" / "redis" / "log"
    assert output.splitlines() == [f"redis does not answer: see {log}", "goes on"]
    assert "port" in log.read_text().lower()


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_every_tutorial_runs_there(session: Session) -> None:
    environment = Environment(session.folder, "-r", str(BINDER / "requirements.txt"))
    home = environment.work
    copy_project(home)
    variables = environment.variables(**session.variables)
    built = subprocess.run(
        ["binder/postBuild"], cwd=home, env=variables, capture_output=True, text=True, timeout=DEADLINE
    )
    assert built.returncode == 0, built.stdout + built.stderr
    # What is imported is to be what was installed.
    shutil.rmtree(home / "nbqueue")
    command = "for notebook in notebooks/*.ipynb; do python notebooks/run.py $notebook || exit; done"
    with session.started(home / "binder" / "start", command, env=variables, cwd=home) as process:
        output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output[-5000:] + session.logs()
    assert re.findall(r"^notebooks/(\S+): every cell ran", output, re.M) == TUTORIALS
