"""Badly behaved clients, made of sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Self

from tests.server.raw import request
from tests.serving import HOST


class RawClient:
    """A TCP connection that has done the opening handshake, and then does nothing by itself."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    @classmethod
    async def connect(cls, port: int, path: str = "/") -> RawClient:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, (HOST, port))
        await loop.sock_sendall(sock, request(path))
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):  # one by one, so that no frame is read
            answer += await loop.sock_recv(sock, 1)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        return cls(sock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Vanish with a TCP RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def vanish(self) -> None:
        """End the TCP connection without a Close frame."""
        self.sock.close()
