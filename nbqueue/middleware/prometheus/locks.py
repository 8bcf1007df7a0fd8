"""Locks on files that end with the process that holds them, however it ends.

They tell the living from the dead where process ids can't: ids are used again, and differ between containers.
"""

from __future__ import annotations

import os
import sys

if sys.platform == "win32":
    import msvcrt

    #: Locked there: other processes must be able to read what is before.
    _FAR = 1 << 40

    def lock(descriptor: int, *, wait: bool = False) -> bool:
        """Lock an open file for this process; return whether that was done."""
        while True:
            os.lseek(descriptor, _FAR, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                return True
            except OSError:
                if not wait:
                    return False
else:
    import fcntl

    def lock(descriptor: int, *, wait: bool = False) -> bool:
        """Lock an open file for this process; return whether that was done."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True


def is_locked(path: str) -> bool:
    """Whether some process holds the lock of a file; False where there is none."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not lock(descriptor)
    finally:
        os.close(descriptor)
