"""For measurements beside an attack: a server in a process of its own, a Redis, and plain clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
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
    process: subprocess.Popen[bytes]
    log: Path
    """What it says, when it is `quiet`."""

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        return resident_bytes(self.pid)

    def family(self) -> list[int]:
        """Its process, and those that it has started."""
        return family(self.pid)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def family(pid: int) -> list[int]:
    """A process, and those that it and its children have started; none that are over."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


@contextlib.contextmanager
def program(
    app: str, environment: Mapping[str, str], *command: str, quiet: bool = False, output: str = ""
) -> Iterator[Server]:
    """`python -m COMMAND` with this program, `beside_app:app`, on a socket that it inherits. It may be asked at once.

    `quiet`: what it logs goes to a file, of this name or of its own. Whatever it has started ends with it.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        Path(folder, "beside_app.py").write_text(app)
        log = Path(output or Path(folder, "log"))
        options = {"stdout": stack.enter_context(log.open("wb")), "stderr": subprocess.STDOUT} if quiet else {}
        with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
            fd, port = listener.fileno(), int(listener.getsockname()[1])
            words = [sys.executable, "-m", *command, "--fd", str(fd)]
            env = {**os.environ, **environment}
            process = subprocess.Popen(words, cwd=folder, pass_fds=[fd], env=env, **options)  # type: ignore[call-overload]
        with process:
            try:
                yield Server(port, process.pid, process, log)
            finally:
                for one in family(process.pid) if process.poll() is None else []:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(one, signal.SIGKILL)


@contextlib.contextmanager
def server(app: str, environment: Mapping[str, str], *arguments: str, quiet: bool = False) -> Iterator[Server]:
    """uvicorn with this program's `app`, on uvloop and the twin that is installed."""
    arguments = arguments or ("--ws", "antiphon.server:WebSocketProtocol", "--http", "antiphon.server:HTTPProtocol")
    words = ("uvicorn", "beside_app:app", "--loop", "uvloop", "--log-level", "warning", "--no-access-log")
    with program(app, environment, *words, *arguments, quiet=quiet) as served:
        yield served


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
    async def open(cls, port: int, path: str, *, receive_buffer: int = 0, tls: ssl.SSLContext | None = None) -> Client:
        """Handshaken. `receive_buffer`: bytes the kernel keeps for a client that reads nothing."""
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        limit = 1 << 10 if receive_buffer else LIMIT
        name = "localhost" if tls else None
        client = cls(*await asyncio.open_connection(sock=sock, limit=limit, ssl=tls, server_hostname=name))
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
        """Some bytes, unparsed. None at the end."""
        try:
            return await self._reader.read(size)
        except OSError:
            return b""

    def cut(self) -> None:
        """A reset, as of a host that is gone."""
        sock = self._writer.transport.get_extra_info("socket")
        if sock is not None:  # else it is closed
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def close_with(self, code: int) -> None:
        """Say Close, in answer to one."""
        self._writer.write(b"\x88\x82\0\0\0\0" + struct.pack(">H", code))

    def stop_reading(self) -> None:
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def close(self) -> None:
        self._writer.close()


async def drain(client: Client) -> None:
    """Read until it is closed."""
    with contextlib.suppress(Closed):
        while True:
            await client.receive()
