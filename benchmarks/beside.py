"""For what is measured beside an attack: a server in a process of its own, a Redis, and plain clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

TEXT, CLOSE, PING = 1, 8, 9
LIMIT: Final = 1 << 26
"""Bytes of a message that a client takes."""


class Server(NamedTuple):
    port: int
    pid: int

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def server(app: str, environment: Mapping[str, str], *arguments: str, quiet: bool = False) -> Iterator[Server]:
    """uvicorn with this program's `app`, on uvloop and the twin that is installed. It may be asked at once.

    `quiet`: what it logs is not shown.
    """
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        Path(folder, "beside_app.py").write_text(app)
        command = [sys.executable, "-m", "uvicorn", "beside_app:app", "--fd", str(listener.fileno())]
        command += ["--loop", "uvloop", "--log-level", "warning", "--no-access-log"]
        command += arguments or ["--ws", "antiphon.server:WebSocketProtocol", "--http", "antiphon.server:HTTPProtocol"]
        env = {**os.environ, **environment}
        options = {"stderr": subprocess.DEVNULL} if quiet else {}
        with subprocess.Popen(command, cwd=folder, pass_fds=[listener.fileno()], env=env, **options) as process:
            try:
                yield Server(listener.getsockname()[1], process.pid)
            finally:
                process.kill()


@contextlib.contextmanager
def redis() -> Iterator[int]:
    """Its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with tempfile.TemporaryDirectory() as folder:
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
            try:
                while True:
                    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as probe:
                        probe.sendall(b"PING\r\n")
                        if probe.recv(7).startswith(b"+"):
                            break
                yield port
            finally:
                process.terminate()


class Closed(Exception):
    """The server has closed the connection. Its code, or 1006."""


class Client:
    """One connection, that answers no pings. `await open`, then `send` and `receive`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, path: str, *, receive_buffer: int = 0) -> Client:
        """Handshaken. `receive_buffer`: bytes the kernel keeps for who reads nothing."""
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        limit = 1 << 10 if receive_buffer else LIMIT
        client = cls(*await asyncio.open_connection(sock=sock, limit=limit))
        client._writer.write(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = await client._reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise Closed(head.partition(b"\r\n")[0].decode())
        return client

    def send(self, text: str) -> None:
        """At most 125 bytes."""
        data = text.encode()
        self._writer.write(bytes((0x81, 0x80 | len(data))) + bytes(4) + data)

    async def receive(self) -> bytes:
        """The next message. Raises Closed."""
        try:
            while True:
                first, length = await self._reader.readexactly(2)
                if length > 125:
                    size, form = (2, ">H") if length == 126 else (8, ">Q")
                    (length,) = struct.unpack(form, await self._reader.readexactly(size))
                payload = await self._reader.readexactly(length)
                if first & 15 == CLOSE:
                    raise Closed(struct.unpack(">H", payload[:2])[0] if payload else 1005)
                if first & 15 != PING:
                    return payload
        except (asyncio.IncompleteReadError, OSError):
            raise Closed(1006) from None

    async def read(self, size: int) -> bytes:
        """Some bytes, whatever they mean; none at the end."""
        try:
            return await self._reader.read(size)
        except OSError:
            return b""

    def cut(self) -> None:
        """A reset, as of a host that is gone."""
        sock = self._writer.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def stop_reading(self) -> None:
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def close(self) -> None:
        self._writer.close()


async def drain(client: Client) -> None:
    """Read until it is closed."""
    with contextlib.suppress(Closed):
        while True:
            await client.receive()
