"""Tells systemd how a run is, for units with `Type=notify`. Source: the sd_notify(3) protocol."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Send a line such as READY=1 to the service manager, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), address)
