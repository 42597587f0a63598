"""The one door through which an identity comes to its connection, and through which it is renewed."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from starlette.requests import HTTPConnection

from antiphon.connection import expire_at, raise_expired
from antiphon.connection.expired import WHEN_EXPIRED_KEY
from antiphon.connection.websocket import RENEWING_KEY
from antiphon.events import Refusal
from antiphon.exceptions import WebSocketException
from antiphon.identity import IDENTITY_KEY, Identity
from antiphon.shown import shown
from antiphon.status import WS_3003_FORBIDDEN
from antiphon.types import WHEN_REVOKED_KEY, Scope

from .hubs import register
from .refusals import note_refusal

logger: Final = logging.getLogger("antiphon")

Verify: TypeAlias = Callable[[str], Awaitable[Identity]]
"""From a token to its identity. Raises HTTPException 401 for a bad token, 503 where that cannot be known."""

VERIFY_KEY: Final = "antiphon.verify"
"""Key in the scope: the `Verify` that knows new tokens for the identity of this connection."""

ANOTHER_USER: Final = "another user"


WHEN_ADMITTED_KEY: Final = "antiphon.when_admitted"
"""Key in the scope: callables that wait for the connection's identity. Each is called with both, once, and may refuse
it."""


async def admit(connection: HTTPConnection, identity: Identity, verify: Verify | None = None) -> Identity:
    """From now on the connection, a WebSocket's or a request's, is this identity's. Returns it.

        async def somebody(websocket: WebSocket, token: str = "") -> Identity:
            return await admit(websocket, await verify(token), verify)

    The app's hub knows it by its user. A WebSocket ends when the identity expires: Close 3000, or 401 before accept.
    `verify` takes the tokens by which it is renewed. Dependencies that identify a user call this last. Raises
    HTTPException 401 for an identity that has expired or was revoked, and on an open connection `WebSocketException`
    3000. Raises the errors of a `Quota` that counts by user. Raises TypeError for an object that is no Identity, and
    for one that expires with a connection that cannot be ended.
    """
    if not isinstance(identity, Identity):
        raise TypeError(f"expected an Identity, got {type(identity).__name__}: Identity(user=..., expires_at=...)")
    scope = connection.scope
    if identity.expires_at is not None and identity.expires_at <= time.time():
        note_refusal(scope, Refusal.TOKEN_EXPIRED)
        raise_expired(connection)
    if scope["type"] == "websocket":
        scope[WHEN_REVOKED_KEY] = _note_revoked  # first: from `register` on it may happen
    await register(connection, identity)
    if scope["type"] == "websocket":
        scope[WHEN_EXPIRED_KEY] = _note_expired
        expire_at(connection, identity.expires_at)
        scope[RENEWING_KEY] = renew
    scope[IDENTITY_KEY] = identity
    for count in scope.pop(WHEN_ADMITTED_KEY, ()):
        await count(connection, identity)
    if verify is not None:
        scope[VERIFY_KEY] = verify
    return identity


async def renew(connection: HTTPConnection, identity: Identity) -> Identity:
    """`WebSocket.renew` for a `WebSocket` of FastAPI's or Starlette's: admit the same user once more.

    Raises RuntimeError where no user was admitted, `WebSocketException` 3003 for another user's identity, and the
    errors of `admit`.

        await renew(websocket, Identity(user="ann", expires_at=time.time() + 900))
    """
    before: Identity | None = connection.scope.get(IDENTITY_KEY)
    if before is None:
        raise RuntimeError("no user was admitted here: let a dependency admit(connection, identity) first")
    if isinstance(identity, Identity) and identity.user != before.user:
        logger.info("%s: another user's identity renews nothing: 3003", shown(connection.scope.get("path", "")))
        note_refusal(connection.scope, Refusal.OTHER_USER)
        raise WebSocketException(WS_3003_FORBIDDEN, ANOTHER_USER)
    return await admit(connection, identity)


def _note_expired(scope: Scope) -> None:
    note_refusal(scope, Refusal.TOKEN_EXPIRED)


def _note_revoked(scope: Scope) -> None:
    note_refusal(scope, Refusal.REVOKED)
