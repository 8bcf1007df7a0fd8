"""A private RabbitMQ node: its own port, folder, cookie and port mapper (`epmd`).

Nothing here needs a client library: a node is asked with rabbitmqctl, which takes a second or so, and
therefore never while something is timed.
"""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from pathlib import Path

import psutil

from benchmarks.processes import BenchmarkError, PeerProcess
from benchmarks.servers.server import Server, free_port, program

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


class RabbitmqNode(Server):
    """A node on free ports of this machine, with its default settings."""

    def boot(self) -> None:
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
        self.start(program("epmd"), environment=self.environment)
        self.process = self.start(program("rabbitmq-server", SCRIPTS), environment=self.environment)
        self.wait(self._booted, self.process, BOOTING)
        self.renew()

    def _booted(self) -> bool:
        """Return whether the node has booted to the end."""
        return not self._control("await_startup", "--timeout", "5").returncode

    @property
    def url(self) -> str:
        return f"amqp://{USER}:{USER}@127.0.0.1:{self.port}/{VHOST}"

    def description(self) -> str:
        version = self._evaluate("rabbit_misc:version().").strip('"')
        return f"RabbitMQ {version}, durable queues, persistent messages"

    def renew(self) -> None:
        """Have an empty virtual host in the place of the one before."""
        self._evaluate(RENEW)

    def cpu(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def holds(self, count: int, observer: PeerProcess, patience: float) -> int | None:
        deadline = time.monotonic() + patience
        while int(self._evaluate(COUNT)) != count:
            if time.monotonic() > deadline:
                return None
        return time.monotonic_ns()

    def _evaluate(self, expression: str) -> str:
        done = self._control("eval", expression)
        if done.returncode:
            raise BenchmarkError(f"rabbitmqctl eval {expression!r}: {done.stderr or done.stdout}")
        return done.stdout.strip()

    def _control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [program("rabbitmqctl", SCRIPTS), "--quiet", "--node", self.name, *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)

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
