"""What nbqueue and Dramatiq share in process: an actor whose messages are sent and waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.peers.peer import Contender

#: Milliseconds for which a result is waited for.
PATIENCE = 60_000


class SendingContender(Contender):
    actor: Any

    def collect(self, numbers: Sequence[int]) -> list[int]:
        messages = [self.actor.send(number) for number in numbers]
        return [message.get_result(block=True, timeout=PATIENCE) for message in messages]

    def ask(self, number: int) -> int:
        return self.collect([number])[0]
