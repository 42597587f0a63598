"""The end of an expired connection, regardless of its endpoint: Close 3000, or 401 before accept.

Joins an `Expiry` to a connection, once for all objects that stand for it. Knows nothing of identities.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, NoReturn, Protocol
from weakref import ref

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket as StarletteWebSocket

from antiphon.exceptions import HTTPException, WebSocketException
from antiphon.shown import shown
from antiphon.status import WS_3000_UNAUTHORIZED
from antiphon.types import Message, Scope, Send

from .denials import closes
from .expiry import Expiry
from .options import ConnectionOptions
from .owner import running_loop
from .raw import RawWebSocket
from .refusing import begin, refuse_readably
from .state import CONNECTED, CONNECTING, DISCONNECTED
from .ways import Direct

logger: Final = logging.getLogger("antiphon")

EXPIRY_KEY: Final = "antiphon.expiry"
"""Key in the scope: the `Expiry` of a connection that somebody was admitted to."""

WHEN_EXPIRED_KEY: Final = "antiphon.when_expired"
"""Key in the scope: a function of it, called when the connection expires."""

EXPIRED: Final = "expired"
CHALLENGE: Final = {"WWW-Authenticate": 'Bearer error="invalid_token", error_description="expired"'}


def expire_at(connection: HTTPConnection, expires_at: float | None) -> None:
    """End the WebSocket when this Unix time has passed. None: never. Replaces the time of an earlier call.

    Raises TypeError for a connection that cannot be ended from here.
    """
    expiry = expiry_of(connection.scope)
    if expires_at is None:
        if expiry is not None:
            expiry.expire_at(None)
        return
    end = _end_of(connection)
    if expiry is None or expiry.is_over:
        loop = end.loop
        if loop is None:
            return  # on trio no wheel turns; docs/security.md says so
        expiry = connection.scope[EXPIRY_KEY] = Expiry(loop, end.end)
    expiry.end = end.end
    end.watch(expiry)
    expiry.expire_at(expires_at)


def expiry_of(scope: Scope) -> Expiry | None:
    """When a connection expires, where somebody was admitted whose identity does."""
    found: Expiry | None = scope.get(EXPIRY_KEY)
    return found


def raise_expired(connection: HTTPConnection) -> NoReturn:
    """Refuse somebody whose time has passed: 401, or 3000 on a connection that is open."""
    if getattr(connection, "application_state", None) is CONNECTED:
        raise WebSocketException(WS_3000_UNAUTHORIZED, EXPIRED)
    raise HTTPException(401, EXPIRED, headers=CHALLENGE)


class Ender(Protocol):
    """The outside controls of one object that stands for a connection."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The connection's. None where it runs on trio."""

    def end(self) -> None:
        """It has expired."""

    def watch(self, expiry: Expiry) -> None:
        """Have the expiry forgotten when the connection is over."""


def _end_of(connection: HTTPConnection) -> Ender:
    if isinstance(connection, RawWebSocket):
        return OwnEnder(connection)
    if isinstance(connection, StarletteWebSocket):
        return ForeignEnder(connection)
    raise TypeError(
        f"an identity that expires needs the WebSocket that is to end then, not a {type(connection).__name__}: "
        "annotate the dependency's parameter with WebSocket or HTTPConnection, and pass that on"
    )


class OwnEnder:
    """A `WebSocket` of ours."""

    __slots__ = ("_websocket",)

    def __init__(self, websocket: RawWebSocket) -> None:
        self._websocket = websocket

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """`Ender`."""
        return self._websocket.life.loop

    def watch(self, expiry: Expiry) -> None:
        """`Ender`."""
        life = self._websocket.life
        if life.on_over is None:
            life.on_over = expiry.leave
            if isinstance(life.way, Direct):
                life.way.on_close(expiry.leave)

    def end(self) -> None:
        """`Ender`."""
        websocket, life = self._websocket, self._websocket.life
        if life.application_state is CONNECTED and not life.has_ended():
            _tell(websocket.scope)
            life.end_by_foreign(WS_3000_UNAUTHORIZED, EXPIRED)
        elif life.refuse_by_foreign(WS_3000_UNAUTHORIZED, EXPIRED):
            _tell(websocket.scope)
            life.answering = begin(_refuse(websocket.scope, life.way.send))


class ForeignEnder:
    """Starlette's `WebSocket`, in an app of FastAPI's or Starlette's. It is forgotten when nobody holds it any more."""

    __slots__ = ("_ending", "_websocket")

    def __init__(self, websocket: StarletteWebSocket) -> None:
        self._websocket = ref(websocket)
        self._ending: asyncio.Task[None] | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """`Ender`."""
        return running_loop()

    def watch(self, expiry: Expiry) -> None:
        """`Ender`."""
        websocket = self._websocket()
        assert websocket is not None
        self._websocket = ref(websocket, lambda _: expiry.leave())

    def end(self) -> None:
        """`Ender`."""
        websocket = self._websocket()
        if websocket is None or websocket.client_state is DISCONNECTED:
            return
        if websocket.application_state not in (CONNECTING, CONNECTED):
            return  # it is being refused, or closed
        _tell(websocket.scope)
        if websocket.application_state is CONNECTING:
            ending = _refuse(websocket.scope, websocket.send)
        else:
            ending = websocket.close(WS_3000_UNAUTHORIZED, EXPIRED)
        self._ending = begin(asyncio.wait_for(ending, ConnectionOptions().send_timeout))


async def _refuse(scope: Scope, send: Send) -> None:
    """401, or a Close that a page can read, or a plain close on a server without denial responses.

    Where another object accepted the connection meanwhile, the server takes the close alone.
    """
    if closes(scope):
        await refuse_readably(scope, send, WS_3000_UNAUTHORIZED, EXPIRED)
        return
    if "websocket.http.response" in (scope.get("extensions") or {}):
        try:
            await JSONResponse({"detail": EXPIRED}, 401, headers=CHALLENGE)(scope, _nothing, send)
            return
        except RuntimeError as exc:
            logger.debug("the server takes no response any more: %r", exc)
    await send({"type": "websocket.close", "code": WS_3000_UNAUTHORIZED, "reason": EXPIRED})


async def _nothing() -> Message:
    return {"type": "websocket.disconnect", "code": WS_3000_UNAUTHORIZED}


def _tell(scope: Scope) -> None:
    logger.info(
        "%s: the identity has expired: closed with 3000; websocket.renew(identity) in time keeps it open",
        shown(scope.get("path", "")),
    )
    if (when_expired := scope.get(WHEN_EXPIRED_KEY)) is not None:
        when_expired(scope)
