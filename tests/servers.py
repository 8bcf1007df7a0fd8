"""Private servers for the tests: each on a free port of 127.0.0.1, in a temporary folder, stopped by its pid.

A server's output goes to `server.log` in its folder. Beside each server waits a small shell that ends it when
this process is gone, however that came about.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import redis

#: Seconds in which a server has to answer, and to end.
DEADLINE = 30.0

# A line on its input: all is well, the server was stopped. End of input: the process that started it is gone.
_GUARD = 'if read -r _; then exit 0; fi; kill -9 "$1" 2>/dev/null; sleep 0.2; rm -rf "$2"'


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A redis-server of its own.

    Parameters:
      appendonly: write every command to disk before it is answered; nothing is written otherwise.
      maxmemory: as Redis reads it ("10mb"); what doesn't fit is refused.
      password: what clients have to give.
      tls: accept TLS connections only, with a certificate made for this server.
      unix_socket: listen on a socket in the folder, which `url` then names.
      cluster: a cluster of this one node, with all slots.
      config: further lines of redis.conf.
    """

    def __init__(
        self,
        *,
        appendonly: bool = False,
        maxmemory: str | None = None,
        password: str | None = None,
        tls: bool = False,
        unix_socket: bool = False,
        cluster: bool = False,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nbqueue-redis-"))
        self.port = free_port()
        self.password, self.tls, self.cluster = password, tls, cluster
        self.socket_path = self.folder / "redis.sock" if unix_socket else None
        self.config: dict[str, str] = {
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "logfile": str(self.folder / "server.log"),
            "save": '""',
            "daemonize": "no",
            "appendonly": "yes" if appendonly else "no",
            "appendfsync": "always",
        }
        if maxmemory is not None:
            self.config |= {"maxmemory": maxmemory, "maxmemory-policy": "noeviction"}
        if password is not None:
            self.config["requirepass"] = password
        if self.socket_path is not None:
            self.config["unixsocket"] = str(self.socket_path)
        if cluster:
            self.config |= {"cluster-enabled": "yes", "cluster-port": str(free_port())}
        if tls:
            self._make_certificate()
        self.config |= config or {}
        self.process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)
        self.start()

    @property
    def url(self) -> str:
        """Where clients connect to, with the password if there is one."""
        credentials = f":{self.password}@" if self.password else ""
        if self.socket_path is not None:
            return f"unix://{credentials}{self.socket_path}"
        if self.tls:
            authority = self.folder / "server.crt"
            return f"rediss://{credentials}127.0.0.1:{self.port}/0?ssl_ca_certs={authority}"
        return f"redis://{credentials}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self.process is not None, "The server doesn't run."
        return self.process.pid

    def client(self, **settings: Any) -> Any:
        """Return a client, for the whole cluster if the server is one."""
        kind = redis.RedisCluster if self.cluster else redis.Redis
        return kind.from_url(self.url, **settings)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError(
                "These tests need redis-server, which is not installed: run `make services`, "
                "or `apt-get install redis-server`."
            )
        for _ in range(5):
            self._write_config()
            self.process = subprocess.Popen(
                [program, str(self.folder / "redis.conf")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is for pytest, which then stops the server
            )
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "sh", str(self.process.pid), str(self.folder)],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            if self._answers():
                return
            self._gone()
            if "Address already in use" not in self.log():
                break
            if not self._is_first_start():
                break  # clients know the port: another one is no use
            self.port = free_port()
        raise RuntimeError(f"redis-server did not start:\n{self.log()[-2000:]}")

    def stop(self) -> None:
        """End the server as an administrator would, and wait for it. It can be started again."""
        if self.process is not None:
            self.process.terminate()
            self._gone()

    def kill(self) -> None:
        """End the server without a chance to say goodbye (SIGKILL)."""
        if self.process is not None:
            self.process.kill()
            self._gone()

    def restart(self) -> None:
        """Stop the server if it runs, and start it on the same port and folder."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)

    def log(self) -> str:
        """Return what the server has logged."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_first_start(self) -> bool:
        return "Ready to accept connections" not in self.log()

    def _write_config(self) -> None:
        ports = {"port": "0", "tls-port": str(self.port)} if self.tls else {"port": str(self.port)}
        lines = [f"{name} {value}" for name, value in {**self.config, **ports}.items()]
        (self.folder / "redis.conf").write_text("\n".join(lines) + "\n")

    def _make_certificate(self) -> None:
        key, certificate = self.folder / "server.key", self.folder / "server.crt"
        if shutil.which("openssl") is None:
            raise RuntimeError("This test makes a certificate, which needs openssl: apt-get install openssl.")
        command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
        command += " -addext subjectAltName=IP:127.0.0.1 -keyout server.key -out server.crt"
        subprocess.run(command.split(), cwd=self.folder, check=True, capture_output=True)
        self.config |= {
            "tls-cert-file": str(certificate),
            "tls-key-file": str(key),
            "tls-ca-cert-file": str(certificate),
            "tls-auth-clients": "no",
        }

    def _answers(self) -> bool:
        """Wait until the server has loaded its data; False when it ended instead."""
        assert self.process is not None
        deadline = time.monotonic() + DEADLINE
        while self.process.poll() is None:
            with (
                contextlib.suppress(redis.RedisError, OSError),
                redis.Redis.from_url(self.url, socket_timeout=5) as client,
            ):
                client.ping()
                if not self.cluster or self._is_whole(client):
                    return True
            assert time.monotonic() < deadline, f"redis-server does not answer:\n{self.log()[-2000:]}"
            time.sleep(0.01)
        return False

    @staticmethod
    def _is_whole(client: Any) -> bool:
        """Whether the cluster has all its slots; gives them to this node if they are nobody's."""
        state = client.execute_command("CLUSTER INFO")
        text = str(state)
        if "cluster_slots_assigned:0" in text or (
            isinstance(state, dict) and not int(state["cluster_slots_assigned"])
        ):
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        return "cluster_state:ok" in text or (isinstance(state, dict) and state["cluster_state"] == "ok")

    def _gone(self) -> None:
        """Wait for the server's end, then dismiss its guard."""
        assert self.process is not None
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(DEADLINE)
        self.process = None
        if self._guard is not None:
            self._guard.communicate(b"stopped\n", timeout=DEADLINE)
            self._guard = None
