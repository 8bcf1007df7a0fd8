"""Why a notebook can't be promoted: each name that can't travel, where it is used, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DramatiqError


@dataclass(frozen=True)
class Problem:
    """What keeps a name from travelling, as it goes into a sentence after the name, and what to do."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Refusal:
    """One sentence about one name. `order` is where it stands in the notebook: statement, then line."""

    where: str
    text: str
    order: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


class PromoteError(DramatiqError):
    """Nothing was written; the message says why and what to do."""


class UsageError(PromoteError):
    """What was asked for can't be: no such notebook, actor or file name."""


class CannotTravel(PromoteError):
    """Some names can't travel; `refusals` lists them in the order of the notebook."""

    def __init__(self, target: str, refusals: Sequence[Refusal]) -> None:
        self.refusals = sorted(refusals, key=lambda refusal: (refusal.order, refusal.text))
        count = "1 thing" if len(refusals) == 1 else f"{len(refusals)} things"
        lines = [f"{target} is not written: {count} can't travel.", *(f"  {each}" for each in self.refusals)]
        super().__init__("\n".join(lines))


class EditedByHand(PromoteError):
    """The part of the file that promote wrote was edited; `diff` leads from it to what would be written."""

    def __init__(self, message: str, diff: str) -> None:
        super().__init__(message)
        self.diff = diff
