"""A channel's own messages about its client's identity: `auth` brings a new token, `auth_expiring` says when one is
due.

Knows the processing of a token, and nothing of the conversation that it came in.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Final

from pydantic import Field
from starlette.exceptions import WebSocketException
from starlette.websockets import WebSocketDisconnect

from antiphon.connection import WebSocket
from antiphon.dependencies.inspection import unwrapped
from antiphon.gate.admission import VERIFY_KEY, Verify
from antiphon.shown import shown
from antiphon.status import WS_3003_FORBIDDEN
from antiphon.tags import AUTH, AUTH_EXPIRING
from antiphon.types import PreparedMessage

from . import errors
from .errors import CODES, Fault, fault_of
from .options import ChannelOptions
from .outgoing import Outgoing
from .shape import Incoming, RenewalShape
from .typecodec import Codec, codec_of

logger: Final = logging.getLogger("antiphon")

MOST_TOKEN: Final = 16 << 10
"""Characters: twice the size that servers accept for a whole header. Verification costs time in proportion."""

UNAUTHORIZED: Final = "unauthorized"
UNBLAMED: Final = frozenset({errors.INTERNAL, errors.TIMEOUT, "service_unavailable"})
"""Codes of refusals that are not the client's fault."""


@dataclass(frozen=True)
class Auth:
    """A new token for this connection, of the same user: its time counts from now on."""

    token: Annotated[str, Field(min_length=1, max_length=MOST_TOKEN)] = field(repr=False)


@dataclass(frozen=True)
class AuthRenewed:
    """The token was taken."""

    expires_in: float | None
    """Seconds until the next one is due; null: never."""


@dataclass(frozen=True)
class AuthExpiring:
    """The connection is closed with 3000 in so many seconds, unless `auth` brings a new token."""

    expires_in: float


class Renewal:
    """The two messages on a channel's wire, as its options have them."""

    __slots__ = ("_options", "shape")

    def __init__(self, options: ChannelOptions) -> None:
        self._options = options
        auth, renewed, expiring = _codecs()
        self.shape: Final = RenewalShape(
            incoming=Incoming(tag=AUTH, codec=auth),
            reply=renewed,
            event=Outgoing(AUTH_EXPIRING, (AUTH_EXPIRING,), expiring, options.wire, writes_tag=False),
        )

    def verifier(self, websocket: WebSocket) -> Verify | None:
        """The verifier of new tokens for this connection. None: there is none, and `auth` is a message like any
        other."""
        if self._options.auth is False:
            return None
        found: Verify | None = websocket.scope.get(VERIFY_KEY)
        return found

    def tell(self, websocket: WebSocket, left: float) -> None:
        """Tell the client that its time is up in `left` seconds. Never waits. A full outbox drops it."""
        if websocket.is_connected:
            text = self.shape.event.frame(AuthExpiring(round(left, 1)))
            websocket.sink.offer(PreparedMessage(text), websocket.options.outbox_bytes)

    async def renew(self, websocket: WebSocket, verify: Verify, token: str) -> AuthRenewed | Fault:
        """Go on with the identity of a token, or return a fault. Raises the exception that closes the connection."""
        limit = asyncio.timeout(self._options.auth_timeout)
        try:
            async with limit:
                identity = await verify(token)
            await websocket.renew(identity)
        except WebSocketDisconnect:
            raise  # it has ended meanwhile
        except WebSocketException as refused:
            if refused.code == WS_3003_FORBIDDEN:
                raise
            return Fault(UNAUTHORIZED, refused.reason or UNAUTHORIZED)
        except Exception as error:
            fault = _slow if isinstance(error, TimeoutError) and limit.expired() else fault_of(error)
            if fault is None:
                logger.error(
                    "%s: a token could not be verified", shown(websocket.scope.get("path", "")), exc_info=error
                )
                return Fault(errors.INTERNAL, CODES[errors.INTERNAL])
            return fault
        left = None if identity.expires_at is None else round(max(0.0, identity.expires_at - time.time()), 1)
        return AuthRenewed(left)


@cache
def _codecs() -> tuple[Codec, Codec, Codec]:
    """Made once: every registration of every channel asks for them."""
    return codec_of(Auth, AUTH), codec_of(AuthRenewed, AUTH), codec_of(AuthExpiring, AUTH_EXPIRING)


_slow: Final = Fault(errors.TIMEOUT, "the token was not verified in time")


def renews(options: ChannelOptions, calls: Iterable[Any]) -> bool:
    """Whether documents say that `auth` is taken: a dependency has a `verify`, or the options say so."""
    if options.auth is not None:
        return options.auth
    return any(getattr(unwrapped(call), "verify", None) is not None for call in calls)
