"""The file that says which process is the master of a run."""

from __future__ import annotations

import contextlib
import os


class PidFileError(Exception):
    """The pid file is another process's, is none, or can't be written; says which."""


class PidFile:
    """Written when a run begins and removed when it ends, unless it is another's by then."""

    def __init__(self, path: str) -> None:
        self.path = path

    def write(self) -> None:
        """Write this process's id; one that does not live any more is replaced.

        Raises:
          PidFileError: see there.
        """
        try:
            with open(self.path, encoding="ascii", errors="replace") as file:
                present = file.read().strip()
        except FileNotFoundError:
            present = ""
        except OSError as error:
            raise PidFileError(f"The pid file {self.path!r} can't be read: {error.strerror}.") from error
        if present:
            if not present.isdigit():
                raise PidFileError(
                    f"The pid file {self.path!r} holds {present[:40]!r}, which is no process id. "
                    "Remove it, or name another file."
                )
            pid = int(present)
            if pid != os.getpid() and _lives(pid):
                raise PidFileError(f"nbqueue is already running with PID {pid}, says {self.path!r}.")
        temporary = f"{self.path}.{os.getpid()}"
        try:
            with open(temporary, "w", encoding="ascii") as file:
                file.write(str(os.getpid()))
            os.chmod(temporary, 0o644)
            os.replace(temporary, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise PidFileError(f"The pid file {self.path!r} can't be written: {error.strerror}.") from error

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            with open(self.path, encoding="ascii") as file:
                ours = file.read().strip() == str(os.getpid())
            if ours:
                os.unlink(self.path)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except OverflowError:
        return False
    return True
