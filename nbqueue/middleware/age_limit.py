"""Messages that are too old are not run: they go to the dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common import current_millis
from ..logging import get_logger
from .middleware import Middleware, SkipMessage, message_option

if TYPE_CHECKING:
    from ..broker import Broker, MessageProxy


class AgeLimit(Middleware):
    """Drops messages older than `max_age` milliseconds (None: no limit). Option: `max_age`."""

    def __init__(self, *, max_age: int | None = None) -> None:
        self.logger = get_logger(__name__, type(self))
        self.max_age = max_age

    @property
    def actor_options(self) -> set[str]:
        return {"max_age"}

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        max_age = message_option(broker, message, "max_age", self.max_age, truthy=True) or self.max_age
        if max_age and current_millis() - message.message_timestamp >= max_age:
            self.logger.warning("Message %s is older than its age limit of %s ms.", message, max_age)
            message.fail()
            raise SkipMessage("Message age limit exceeded")
