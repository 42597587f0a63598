"""The members of topics as this process has heard of them: a roster, and the changes told of since.

The versions of a topic's changes have no gaps in Redis, so a copy is exact up to its version, or is given up. Pure.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator

from ...records import Change, Roster


class _Copy:
    """A roster, kept true by changes."""

    __slots__ = ("members", "more", "version", "waiting")

    def __init__(self, roster: Roster) -> None:
        self.version = roster.version
        self.members = dict(roster.members)
        self.more = dict(roster.more)
        self.waiting: list[tuple[int, asyncio.Future[None]]] = []

    def change(self, change: Change) -> None:
        self.version = change.version
        if change.metas:
            self.members[change.user] = change.metas
        else:
            self.members.pop(change.user, None)
        if change.more:
            self.more[change.user] = change.more
        else:
            self.more.pop(change.user, None)
        self._wake(change.version)

    def give_up(self) -> None:
        self._wake(None)

    def _wake(self, version: int | None) -> None:
        reached = [one for needed, one in self.waiting if version is None or needed <= version]
        self.waiting = [(needed, one) for needed, one in self.waiting if version is not None and needed > version]
        for future in reached:
            if not future.done():
                future.set_result(None)


class Copies:
    """By topic: those that are subscribed here, and of which somebody has read the members."""

    def __init__(self) -> None:
        self._copies: dict[str, _Copy | None] = {}
        """None: changes arrive, but there is no roster to apply them to."""
        self._asking: dict[str, list[list[Change]]] = {}

    def hear(self, topic: str) -> None:
        """From now on all changes of the topic are heard."""
        self._copies.setdefault(topic, None)

    def forget(self, topic: str) -> None:
        self._give_up(self._copies.pop(topic, None))

    def restart(self, topic: str) -> None:
        """Something was missed: there is a copy again when somebody reads the members."""
        if topic in self._copies:
            copy, self._copies[topic] = self._copies[topic], None
            self._give_up(copy)

    def restart_all(self) -> None:
        """A change was missed, of an unknown topic."""
        for topic in self._copies:
            self.restart(topic)

    def clear(self) -> None:
        """Changes may be missed, of all topics."""
        for topic in tuple(self._copies):
            self.forget(topic)

    def version(self, topic: str) -> int | None:
        """The copy's version. None: there is no copy."""
        copy = self._copies.get(topic)
        return None if copy is None else copy.version

    def change(self, topic: str, change: Change) -> None:
        """One was heard of."""
        for came in self._asking.get(topic, ()):
            came.append(change)
        self._follow(topic, change)

    def _follow(self, topic: str, change: Change) -> None:
        copy = self._copies.get(topic)
        if copy is None or change.version <= copy.version:
            return
        if change.version == copy.version + 1:
            copy.change(change)
        else:
            self.restart(topic)

    @contextlib.contextmanager
    def asking(self, topic: str) -> Iterator[list[Change]]:
        """A roster is asked for: the changes that come before the answer, for `keep`."""
        came: list[Change] = []
        self._asking.setdefault(topic, []).append(came)
        try:
            yield came
        finally:
            others = [one for one in self._asking[topic] if one is not came]
            if others:
                self._asking[topic] = others
            else:
                del self._asking[topic]

    def keep(self, topic: str, roster: Roster, came: Iterable[Change]) -> None:
        """The roster, and the changes since the request for it: it contains some of them, the rest follows."""
        if topic not in self._copies:
            return
        self.restart(topic)
        self._copies[topic] = _Copy(roster)
        for change in came:
            self._follow(topic, change)

    async def reached(self, topic: str, version: int) -> Roster | None:
        """The members as of this version or a later one, as soon as it has been heard of. None: it will not be."""
        copy = self._copies.get(topic)
        if copy is None:
            return None
        if copy.version < version:
            heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            copy.waiting.append((version, heard))
            await heard
            if copy.version < version:
                return None
        return Roster(copy.version, dict(copy.members), dict(copy.more))

    def _give_up(self, copy: _Copy | None) -> None:
        if copy is not None:
            copy.give_up()
