"""`python -m tests.leaks`: does the server's memory stay where it is while connections come and go?

The server is a process of its own, on a twin and a loop of choice. Connections are opened and ended in every way there
is. After a warm-up its resident memory is read, and again at the end. `tests/storms/test_leaks.py` runs a short one,
which asks the allocator for the memory in use, to the byte, and so needs few connections.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import os
import socket
import struct
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import uvicorn
import uvloop
import websockets

from antiphon.server import HTTPProtocol, ServerConfig, WebSocketProtocol
from antiphon.wire import NATIVE
from tests.patience import PATIENCE
from tests.server.raw import TEXT, close_frame, echo, frame, request
from tests.serving import HOST
from tests.spawned import serve, spawned

AT_ONCE = 32
ALLOWED_BYTES = 64
"""Growth per connection that is noise: an arena of the allocator more or less, over thousands of connections."""
SLACK_BYTES = 1 << 18
EXACT_SLACK_BYTES = 1 << 13
PARTS = 4
"""A process grows to its busiest moment, whenever that comes; only a leak grows in every part of a run."""

OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
LINGER_NOT = struct.pack("ii", 1, 0)


# ---------------------------------------------------------------- the ways of a connection


async def _answered(sock: socket.socket, data: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, data)
    return await loop.sock_recv(sock, 1 << 16)


async def _to_the_end(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while await loop.sock_recv(sock, 1 << 16):
            pass


async def closed(sock: socket.socket) -> None:
    """Accepted, one echo, a closing handshake."""
    assert (await _answered(sock, request("/", OFFER))).startswith(b"HTTP/1.1 101 ")
    assert await _answered(sock, frame(TEXT, b"x" * 100))
    await _answered(sock, close_frame(1000))
    await _to_the_end(sock)


async def aborted(sock: socket.socket) -> None:
    """Accepted, one echo, RST with a message on its way."""
    assert (await _answered(sock, request("/"))).startswith(b"HTTP/1.1 101 ")
    await _answered(sock, frame(TEXT, b"x"))
    await asyncio.get_running_loop().sock_sendall(sock, frame(TEXT, b"x" * 1000) * 10 + frame(TEXT, b"x" * 1000)[:500])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)


async def failed(sock: socket.socket) -> None:
    """Accepted, and a violation."""
    assert (await _answered(sock, request("/"))).startswith(b"HTTP/1.1 101 ")
    await _answered(sock, frame(TEXT, b"\xff"))
    sock.shutdown(socket.SHUT_WR)
    await _to_the_end(sock)


async def refused(sock: socket.socket) -> None:
    """No handshake to begin with."""
    assert (await _answered(sock, request("/").replace(b"Version: 13", b"Version: 12"))).startswith(b"HTTP/1.1 426 ")
    await _to_the_end(sock)


async def denied(sock: socket.socket) -> None:
    """The app does not want it."""
    assert (await _answered(sock, request("/denied"))).startswith(b"HTTP/1.1 403 ")
    await _to_the_end(sock)


async def vanished(sock: socket.socket) -> None:
    """Half a request, then RST. The server says nothing to that, so one who waits for an answer comes after it.

    Connections are accepted in the order they came. Without the second one the first ones are opened faster than a busy
    server takes them in, and the result is the number that waits at its door.
    """
    await asyncio.get_running_loop().sock_sendall(sock, request("/")[:50])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    address = sock.getpeername()
    sock.close()
    with socket.socket() as next_one:
        next_one.setblocking(False)
        await asyncio.get_running_loop().sock_connect(next_one, address)
        await refused(next_one)


WAYS: tuple[Callable[[socket.socket], Awaitable[None]], ...] = (closed, aborted, failed, refused, denied, vanished)


async def come_and_go(port: int, count: int, way: Callable[[socket.socket], Awaitable[None]]) -> None:
    """`count` connections that end in that way, some at a time."""
    loop = asyncio.get_running_loop()
    left = count

    async def one_after_the_other() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            with socket.socket() as sock:
                sock.setblocking(False)
                await loop.sock_connect(sock, (HOST, port))
                async with asyncio.timeout(PATIENCE):
                    await way(sock)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one_after_the_other())


# ---------------------------------------------------------------- measuring


@dataclass(frozen=True, slots=True)
class Growth:
    """The effect of `count` connections of one way on the server's memory."""

    way: str
    count: int
    sizes: tuple[int, ...]
    """Bytes, before the first connection and after each part of them."""
    slack: int = SLACK_BYTES

    @property
    def leaks(self) -> bool:
        allowed = self.slack + ALLOWED_BYTES * self.count // PARTS
        return all(after - before > allowed for before, after in pairwise(self.sizes))

    def __str__(self) -> str:
        per_one = (self.sizes[-1] - self.sizes[0]) / self.count
        return (
            f"{self.way:9} {self.count:7} connections: {' -> '.join(f'{size / 1e6:6.1f}' for size in self.sizes)} MB, "
            f"{per_one:+7.1f} bytes each{'  LEAKS' if self.leaks else ''}"
        )


def resident(pid: int) -> int:
    """Bytes of memory that a process holds (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _Malloc(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _NAMES = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = tuple((name, ctypes.c_size_t) for name in _NAMES)


TO_THE_BYTE: Mapping[str, str] = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
"""The environment in which everything a process has in use is known to glibc, and nothing else."""


def can_be_exact() -> bool:
    """Since glibc 2.33."""
    return hasattr(ctypes.CDLL(None), "mallinfo2")


def in_use() -> int:
    """Bytes that this process has allocated and not freed, in the environment `TO_THE_BYTE`."""
    gc.collect()
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = _Malloc
    told = ask()
    return int(told.uordblks + told.hblkhd)


async def allocated(port: int) -> int:
    """The server's memory in use: the least of some answers, as connections take a moment to be forgotten."""
    sizes = []
    for _ in range(5):
        async with websockets.connect(f"ws://{HOST}:{port}/memory") as asking:
            sizes.append(int(await asking.recv()))
    return min(sizes)


async def measure(
    count: int, *, pure: bool, loop: str, warm_up: int | None = None, exact: bool = False
) -> AsyncGenerator[Growth]:
    """Memory before, between and after `count` connections of each way, in `PARTS` parts: the resident memory, or with
    `exact` the allocated one."""
    env, slack = (TO_THE_BYTE, EXACT_SLACK_BYTES) if exact else ({}, SLACK_BYTES)
    async with spawned("tests.leaks", "--serve", "--loop", loop, pure=pure, env=env) as (port, pid):

        async def size() -> int:
            return await allocated(port) if exact else resident(pid)

        for way in WAYS:
            await come_and_go(port, count // 5 if warm_up is None else warm_up, way)
        for way in WAYS:
            sizes = [await size()]
            for _ in range(PARTS):
                await come_and_go(port, count // PARTS, way)
                sizes.append(await size())
            yield Growth(way.__name__, count, tuple(sizes), slack)


# ---------------------------------------------------------------- the server


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/denied":
        await receive()
        await send({"type": "websocket.close"})
        return
    if scope["path"] == "/memory":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": str(in_use())})
        await receive()
        return
    await echo(scope, receive, send)


def config() -> uvicorn.Config:
    return uvicorn.Config(
        app,
        ws=cast("type[asyncio.Protocol]", WebSocketProtocol.with_config(ServerConfig(stop_window=0))),
        http=cast("type[asyncio.Protocol]", HTTPProtocol),
        host=HOST,
        port=0,
        log_level="critical",
        lifespan="off",
    )


async def main(options: argparse.Namespace) -> int:
    leaking = False
    for twin in options.twin:
        for loop in ("uvloop", "asyncio"):
            sys.stdout.write(f"{twin}, {loop}\n")
            started = time.monotonic()
            async for growth in measure(options.count, pure=twin == "pure", loop=loop):
                leaking = growth.leaks or leaking
                sys.stdout.write(f"  {growth}\n")
                sys.stdout.flush()
            sys.stdout.write(f"  {time.monotonic() - started:.0f} s\n")
    return int(leaking)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tests.leaks", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="connections of each kind")
    twins = ["pure", "native"] if NATIVE else ["pure"]
    parser.add_argument("--twin", nargs="+", choices=twins, default=twins)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--loop", default="uvloop", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        gc.freeze()  # so that each collection of garbage skips the imported modules
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if options.loop == "uvloop" else None) as runner:
            runner.run(serve(config()))
    else:
        sys.exit(asyncio.run(main(options)))
