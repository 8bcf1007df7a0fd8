"""The folder in which the processes of a run leave their numbers, and where those of dead ones are summed up.

Each process has a file (`PID-RANDOM.metrics`) that it keeps locked while it lives; the exposition process has
one as well, which is empty. Whoever opens the folder, or reads it, adds the counters of dead processes to
`total.json`, forgets their gauges and removes their files: there are never many. A folder in which nobody
lives is of an earlier run, and is emptied before anybody moves in. All of this happens under its lock.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...logging import get_logger
from .client_files import ClientFiles
from .locks import is_locked, lock
from .rows import GAUGES, OTHERS, WIDTH, Key, read_rows

METRICS, EXPOSITION = ".metrics", ".exposition"
LOCK, TOTAL = "lock", "total.json"


@dataclass
class Snapshot:
    """What all processes of a run have counted. `workers`: how many processes live."""

    rows: dict[Key, list[float]] = field(default_factory=dict)
    workers: int = 0
    #: The queues of living processes.
    queues: set[str] = field(default_factory=set)
    #: Files of prometheus_client, of metrics that are the program's own.
    client_files: list[str] = field(default_factory=list)

    def add(self, key: Key, values: tuple[float, ...] | list[float], *, alive: bool) -> None:
        row = self.rows.setdefault(key, [0.0] * WIDTH)
        for column, value in enumerate(values):
            if alive or column not in GAUGES:
                row[column] += value


@dataclass
class Total:
    """The sum of the dead. `gone` names files that are in it, so that none is added twice when whoever added
    them is killed before it has removed them; `client_files` those of prometheus_client that are sums."""

    snapshot: Snapshot = field(default_factory=Snapshot)
    gone: list[str] = field(default_factory=list)
    client_files: list[str] = field(default_factory=list)


class RunFolder:
    """A folder of a run. The files are for its user alone.

    Parameters:
      root: the folder that it is in, with those of other runs and nothing else, when it was made by nbqueue.
    """

    def __init__(self, path: str, root: str | None = None) -> None:
        self.path = path
        self.root = root
        self.logger = get_logger(__name__, type(self))
        self._complained: set[str] = set()

    def join(self, suffix: str) -> int:
        """Return a new file (a descriptor) that says that this process lives, until it is closed.

        Raises:
          OSError: the folder can't be written to.
        """
        with self._locked():
            if not self._names(METRICS, alive=True) and not self._names(EXPOSITION, alive=True):
                self._empty()
            self._sum_up()
            path = self._at(f"{os.getpid()}-{uuid.uuid4().hex[:12]}{suffix}")
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            lock(descriptor)
            return descriptor

    def read(self) -> Snapshot:
        """Return what was counted so far.

        Raises:
          OSError: the folder can't be read.
        """
        with self._locked():
            total = self._sum_up()
            snapshot = total.snapshot
            for name in self._names(METRICS, alive=True):
                snapshot.workers += 1
                for key, values in self._rows(name):
                    snapshot.add(key, values, alive=True)
                    if key[1] != OTHERS:
                        snapshot.queues.add(key[1])
            snapshot.client_files = self._client_files(total).all()
            return snapshot

    def workers(self) -> int:
        """Return how many worker processes live."""
        with self._locked():
            return len(self._names(METRICS, alive=True))

    def remove_ended_neighbours(self) -> None:
        """Remove the folders of runs of which nobody lives."""
        if self.root is not None and os.path.isdir(self.root):
            for name in os.listdir(self.root):
                path = os.path.join(self.root, name)
                if path != self.path and os.path.isdir(path):
                    RunFolder(path, self.root).remove_if_ended()

    def remove_if_ended(self) -> None:
        """Remove the folder if nobody of its run lives."""
        with self._locked():
            if self._names(METRICS, alive=True) or self._names(EXPOSITION, alive=True):
                return
            self._empty()
            os.unlink(self._at(LOCK))
            with contextlib.suppress(OSError):  # something of somebody else's is in it
                os.rmdir(self.path)

    # -- under the lock ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = self._open_lock()
        try:
            yield
        finally:
            os.close(descriptor)

    def _open_lock(self) -> int:
        """Return the locked file; it, or the folder, may be removed by others until it is."""
        while True:
            if self.root is not None:
                _make_own(self.root)
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            try:
                descriptor = os.open(self._at(LOCK), os.O_RDWR | os.O_CREAT, 0o600)
            except FileNotFoundError:
                continue
            lock(descriptor, wait=True)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(self._at(LOCK))):
                    return descriptor
            os.close(descriptor)

    def _at(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _names(self, suffix: str, *, alive: bool) -> list[str]:
        names = sorted(name for name in os.listdir(self.path) if name.endswith(suffix))
        return [name for name in names if is_locked(self._at(name)) == alive]

    def _rows(self, name: str) -> Iterator[tuple[Key, tuple[float, ...]]]:
        try:
            yield from read_rows(self._at(name))
        except (ValueError, struct.error) as error:
            if name not in self._complained:
                self._complained.add(name)
                self.logger.warning("Metrics of a process are left out: %s", error)

    def _client_files(self, total: Total) -> ClientFiles:
        return ClientFiles(self.path, total.client_files)

    def _empty(self) -> None:
        for name in [*self._names(METRICS, alive=False), *self._names(EXPOSITION, alive=False), TOTAL]:
            self._unlink(name)
        clients = ClientFiles(self.path, [])
        for name in clients.sums_of_nobody() + clients.dead():
            self._unlink(name)

    def _sum_up(self) -> Total:
        """Add the dead to the total, and remove their files."""
        total = self._load_total()
        clients = self._client_files(total)
        for name in [*clients.sums_of_nobody(), *self._names(EXPOSITION, alive=False)]:
            self._unlink(name)
        self._remove_gone(total)
        dead = self._names(METRICS, alive=False)
        dead_clients = clients.dead()
        if dead or dead_clients:
            for name in dead:
                for key, values in self._rows(name):
                    total.snapshot.add(key, values, alive=False)
            before = list(total.client_files)
            if dead_clients:
                total.client_files = clients.add_up(dead_clients)
            total.gone = [*dead, *dead_clients, *(set(before) - set(total.client_files))]
            self._save_total(total)
            self._remove_gone(total)
        return total

    def _remove_gone(self, total: Total) -> None:
        if total.gone:
            for name in total.gone:
                self._unlink(name)
            total.gone = []  # a name may come again: process ids do
            self._save_total(total)

    def _load_total(self) -> Total:
        try:
            with open(self._at(TOTAL), encoding="utf-8") as file:
                saved = json.load(file)
        except FileNotFoundError:
            return Total()
        except ValueError as error:
            self.logger.error("What dead processes counted is lost: %r is damaged: %s", TOTAL, error)
            return Total()
        total = Total(gone=saved["gone"], client_files=saved["client_files"])
        for (prefix, queue_name, actor_name), values in saved["rows"]:
            total.snapshot.add((prefix, queue_name, actor_name), values, alive=False)
        return total

    def _save_total(self, total: Total) -> None:
        saved = {
            "rows": list(total.snapshot.rows.items()),
            "gone": total.gone,
            "client_files": total.client_files,
        }
        temporary = self._at(f"{TOTAL}.new")
        with open(temporary, "w", encoding="utf-8", opener=_private) as file:
            json.dump(saved, file)
        os.replace(temporary, self._at(TOTAL))

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._at(name))


def _make_own(path: str) -> None:
    """Make a folder in one that all users may write to, and make sure that it is not somebody else's."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        raise PermissionError(errno.EPERM, "it is in a folder of another user", path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
