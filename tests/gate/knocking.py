"""Handshakes with headers of a test's choice, and nothing behind them: a server's answer, in one round trip."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

from tests.patience import PATIENCE
from tests.serving import HOST

Header = tuple[str, str | bytes]
COOKIE: Header = ("Cookie", "session=1")


async def answer(port: int, path: str, *headers: Header, host: str | None = None) -> tuple[int, bytes]:
    """The status of the answer, and its body."""
    lines: Iterable[Header] = (
        ("Host", host or f"{HOST}:{port}"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
        *headers,
    )
    request = f"GET {path} HTTP/1.1\r\n".encode()
    for name, value in lines:
        request += name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(request + b"\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split()[1])
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1])) if length and status != 101 else b""
            return status, head + body
        finally:
            writer.transport.abort()


async def status(port: int, path: str, *headers: Header, host: str | None = None) -> int:
    """The status alone."""
    return (await answer(port, path, *headers, host=host))[0]
