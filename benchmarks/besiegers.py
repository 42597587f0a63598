"""Those who attack in `sieges.py`: each is run in a process of its own, until that is ended.

An attack tells `begun` when those who come first are there.
"""

from __future__ import annotations

import contextlib
import math
import selectors
import signal
import socket
import struct
import time
import zlib
from collections.abc import Callable
from multiprocessing.synchronize import Event
from typing import Final

from floods import flood, frame

Attack = Callable[[int, Event], None]
"""Attacks a port, and tells when it has begun."""

SILENCE: Final = 5.0
"""Seconds that nobody waits longer for an answer."""
TOGETHER: Final = 32
PAUSE: Final = 0.02
UPGRADE: Final = (
    "Host: 127.0.0.1",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def request(path: str, *headers: str, version: int = 13) -> bytes:
    lines = (f"GET {path} HTTP/1.1", *UPGRADE, f"Sec-WebSocket-Version: {version}", *headers)
    return "\r\n".join((*lines, "", "")).encode()


def call(port: int, *, receive_buffer: int = 0) -> socket.socket:
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(SILENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.connect(("127.0.0.1", port))
    return sock


def enter(port: int, path: str, *, receive_buffer: int = 0) -> socket.socket:
    """Handshaken, and it does not block any more."""
    sock = call(port, receive_buffer=receive_buffer)
    sock.sendall(request(path))
    sock.recv(4096)
    sock.setblocking(False)
    return sock


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def hold(count: int, data: bytes) -> Attack:
    """So many say the beginning of something, and then nothing; who is closed stays away."""

    def attack(port: int, begun: Event) -> None:
        held = []
        for number in range(count):
            if number % 100 == 0:
                time.sleep(PAUSE)  # else the kernel refuses some, and they come back a second later
            if number == min(count // 2, 1000):
                begun.set()
            with contextlib.suppress(OSError):
                held.append(call(port))
                held[-1].sendall(data)
        signal.pause()
        del held  # kept until here

    return attack


def knock(data: bytes, *, cut: bool = False) -> Attack:
    """They come, ask, read the answer, and are gone; `cut`: without reading it. As many as the server takes."""

    def attack(port: int, begun: Event) -> None:
        begun.set()
        while True:
            with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
                crowd = []
                for _ in range(TOGETHER):
                    crowd.append(call(port))
                    stack.callback(reset, crowd[-1])
                for sock in crowd:
                    sock.sendall(data)
                for sock in () if cut else crowd:
                    sock.recv(1 << 16)

    return attack


def send(path: str, make: Callable[[], bytes], sockets: int) -> Attack:
    """As much of one message as the server takes, and who is closed comes again."""

    def attack(port: int, begun: Event) -> None:
        flood(port, path, make(), sockets, math.inf, begun, False)

    return attack


def drip(path: str, sockets: int) -> Attack:
    """Messages that come a byte at a time."""

    def attack(port: int, begun: Event) -> None:
        crowd = [enter(port, path) for _ in range(sockets)]
        begun.set()
        message = frame(b"x" * 100, 0x81)
        while True:
            for byte in message:
                for sock in crowd:
                    with contextlib.suppress(OSError):
                        sock.send(bytes((byte,)))

    return attack


def sip(path: str, sockets: int, size: int) -> Attack:
    """They ask for more than they read: large echoes, through small windows."""

    def attack(port: int, begun: Event) -> None:
        crowd = [enter(port, path, receive_buffer=4096) for _ in range(sockets)]
        begun.set()
        message = frame(b"x" * size, 0x81)
        places = [0] * sockets
        while True:
            for number, sock in enumerate(crowd):
                with contextlib.suppress(OSError):
                    places[number] = (places[number] + sock.send(message[places[number] :])) % size
                with contextlib.suppress(OSError):
                    sock.recv(1024)
            time.sleep(PAUSE)

    return attack


def reconnect(path: str, sockets: int) -> Attack:
    """All read, and one after the other is cut and comes again."""

    def attack(port: int, begun: Event) -> None:
        chooser = selectors.DefaultSelector()

        def come() -> socket.socket:
            sock = enter(port, path)
            chooser.register(sock, selectors.EVENT_READ)
            return sock

        crowd = [come() for _ in range(sockets)]
        begun.set()
        while True:
            for number in range(sockets):
                for key, _ in chooser.select(0):
                    with contextlib.suppress(OSError):
                        key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                chooser.unregister(crowd[number])
                reset(crowd[number])
                crowd[number] = come()

    return attack


def publish_to_the_deaf(path: str, receivers: int, size: int) -> Attack:
    """Receivers that read nothing, and one who publishes as much as the server takes."""

    def attack(port: int, begun: Event) -> None:
        crowd = [enter(port, path, receive_buffer=4096) for _ in range(receivers)]
        flood(port, path, frame(b"x" * size, 0x81), 1, math.inf, begun, False)
        del crowd  # kept until here

    return attack


def deep() -> bytes:
    return frame(b"[" * 4_000_000, 0x81)


def digits() -> bytes:
    """As many as CPython converts, again and again."""
    return frame(b"[" + (b"9" * 4299 + b",") * 3800 + b"1]", 0x81)


def final_blocks() -> bytes:
    """63 that say they are the last, and 15 MiB behind them."""
    packed = b""
    for _ in range(63):
        packer = zlib.compressobj(9, wbits=-15)
        packed += packer.compress(b"x") + packer.flush(zlib.Z_FINISH)
    packer = zlib.compressobj(9, wbits=-15)
    packed += packer.compress(b"x" * (15 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)
    return frame(packed[:-4], 0xC1)
