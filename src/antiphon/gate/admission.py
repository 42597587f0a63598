"""The one door through which an identity comes to its connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from starlette.requests import HTTPConnection

from antiphon.identity import IDENTITY_KEY, Identity

from .hubs import register

Verify: TypeAlias = Callable[[str], Awaitable[Identity]]
"""From a token to who it is for. Raises HTTPException 401 for one that is not good, 503 where that cannot be known."""

VERIFY_KEY: Final = "antiphon.verify"
"""Key in the scope: the `Verify` that knows new tokens for the identity of this connection."""


WHEN_ADMITTED_KEY: Final = "antiphon.when_admitted"
"""Key in the scope: what waits for the connection's identity. Each is called with both, once, and may refuse it."""


async def admit(connection: HTTPConnection, identity: Identity, verify: Verify | None = None) -> Identity:
    """From now on the connection, a WebSocket's or a request's, is this identity's; returns it.

    The app's hub knows it by its user. `verify` takes the tokens by which it is renewed. Dependencies that find out who
    somebody is call this last. Raises HTTPException 401 for an identity that was revoked, on an open connection
    WebSocketException 3000; and what a `Quota` raises that counts by user.
    """
    await register(connection, identity)
    connection.scope[IDENTITY_KEY] = identity
    for count in connection.scope.pop(WHEN_ADMITTED_KEY, ()):
        await count(connection, identity)
    if verify is not None:
        connection.scope[VERIFY_KEY] = verify
    return identity
