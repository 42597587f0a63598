"""Starts uvicorn with our protocol engine: in this process, in several workers, or reloading.

Knows nothing of the command line's words. `run` and `demo` both end here.
"""

from __future__ import annotations

import asyncio
import copy
import importlib
import importlib.util
import logging
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from antiphon.gate import SecretFilter
from antiphon.hub.backends import handover
from antiphon.hub.backends.relay import Supervisor
from antiphon.server import native

from . import allocator, files
from . import sockets as listening
from .forks import ForkServer
from .problem import Problem
from .workers import STARTUP_FAILURE, Reloader, Workers, end_after

WORKER_PATIENCE: Final = 30
"""Seconds without an answer after which a worker counts as stuck, is killed and started again. uvicorn's 5 are too few:
an interpreter may need longer to start on a busy machine, or in a container with a tenth of a processor."""

logger: Final = logging.getLogger("antiphon.cli")


class WsEngine(Enum):
    """Which WebSocket protocol runs under uvicorn."""

    ANTIPHON = "antiphon"
    WEBSOCKETS_SANSIO = "websockets-sansio"
    WSPROTO = "wsproto"

    @property
    def setting(self) -> str:
        """The value for uvicorn's `ws`."""
        return "antiphon.server:WebSocketProtocol" if self is WsEngine.ANTIPHON else self.value

    @property
    def http(self) -> str:
        """The value for uvicorn's `http`: ours leads a WebSocket's request straight to ours."""
        return "antiphon.server:HTTPProtocol" if self is WsEngine.ANTIPHON else "httptools"

    @property
    def missing_package(self) -> str | None:
        """The package to install before this engine can run."""
        package = {WsEngine.WEBSOCKETS_SANSIO: "websockets", WsEngine.WSPROTO: "wsproto"}.get(self)
        return package if package and importlib.util.find_spec(package) is None else None


class Config(uvicorn.Config):
    """uvicorn's settings. A worker loads them too, and ends with the process that supervises it, however that ends:
    an orphan would keep the port, with a hub that has lost its relay."""

    def __init__(self, *args: Any, metrics_path: str | None = None, **settings: Any) -> None:
        settings.setdefault("timeout_worker_healthcheck", WORKER_PATIENCE)
        super().__init__(*args, **settings)
        self.metrics_path = metrics_path
        """Where the numbers of all workers are shown."""
        self.metrics_folder: str | None = None
        """Where several workers keep them."""

    def load(self) -> None:
        allocator.give_back_large_blocks()
        files.allow()
        super().load()
        if self.metrics_path is not None:
            importlib.import_module("antiphon.cli.metrics").install(self, self.metrics_path, self.metrics_folder)
        supervisor = multiprocessing.parent_process()
        if supervisor is not None:
            end_after(supervisor.join)


def log_config(level: str, masked: Sequence[str] = ()) -> dict[str, Any]:
    """uvicorn's logging, and antiphon's loggers beside it in the same hand. No handler shows a secret.

    `masked`: parameters whose values are secrets, besides those that `SecretFilter` knows.
    """
    config: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    config["loggers"]["antiphon"] = {"handlers": ["default"], "level": level.upper(), "propagate": False}
    config["filters"] = {"secrets": {"()": SecretFilter, "names": list(masked)}}
    for handler in config["handlers"].values():
        handler["filters"] = ["secrets"]
    return config


def serve(
    config: uvicorn.Config,
    sockets: list[socket.socket],
    *,
    check: Callable[[], object] = lambda: None,
    state: str | None = None,
    forks: ForkServer | None = None,
) -> None:
    """Serve on listening sockets until a signal. Exits with 3 when the application's startup fails.

    `check` (picklable) raises `Problem` for an application that cannot be imported. Each reload asks it anew.
    `state`: the file by which a clean stop hands the hub's histories over to the next start. `forks`: where workers
    come from, if they are not to be started afresh.
    """
    where = ", ".join(listening.url(sock, secure=config.is_ssl) for sock in sockets)
    try:
        if config.should_reload:
            _tell(config, where)
            Reloader(_Reloaded(config, check, state), sockets, forks).run()
        elif config.workers > 1:
            signal.signal(signal.SIGTERM, _interrupt)  # until uvicorn takes it: anything begun by then ends in order
            with _relay(state), _metrics(config):
                _tell(config, f"{where} with {config.workers} workers")
                _serve_in_workers(config, sockets, forks)
        else:
            handover.offer(state)
            _serve_here(config, sockets, where)
    except KeyboardInterrupt:
        pass
    finally:
        for sock in sockets:
            sock.close()
        if config.uds:
            Path(config.uds).unlink(missing_ok=True)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _serve_here(config: uvicorn.Config, sockets: list[socket.socket], where: str) -> None:
    server = _Server(config, where)
    server.run(sockets)
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def _serve_in_workers(config: uvicorn.Config, sockets: list[socket.socket], forks: ForkServer | None) -> None:
    workers = Workers(config, sockets, forks)
    workers.run()
    if any(process.exitcode == STARTUP_FAILURE for process in workers.processes):
        sys.exit(STARTUP_FAILURE)  # uvicorn gives up then, and would call it a success


class _Server(uvicorn.Server):
    """Says where it listens once it does; uvicorn is silent about sockets that were handed to it."""

    def __init__(self, config: uvicorn.Config, where: str) -> None:
        super().__init__(config)
        self._where = where

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            _tell(self.config, self._where)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.force_exit:
            await self._cut_off()

    async def _cut_off(self) -> None:
        logger.info("Forced to stop: everything still running is cut off")
        # Everything left is cancelled where it stands; each would tell its own traceback of that.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
        for connection in tuple(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        await asyncio.sleep(0.01)  # the loop must not close while it still reads: turns for the transports to end


class _Reloaded(uvicorn.Server):
    """The process of `--reload`: source that does not import is explained, and the next change tried."""

    def __init__(self, config: uvicorn.Config, check: Callable[[], object], state: str | None) -> None:
        super().__init__(config)
        self._check = check
        self._state = state

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            self._check()
        except Problem as problem:
            problem.show()
            logger.info("Waiting for the next change")
            sys.exit(problem.exit_code)
        handover.offer(self._state)
        super().run(sockets)


def _tell(config: uvicorn.Config, where: str) -> None:
    logger.info("Antiphon running on %s (press CTRL+C to stop)", where)
    if config.ws == WsEngine.ANTIPHON.setting and not native:
        logger.info("The engine is the pure Python one, slower: installed with a C compiler it is native")
    if (most := files.allow()) is not None and most < files.FEW:
        logger.warning(
            "At most %d open files here, and each connection is one: the next ones are cut off without a word. "
            "ulimit -Hn, or LimitNOFILE= of systemd, raises the limit",
            most,
        )


@contextmanager
def _metrics(config: uvicorn.Config) -> Iterator[None]:
    """Where the workers put their numbers together."""
    if getattr(config, "metrics_path", None) is None:
        yield
        return
    with importlib.import_module("antiphon.cli.metrics").shared_folder() as folder:
        config.metrics_folder = folder  # type: ignore[attr-defined]
        yield


@contextmanager
def _relay(state: str | None) -> Iterator[None]:
    """The process that carries the hub's messages between the workers, which find it by their environment.

    It ends when all workers have: it hands over even their last messages.
    """
    with Supervisor(state) as relay:
        os.environ.update(relay.environment)
        logger.info("Relay of the hub at relay://%s", relay.address)
        yield
