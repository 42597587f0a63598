"""Detecting silent losses of pub/sub, by this process's position in each topic with history. Pure.

Two things show a loss: an offset that does not follow the last one, and an entry that was the newest at the previous
comparison of heads and has not arrived since.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from ...records import Position

TURN: Final = 2000
"""Topics whose heads are compared at a time. More topics than that take turns."""


class Heads:
    """The newest entry heard of, by topic."""

    def __init__(self) -> None:
        self._seen: dict[str, Position | None] = {}
        self._observed: dict[str, Position] = {}
        self._compared = 0

    @property
    def topics(self) -> Collection[str]:
        return self._seen.keys()

    def watch(self, topic: str) -> None:
        self._seen.setdefault(topic, None)

    def forget(self, topic: str) -> None:
        self._seen.pop(topic, None)
        self._observed.pop(topic, None)

    def restart(self) -> None:
        """Subscribed anew: where the topics stand is yet to be read and `note`d."""
        self._observed.clear()
        for topic in self._seen:
            self._seen[topic] = None

    def note(self, topic: str, head: Position) -> None:
        """Every entry behind this head will come."""
        if topic in self._seen:
            seen = self._seen[topic]
            if seen is None or seen.epoch != head.epoch or seen.offset < head.offset:
                self._seen[topic] = head

    def follow(self, topic: str, position: Position, *, first: bool) -> str | None:
        """An entry came: returns the loss before it, if any. `first`: no entry before it could have been lost."""
        if topic not in self._seen:
            return None
        seen = self._seen[topic]
        lost = None
        if seen is not None:
            if seen.epoch != position.epoch:
                lost = f"the epoch of {topic!r} changed: redis has lost its data"
            elif position.offset <= seen.offset:
                return None
            elif position.offset > seen.offset + 1 and not first:
                lost = f"{position.offset - seen.offset - 1} entries of {topic!r}"
        self._seen[topic] = position
        return lost

    def turn(self) -> list[str]:
        """The topics to be compared now."""
        topics = list(self._seen)
        if len(topics) <= TURN:
            return topics
        start = self._compared % len(topics)
        self._compared += TURN
        return (topics + topics)[start : start + TURN]

    def compare(self, found: Mapping[str, Position]) -> str | None:
        """The loss that the heads show, if any."""
        for topic, head in found.items():
            if topic not in self._seen:
                continue
            before, seen = self._observed.get(topic), self._seen[topic]
            self._observed[topic] = head
            if before is None or seen is None or before.epoch != head.epoch:
                continue
            if seen.epoch != before.epoch or seen.offset < before.offset:
                self._seen[topic] = head
                return f"the end of {topic!r}"
        return None

    def recovering(self) -> None:
        """A loss was reported: earlier observations are no reason to report it again."""
        self._observed.clear()
