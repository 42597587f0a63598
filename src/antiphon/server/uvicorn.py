"""The one module that touches uvicorn: `WebSocketProtocol` for its `ws` setting, `HTTPProtocol` for its `http` setting.

What is used of uvicorn: the constructor's arguments, `Config`'s attributes named below, `ServerState`'s `connections`,
`tasks` and `default_headers`, `shutdown()` on a connection, its HTTP protocol as it is, and the logger "uvicorn.error".
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import re
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, Final

from uvicorn.config import Config
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.server import ServerState

from antiphon.wire import DeflateConfig
from antiphon.wire.handshake import refuse_response

from .config import ServerConfig
from .engine import Engine, Headers
from .session import Addresses, Session

_engines: weakref.WeakKeyDictionary[ServerState, dict[ServerConfig | None, Engine]] = weakref.WeakKeyDictionary()


class WebSocketProtocol(Session):
    """WebSockets for any ASGI app: `uvicorn app:app --ws antiphon.server:WebSocketProtocol`.

    Limits beside uvicorn's own are those of `ServerConfig`: from the environment (`ServerConfig.from_environ`), or from
    a class made with `with_config`.
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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's callback, called by uvicorn's HTTP protocol when the request asks for an upgrade."""
        self._addresses = _taken_over(transport)
        super().connection_made(transport)

    def shutdown(self) -> None:
        """uvicorn stops. The first connection that hears of it stops all of them, together."""
        self.engine.begin_stop()


_ASKS_FOR_WEBSOCKET: Final = re.compile(rb"\r\nupgrade[ \t]*:[^\r\n]*websocket", re.IGNORECASE)
_MAY_BE_HTTP: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class HTTPProtocol(asyncio.Protocol):
    """The first request of a connection, within `handshake_timeout` and `handshake_size`; uvicorn's protocol for HTTP.

    For uvicorn's `http` setting, beside our `ws`: a WebSocket's request then reaches us as the client sent it, frames
    behind it included, and costs one parse instead of two. What is not a WebSocket's goes on to the HTTP protocol that
    uvicorn would have chosen, untouched.
    """

    __slots__ = ("_arguments", "_config", "_data", "_engine", "_state", "_transport", "slot")

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
        self.slot = -1
        self._config = config
        self._state = server_state
        self._arguments = {"config": config, "server_state": server_state, "app_state": app_state}
        self._engine = engine_for(limits, config, server_state, app_state, _loop)
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's callback: a client has connected."""
        self._transport = transport  # type: ignore[assignment]
        self._state.connections.add(self)  # type: ignore[arg-type]
        timeout = self._engine.config.handshake_timeout
        if timeout is not None:
            self._engine.deadlines.enter(self, self._engine.clock() + timeout)

    def data_received(self, data: bytes) -> None:
        """asyncio's callback: collect the head of the first request, then hand everything to whom it is for."""
        if self._transport is None:
            return
        data = self._data = self._data + data if self._data else data
        end = data.find(b"\r\n\r\n")
        if end >= 0 and _ASKS_FOR_WEBSOCKET.search(data, 0, end) and self._speaks_websocket():
            self._hand_over(self._config.ws_protocol_class)
        elif end >= 0 or data[0] not in _MAY_BE_HTTP:
            self._hand_over(AutoHTTPProtocol)
        elif len(data) > self._engine.config.handshake_size:
            ours = self._config.ws_protocol_class if self._speaks_websocket() else WebSocketProtocol
            self._hand_over(ours)  # which refuses it

    def _speaks_websocket(self) -> bool:
        websocket = self._config.ws_protocol_class
        return isinstance(websocket, type) and issubclass(websocket, WebSocketProtocol)

    def _hand_over(self, protocol_class: Any) -> None:
        transport, self._transport = self._transport, None
        data, self._data = self._data, b""
        self._leave()
        assert transport is not None
        protocol = protocol_class(**self._arguments)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(data)

    def _refuse(self, status: int, reason: str) -> None:
        transport, self._transport = self._transport, None
        self._leave()
        self._engine.note_refusal("", status, reason)
        if transport is not None:
            headers = tuple(self._state.default_headers)
            transport.write(
                refuse_response(status, headers, reason.encode(), content_type=b"text/plain; charset=utf-8")
            )
            transport.close()

    def _leave(self) -> None:
        self._state.connections.discard(self)
        self._engine.deadlines.leave(self)

    def on_deadline(self, now: float) -> float | None:
        """`Deadlines`: the request has not come in time."""
        if self._transport is not None:
            if self._data:
                self._refuse(408, "the request did not come in time")
            else:
                self._transport.close()
        return None

    def eof_received(self) -> None:
        """asyncio's callback: half a request is none; the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's callback: the client went away before its request was complete."""
        self._transport = None
        self._leave()

    def shutdown(self) -> None:
        """uvicorn stops, and nothing was asked yet."""
        if self._transport is not None:
            self._transport.close()


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
    return Engine(
        config.loaded_app,
        limits,
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
    )


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
