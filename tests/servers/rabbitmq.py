"""RabbitMQ nodes for the tests.

A node is one Erlang process, run as the user `rabbitmq` where the tests are root's, with a folder, a cookie,
a configuration and a port mapper (`epmd`) of its own: no other node is seen, and nothing stays behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .server import DEADLINE, Server, free_port

#: The scripts of the package itself: those on the path insist on its own service and folders.
_SCRIPTS = Path("/usr/lib/rabbitmq/bin")
_ALL = '<<".*">>'


class RabbitmqServer(Server):
    """A RabbitMQ node of its own. It boots in about 5 s.

    Parameters:
      config: lines of rabbitmq.conf, such as `{"consumer_timeout": "60000", "heartbeat": "5",
        "vm_memory_high_watermark.absolute": "200MB"}`.
      tls: accept TLS connections only, with a certificate made for this node.
      plugins: those to be enabled, such as `rabbitmq_management`.
    """

    program, package = "rabbitmq-server", "rabbitmq-server"
    user = password = "guest"

    def __init__(
        self,
        *,
        config: Mapping[str, str] | None = None,
        tls: bool = False,
        plugins: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.tls = tls
        self.node = f"nbqueue-{uuid.uuid4().hex[:8]}@localhost"
        self.config = dict(config or {})
        self.mapper: subprocess.Popen[bytes] | None = None
        self.mapper_port = free_port()
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(uuid.uuid4().hex)
        cookie.chmod(0o400)
        (self.folder / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")
        (self.folder / "rabbitmq-env.conf").touch()
        if tls:
            self._make_certificate()
        self.start()

    @property
    def url(self) -> str:
        """The URL of the default virtual host."""
        return self.url_of("/")

    def url_of(self, vhost: str) -> str:
        """Return the URL of a virtual host."""
        scheme = "amqps" if self.tls else "amqp"
        host = f"127.0.0.1:{self.port}/{quote(vhost, safe='')}"
        return f"{scheme}://{self.user}:{self.password}@{host}"

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl (about half a second) and return its output: `ctl("list_queues", "-p", vhost)`."""
        done = self._run([self._script("rabbitmqctl"), "--quiet", "--node", self.node, *arguments])
        assert done.returncode == 0, f"rabbitmqctl {' '.join(arguments)}: {done.stderr or done.stdout}"
        return done.stdout

    def rows(self, command: str, *columns: str, vhost: str | None = None) -> list[dict[str, Any]]:
        """Return what a listing of rabbitmqctl shows: `rows("list_queues", "name", "messages", vhost=v)`."""
        place = [] if vhost is None else ["--vhost", vhost]
        listed = json.loads(self.ctl(command, "--formatter", "json", *place, *columns))
        return [row for row in listed if isinstance(row, dict)]

    def evaluate(self, expression: str) -> str:
        """Have the node evaluate an Erlang expression; return its value as Erlang writes it.

        Takes milliseconds where `erl_call` is installed (it comes with Erlang), and else what `ctl` takes.
        """
        program = shutil.which("erl_call")
        if program is None:
            return self.ctl("eval", expression + ".").strip()
        cookie = (self.folder / ".erlang.cookie").read_text()
        command = [program, "-sname", self.node, "-c", cookie, "-e"]
        done = self._run(command, input=f"{expression}.\n")
        assert done.stdout.startswith("{ok, "), f"{expression}: {done.stdout}{done.stderr}"
        return done.stdout[len("{ok, ") : -1]

    def add_vhost(self, name: str) -> str:
        """Make a virtual host that the user may use; return its URL."""
        user, vhost = _binary(self.user), _binary(name)
        self.evaluate(f"ok = rabbit_vhost:add({vhost}, {user})")
        self.evaluate(
            f"ok = rabbit_auth_backend_internal:set_permissions("
            f"{user}, {vhost}, {_ALL}, {_ALL}, {_ALL}, {user})"
        )
        return self.url_of(name)

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that is in it; its connections are closed."""
        self.evaluate(f"rabbit_vhost:delete({_binary(name)}, {_binary(self.user)})")

    def close(self) -> None:
        super().close()
        if self.mapper is not None:
            self.mapper.kill()
            self.mapper.wait(DEADLINE)
            self.mapper = None

    def _command(self) -> tuple[list[str], dict[str, Any]]:
        script = self._script("rabbitmq-server")
        kind = "ssl" if self.tls else "tcp"
        lines = {
            "listeners.tcp": "none",
            f"listeners.{kind}.1": f"127.0.0.1:{self.port}",
            "default_user": self.user,
            "default_pass": self.password,
            # A disk that others have filled must not block the tests of this node.
            "disk_free_limit.absolute": "1MB",
        }
        if self.tls:
            lines |= {
                "ssl_options.cacertfile": str(self.certificate),
                "ssl_options.certfile": str(self.certificate),
                "ssl_options.keyfile": str(self.folder / "server.key"),
                "ssl_options.verify": "verify_none",
                "ssl_options.fail_if_no_peer_cert": "false",
            }
        else:
            del lines["listeners.tcp"]
        text = "".join(f"{name} = {value}\n" for name, value in {**lines, **self.config}.items())
        (self.folder / "rabbitmq.conf").write_text(text)
        self._distribution_port = free_port()
        self._give_away()
        self._start_mapper()
        return [script], self._settings()

    def _is_ready(self) -> bool:
        """Open a connection as far as the server's greeting."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            if self.tls:
                context = ssl.create_default_context(cafile=str(self.certificate))
                connection = context.wrap_socket(connection, server_hostname="127.0.0.1")
            with connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                # A method frame on channel 0, and in it connection.start
                frame = b""
                while len(frame) < 11 and (data := connection.recv(4096)):
                    frame += data
                return frame[:3] == b"\x01\x00\x00" and frame[7:11] == b"\x00\x0a\x00\x0a"

    def _pids(self) -> list[int]:
        assert self.mapper is not None
        return [self.pid, self.mapper.pid]

    def _is_in_use(self, log: str) -> bool:
        return "eaddrinuse" in log.lower() or super()._is_in_use(log)

    def _start_mapper(self) -> None:
        """Start the port mapper, by which the node and rabbitmqctl find each other, unless it runs."""
        if self.mapper is not None and self.mapper.poll() is None:
            return
        program = shutil.which("epmd")
        if program is None:
            raise RuntimeError("RabbitMQ needs Erlang's epmd: apt-get install erlang-base.")
        settings = self._settings()
        deadline = time.monotonic() + DEADLINE
        self.mapper = subprocess.Popen(
            [program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **settings,
        )
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.mapper_port), timeout=5).close()
                return
            assert self.mapper.poll() is None, "epmd did not start"
            assert time.monotonic() < deadline, "epmd does not answer"
            time.sleep(0.01)

    def _settings(self) -> dict[str, Any]:
        """Return the settings of Popen with which every program of this node runs."""
        folder = str(self.folder)
        names = ("PATH", "LANG", "LC_ALL", "TMPDIR")
        environment = {name: os.environ[name] for name in names if name in os.environ}
        environment |= {
            "HOME": folder,
            "ERL_EPMD_PORT": str(self.mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CTL_DIST_PORT_MIN": "1024",  # any that is free: 35672 to 35682 may be taken
            "RABBITMQ_CTL_DIST_PORT_MAX": "65535",
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": folder,
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/rabbitmq-env.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_PID_FILE": f"{folder}/rabbitmq.pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # Has the script become the node, instead of waiting beside it: our child's pid is the node's.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
        settings: dict[str, Any] = {"env": environment, "cwd": folder}
        if _owner() is not None:
            settings |= {"user": "rabbitmq", "group": "rabbitmq", "extra_groups": []}
        return settings

    def _give_away(self) -> None:
        """Make the folder and what was put there the node's user's."""
        owner = _owner()
        if owner is not None:
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, owner.pw_uid, owner.pw_gid)

    def _script(self, name: str) -> str:
        self._path_of_program()  # says what to install
        script = _SCRIPTS / name
        return str(script) if script.exists() else str(shutil.which(name))

    def _run(self, command: list[str], input: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, input=input, capture_output=True, text=True, timeout=DEADLINE, **self._settings()
        )


def _owner() -> pwd.struct_passwd | None:
    """Return the user whose node it is; None where the tests' own user runs it, not being root."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("rabbitmq")
    return None


def _binary(text: str) -> str:
    """Return a text as an Erlang binary."""
    return "<<" + ",".join(map(str, text.encode())) + ">>"
