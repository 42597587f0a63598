"""Tickets: a route that knows its user issues one, and a page opens a WebSocket with it, once.

A ticket's content lies in the hub's backend under the digest of its text. Read access to the backend redeems none.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from antiphon.hub import BackendUnavailable, Hub
from antiphon.identity import Identity

from .bearer import WebSocketBearer
from .challenge import CannotVerify, InvalidToken
from .sources import QUERY

RANDOM_BYTES: Final = 32
LENGTH: Final = len(secrets.token_urlsafe(RANDOM_BYTES))
"""Characters of a ticket."""

MOST_BYTES: Final = 16 << 10
"""Bytes of one ticket's content: a hundred thousand of them may wait."""

LONGEST_LIFE: Final = 3600.0
"""Seconds. A longer life needs a token."""


class Tickets(WebSocketBearer):
    """One-time tickets for connections that browsers open without headers: `?ticket=` counts once, in any process.

        tickets = Tickets(hub, lifetime=30)

        @app.post("/tickets", dependencies=[Depends(jwt)])
        async def ticket(who: Identity) -> str:
            return await tickets.issue(who)

        @app.websocket("/live", dependencies=[Depends(tickets)])
        async def live(websocket: WebSocket, who: Identity) -> None: ...

    `ticket = await tickets.issue(user)` in a route that knows who asks. `Depends(tickets)`, or a parameter annotated
    `Identity` behind it, where the ticket comes in. One that was used, is over or was never issued is 401. While the
    hub's backend is away, 503.

    `hub` keeps them, in its backend: all processes on one redeem each other's. `lifetime` is in seconds, an hour at
    most. `name` is that of the query parameter. `purpose`: tickets for another purpose are refused here, though the
    hub is the same. `auto_error`, `scheme_name` and `description` as of `WebSocketBearer`. Raises TypeError,
    ValueError.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        lifetime: float = 30.0,
        name: str = "ticket",
        purpose: str = "",
        auto_error: bool = True,
        scheme_name: str | None = None,
        description: str | None = None,
    ) -> None:
        if not isinstance(hub, Hub):
            raise TypeError(f"Tickets(hub): expected the Hub that keeps them, app.hub say; got {type(hub).__name__}")
        if isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or not 0 < lifetime <= LONGEST_LIFE:
            raise ValueError(f"Tickets(lifetime): expected seconds, more than 0 and at most an hour; got {lifetime!r}")
        if not isinstance(purpose, str):
            raise TypeError(f"Tickets(purpose): expected a str, got {type(purpose).__name__}")
        super().__init__(
            [QUERY(name)],
            self._redeem,
            auto_error=auto_error,
            longest=LENGTH,
            scheme_name=scheme_name,
            description=description or f"A ticket in the query parameter {name}, good once for {lifetime:g} seconds.",
        )
        self.hub: Hub = hub
        self.lifetime: float = lifetime
        self._purpose = purpose

    async def issue(
        self,
        who: str | Identity,
        *,
        session: str | None = None,
        expires_at: float | None = None,
        scopes: Iterable[str] = (),
        claims: Mapping[str, Any] | None = None,
    ) -> str:
        """A new ticket, for a URL: 43 characters nobody guesses.

        `who`: a user, with `session`, `expires_at`, `scopes` and `claims` as of `Identity`. Or the `Identity` of the
        user who asks, which the connection then has: it ends when that expires, or when a revocation ends it. Raises
        TypeError and ValueError for claims that are no JSON or more than 16 KiB of it. Raises HTTPException 503 while
        the hub's backend is away.
        """
        if isinstance(who, Identity):
            if session is not None or expires_at is not None or scopes or claims is not None:
                raise TypeError("tickets.issue(identity): the identity says all: change its fields with replace()")
            identity = who
        else:
            identity = Identity(
                user=who, session=session, expires_at=expires_at, scopes=frozenset(_names(scopes)), claims=claims or {}
            )
        if identity.issued_at is None:
            identity = replace(identity, issued_at=time.time())
        packed = _pack(identity)
        ticket = secrets.token_urlsafe(RANDOM_BYTES)
        try:
            await self.hub.door.put("Tickets", self._key(ticket), packed, self.lifetime)
        except BackendUnavailable as error:
            raise _unavailable(error) from error
        return ticket

    async def _redeem(self, ticket: str) -> Identity:
        """Once: with this it is gone, even if the connection fails."""
        if len(ticket) != LENGTH:
            raise InvalidToken(f"a ticket has {LENGTH} characters, and this one has {len(ticket)}")
        try:
            packed = await self.hub.door.take("Tickets", self._key(ticket))
        except BackendUnavailable as error:
            raise _unavailable(error) from error
        if packed is None:
            raise InvalidToken(
                f"the ticket was used, is older than {self.lifetime:g} s, or was never issued; "
                "ask for a new one before each connect"
            )
        return _unpack(packed)

    def _key(self, ticket: str) -> str:
        # By its digest: a look-up tells in its time nothing of other tickets, and the backend holds none in clear.
        return "ticket:" + hashlib.sha256(f"{self._purpose}\0{ticket}".encode()).hexdigest()


def _names(scopes: Iterable[str]) -> Iterable[str]:
    if isinstance(scopes, str):
        raise TypeError(f"tickets.issue(scopes): a set of names is expected; got the str {scopes!r}: split it")
    return scopes


def _pack(identity: Identity) -> bytes:
    """Raises TypeError, ValueError."""
    fields = (identity.user, identity.session, identity.issued_at, identity.expires_at)
    try:
        packed = json.dumps([*fields, sorted(identity.scopes), dict(identity.claims)], allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"tickets.issue(): the identity's claims have no JSON form: {error}") from error
    if len(packed) > MOST_BYTES:
        raise ValueError(
            f"tickets.issue(): {len(packed)} bytes of claims; a ticket says at most {MOST_BYTES}: "
            "put in a key by which you find the rest"
        )
    return packed


def _unpack(packed: bytes) -> Identity:
    user, session, issued_at, expires_at, scopes, claims = json.loads(packed)
    return Identity(
        user=user,
        session=session,
        issued_at=issued_at,
        expires_at=expires_at,
        scopes=frozenset(scopes),
        claims=claims,
    )


def _unavailable(error: BackendUnavailable) -> CannotVerify:
    return CannotVerify(f"the hub's backend is away, and with it all tickets; start it again: {error}", retry_after=1)
