"""How many connections one user or one address may have, over all processes of a hub.

A connection holds a share of the limit from its handshake to its end. README.md says what happens while the hub's
backend is away.
"""

from __future__ import annotations

import enum
import math
from typing import ClassVar, Final

from starlette.requests import HTTPConnection

from antiphon.events import Refusal
from antiphon.exceptions import HTTPException, RegistrationError
from antiphon.hub import BackendUnavailable, Hub
from antiphon.hub.arguments import user_of
from antiphon.hub.guests import short
from antiphon.identity import Identity
from antiphon.networks import network_of
from antiphon.status import HTTP_429_TOO_MANY_REQUESTS
from antiphon.types import Sink

from .admission import WHEN_ADMITTED_KEY
from .challenge import CannotVerify
from .hubs import hub_of, with_sink
from .refusals import note_refusal

MOST: Final = 100_000
"""Connections under one limit: all shares are looked at when it is reached."""

SHARES_KEY: Final = "antiphon.quota_shares"
"""Key in the scope: the limits of which this connection has a share, so that it counts once."""


class Over(enum.Enum):
    """The policy of a `Quota` for a connection too many.

    For example:

        one_screen = Quota(connections_per_user=1, over=Over.REPLACE)
    """

    REFUSE = "refuse"
    """429 with Retry-After. Close 1013 where a page is to read it, as behind `FIRST_MESSAGE`."""
    REPLACE = "replace"
    """It comes in, and the oldest is closed with 1008 "replaced", in whichever process that is."""


class WhileAway(enum.Enum):
    """The policy of a `Quota` while the hub's backend cannot be asked.

    For example:

        strict = Quota(connections_per_user=5, while_away=WhileAway.CLOSED)
    """

    OPEN = "open"
    """Each process counts its own connections alone."""
    CLOSED = "closed"
    """Nobody new comes in: 503."""


class OverQuota(HTTPException):
    """A connection too many: 429. `note` is for the log, `wait` the seconds after which a dead process holds none."""

    def __init__(self, note: str, wait: float) -> None:
        retry_after = str(max(1, math.ceil(wait)))
        super().__init__(HTTP_429_TOO_MANY_REQUESTS, "too many connections", {"Retry-After": retry_after})
        self.note = note


class Quota:
    """Bounds connections: `dependencies=[Depends(Quota(connections_per_user=5))]` on an app, a router or a route.

        app = App(hub=Hub(), dependencies=[Depends(Quota(connections_per_user=5, connections_per_address=100))])

    `connections_per_user` counts by identity (else by Starlette's `scope["user"]`), whether this stands before the
    dependency that finds it or behind. Connections without one are not counted by it. `connections_per_address` counts
    by the client's address, IPv6 by /64. Both hold over all processes on one hub. A crashed one frees its shares
    within the hub's `presence_lease`.

    `over` is the policy for a connection too many, `while_away` the policy while the hub's backend is away. `name`:
    quotas of one name and limit count together, in all routes. `hub` is the app's where it is not given. Requests that
    are no WebSockets pass. Raises TypeError, ValueError.
    """

    is_called_as_dependency: ClassVar[bool] = True
    """Its objects are the dependencies. The class itself checks nobody."""

    def __init__(
        self,
        *,
        connections_per_user: int | None = None,
        connections_per_address: int | None = None,
        over: Over = Over.REFUSE,
        while_away: WhileAway = WhileAway.OPEN,
        name: str = "",
        hub: Hub | None = None,
    ) -> None:
        for what, number in (
            ("connections_per_user", connections_per_user),
            ("connections_per_address", connections_per_address),
        ):
            if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
                raise TypeError(f"Quota({what}): expected a number of connections, got {number!r}")
            if number is not None and not 1 <= number <= MOST:
                raise ValueError(f"Quota({what}): expected 1 to {MOST} connections, got {number!r}")
        if connections_per_user is None and connections_per_address is None:
            raise ValueError("Quota(): expected connections_per_user=, connections_per_address=, or both")
        if not isinstance(over, Over):
            raise TypeError(f"Quota(over): expected Over.REFUSE or Over.REPLACE, got {over!r}")
        if not isinstance(while_away, WhileAway):
            raise TypeError(f"Quota(while_away): expected WhileAway.OPEN or WhileAway.CLOSED, got {while_away!r}")
        if not isinstance(name, str) or not isinstance(hub, Hub | None):
            raise TypeError(f"Quota(name, hub): expected a str and a Hub, got {name!r} and {hub!r}")
        self.connections_per_user: int | None = connections_per_user
        self.connections_per_address: int | None = connections_per_address
        self.over: Over = over
        self.while_away: WhileAway = while_away
        self.name: str = name
        self.hub: Hub | None = hub

    async def __call__(self, connection: HTTPConnection) -> None:
        """Take the connection's shares. Raises HTTPException 429 and 503."""
        scope = connection.scope
        if scope["type"] != "websocket":
            return
        if self.connections_per_address is not None and connection.client is not None:
            network = network_of(connection.client.host)
            address = network.hex() if isinstance(network, bytes) else str(network)
            await self._claim(connection, "address", address, self.connections_per_address)
        if self.connections_per_user is not None:
            user = user_of(connection)
            if user is not None:
                await self._claim(connection, "user", user, self.connections_per_user)
            else:
                scope.setdefault(WHEN_ADMITTED_KEY, []).append(self._count_user)

    async def _count_user(self, connection: HTTPConnection, identity: Identity) -> None:
        assert self.connections_per_user is not None
        await self._claim(connection, "user", identity.user, self.connections_per_user)

    async def _claim(self, connection: HTTPConnection, what: str, whose: str, limit: int) -> None:
        key = f"quota:{short(self.name)}:{limit}:{what}:{short(whose)}"
        shares: set[str] = connection.scope.setdefault(SHARES_KEY, set())
        if key in shares:
            return
        shares.add(key)
        sink = self._sink(connection)
        try:
            claimed = await self._hub(connection).door.claim(
                key,
                limit,
                sink,
                evict=self.over is Over.REPLACE,
                alone=self.while_away is WhileAway.OPEN,
            )
        except BackendUnavailable as error:
            note_refusal(connection.scope, Refusal.UNAVAILABLE)
            raise CannotVerify(
                f"the hub's backend is away, and Quota(while_away=WhileAway.CLOSED) lets nobody in; "
                f"start it, or give WhileAway.OPEN: {error}",
                retry_after=1,
            ) from error
        if not claimed.granted:
            note_refusal(connection.scope, Refusal.QUOTA)
            text = (
                f"this {what} has {limit} connections already (Quota(connections_per_{what}={limit})); "
                "raise it, or give over=Over.REPLACE"
            )
            raise OverQuota(text, claimed.wait)

    def _sink(self, connection: HTTPConnection) -> Sink:
        sink: Sink | None = getattr(with_sink(connection), "sink", None)
        if sink is None:
            raise TypeError(
                "a Quota counts the WebSockets whose end it hears of: those of antiphon routes, and all on antiphon's "
                f"server. This one is a {type(connection).__module__}.WebSocket: register the endpoint with an "
                "antiphon App or APIRouter, or run the app on antiphon's server"
            )
        return sink

    def _hub(self, connection: HTTPConnection) -> Hub:
        hub = self.hub or hub_of(connection.scope)
        if hub is None:
            raise RegistrationError(
                "a Quota counts in the app's hub, and this app has none: Quota(hub=...), or app.state.hub = Hub(...)"
            )
        return hub
