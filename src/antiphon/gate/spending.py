"""The cost of a message on a connection with rates: a check that all its buckets have enough, and the deduction.

The readable twin of `_spending.pyx`. `backend.py` chooses. Knows no rate, and finds no bucket: where a share is
not sure of its own the answer is no, and `limits.py` asks the long way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from antiphon.connection.paced import size_of

__all__ = ["Bucket", "Purse", "Spending", "Table"]


class Bucket:
    """Full when it is made."""

    __slots__ = ("due",)

    def __init__(self) -> None:
        self.due: float = 0.0
        """When it is full again."""


class Table:
    """Where buckets are found."""

    __slots__ = ("turn",)

    def __init__(self) -> None:
        self.turn: int = 0
        """How often it has forgotten some."""


class Purse:
    """A bucket in which a token takes `step` seconds and all take `depth`. The right one while it is the table's
    `turn`."""

    __slots__ = ("bucket", "depth", "step", "table", "turn")

    def __init__(self, step: float, depth: float, table: Table) -> None:
        self.step: float = step
        self.depth: float = depth
        self.table: Table = table
        self.bucket: Bucket = Bucket()
        self.turn: int = table.turn


class Spending:
    """The shares of one connection, each with whether it counts bytes."""

    __slots__ = ("_counts_bytes", "_shares")

    def __init__(self, shares: Iterable[tuple[Purse, bool]]) -> None:
        self._shares: Final = tuple(shares)
        self._counts_bytes: Final = any(in_bytes for _, in_bytes in self._shares)

    def passes(self, now: float, data: str | bytes) -> bool:
        """Whether all have enough for a message, as far as that is known without a table. It is spent then."""
        size = size_of(data) if self._counts_bytes else 1
        dues = []
        for share, in_bytes in self._shares:
            if share.turn != share.table.turn:
                return False
            bucket = share.bucket
            due = (bucket.due if bucket.due > now else now) + (share.step * size if in_bytes else share.step)
            if due - now > share.depth:
                return False
            dues.append((bucket, due))
        for bucket, due in dues:
            bucket.due = due
        return True
