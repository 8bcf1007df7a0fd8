"""Answers on the health port: `/healthz` (the master lives and some worker takes messages) and `/readyz`
(all of them do, and the run is not stopping). Its own process: the master writes how it is on the board."""

from __future__ import annotations

import json
import os
import signal
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any

from .board import Board
from .lifeline import end_with_master, forget_master, unblock_signals


def listen(port: int) -> socket.socket:
    """Return a socket that listens on a port of all interfaces. OSError when that can't be."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", port))
        sock.listen(16)
    except OSError:
        sock.close()
        raise
    return sock


def answer(path: str, health: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the status and the body for a path."""
    ready, wanted = health.get("ready", 0), health.get("processes", 0)
    if path == "/readyz":
        good = bool(ready) and ready >= wanted and not health.get("stopping")
    elif path in ("/", "/healthz"):
        good = bool(ready)
    else:
        return 404, {"status": "not found", "paths": ["/healthz", "/readyz"]}
    return (200 if good else 503), {"status": "ok" if good else "unavailable", **health}


def run(board: Board, sock: socket.socket, reader: Connection, inherited: list[Any]) -> None:
    """Serve until SIGTERM. The main function of the process."""
    forget_master(inherited)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    unblock_signals()
    end_with_master(reader)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, about = answer(self.path.partition("?")[0], board.health())
            body = json.dumps(about).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *arguments: Any) -> None:
            """Probes come every few seconds: they are not worth a line each."""

    server = ThreadingHTTPServer(sock.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = sock
    server.serve_forever(poll_interval=3600)
