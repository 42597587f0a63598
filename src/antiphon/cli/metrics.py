"""`--metrics`: the numbers of all workers, at a path of the port they serve."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvicorn
from starlette._utils import get_route_path

from antiphon.observability.prometheus import Metrics
from antiphon.server import ServerConfig, WebSocketProtocol
from antiphon.types import ASGIApp, Receive, Scope, Send

from .problem import Problem

SHARED_MEMORY: Final = "/dev/shm"
_PREFIX: Final = "antiphon-metrics-"


@contextlib.contextmanager
def shared_folder() -> Iterator[str]:
    """A folder for the numbers of one server's workers. Removes the leftovers of killed servers.

    A live server holds a lock on its folder. The system releases it however the process ends.
    """
    place = _place()
    for leftover in Path(place).glob(f"{_PREFIX}*"):
        _remove_if_left(leftover)
    folder, descriptor = _locked_folder(place)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _place() -> str:
    """Where temporary files may be. In a container whose files cannot be changed, that is its shared memory."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        if os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
            return SHARED_MEMORY
    raise Problem(
        "--metrics with several workers needs a folder for temporary files, and none can be written to",
        "TMPDIR names one; in a container, mount a tmpfs at /tmp",
    )


def _locked_folder(place: str) -> tuple[str, int]:
    """A new folder, and the descriptor that holds its lock: it may have been taken for a leftover before it had one."""
    while True:
        folder = tempfile.mkdtemp(prefix=_PREFIX, dir=place)
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.isdir(folder):
                return folder, descriptor
            os.close(descriptor)


def _remove_if_left(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return  # another user's, or gone
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass  # its server lives
    finally:
        os.close(descriptor)


def install(config: uvicorn.Config, path: str, folder: str | None) -> None:
    """Count the work of this worker's server and hubs, and show it. `config` is loaded."""
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
