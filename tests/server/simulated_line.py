"""A connection between one server transport and one simulated client, with all faults of networks and event loops.

Bytes arrive cut and joined at random, several chunks in one turn of the loop, one more after `pause_reading` as on
uvloop. The kernel takes a part of the written bytes, and the rest when the client reads. The end comes as FIN or RST,
and a reset loses the bytes on their way. `MemoryLine` is the transport itself, plain or TLS. `SocketLine` has a real
socketpair under asyncio's own transport, for the ways that write to the socket directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from dataclasses import dataclass
from typing import Any, Final

TLS_GOODBYE: Final = 30.0
"""Seconds that asyncio's TLS waits for the other side's close_notify (its `ssl_shutdown_timeout`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How a line behaves."""

    tls: bool
    kernel: int
    """Bytes written that the network takes while the client does not read."""
    chunk: int
    """Bytes of one `data_received`, at most."""
    per_turn: int
    """Calls of `data_received` in one turn, at most."""
    late: bool
    """One more chunk comes after `pause_reading`."""
    delay: float
    """Seconds that bytes of the client are on their way, at most."""


class ClientEnd:
    """The simulated client's end of either kind of line."""

    def __init__(self) -> None:
        self.readable = asyncio.Event()
        self.connected = asyncio.Event()
        self.lost = asyncio.Event()
        """The server's protocol has heard of the end. The maker of the line sets it."""

    def send(self, data: bytes) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """FIN."""
        raise NotImplementedError

    def reset(self) -> None:
        """RST."""
        raise NotImplementedError

    def take(self, size: int) -> bytes | None:
        """The received bytes: b"" for nothing yet, None for FIN. Raises ConnectionError."""
        raise NotImplementedError

    def leave(self) -> None:
        """Close the client's socket."""
        raise NotImplementedError


class MemoryLine(ClientEnd, asyncio.Transport):
    """Both ends of a line in memory; as a transport it is the server's."""

    def __init__(self, protocol: Any, habits: Habits, rng: random.Random, number: int) -> None:
        ClientEnd.__init__(self)
        extra: dict[str, Any] = {"peername": (f"10.0.0.{number % 2}", 50000 + number), "sockname": ("10.0.1.0", 80)}
        asyncio.Transport.__init__(self, extra | ({"sslcontext": object()} if habits.tls else {}))
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._habits = habits
        self._rng = rng
        self._coming = bytearray()
        self._coming_eof = False
        self._left = False
        self._eof_told = False
        self._arrival: asyncio.TimerHandle | None = None
        self._paused = False
        self._late = False
        self._held = False
        """Something has arrived, and the protocol has paused."""
        self._kernel = bytearray()
        self._kernel_eof = False
        self._reset_for_client = False
        self._buffer = bytearray()
        self._high, self._low = 64 << 10, 16 << 10
        self._writing_paused = False
        self._eof_wanted = False
        self._closing = False
        self._goodbye: asyncio.TimerHandle | None = None
        self._over = False
        self._moving = False
        protocol.connection_made(self)
        self.connected.set()

    # ------------------------------------------------------------ the client's end

    def send(self, data: bytes) -> None:
        if self._over:
            self._loop.call_later(self._habits.delay, self._reset_client)
            return
        self._coming += data
        self._expect(self._rng.random() * self._habits.delay)

    def finish(self) -> None:
        self._coming_eof = True
        self._expect(self._rng.random() * self._habits.delay)

    def reset(self) -> None:
        self._kernel.clear()
        self._reset_for_client = True
        if self._rng.random() < 0.5:
            self._coming.clear()
        error = self._rng.choice([ConnectionResetError("reset by peer"), None, OSError("no route to host")])
        self._loop.call_later(self._rng.random() * self._habits.delay, self._end, error)

    def leave(self) -> None:
        self._left = True
        self.finish()

    def take(self, size: int) -> bytes | None:
        if self._reset_for_client:
            raise ConnectionResetError
        if not self._kernel:
            self.readable.clear()
            return None if self._kernel_eof else b""
        data = bytes(self._kernel[:size])
        del self._kernel[:size]
        self._move_soon()
        return data

    def _reset_client(self) -> None:
        self._kernel.clear()
        self._reset_for_client = True
        self.readable.set()

    # ------------------------------------------------------------ to the server

    def _expect(self, delay: float) -> None:
        if self._arrival is None and not self._over:
            self._arrival = self._loop.call_later(delay, self._arrive)

    def _arrive(self) -> None:
        """Deliver some. The next is under way meanwhile, and waits where the protocol has paused."""
        self._arrival = None
        if not self._may_deliver():
            self._held = True
            return
        for _ in range(self._rng.randint(1, self._habits.per_turn)):
            if self._may_deliver():
                self._deliver()
        if (self._coming or (self._coming_eof and not self._eof_told)) and not self._held:
            at_once = self._rng.random() < 0.7 and self._habits.per_turn > 1
            self._expect(0 if at_once else self._rng.random() * self._habits.delay)

    def _deliver(self) -> None:
        """A chunk, or the end."""
        self._late = self._late and not self._paused
        if self._coming:
            size = self._rng.randint(1, self._habits.chunk)
            chunk = bytes(self._coming[:size])
            del self._coming[:size]
            self._call("data_received", chunk)
        elif self._coming_eof and not self._eof_told:
            if self._paused:
                self._held = True
                return
            self._eof_told = True
            keep_open = self._call("eof_received")
            if self._habits.tls or not keep_open:
                self.close()

    def _may_deliver(self) -> bool:
        if self._over or self._eof_told or (self._closing and not self._habits.tls):
            return False
        return not self._paused or self._late

    def _call(self, name: str, *arguments: Any) -> Any:
        """As event loops do with a protocol that fails."""
        try:
            return getattr(self._protocol, name)(*arguments)
        except Exception as error:
            self._loop.call_exception_handler({"message": f"{name} failed", "exception": error})
            self._end(error)
            return None

    def pause_reading(self) -> None:
        self._refuse_if_closing("pause_reading")
        if not self._paused:
            self._paused = True
            self._late = self._habits.late

    def resume_reading(self) -> None:
        self._refuse_if_closing("resume_reading")
        self._paused = False
        if self._held:
            self._held = False
            self._expect(0)

    def _refuse_if_closing(self, what: str) -> None:
        """As uvloop does."""
        if self._closing:
            raise RuntimeError(f"Cannot {what}() when closing")

    def is_reading(self) -> bool:
        return not self._paused and not self._closing

    # ------------------------------------------------------------ from the server

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        if self._eof_wanted:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._over or not data:
            return
        if self._reset_for_client:
            self._end(BrokenPipeError())
            return
        rest = bytes(data)
        if not self._buffer:
            taken = max(0, self._habits.kernel - len(self._kernel))
            self._put_on_the_way(rest[:taken])
            rest = rest[taken:]
        self._buffer += rest
        if len(self._buffer) > self._high and not self._writing_paused:
            self._writing_paused = True
            self._call("pause_writing")

    def _put_on_the_way(self, data: bytes) -> None:
        if data and self._left:  # a closed socket answers with a reset
            self._loop.call_later(self._habits.delay, self._end, ConnectionResetError())
        elif data and not self._reset_for_client:
            self._kernel += data
            self.readable.set()

    def _move_soon(self) -> None:
        if not self._moving and not self._over:
            self._moving = True
            self._loop.call_soon(self._move)

    def _move(self) -> None:
        self._moving = False
        if self._over:
            return
        taken = max(0, self._habits.kernel - len(self._kernel))
        if self._buffer and taken:
            self._put_on_the_way(bytes(self._buffer[:taken]))
            del self._buffer[:taken]
        if self._writing_paused and len(self._buffer) <= self._low:
            self._writing_paused = False
            self._call("resume_writing")
        if self._buffer or self._over:
            return
        if self._eof_wanted or (self._closing and self._habits.tls):
            self._send_eof()
        if self._closing and (not self._habits.tls or not self._kernel):
            self._end(None)

    def _send_eof(self) -> None:
        if not self._kernel_eof:
            self._kernel_eof = True
            self.readable.set()

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = (64 << 10 if low is None else 4 * low) if high is None else high
        self._low = self._high // 4 if low is None else low

    def can_write_eof(self) -> bool:
        return not self._habits.tls

    def write_eof(self) -> None:
        if self._habits.tls:
            raise NotImplementedError
        if self._closing or self._eof_wanted:
            return
        self._eof_wanted = True
        if not self._buffer:
            self._send_eof()

    # ------------------------------------------------------------ the end

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if self._habits.tls:
                self._goodbye = self._loop.call_later(TLS_GOODBYE, self._end, TimeoutError("SSL shutdown timed out"))
            self._move_soon()

    def abort(self) -> None:
        self._reset_client()
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        """The socket is closed. Unread bytes make it a reset, which loses the bytes on their way to the client."""
        if self._over:
            return
        self._over = self._closing = True
        for timer in (self._arrival, self._goodbye):
            if timer is not None:
                timer.cancel()
        if self._coming or error is not None:
            self._reset_client()
        self._send_eof()
        self._buffer.clear()
        self._loop.call_soon(self._tell_of_the_end, error)

    def _tell_of_the_end(self, error: Exception | None) -> None:
        self._call("connection_lost", error)


class SocketLine(ClientEnd):
    """A socketpair: asyncio's transport on the server's side, the bare socket on the client's."""

    def __init__(self, protocol: Any, habits: Habits, rng: random.Random) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._habits = habits
        self._rng = rng
        self._out = bytearray()
        self._finishing = False
        self._sending: asyncio.TimerHandle | None = None
        ours, self._socket = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, habits.kernel)
        self._socket.setblocking(False)
        self._watched = False
        self._making = self._loop.create_task(self._make(ours, protocol))

    async def _make(self, ours: socket.socket, protocol: Any) -> None:
        await self._loop.connect_accepted_socket(lambda: protocol, ours)
        self._watch()
        self.connected.set()

    def _watch(self) -> None:
        if not self._watched and self._socket.fileno() >= 0:
            self._watched = True
            self._loop.add_reader(self._socket, self._has_come)

    def _has_come(self) -> None:
        self._unwatch()
        self.readable.set()

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._socket)

    def send(self, data: bytes) -> None:
        self._out += data
        self._go_on()

    def finish(self) -> None:
        self._finishing = True
        self._go_on()

    def reset(self) -> None:
        self.leave()

    def leave(self) -> None:
        self._unwatch()
        self._socket.close()
        if self._sending is not None:
            self._sending.cancel()
        self.readable.set()

    def take(self, size: int) -> bytes | None:
        if self._socket.fileno() < 0:
            raise ConnectionResetError
        try:
            return self._socket.recv(size) or None
        except BlockingIOError:
            self.readable.clear()
            self._watch()
            return b""

    def _go_on(self) -> None:
        if self._sending is None:
            self._sending = self._loop.call_later(self._rng.random() * self._habits.delay, self._send_some)

    def _send_some(self) -> None:
        self._sending = None
        if self._socket.fileno() < 0:
            return
        for _ in range(self._rng.randint(1, self._habits.per_turn)):
            size = self._rng.randint(1, self._habits.chunk)
            if self._out:
                try:
                    del self._out[: self._socket.send(self._out[:size])]
                except BlockingIOError:
                    break
                except OSError:
                    self._out.clear()
        if self._out:
            if not self.lost.is_set():
                self._sending = self._loop.call_later(0.001 + self._rng.random() * self._habits.delay, self._send_some)
        elif self._finishing:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
