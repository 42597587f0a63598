"""Real ASGI servers for tests, on free ports of the loopback interface.

`serve` and `serve_hypercorn` run inside the event loop of the test, so it shares objects with the app. `serve_process`
runs uvicorn in a process of its own and keeps its output. All of them end with the `async with` block.

    async with serve(app, ws="wsproto") as server:
        async with websockets.connect(f"{server.url}/chat") as client: ...
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import sys
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypercorn.asyncio
import hypercorn.config
import uvicorn

from tests import forkserver
from tests.patience import PATIENCE

HOST = "127.0.0.1"
RUNNING = re.compile(rf"running on \w+://(?:{re.escape(HOST)}|0\.0\.0\.0):(\d+)")
START_TIMEOUT = PATIENCE
STOP_TIMEOUT = PATIENCE

UVICORN_PROTOCOLS = ("websockets-sansio", "wsproto")
"""The stock WebSocket protocols of uvicorn that antiphon promises to run on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A running server; format it into a string to get its WebSocket URL."""

    port: int
    server: uvicorn.Server | None = None
    """The uvicorn server, where there is one in this process."""

    @property
    def url(self) -> str:
        return f"ws://{HOST}:{self.port}"

    @property
    def http_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def __str__(self) -> str:
        return self.url


class _Server(uvicorn.Server):
    """uvicorn's server, without its signal handlers, and with an event instead of a flag to await."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.told_to_stop = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit as exc:
            raise RuntimeError("the server did not start: see its log") from exc
        self.ready.set()

    async def main_loop(self) -> None:
        """uvicorn's, which looks ten times a second whether it should exit, and sees it at once."""
        counter = 0
        while not await self.on_tick(counter):
            counter += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.told_to_stop.wait(), 0.1)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    @property
    def port(self) -> int:
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def serve(app: Any, *, ws: Any = "websockets-sansio", **config: Any) -> AsyncGenerator[Served]:
    """Run `app` on uvicorn in this event loop; keywords are those of `uvicorn.Config`.

    Logging is left to pytest (`caplog` sees the logger "uvicorn.error"). Leaving the block stops the server as SIGTERM
    would, with three seconds of grace by default.
    """
    config = {"log_config": None, "timeout_graceful_shutdown": 3} | config
    server = _Server(uvicorn.Config(app, host=HOST, port=0, ws=ws, **config))
    running = asyncio.create_task(server.serve())
    ready = asyncio.create_task(server.ready.wait())
    try:
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=START_TIMEOUT)
        if not server.ready.is_set():
            running.cancel()
            await running
            raise RuntimeError("the server ended before it was ready: see its log")
        yield Served(port=server.port, server=server)
    finally:
        ready.cancel()
        server.should_exit = True
        server.told_to_stop.set()
        await asyncio.wait({running}, timeout=STOP_TIMEOUT)
        if not running.done():
            running.cancel()
            raise TimeoutError(f"uvicorn did not stop within {STOP_TIMEOUT} s")
    running.result()


@contextlib.asynccontextmanager
async def serve_hypercorn(app: Any, **config: Any) -> AsyncGenerator[Served]:
    """Run `app` on hypercorn in this event loop; keywords become attributes of its `Config`."""
    stop = asyncio.Event()
    with socket.create_server((HOST, 0)) as listener:
        options = hypercorn.config.Config()
        options.bind = [f"fd://{os.dup(listener.fileno())}"]
        options.graceful_timeout = 1
        options.errorlog = logging.getLogger("hypercorn.error")  # otherwise it does not reach caplog
        for name, value in config.items():
            setattr(options, name, value)
        port = listener.getsockname()[1]
        running = asyncio.create_task(hypercorn.asyncio.serve(app, options, shutdown_trigger=stop.wait))
        try:
            yield Served(port=port)
        finally:
            stop.set()
            await asyncio.wait_for(running, STOP_TIMEOUT)


@dataclass(slots=True)
class ServedProcess:
    """uvicorn in a process of its own."""

    port: int
    process: forkserver.AnyProcess
    lines: list[str] = field(default_factory=list)
    """Its output so far, both streams in order."""

    @property
    def url(self) -> str:
        return f"ws://{HOST}:{self.port}"

    @property
    def http_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> str:
        return "".join(self.lines)

    async def wait_for_line(self, pattern: str, timeout: float = PATIENCE) -> str:
        """The first printed line that `pattern` is found in, as soon as there is one."""
        async with asyncio.timeout(timeout):
            while True:
                for line in self.lines:
                    if re.search(pattern, line):
                        return line
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serve_process(
    target: str,
    *args: str,
    app_dir: Path | str | None = None,
    command: Sequence[str] = (sys.executable, "-W", "error", "-m", "uvicorn"),
    env: Mapping[str, str] | None = None,
    listen: Sequence[str] = ("--host", HOST, "--port", "0"),
) -> AsyncGenerator[ServedProcess]:
    """Run `uvicorn target *args` on a free port, with `app_dir` importable; SIGTERM at the end of the block."""
    process = await forkserver.create_subprocess_exec(
        *command,
        target,
        *listen,
        *args,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=app_dir,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
    )
    served = ServedProcess(0, process)
    started = asyncio.get_running_loop().create_future()
    reading = asyncio.create_task(_read_lines(served, started))
    try:
        async with asyncio.timeout(START_TIMEOUT):
            served.port = await started
        yield served
    finally:
        await _terminate(process)
        await reading


_LISTENS = re.compile(rf"(?:[Rr]unning on|Listening at:) \w+://(?:{HOST}|0\.0\.0\.0):(\d+)")


async def _read_lines(served: ServedProcess, started: asyncio.Future[int]) -> None:
    assert served.process.stdout is not None
    async for line in served.process.stdout:
        served.lines.append(line.decode(errors="replace"))
        if not started.done() and (match := _LISTENS.search(served.lines[-1])):
            started.set_result(int(match[1]))
    if not started.done():
        started.set_exception(RuntimeError(f"the server ended before it was ready:\n{served.log}"))


async def somebody_listens(server: ServedProcess) -> None:
    """uvicorn says where its workers listen before they do."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection(HOST, server.port)
                writer.close()
                return
            await asyncio.sleep(0.05)


async def _terminate(process: forkserver.AnyProcess) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
