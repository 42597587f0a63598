"""The guests of one event loop: admitted connections by user and by session, in topics or not.

Only the loop's thread touches it. Knows no topic and no backend.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from typing import Final

from starlette.websockets import WebSocketState

from antiphon.identity import Identity
from antiphon.shown import shown
from antiphon.types import WHEN_REVOKED_KEY, Sink, SupportsSink

logger: Final = logging.getLogger("antiphon.hub")

LONGEST_NAME: Final = 100
"""Characters of a user or session that revocations carry as they are; of a longer one its digest."""


def short(name: str) -> str:
    """The name, or a digest of a long one."""
    if len(name) <= LONGEST_NAME:
        return name
    return "sha256:" + hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()


class Guest:
    """One connection, and its owner."""

    __slots__ = ("forget", "issued_at", "serial", "session", "sink", "user", "websocket")

    def __init__(self, websocket: SupportsSink, sink: Sink, serial: int, identity: Identity) -> None:
        self.websocket: SupportsSink = websocket
        self.sink: Sink = sink
        self.serial: int = serial
        """Grows with every guest and membership of the hub."""
        self.user: str = short(identity.user)
        self.session: str | None = None if identity.session is None else short(identity.session)
        self.issued_at: float | None = identity.issued_at
        self.forget: Callable[[], None] = _nothing
        """The sink's `on_close` callback, to take it back."""

    @property
    def accepted(self) -> bool:
        """Before that nothing may be sent."""
        return getattr(self.websocket, "application_state", None) is not WebSocketState.CONNECTING

    def disconnect(self, code: int, reason: str) -> None:
        """Close the connection; before it is accepted, refuse it, readably where it is refused so."""
        if not self.accepted:
            scope = getattr(self.websocket, "scope", {})
            logger.info(
                "%s refused: %d %s, by hub.revoke() or hub.close_connections() in the handshake. "
                "A revoked user needs a new token",
                shown(scope.get("path", "")), code, shown(reason),
            )  # fmt: skip
            life = getattr(self.websocket, "life", None)
            if life is not None and life.refuse_handshake(scope, code, reason):
                return
        self.sink.disconnect(code, reason)

    def revoke(self, code: int, reason: str) -> None:
        """`disconnect` because of a revocation. In the handshake it notifies the gate, which counts it."""
        scope = getattr(self.websocket, "scope", {})
        if not self.accepted and (told := scope.pop(WHEN_REVOKED_KEY, None)) is not None:
            told(scope)
        self.disconnect(code, reason)

    def older_than(self, before: float) -> bool:
        """Its token was issued before, as far as anybody can know."""
        return self.issued_at is None or self.issued_at < before


class Guests:
    """All of one event loop."""

    def __init__(self) -> None:
        self._sinks: dict[int, Guest] = {}
        """By the identity of the sink."""
        self._users: dict[str, dict[Guest, None]] = {}
        self._sessions: dict[str, dict[Guest, None]] = {}

    def __len__(self) -> int:
        return len(self._sinks)

    def with_sink(self, sink: Sink) -> Guest | None:
        return self._sinks.get(id(sink))

    def of_user(self, user: str) -> Iterable[Guest]:
        """`user` as `short` has it. A view: copy it before anybody may leave."""
        return self._users.get(user, ())

    def concerned(self, user: str, session: str) -> Iterable[Guest]:
        """Those of the user, of the session, or of both; "": whichever it is."""
        if session:
            return [one for one in self._sessions.get(session, ()) if not user or one.user == user]
        return self._users.get(user, ()) if user else self._sinks.values()

    def add(self, guest: Guest) -> None:
        """One of another sink than those that are here."""
        self._sinks[id(guest.sink)] = guest
        self._users.setdefault(guest.user, {})[guest] = None
        if guest.session is not None:
            self._sessions.setdefault(guest.session, {})[guest] = None

    def remove(self, guest: Guest) -> None:
        """Unknown ones are ignored."""
        if self._sinks.get(id(guest.sink)) is not guest:
            return
        del self._sinks[id(guest.sink)]
        _discard(self._users, guest.user, guest)
        if guest.session is not None:
            _discard(self._sessions, guest.session, guest)


def _discard(index: dict[str, dict[Guest, None]], name: str, guest: Guest) -> None:
    found = index[name]
    del found[guest]
    if not found:
        del index[name]


def _nothing() -> None:
    pass
