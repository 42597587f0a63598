"""Revocations: users and sessions with a time of issue, in this process and in all.

A revocation is a note in the backend. Its name is the user and the session, its number a time: tokens issued before it
are revoked. gate/README.md has the table. Knows no socket: its callback closes them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from antiphon.identity import Identity

from .backend_access import BackendAccess
from .backends.base import gate_of, keeps_gate
from .clock import LoopClock
from .expiring import Expiring
from .guests import short
from .records import Note
from .telling import Telling

REVOKED: Final = b"r"
"""The first byte of the control message that tells of revocations."""

WHENEVER: Final = 1e18
"""Unix seconds: a revocation of a session is of all its tokens, whenever issued."""

TOLD_TOGETHER: Final = 500
"""Revocations in one control message."""

Tell: TypeAlias = Callable[[str, str, float], None]
"""User, session ("": any), and the time before which tokens count as issued: close their sockets."""


def name_of(user: str, session: str) -> str:
    """The note's name; "" is any."""
    user, session = short(user), short(session)
    return f"{len(user)}:{user}{session}"


def _read_name(name: str) -> tuple[str, str]:
    length, _, rest = name.partition(":")
    return rest[: int(length)], rest[int(length) :]


class Revocations:
    """Those this process knows. `covers` in any thread, as often as a connection comes in."""

    def __init__(self, access: BackendAccess, close: Tell, flush: Callable[[], None]) -> None:
        """`close` is called for each that is news, in the thread that learns of it. It waits for nothing.

        `flush` behind several of them, where the backend does not call it.
        """
        self._access = access
        self._close = close
        self._flush = flush
        self._clock = LoopClock()
        self._table: Expiring[float] = Expiring("revocations")
        self._untold: dict[str, None] = {}
        """Names of those that some process may not have been told of."""
        self._telling = Telling(access, "revocations", self._left, self._tell)
        self._lock = threading.Lock()
        access.learn = self._learn

    def covers(self, identity: Identity) -> bool:
        """Whether the identity was taken back."""
        if not len(self._table):
            return False
        now, sessions = self._clock(), ("", identity.session) if identity.session else ("",)
        for session in sessions:
            for user in ("", identity.user):
                before = self._table.get(name_of(user, session), now)
                if before is not None and (identity.issued_at is None or identity.issued_at < before):
                    return True
        return False

    async def add(self, user: str, session: str, before: float, lifetime: float) -> None:
        """Takes effect here at once, and in all processes when it returns.

        Raises `BackendUnavailable`: the others learn of it later. Raises `UnsupportedBackend`: nothing was done.
        """
        backend = gate_of(self._access.backend, "hub.revoke()")
        note = Note(name_of(user, session), before, lifetime)
        self._untold[note.key] = None
        self._enforce([note])
        self._flush()
        try:
            await self._access.call("note", backend.note, [note])
            await self._access.control(REVOKED + _pack([note]))
        except BaseException:
            self._access.at_home_soon(self._telling.soon)
            raise
        self._untold.pop(note.key, None)

    def told(self, payload: bytes) -> None:
        """A process has revoked something, maybe this one. Raises ValueError, TypeError."""
        self._enforce([Note(str(key), float(value), float(ttl)) for key, value, ttl in json.loads(payload[1:])])

    def _enforce(self, notes: Iterable[Note]) -> None:
        now = self._clock()
        for key, before, ttl in notes:
            user, session = _read_name(key)
            with self._lock:
                self._table.sweep(now)
                known = self._table.get(key, now)
                news = known is None or known < before
                self._table.put(key, before if news or known is None else known, max(self._table.until(key), now + ttl))
            if news:  # after the table: a connection that arrives meanwhile is found there, or closed here
                self._close(user, session, before)

    # All processes

    async def _learn(self) -> None:
        """The backend is there, perhaps again: read the missed notes, and a little later write those that it lacks.

        Raises `BackendUnavailable`.
        """
        backend = self._access.backend
        if not keeps_gate(backend):
            return
        notes = await self._access.once("noted", backend.noted)
        self._enforce(notes)
        self._flush()
        there = {note.key: note.value for note in notes}
        self._untold |= {note.key: None for note in self._known() if there.get(note.key, -1.0) < note.value}
        if self._untold:
            self._telling.soon()

    def _known(self) -> Sequence[Note]:
        with self._lock:
            return [Note(*one) for one in self._table.items(self._clock())]

    def _left(self) -> Sequence[Note]:
        """Those that are still to be told, where they have not ended."""
        return [one for one in self._known() if one.key in self._untold] if self._untold else ()

    async def _tell(self) -> None:
        backend = gate_of(self._access.backend, "hub.revoke()")
        notes = self._left()
        for start in range(0, len(notes), TOLD_TOGETHER):
            some = notes[start : start + TOLD_TOGETHER]
            await self._access.once("note", backend.note, some)
            await self._access.once("control", backend.control, REVOKED + _pack(some))
            for note in some:
                self._untold.pop(note.key, None)


def _pack(notes: Iterable[Note]) -> bytes:
    return json.dumps([tuple(note) for note in notes]).encode()
