"""Redis servers for the tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis

from .server import Server, free_port


class RedisServer(Server):
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

    program, package = "redis-server", "redis-server"

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
        super().__init__()
        self.password, self.tls, self.cluster = password, tls, cluster
        self.socket_path = self.folder / "redis.sock" if unix_socket else None
        self.config: dict[str, str] = {
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "logfile": '""',
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
            self.config |= {
                "tls-cert-file": str(self.certificate),
                "tls-key-file": str(self.folder / "server.key"),
                "tls-ca-cert-file": str(self.certificate),
                "tls-auth-clients": "no",
            }
        self.config |= config or {}
        self.start()

    @property
    def url(self) -> str:
        credentials = f":{self.password}@" if self.password else ""
        if self.socket_path is not None:
            return f"unix://{credentials}{self.socket_path}"
        if self.tls:
            return f"rediss://{credentials}127.0.0.1:{self.port}/0?ssl_ca_certs={self.certificate}"
        return f"redis://{credentials}127.0.0.1:{self.port}/0"

    def client(self, **settings: Any) -> Any:
        """Return a client, for the whole cluster if the server is one."""
        kind = redis.RedisCluster if self.cluster else redis.Redis
        return kind.from_url(self.url, **settings)

    def _command(self) -> tuple[list[str], dict[str, Any]]:
        ports = {"port": "0", "tls-port": str(self.port)} if self.tls else {"port": str(self.port)}
        lines = [f"{name} {value}" for name, value in {**self.config, **ports}.items()]
        path = self.folder / "redis.conf"
        path.write_text("\n".join(lines) + "\n")
        return [self._path_of_program(), str(path)], {}

    def _is_ready(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=5) as client:
                client.ping()
                return not self.cluster or self._is_whole(client)
        except redis.RedisError:
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
