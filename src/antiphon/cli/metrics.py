"""`--metrics`: the numbers of all workers, at a path of the port they serve."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator

import uvicorn
from starlette._utils import get_route_path

from antiphon.observability.prometheus import Metrics
from antiphon.server import ServerConfig, WebSocketProtocol
from antiphon.types import ASGIApp, Receive, Scope, Send


@contextlib.contextmanager
def shared_folder() -> Iterator[str]:
    """Where the workers of one server keep their numbers."""
    folder = tempfile.mkdtemp(prefix="antiphon-metrics-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def install(config: uvicorn.Config, path: str, folder: str | None) -> None:
    """Count what this worker's server and hubs do, and show it; `config` is loaded."""
    metrics = Metrics(folder=folder)
    metrics.watch_all()
    protocol = config.ws_protocol_class
    if isinstance(protocol, type) and issubclass(protocol, WebSocketProtocol):
        limits = protocol.server_config or ServerConfig.from_environ(os.environ)
        observed = dataclasses.replace(limits, observers=(*limits.observers, metrics))
        config.ws_protocol_class = protocol.with_config(observed)
    config.loaded_app = _Shown(config.loaded_app, path, metrics.app)


class _Shown:
    """An app with the numbers before it."""

    def __init__(self, app: ASGIApp, path: str, metrics: ASGIApp) -> None:
        self._app = app
        self._path = path
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and get_route_path(scope).rstrip("/") == self._path:
            await self._metrics(scope, receive, send)
        else:
            await self._app(scope, receive, send)
