"""The operating system's view of a transport's socket. Knows nothing of WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import math
import select
import socket
import struct
import sys
from asyncio.trsock import TransportSocket
from enum import Enum
from typing import Any


class PeerState(Enum):
    """The state of the peer at the other end of a socket."""

    THERE = "there"
    FINISHED = "finished"
    """It will send nothing more (FIN). Earlier bytes may be waiting."""
    GONE = "gone"
    """The connection is broken (RST, or no answer to TCP's probes)."""


_PROBES = 3


def peek(transport: asyncio.BaseTransport, size: int) -> bytes:
    """Received bytes that are not read yet, up to `size`. They stay in the socket."""
    theirs = transport.get_extra_info("socket")
    if theirs is None:
        return b""
    try:
        ours = socket.socket(theirs.family, theirs.type, theirs.proto, theirs.fileno())
    except (OSError, ValueError):  # closed just now
        return b""
    try:
        return ours.recv(size, socket.MSG_PEEK)
    except OSError:
        return b""
    finally:
        ours.detach()


def peer_address(transport: asyncio.BaseTransport) -> Any:
    """As the kernel knows it. None: the connection was reset. asyncio repeats accept(2)'s answer even after a reset."""
    sock = transport.get_extra_info("socket")
    if not isinstance(sock, TransportSocket):
        return transport.get_extra_info("peername")  # uvloop has asked the kernel
    try:
        return sock.getpeername()
    except OSError:
        return None


if sys.platform == "win32":

    def direct_fd(transport: asyncio.BaseTransport) -> int:
        """-1: a socket is not a file here."""
        return -1

    def unacknowledged(transport: asyncio.BaseTransport) -> int:
        """Not told here."""
        return 0

    def look_at_peer(transport: asyncio.BaseTransport) -> PeerState:
        """Not told here."""
        return PeerState.THERE

    def probe_silence(transport: asyncio.BaseTransport, idle: float, timeout: float) -> None:
        """Not asked here."""

else:
    import fcntl
    import termios

    def direct_fd(transport: asyncio.BaseTransport) -> int:
        """The file descriptor of the transport's socket, which stays the transport's; -1: there is none."""
        socket = transport.get_extra_info("socket")
        try:
            return -1 if socket is None else int(socket.fileno())
        except OSError:
            return -1

    def unacknowledged(transport: asyncio.BaseTransport) -> int:
        """Bytes the kernel has taken and the peer has not (0 where it does not tell).

        A socket reports itself writable only when a third of its buffer is free: megabytes, on a fast network. Whether
        a slow peer reads is seen here long before.
        """
        fd = direct_fd(transport)
        if fd < 0:
            return 0
        try:
            answer: bytes = fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0")
        except OSError:
            return 0
        size: int = struct.unpack("i", answer)[0]
        return size

    def look_at_peer(transport: asyncio.BaseTransport) -> PeerState:
        """The kernel's view of the peer, without reading."""
        fd = direct_fd(transport)
        if fd < 0:
            return PeerState.THERE
        poll = select.poll()
        poll.register(fd, _FINISHED)
        events = dict(poll.poll(0)).get(fd, 0)
        if events & select.POLLERR:
            return PeerState.GONE
        return PeerState.FINISHED if events & (_FINISHED | select.POLLHUP) else PeerState.THERE

    _FINISHED: int = getattr(select, "POLLRDHUP", 0)  # Linux's word; elsewhere it is POLLHUP

    def probe_silence(transport: asyncio.BaseTransport, idle: float, timeout: float) -> None:
        """Let TCP itself ask a silent peer whether it is there: after `idle` seconds, giving up `timeout` later."""
        sock = transport.get_extra_info("socket")
        if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
            return
        options = [
            (getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None)), math.ceil(idle)),
            (getattr(socket, "TCP_KEEPINTVL", None), math.ceil(timeout / _PROBES)),
            (getattr(socket, "TCP_KEEPCNT", None), _PROBES),
        ]
        with contextlib.suppress(OSError):
            for option, value in options:
                if option is not None:
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
