"""How much memory a process takes."""

from __future__ import annotations

import os
import subprocess


def resident_megabytes(pid: int) -> float | None:
    """Return the resident memory of a process in MB; None when that can't be known.

    Source: proc(5) and ps(1).
    """
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except FileNotFoundError:
        pass
    try:
        asked = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True)
        return int(asked.stdout) * 1024 / 1e6
    except (OSError, ValueError):
        return None
