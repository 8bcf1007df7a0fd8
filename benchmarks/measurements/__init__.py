"""What can be measured, one module a kind, all of one shape (`Measurement` in measurement.py)."""

from __future__ import annotations

from benchmarks.measurements import (
    display,
    drain,
    enqueue,
    fairness,
    idle,
    in_process,
    memory,
    pickup,
    prefetch,
    roundtrip,
    scaling,
    serving,
)
from benchmarks.measurements.measurement import Measurement

#: By the name of the broker, and of the measurement, in the order of the tables.
ALL: dict[str, dict[str, Measurement]] = {
    "none": {"in-process": in_process.IN_PROCESS, "cards": display.CARDS_SHOWN},
    "redis": {
        "drain": drain.ON_REDIS,
        "drain-full": drain.FULL,
        "processes": drain.PROCESSES,
        "enqueue": enqueue.ON_REDIS,
        "group": roundtrip.GROUP,
        "roundtrip": roundtrip.ON_REDIS,
        "pickup": pickup.ON_REDIS,
        "idle": idle.ON_REDIS,
        "idle-queues": idle.QUEUES,
        "backlog": scaling.BACKLOG,
        "queues": scaling.QUEUES,
        "delayed": scaling.DELAYED,
        "memory": memory.ON_REDIS,
        "start": serving.START,
        "serve": serving.SERVE,
        "fairness": fairness.ON_REDIS,
        "prefetch": prefetch.ON_REDIS,
    },
    "rabbitmq": {
        "drain": drain.ON_RABBITMQ,
        "enqueue": enqueue.ON_RABBITMQ,
        "roundtrip": roundtrip.ON_RABBITMQ,
    },
}
#: Messages that are asked for, unless told otherwise.
COUNTS = {"none": 10_000, "redis": 10_000, "rabbitmq": 5_000}
