"""How far a client has read each topic, so that it can return to where it was. Pure; part of `runtime_py()`."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

MOST_TOPICS: Final = 256


@dataclass(frozen=True, slots=True)
class Recovered:
    """A `topic` was joined once more. `recovered`: everything missed was told (True), or not: load the state again.

    For example:

        from antiphon.clients.runtime import Recovered

        async for event in chat:  # a generated client
            if isinstance(event, Recovered) and not event.recovered:
                print("load the state again")
    """

    topic: str
    recovered: bool


class Gap(enum.Enum):
    """Where messages of a topic were lost, seen from its place."""

    AHEAD = "ahead"
    """A return from here brings them, if anything does."""
    BEHIND = "behind"
    """A return from here would say that nothing was missed."""


@dataclass(slots=True)
class Place:
    """How far a topic was read."""

    epoch: str
    entered: int
    """Where it was joined."""
    seen: int | None
    """The last message that came. None while its history may still be on the way."""
    gap: Gap | None = None

    @property
    def is_good(self) -> bool:
        """Whether a return from here misses nothing that was not told."""
        return self.seen is not None and self.gap is not Gap.BEHIND

    def __str__(self) -> str:
        return f"{self.seen}-{self.epoch}"


class Places:
    """The places of all topics of a client."""

    def __init__(self, positions: Mapping[str, str]) -> None:
        self._places: dict[str, Place] = {}
        for topic, text in positions.items():
            offset, dash, epoch = text.partition("-")
            if dash and epoch and offset.isdecimal() and len(offset) <= 18:
                self._places[topic] = Place(epoch, int(offset), int(offset))

    def position(self, topic: object) -> str | None:
        place = self._places.get(topic) if isinstance(topic, str) else None
        return None if place is None or not place.is_good else str(place)

    def query(self, resume: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """The query for a return: the parameters, each with the place of the first topic that fits its pattern."""
        for parameter, pattern in resume.items():
            for topic, place in self._places.items():
                if place.is_good and _fits(topic, pattern):
                    yield parameter, str(place)
                    break

    def settle(self, except_for: object) -> None:
        """Something came that is not this topic's. Behind "joined" a topic's history comes first: others had none."""
        for topic, place in self._places.items():
            if topic != except_for and place.seen is None:
                place.seen = place.entered

    def joined(self, event: Mapping[str, Any]) -> bool:
        """Whether this topic was joined before. A fresh join forgets the old position."""
        topic = event.get("topic")
        before = self._places.get(topic) if isinstance(topic, str) else None
        stands = _standing(event)
        if stands is not None:
            name, offset, epoch = stands
            if not (event.get("recovered") and before is not None and before.epoch == epoch):
                self._set(name, Place(epoch, offset, None))
            else:
                before.gap = None
        return before is not None

    def missed(self, topic: object) -> None:
        """Messages of this topic were lost."""
        place = self._places.get(topic) if isinstance(topic, str) else None
        if place is not None and place.gap is None:
            place.gap = Gap.BEHIND if place.seen is None else Gap.AHEAD

    def is_new(self, event: Mapping[str, Any]) -> bool:
        """Remember where a message stands. False: it came before."""
        stands = _standing(event)
        if stands is None:
            return True
        topic, offset, epoch = stands
        before = self._places.get(topic)
        if before is not None and before.epoch == epoch and before.seen is not None and offset <= before.seen:
            return False
        self._set(topic, Place(epoch, offset, offset, None if before is None or before.gap is None else Gap.BEHIND))
        return True

    def _set(self, topic: str, place: Place) -> None:
        if topic in self._places or len(self._places) < MOST_TOPICS:
            self._places[topic] = place


def _fits(topic: str, pattern: str) -> bool:
    return topic.startswith(pattern[:-1]) if pattern.endswith("*") else topic == pattern


def _standing(event: Mapping[str, Any]) -> tuple[str, int, str] | None:
    topic, offset, epoch = event.get("topic"), event.get("offset"), event.get("epoch")
    if not (isinstance(topic, str) and isinstance(epoch, str) and len(epoch) <= 64):
        return None
    if not isinstance(offset, int) or isinstance(offset, bool) or not 0 <= offset < 10**18:
        return None
    return topic, offset, epoch
