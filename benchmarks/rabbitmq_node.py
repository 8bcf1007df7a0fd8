"""A private RabbitMQ node for a measurement: its own port, folder, cookie and port mapper (`epmd`).

A context manager that boots the node (about 10 s) and ends it. Nothing here needs a client library: a node is
asked with rabbitmqctl, which takes a second or so, and therefore never while something is timed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from types import TracebackType

from benchmarks.processes import BenchmarkError, free_port

#: Debian's programs on the path insist on their own service and folders; those of the package itself don't.
SCRIPTS = Path("/usr/lib/rabbitmq/bin")
#: Seconds in which the node has to boot.
BOOTING = 90
#: The virtual host of the measurements, and the user who has every right there.
VHOST, USER = "bench", "guest"
#: Gives every measurement a new virtual host: queues and messages of the one before are gone.
RENEW = f"""
V = <<"{VHOST}">>, U = <<"{USER}">>,
case rabbit_vhost:exists(V) of true -> rabbit_vhost:delete(V, U); false -> ok end,
ok = rabbit_vhost:add(V, U),
ok = rabbit_auth_backend_internal:set_permissions(U, V, <<".*">>, <<".*">>, <<".*">>, U).
"""
#: Counts what isn't acknowledged, waiting or in flight; the queues themselves are asked, not statistics.
COUNT = f"""
lists:sum([proplists:get_value(messages, rabbit_amqqueue:info(Q, [messages]))
    || Q <- rabbit_amqqueue:list(<<"{VHOST}">>)]).
"""


class RabbitmqNode:
    """A node on free ports of this machine, with its default settings."""

    def __enter__(self) -> RabbitmqNode:
        script, mapper = self._program("rabbitmq-server"), shutil.which("epmd")
        if mapper is None:
            raise BenchmarkError("RabbitMQ needs Erlang's epmd, which isn't installed (erlang-base).")
        self.temporary = tempfile.TemporaryDirectory(prefix="nbqueue-bench-", ignore_cleanup_errors=True)
        self.folder = Path(self.temporary.name)
        self.name = f"bench-{uuid.uuid4().hex[:8]}@localhost"
        self.port, self.mapper_port = free_port(), free_port()
        (self.folder / ".erlang.cookie").write_text(uuid.uuid4().hex)
        (self.folder / ".erlang.cookie").chmod(0o400)
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "rabbitmq-env.conf").touch()
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\ndisk_free_limit.absolute = 50MB\n"
        )
        self.environment = self._environment()
        self.mapper = self._start(mapper)
        try:
            self.process = self._start(script)
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (getattr(self, "process", None), self.mapper):
            if process is not None:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.temporary.cleanup()

    @property
    def url(self) -> str:
        return f"amqp://{USER}:{USER}@127.0.0.1:{self.port}/{VHOST}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def version(self) -> str:
        return self._evaluate("rabbit_misc:version().").strip('"')

    def renew(self) -> None:
        """Have an empty virtual host in the place of the one before."""
        self._evaluate(RENEW)

    def held(self) -> int:
        """Return how many messages aren't acknowledged, waiting or in flight."""
        return int(self._evaluate(COUNT))

    def holds(self, count: int, patience: float = 30) -> bool:
        """Wait until so many messages are held; return whether that came in time (s)."""
        deadline = time.monotonic() + patience
        while self.held() != count:
            if time.monotonic() > deadline:
                return False
        return True

    def _evaluate(self, expression: str) -> str:
        done = self._control("eval", expression)
        if done.returncode:
            raise BenchmarkError(f"rabbitmqctl eval {expression!r}: {done.stderr or done.stdout}")
        return done.stdout.strip()

    def _control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self._program("rabbitmqctl"), "--quiet", "--node", self.name, *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)

    def _wait(self) -> None:
        """Wait until the node has booted to the end, and has its virtual host."""
        deadline = time.monotonic() + BOOTING
        while self._control("await_startup", "--timeout", "5").returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "log").read_text(errors="replace")
                raise BenchmarkError(f"RabbitMQ didn't start:\n{log[-3000:]}")
        self.renew()

    def _start(self, program: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [program],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
        return kept | {
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self.mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CTL_DIST_PORT_MIN": "1024",  # any that is free: 35672 to 35682 may be taken
            "RABBITMQ_CTL_DIST_PORT_MAX": "65535",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "rabbitmq.pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # The script becomes the node, instead of waiting beside it: its pid is the node's.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _program(self, name: str) -> str:
        beside = SCRIPTS / name
        program = str(beside) if beside.exists() else shutil.which(name)
        if program is None:
            raise BenchmarkError(f"{name} isn't installed; `make services` installs it or says how.")
        return program
