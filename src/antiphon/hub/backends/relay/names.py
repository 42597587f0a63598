"""Hubs of several applications on one relay: `Hub(prefix=…)` keeps the names of one apart from those of all others.

The relay knows nothing of it. A hub with the usual prefix sends names as they are. Any other puts a mark before its
topics, keys and control messages: no name begins with a line break.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterable
from typing import Final

from ...records import Change, Entry, Note
from ..base import BackendConfig, Listener

logger: Final = logging.getLogger("antiphon.hub")

USUAL: Final = BackendConfig().prefix
MARK: Final = "\n"

_users: dict[tuple[int, str, str], weakref.WeakSet[object]] = {}
"""Process, address of a relay, prefix: the backends that have used it."""


class MarkedNames:
    """The mark of one prefix."""

    def __init__(self, prefix: str) -> None:
        self.mark: str = "" if prefix == USUAL else f"{MARK}{prefix}{MARK}"
        self._bytes = self.mark.encode()

    def message(self, payload: bytes) -> bytes:
        """A control message, as it leaves."""
        return self._bytes + payload

    def own(self, notes: Iterable[Note]) -> list[Note]:
        """Ours of all notes, under the names that the hub gave them."""
        if not self.mark:
            return [note for note in notes if not note.key.startswith(MARK)]
        return [note._replace(key=note.key[len(self.mark) :]) for note in notes if note.key.startswith(self.mark)]

    def heard_by(self, listener: Listener) -> Heard:
        """The listener for messages as they come."""
        return Heard(listener, self._bytes, len(self.mark))


class Heard:
    """A hub's listener, behind the mark of its prefix. Without a mark, entries go straight to the hub."""

    def __init__(self, listener: Listener, mark: bytes, length: int) -> None:
        """`length`: of the mark in characters."""
        self._listener = listener
        self._mark = mark
        self._length = length
        self.deliver: Callable[[str, Entry], None] = self._deliver if mark else listener.deliver
        self.presence_changed: Callable[[str, Change], None] = (
            self._presence_changed if mark else listener.presence_changed
        )
        self.flush: Callable[[], None] = listener.flush
        self.lost: Callable[[], None] = listener.lost
        self.restored: Callable[[], None] = listener.restored
        self.forgotten: Callable[[], None] = listener.forgotten

    def _deliver(self, topic: str, entry: Entry) -> None:
        self._listener.deliver(topic[self._length :], entry)

    def _presence_changed(self, topic: str, change: Change) -> None:
        self._listener.presence_changed(topic[self._length :], change)

    def controlled(self, payload: bytes) -> None:
        """The relay tells every worker. Those of other prefixes are not for us."""
        if self._mark:
            if payload.startswith(self._mark):
                self._listener.controlled(payload[len(self._mark) :])
        elif not payload.startswith(MARK.encode()):
            self._listener.controlled(payload)


def warn_of_another(backend: object, address: str, prefix: str) -> None:
    """Warn of two hubs of one program whose topics are the same on the relay of its workers.

    With one worker they are apart, each in its own memory. So this is seen only with several.
    """
    users = _users.setdefault((os.getpid(), address, prefix), weakref.WeakSet())
    users.add(backend)
    if len(users) == 2:
        logger.warning(
            "two hubs of this program share the relay of its workers: a topic of one is a topic of the other, and with "
            "one worker it is not. Give each a prefix of its own, Hub(prefix=...), or give both apps the same hub"
        )


def forget(backend: object) -> None:
    """The backend has stopped."""
    for users in _users.values():
        users.discard(backend)
