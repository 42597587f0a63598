"""The one module that touches uvicorn: `WebSocketProtocol` for its `ws` setting, `HTTPProtocol` for its `http` setting.

The parts of uvicorn in use: the constructor's arguments, `Config`'s attributes named below, `ServerState`'s
`connections`, `tasks` and `default_headers`, `shutdown()` on a connection, the logger "uvicorn.error", its HTTP
protocol (its parser's callbacks, `parser`, `cycle` and `transport`), and a middleware for proxies' headers that does
nothing without such headers.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import re
import sys
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, Final

from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from antiphon.wire import DeflateConfig
from antiphon.wire.handshake import refuse_response

from .config import ServerConfig
from .engine import Engine, Headers
from .handshake import Addresses, addresses_of, was_reset
from .session import Session
from .sockets import peek

_engines: weakref.WeakKeyDictionary[ServerState, dict[ServerConfig | None, Engine]] = weakref.WeakKeyDictionary()


class WebSocketProtocol(Session):
    """WebSockets for any ASGI app: `uvicorn app:app --ws antiphon.server:WebSocketProtocol`.

    Limits beside uvicorn's own are those of `ServerConfig`: from the environment (`ServerConfig.from_environ`), or from
    a class made with `with_config`.

        import uvicorn

        config = uvicorn.Config("main:app", ws=WebSocketProtocol)
    """

    __slots__ = ()

    server_config: ClassVar[ServerConfig | None] = None
    """None: `ServerConfig.from_environ(os.environ)`."""

    @classmethod
    def with_config(cls, config: ServerConfig) -> type[WebSocketProtocol]:
        """A class with limits of its own, for `uvicorn.Config(ws=...)` or `--ws yourmodule:Name`. Raises TypeError."""
        if not isinstance(config, ServerConfig):
            raise TypeError(f"with_config takes a ServerConfig, not {config!r}")
        return type(cls.__name__, (cls,), {"__slots__": (), "__module__": cls.__module__, "server_config": config})

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(engine_for(type(self).server_config, config, server_state, app_state, _loop))

    @property
    def transport(self) -> asyncio.Transport | None:
        """Under the name that it has in uvicorn's own protocols. None behind the end."""
        return self.pipe.transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's callback, called by uvicorn's HTTP protocol when the request asks for an upgrade."""
        super().connection_made(transport)
        assert self.handshake is not None
        self.handshake.addresses = _taken_over(transport)

    def shutdown(self) -> None:
        """uvicorn stops. The first connection that hears of it stops all of them, together."""
        self.engine.begin_stop()


_UPGRADES_TO_WEBSOCKET: Final = re.compile(rb"\r\nupgrade[ \t]*:[^\r\n]*websocket", re.IGNORECASE)
_UPGRADES: Final = re.compile(rb"\r\nconnection[ \t]*:[^\r\n]*upgrade", re.IGNORECASE)
_EMPTY_LINE: Final = b"\r\n"
_MAY_BE_HTTP: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_PEEKED: Final = 4096
"""Bytes in which to look for the head of a request that was reset before anybody read it."""
_LAST_WAIT: Final = 0.5
"""Seconds at a stop, at most, for the request of a client that has just connected: it is on its way, and gets a 503."""


class HTTPProtocol(asyncio.Protocol):
    """The first request of a connection, within `handshake_timeout` and `handshake_size`. Uvicorn's protocol for HTTP.

    For uvicorn's `http` setting, beside our `ws`: a WebSocket's request then reaches us as the client sent it, frames
    behind it included, and costs one parse instead of two. Other requests go on to uvicorn's own HTTP protocol,
    untouched, which keeps the same two limits for every later request (`_LaterRequests`).

        import uvicorn

        config = uvicorn.Config("main:app", http=HTTPProtocol, ws=WebSocketProtocol)
    """

    __slots__ = (
        "_addresses",
        "_arguments",
        "_config",
        "_data",
        "_dropped",
        "_engine",
        "_state",
        "_transport",
        "_waits",
        "slot",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        websocket = config.ws_protocol_class
        limits = getattr(websocket, "server_config", None)
        self.slot: int = -1
        self._config = config
        self._state = server_state
        self._arguments = {"config": config, "server_state": server_state, "app_state": app_state}
        self._engine = engine_for(limits, config, server_state, app_state, _loop)
        self._data = b""
        self._dropped = 0  # bytes of empty lines before the request
        self._addresses: Addresses = (None, None)
        self._transport: asyncio.Transport | None = None
        self._waits = False  # for its turn, with a whole request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's callback: a client has connected."""
        self._transport = transport  # type: ignore[assignment]
        self._state.connections.add(self)  # type: ignore[arg-type]
        self._engine.turns.arrival()
        self._addresses = addresses_of(transport)
        timeout = self._engine.config.handshake_timeout
        if was_reset(self._addresses) and self._asks(peek(transport, _PEEKED)):
            self._drop()
        elif self._engine.stopping:
            self.shutdown()
        elif timeout is not None:
            self._engine.deadlines.enter(self, self._engine.clock() + timeout)

    def data_received(self, data: bytes) -> None:
        """asyncio's callback: collect the head of the first request, then hand everything to its protocol."""
        if self._transport is None:
            return
        data = self._data + data if self._data else data
        while data.startswith(_EMPTY_LINE):  # RFC 9112 §2.2
            stripped = data.lstrip(_EMPTY_LINE) if data.startswith(_EMPTY_LINE * 8) else data[2:]
            self._dropped += len(data) - len(stripped)
            data = stripped
        self._data = data
        end = data.find(b"\r\n\r\n")
        if data and data[0] not in _MAY_BE_HTTP and data != b"\r":
            self._refuse(400, "this is not HTTP")
        elif end >= 0:
            self._admit(data, end)
        elif len(data) > self._engine.config.handshake_size:
            ours = self._config.ws_protocol_class if self._speaks_websocket() else WebSocketProtocol
            self._hand_over(ours)  # which refuses it
        elif len(data) + self._dropped > self._engine.config.handshake_size:
            self._refuse(431, "too many empty lines before the request")

    def _admit(self, data: bytes, end: int) -> None:
        """Now, or in its turn when too many have come at once. The line is short: it needs no deadline."""
        doorway = self._engine.doorway
        if self._waits:
            return
        if doorway.admits():
            self._answer(data, end)
        else:
            self._waits = True
            assert self._transport is not None
            self._transport.pause_reading()
            self._engine.deadlines.leave(self)
            doorway.wait(self)

    def on_turn(self) -> None:
        """`Doorway`: its turn has come."""
        if self._transport is not None:
            self._transport.resume_reading()
            self._answer(self._data, self._data.find(b"\r\n\r\n"))

    def _answer(self, data: bytes, end: int) -> None:
        """Lead a request whose head is whole to the protocol that answers it."""
        if self._asks(data, end):
            if was_reset(self._addresses):
                self._drop()
            else:
                self._hand_over(self._config.ws_protocol_class)
        elif self._engine.stopping:
            self._refuse(503, "the server stops", self._engine.retry_headers)
        else:
            self._hand_over(_LaterRequests)

    def _asks(self, data: bytes, end: int = sys.maxsize) -> bool:
        """For a WebSocket of ours."""
        upgrades = _UPGRADES_TO_WEBSOCKET.search(data, 0, end) and _UPGRADES.search(data, 0, end)
        return bool(upgrades) and self._speaks_websocket()

    def _drop(self) -> None:
        """A connection that was reset while it waited to be accepted costs little: others wait behind it."""
        transport, self._transport = self._transport, None
        self._leave()
        assert transport is not None
        transport.abort()

    def _speaks_websocket(self) -> bool:
        websocket = self._config.ws_protocol_class
        return isinstance(websocket, type) and issubclass(websocket, WebSocketProtocol)

    def _hand_over(self, protocol_class: Any) -> None:
        transport, self._transport = self._transport, None
        data, self._data = self._data, b""
        self._leave()
        assert transport is not None
        protocol = protocol_class(**self._arguments)
        if protocol_class is _LaterRequests:
            protocol.engine = self._engine
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if isinstance(protocol, Session) and protocol.handshake is not None:
            protocol.handshake.addresses = self._addresses
        protocol.data_received(data)

    def _refuse(self, status: int, reason: str, headers: Headers = ()) -> None:
        transport, self._transport = self._transport, None
        self._leave()
        if transport is not None:
            _refuse(transport, self._engine, status, reason, (*self._state.default_headers, *headers))

    def _leave(self) -> None:
        self._state.connections.discard(self)
        self._engine.deadlines.leave(self)

    def on_deadline(self, now: float) -> float | None:
        """`Deadlines`: the request has not come in time."""
        if self._transport is None:
            return None
        if not self._data and not self._dropped:
            self._transport.close()
        elif self._engine.stopping:
            self._refuse(503, "the server stops", self._engine.retry_headers)
        else:
            self._refuse(408, "the request did not come in time")
        return None

    def eof_received(self) -> None:
        """asyncio's callback: half a request is not served, and the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's callback: the client went away before its request was complete."""
        self._transport = None
        self._leave()

    def shutdown(self) -> None:
        """uvicorn stops, and nothing was asked yet. A request that is on its way is answered."""
        engine = self._engine
        wait = min(_LAST_WAIT, engine.begin_stop().window)
        if self._transport is not None:
            engine.deadlines.enter(self, engine.clock() + wait)


class _LaterRequests(HttpToolsProtocol):
    """uvicorn's protocol for HTTP, with the bounds of the first head for each one that follows it on the connection.

    A head, and trailers behind a body, take `handshake_size` bytes at most, beside the chunk in which they begin. A
    head is complete `handshake_timeout` after the server began to wait for it.
    """

    engine: Engine

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.slot = -1
        self._waits = False
        """For the end of a head that has begun, or for any beginning after bytes that were none."""
        self._passed = False  # a body's part, or the end of a message, since this chunk began
        self._held = 0  # bytes since then

    def data_received(self, data: bytes) -> None:
        """asyncio's callback: bytes came."""
        self._passed = False
        super().data_received(data)
        if self.parser is None or self.transport.is_closing():  # handed over, or refused
            self._stop_waiting()
            return
        self._held = 0 if self._passed else self._held + len(data)
        if self._held > self.engine.config.handshake_size:
            self._turn_away(431, "the HTTP head is too long")
        elif not self._waits and not self._is_busy():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's callback: the end."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """The parser's callback: a request begins."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """The parser's callback: a head is whole."""
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """The parser's callback: a part of a body."""
        self._passed = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The parser's callback: a request ends."""
        self._passed = True
        super().on_message_complete()

    def on_deadline(self, now: float) -> float | None:
        """`Deadlines`: a head has not come in time."""
        if not self._waits:
            return None
        if self._is_busy():  # its socket may be unread while we work at the request before it
            assert self.engine.config.handshake_timeout is not None
            return now + self.engine.config.handshake_timeout
        self._turn_away(408, "the request did not come in time")
        return None

    def _is_busy(self) -> bool:
        """A request is answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self._waits = True
        timeout = self.engine.config.handshake_timeout
        if timeout is not None:
            self.engine.deadlines.enter(self, self.engine.clock() + timeout)

    def _stop_waiting(self) -> None:
        self._waits = False
        self.engine.deadlines.leave(self)

    def _turn_away(self, status: int, reason: str) -> None:
        self._stop_waiting()
        if self._is_busy():  # an answer is under way: another one amid it would be taken for a part of it
            self.engine.note_refusal("", status, reason)
            self.transport.close()
        else:
            _refuse(self.transport, self.engine, status, reason, self.server_state.default_headers)


def _refuse(transport: asyncio.Transport, engine: Engine, status: int, reason: str, headers: Headers) -> None:
    """Answer a request before it is whole, and close."""
    engine.note_refusal("", status, reason)
    transport.write(refuse_response(status, headers, reason.encode(), content_type=b"text/plain; charset=utf-8"))
    transport.close()


def engine_for(
    server_config: ServerConfig | None,
    config: Config,
    server_state: ServerState,
    app_state: dict[str, Any],
    loop: asyncio.AbstractEventLoop | None = None,
) -> Engine:
    """The engine of one uvicorn server, made on first need."""
    engines = _engines.get(server_state)
    if engines is None:
        engines = _engines[server_state] = {}
    engine = engines.get(server_config)
    if engine is None:
        engine = engines[server_config] = _make_engine(server_config, config, server_state, app_state, loop)
    return engine


def _make_engine(
    server_config: ServerConfig | None,
    config: Config,
    server_state: ServerState,
    app_state: dict[str, Any],
    loop: asyncio.AbstractEventLoop | None,
) -> Engine:
    if not config.loaded:
        config.load()
    limits = ServerConfig.from_environ(os.environ) if server_config is None else server_config
    limits = dataclasses.replace(
        limits,
        max_message_size=config.ws_max_size,
        ping_interval=config.ws_ping_interval or None,
        ping_timeout=config.ws_ping_timeout or None,
        deflate=(limits.deflate or DeflateConfig()) if config.ws_per_message_deflate else None,
    )
    app = config.loaded_app
    return Engine(
        app,
        limits,
        unproxied_app=_behind_proxy_headers(app),
        loop=loop or asyncio.get_running_loop(),
        connections=server_state.connections,
        tasks=server_state.tasks,
        app_state=app_state,
        root_path=config.root_path,
        asgi_version=config.asgi_version,
        default_headers=_default_headers_of(server_state),
        limit_concurrency=config.limit_concurrency,
        reset_contextvars=getattr(config, "reset_contextvars", False),  # since uvicorn 0.49
        stop_bound=config.timeout_graceful_shutdown,
        logger=logging.getLogger("uvicorn.error"),
        access_log=config.access_log is not False,
    )


def _behind_proxy_headers(app: Any) -> Any:
    """The app in uvicorn's wrapper for proxy headers, which costs a coroutine per call (benchmarks: connect)."""
    return app.app if type(app) is ProxyHeadersMiddleware else None


def _default_headers_of(server_state: ServerState) -> Callable[[], Headers]:
    """uvicorn renews them each second. The engine must not hold the state, by which it is found and forgotten."""
    reference = weakref.ref(server_state)

    def default_headers() -> Headers:
        state = reference()
        return () if state is None else state.default_headers

    return default_headers


def _taken_over(transport: asyncio.BaseTransport) -> Addresses | None:
    """Free the HTTP protocol that hands over, whose httptools parser refers back to it, which only the collector ends.
    It has asked for the addresses, and the transport remembers its answers."""
    get_protocol = getattr(transport, "get_protocol", None)
    protocol: Any = get_protocol() if get_protocol is not None else None
    if getattr(protocol, "parser", None) is None:
        return None
    try:
        protocol.parser = None
    except AttributeError:
        pass
    return protocol.client, protocol.server
