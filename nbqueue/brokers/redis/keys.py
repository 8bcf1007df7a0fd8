"""The names of the keys in Redis: those of the compatible layout, and our own beside them.

| key (of queue Q, consumer ID) | what |
|---|---|
| `NS:Q`, `NS:Q.msgs` | ids in order; bytes by id |
| `NS:__acks__.ID.Q` | ids that ID holds |
| `NS:Q.XQ`, `NS:Q.XQ.msgs` | dead ids by time; their bytes |
| `NS:__heartbeats__` | when each broker was last heard of |
| `NS:__acks__.ID:inbox:Q` | ours: an id that was pushed to the idle consumer ID |
| `NS:Q.DQ.due`, `NS:__due__` | ours: delayed ids by due time; the nearest due time of each queue |
| `NS:Q.returned` | ours: ids that came back from the dead: how often, deaths while running, whether running |
| `NS:Q.XQ.why` | ours: JSON with the error of each dead letter |
| `NS:__workers__` | ours: JSON about each broker that has consumers (its queues, host and process) |
| `NS:__workers__:ID` | ours: for some seconds, which broker deals with the dead ID |

An inbox looks like held ids to others, who then don't forget ID before nbqueue has taken it back. An empty
namespace leaves out `NS:`. In a cluster the namespace has a hash tag (`{nbqueue}`), so that all keys are in
one slot.
"""

from __future__ import annotations

from ...common import q_name, xq_name


class Keys:
    """The keys of a namespace."""

    def __init__(self, namespace: str) -> None:
        self.prefix = f"{namespace}:" if namespace else ""
        self.heartbeats = f"{self.prefix}__heartbeats__"
        self.workers = f"{self.prefix}__workers__"
        self.nearest = f"{self.prefix}__due__"

    def queue(self, queue_name: str) -> str:
        return f"{self.prefix}{queue_name}"

    def messages(self, queue_name: str) -> str:
        return f"{self.prefix}{queue_name}.msgs"

    def held(self, broker_id: str, queue_name: str) -> str:
        return f"{self.prefix}__acks__.{broker_id}.{queue_name}"

    def inbox(self, broker_id: str, queue_name: str) -> str:
        return f"{self.prefix}__acks__.{broker_id}:inbox:{queue_name}"

    def claim(self, broker_id: str) -> str:
        return f"{self.workers}:{broker_id}"

    def due(self, queue_name: str) -> str:
        return f"{self.prefix}{queue_name}.due"

    def returned(self, queue_name: str) -> str:
        return f"{self.prefix}{queue_name}.returned"

    def dead(self, queue_name: str) -> list[str]:
        """The dead ids, their messages, why they died: of the canonical queue."""
        name = f"{self.prefix}{xq_name(q_name(queue_name))}"
        return [name, f"{name}.msgs", f"{name}.why"]
