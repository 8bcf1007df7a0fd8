"""Files that prometheus_client writes into the folder for metrics that are the program's own.

Processes that keep metrics of their own leave a file for each kind of metric: `counter_PID.db`,
`gauge_MODE_PID.db`. Those of dead processes are added up (files named `…_sum-RANDOM.db`), but for gauges that
tell of single or of living processes: they end with their process.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable
from typing import Any

from ...logging import get_logger

SUM = "sum-"
#: Modes of gauges that outlive their process; see prometheus_client's `Gauge`.
_LASTING = ("max", "min", "sum", "mostrecent")


class ClientFiles:
    """The files in one folder. `sums` names those that are sums; other sums are of nobody: whoever began
    them was killed."""

    def __init__(self, path: str, sums: list[str]) -> None:
        self.path = path
        self.sums = sums

    def all(self) -> list[str]:
        """Return the paths of all files that count."""
        nobodys = self.sums_of_nobody()
        return [os.path.join(self.path, name) for name in self._names() if name not in nobodys]

    def dead(self) -> list[str]:
        """Return the names of the files of processes that live no more."""
        return [
            name for name in self._names() if not _owner(name).startswith(SUM) and not _lives(_owner(name))
        ]

    def sums_of_nobody(self) -> list[str]:
        return [name for name in self._names() if _owner(name).startswith(SUM) and name not in self.sums]

    def add_up(self, names: list[str]) -> list[str]:
        """Write new sums of the present ones and of these files; return all sums there are then."""
        from prometheus_client.mmap_dict import MmapedDict, mmap_key

        by_kind: dict[str, list[str]] = {}
        for name in [*self.sums, *names]:
            by_kind.setdefault(_kind(name), []).append(name)
        sums = []
        for kind, members in by_kind.items():
            if not _lasts(kind):
                continue
            if not set(members) & set(names):
                sums += members
                continue
            name = f"{kind}_{SUM}{uuid.uuid4().hex[:12]}.db"
            file = MmapedDict(os.path.join(self.path, name))  # type: ignore[no-untyped-call]
            paths = [os.path.join(self.path, member) for member in members]
            for metric in merged(paths, accumulate=False):
                for sample in metric.samples:
                    labels, values = list(sample.labels), list(sample.labels.values())
                    key = mmap_key(metric.name, sample.name, labels, values, metric.documentation)
                    # The time it was set, where the latest one counts: that of a living process does.
                    file.write_value(key, sample.value, 1.0)  # type: ignore[no-untyped-call]
            file.close()  # type: ignore[no-untyped-call]
            sums.append(name)
        return sums

    def _names(self) -> list[str]:
        return sorted(name for name in os.listdir(self.path) if name.endswith(".db"))


def merged(paths: Iterable[str], *, accumulate: bool) -> list[Any]:
    """Return the metrics of these files, added up. Files that are damaged are left out, which is logged.

    Parameters:
      accumulate: whether buckets of histograms count what is in lower ones, as they are told to Prometheus.
    """
    from prometheus_client.mmap_dict import MmapedDict
    from prometheus_client.multiprocess import MultiProcessCollector

    readable = []
    for path in paths:
        try:
            list(MmapedDict.read_all_values_from_file(path))  # type: ignore[no-untyped-call]
        except Exception as error:
            get_logger(__name__).warning("Metrics of the program's own are left out: %r: %s", path, error)
        else:
            readable.append(path)
    return list(MultiProcessCollector.merge(readable, accumulate))  # type: ignore[no-untyped-call]


def _kind(name: str) -> str:
    return name.rpartition("_")[0]


def _owner(name: str) -> str:
    return name.rpartition("_")[2][: -len(".db")]


def _lasts(kind: str) -> bool:
    metric, _, mode = kind.partition("_")
    return metric != "gauge" or mode in _LASTING


def _lives(pid: str) -> bool:
    if os.name == "nt" or not pid.isdigit():
        return True  # not to be found out: left alone
    with contextlib.suppress(PermissionError):
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
    return True
