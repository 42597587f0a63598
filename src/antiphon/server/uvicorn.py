"""The one module that touches uvicorn: `WebSocketProtocol` for its `ws` setting.

What is used of uvicorn: the constructor's three arguments, `Config`'s attributes named below, `ServerState`'s
`connections`, `tasks` and `default_headers`, `shutdown()` on a connection, and the logger "uvicorn.error".
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import weakref
from typing import Any, ClassVar

from uvicorn.config import Config
from uvicorn.server import ServerState

from antiphon.wire import DeflateConfig

from .config import ServerConfig
from .engine import Engine
from .session import Session

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
        """A class with limits of its own, for `uvicorn.Config(ws=...)` or `--ws yourmodule:Name`."""
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
        _let_go(transport)
        super().connection_made(transport)

    def shutdown(self) -> None:
        """uvicorn stops. The first connection that hears of it stops all of them, together."""
        self.engine.begin_stop()


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
        default_headers=lambda: server_state.default_headers,
        limit_concurrency=config.limit_concurrency,
        reset_contextvars=getattr(config, "reset_contextvars", False),  # since uvicorn 0.49
        stop_bound=config.timeout_graceful_shutdown,
        logger=logging.getLogger("uvicorn.error"),
    )


def _let_go(transport: asyncio.BaseTransport) -> None:
    """Free the HTTP protocol that hands over: its httptools parser refers back to it, which only the collector ends."""
    get_protocol = getattr(transport, "get_protocol", None)
    protocol: Any = get_protocol() if get_protocol is not None else None
    if getattr(protocol, "parser", None) is not None:
        try:
            protocol.parser = None
        except AttributeError:
            pass
