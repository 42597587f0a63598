"""The one door through which an identity comes to its connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from starlette.requests import HTTPConnection

from antiphon.identity import IDENTITY_KEY, Identity

Verify: TypeAlias = Callable[[str], Awaitable[Identity]]
"""From a token to who it is for. Raises HTTPException 401 for one that is not good, 503 where that cannot be known."""

VERIFY_KEY: Final = "antiphon.verify"
"""Key in the scope: the `Verify` that knows new tokens for the identity of this connection."""


async def admit(connection: HTTPConnection, identity: Identity, verify: Verify | None = None) -> Identity:
    """From now on the connection, a WebSocket's or a request's, is this identity's; returns it.

    `verify` takes the tokens by which it is renewed. Dependencies that find out who somebody is call this last.
    """
    connection.scope[IDENTITY_KEY] = identity
    if verify is not None:
        connection.scope[VERIFY_KEY] = verify
    return identity
