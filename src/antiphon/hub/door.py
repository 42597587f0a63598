"""The hub's services for the gate: guests, revocations, and values given out once or in shares over all processes.

gate/README.md has the design. The gate comes here through `hub.door`, applications through `Hub`.
"""

from __future__ import annotations

import itertools
import time
from typing import Final

from antiphon.identity import Identity
from antiphon.status import WS_3000_UNAUTHORIZED
from antiphon.types import Sink, SupportsSink

from .backend_access import BackendAccess
from .backends.base import gate_of
from .direct import SENT, UserMessage
from .errors import Revoked
from .guests import Guest
from .lifecycle import Lifecycle
from .loops import in_loop
from .records import Claimed
from .revocations import REVOKED, WHENEVER, Revocations
from .rooms import Rooms
from .shares import EVICTED, Shares

CLOSE: Final = (WS_3000_UNAUTHORIZED, "revoked")
"""The close of revoked connections: get a new token, and come back once."""


class HubDoor:
    """One hub's."""

    def __init__(self, rooms: Rooms, access: BackendAccess, lifecycle: Lifecycle, serial: itertools.count[int]) -> None:
        """`serial` numbers guests and memberships."""
        self._rooms = rooms
        self._access = access
        self._lifecycle = lifecycle
        self._serial = serial
        self._revocations = Revocations(access, self._close, rooms.flush)
        self._shares = Shares(access, lambda: rooms.process)
        rooms.commands[REVOKED] = self._revocations.told
        rooms.commands[EVICTED] = self._shares.evicted
        rooms.commands[SENT] = self._send

    # Guests

    async def admit(self, websocket: SupportsSink | None, identity: Identity) -> None:
        """As `Hub.admit`."""
        if self._lifecycle.startable:
            await self._lifecycle.wake()  # the start reads the revocations
        if websocket is None:
            self._check(identity)
        else:
            sink = websocket.sink
            await in_loop(sink.loop, self._enter(websocket, sink, identity))

    async def _enter(self, websocket: SupportsSink, sink: Sink, identity: Identity) -> None:
        """In first, and then the look: a revocation that this does not see finds the guest.

        If this identity is refused, a guest known by another one stays known by it.
        """
        station = self._rooms.stations.get(sink.loop)
        known = None if station is None else station.guests.with_sink(sink)
        guest = Guest(websocket, sink, next(self._serial), identity)
        self._rooms.let_in(guest)
        if known is not None:
            sink.off_close(known.forget)
        guest.forget = lambda: self._rooms.let_go(guest)
        sink.on_close(guest.forget)  # at once, where it is over
        try:
            self._check(identity)
        except Revoked:
            sink.off_close(guest.forget)
            if known is None:
                self._rooms.let_go(guest)
            else:
                self._rooms.let_in(known)
                sink.on_close(known.forget)
            raise

    def _check(self, identity: Identity) -> None:
        if self._revocations.covers(identity):
            raise Revoked(
                "the identity was revoked: hub.revoke() was called for its user, its session, or all; "
                "log in again for a new token"
            )

    # Revocations

    async def revoke(self, user: str | None, session: str | None, before: float | None, lifetime: float) -> None:
        """As `Hub.revoke`, of arguments that were read."""
        self._lifecycle.check()
        if before is None:
            before = time.time() if session is None else WHENEVER
        await self._revocations.add(user or "", session or "", before, lifetime)

    def _close(self, user: str, session: str, before: float) -> None:
        for station in tuple(self._rooms.stations.values()):
            station.put(station.revoke, (user, session, before), CLOSE)

    def _send(self, payload: bytes) -> None:
        direct = UserMessage(payload[1:])
        for station in tuple(self._rooms.stations.values()):
            station.put(station.send, direct, None)

    # Values given out

    async def put(self, feature: str, key: str, value: bytes, ttl: float) -> None:
        """Keep it for the first that asks. Does not wait for a backend that is away, under any `on_outage`.

        Raises `BackendUnavailable`, `UnsupportedBackend`, `HubNotRunning`.
        """
        self._lifecycle.check()
        await self._access.at_once("put", gate_of(self._access.backend, feature).put, key, value, ttl)

    async def take(self, feature: str, key: str) -> bytes | None:
        """The value that was put, once. Raises as `put`."""
        self._lifecycle.check()
        return await self._access.at_once("take", gate_of(self._access.backend, feature).take, key)

    async def claim(self, key: str, limit: int, sink: Sink, *, evict: bool, alone: bool) -> Claimed:
        """As `Shares.claim`. Raises `HubNotRunning`, too."""
        self._lifecycle.check()
        return await self._shares.claim(key, limit, sink, evict=evict, alone=alone)
