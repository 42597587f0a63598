"""A client made of a plain socket, under the test's control: no pongs, no answers, no manners."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, NamedTuple

from antiphon.server import ServerConfig, WebSocketProtocol
from tests.patience import PATIENCE
from tests.patience import until as until
from tests.serving import HOST, Served, serve

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
TIMEOUT = PATIENCE

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class Frame(NamedTuple):
    opcode: int
    payload: bytes

    @property
    def code(self) -> int:
        assert self.opcode == CLOSE
        return int.from_bytes(self.payload[:2], "big")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False) -> bytes:
    """A client's frame, masked with a key of zeros."""
    first = (0x80 if fin else 0) | (0x40 if rsv1 else 0) | opcode
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason.encode())


def request(path: str = "/", *headers: str) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {HOST}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY.decode()}",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Raw:
    """One TCP connection. Reads time out, so that a server which says nothing fails the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def socket(self) -> socket.socket:
        sock: socket.socket = self.writer.get_extra_info("socket")
        return sock

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read_head(self) -> bytes:
        async with asyncio.timeout(TIMEOUT):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def read_all(self) -> bytes:
        async with asyncio.timeout(TIMEOUT):
            return await self.reader.read()

    async def frame(self) -> Frame:
        async with asyncio.timeout(TIMEOUT):
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            assert not second & 0x80, "a server masks nothing"
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return Frame(first & 0x0F, await self.reader.readexactly(size))

    async def ended(self) -> None:
        """The server has closed the connection, in an orderly way or not."""
        async with asyncio.timeout(TIMEOUT):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(1 << 16):
                    pass

    def stop_reading(self) -> None:
        """From now on nothing is taken out of the socket."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    def reset(self) -> None:
        """End with RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def connect(port: int, *, receive_buffer: int | None = None) -> AsyncGenerator[Raw]:
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (HOST, port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 16)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def opened(port: int, path: str = "/", *headers: str, receive_buffer: int | None = None) -> AsyncGenerator[Raw]:
    """A WebSocket, accepted."""
    async with connect(port, receive_buffer=receive_buffer) as raw:
        await raw.send(request(path, *headers))
        head = await raw.read_head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        yield raw


@dataclass
class Recorder:
    """An observer that keeps all events."""

    events: list[Any]

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


@contextlib.asynccontextmanager
async def serving(app: Any, limits: ServerConfig | None = None, **config: Any) -> AsyncGenerator[Served]:
    """Our protocol under uvicorn. Without pings unless the test sets them: a raw client does not answer any."""
    ws = WebSocketProtocol if limits is None else WebSocketProtocol.with_config(limits)
    async with serve(app, ws=ws, **({"ws_ping_interval": None} | config)) as served:
        yield served


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """A plain ASGI app: accepts, and returns every message."""
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
