"""What the operating system says of a transport's socket. Knows nothing of WebSockets."""

from __future__ import annotations

import asyncio
import struct
import sys

if sys.platform == "win32":

    def direct_fd(transport: asyncio.BaseTransport) -> int:
        """-1: a socket is not a file here."""
        return -1

    def unacknowledged(transport: asyncio.BaseTransport) -> int:
        """Not told here."""
        return 0

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
