"""Writing to a plain ASGI server: the connection's own sends, and the messages of foreign senders, in one order.

Own sends go straight to the server's `send` as long as nothing waits. Behind waiting messages they stand in line, and
write the line themselves as far as the server takes it at once. Foreign messages wait in a queue, bounded in bytes, for
the one writer task. It lives from the first of them until the connection's task ends. It also sends a Close that might
have to wait: the task that gave it may be cancelled meanwhile. `AsgiWriter` is the `Sink` of the connection
(antiphon.types).

Knows nothing of WebSocket states: illegal messages have been refused before.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from antiphon.types import ClosedBy, Message, PreparedMessage, Send

from .codec import size_of
from .deadline import rest_of, within
from .state import LOST, Closed

logger: Final = logging.getLogger("antiphon")


class QueuedSend:
    """One message in line. Its own sender awaits `done`, which is None for a foreign message."""

    __slots__ = ("done", "message", "size")

    def __init__(self, message: Message, size: int, done: asyncio.Future[None] | None = None) -> None:
        self.message: Message = message
        self.size: int = size
        self.done: asyncio.Future[None] | None = done


class AsgiWriter:
    """The sending side of one connection. All methods are called in the thread of `loop`.

    `on_ended` is called once, when the connection turns out to be over, or is ended from here. `watch` is called when
    somebody must learn of the end in time.
    """

    def __init__(
        self,
        send: Send,
        *,
        loop: asyncio.AbstractEventLoop | None,
        timeout: float,
        on_ended: Callable[[Closed], None],
        watch: Callable[[], None],
    ) -> None:
        self._send = send
        self._loop = loop
        self._context = contextvars.copy_context()
        self._timeout = timeout
        self._on_ended = on_ended
        self._watch = watch
        self._alive = True
        self._sealed = False
        """A Close was given. Nothing may follow it."""
        self._finished: asyncio.Future[None] | None = None
        self._queue: deque[QueuedSend] = deque()
        self._buffered = 0
        self._direct = 0
        self._sending: QueuedSend | None = None
        self._writer: asyncio.Task[None] | None = None
        self._begun: Awaitable[None] | None = None
        """A write that an own sender has begun, for the writer to end."""
        self._work: asyncio.Future[None] | None = None
        self._writable_marks: list[tuple[int, Callable[[], None]]] = []
        self._close_callbacks: list[Callable[[], None]] = []

    # Sink

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The connection's event loop. Raises RuntimeError where there is none (the connection runs on trio)."""
        if self._loop is None:
            raise RuntimeError("this connection does not run in an asyncio event loop")
        return self._loop

    @property
    def alive(self) -> bool:
        """False once a Close was sent or received or the connection was lost."""
        return self._alive

    @property
    def buffered(self) -> int:
        """Bytes that wait for the writer."""
        return self._buffered

    def offer(self, message: PreparedMessage, limit: int) -> bool:
        """Take the message unless `buffered` would pass `limit` by it. A dead connection takes and drops it."""
        if not self._alive or self._sealed:
            return True
        payload = message.payload
        size = size_of(payload)
        if self._buffered and self._buffered + size > limit:
            return False
        key = "text" if isinstance(payload, str) else "bytes"
        self._put(QueuedSend({"type": "websocket.send", key: payload}, size))
        return True

    def disconnect(self, code: int, reason: str) -> None:
        """Close behind the buffered messages; abort when that takes longer than `send_timeout`."""
        if self._alive and not self._sealed:
            self._sealed = True
            self._put(QueuedSend({"type": "websocket.close", "code": code, "reason": reason}, 0))
            # Never cancelled: a Close that the server has taken may still be stuck behind a peer that does not read.
            self.loop.call_later(self._timeout, self.abort)
            self.end(Closed(code=code, reason=reason, by=ClosedBy.US))

    def on_writable(self, callback: Callable[[], None]) -> None:
        """Call back once, when `buffered` is at most half of its present value, or the connection is over."""
        if self._alive and self._buffered:
            self._writable_marks.append((self._buffered // 2, callback))
        else:
            self.loop.call_soon(callback)

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call back once, when the connection is over (at once if it is)."""
        if self._alive:
            self._close_callbacks.append(callback)
            self._watch()
        else:
            callback()

    def off_close(self, callback: Callable[[], None]) -> None:
        """Forget a callback given to `on_close`. Unknown ones are ignored."""
        if callback in self._close_callbacks:
            self._close_callbacks.remove(callback)

    # The connection's own side

    async def send(self, message: Message) -> None:
        """Give the message to the server, behind the waiting ones, and wait for the server to take it.

        Raises the exceptions of the server's `send`. After `send_timeout` it aborts the connection and raises
        TimeoutError.
        """
        closes = message["type"] == "websocket.close"
        self._sealed = self._sealed or closes
        try:
            if self._queue and self._sending is None and not self._direct:
                self._write_line()
            if self._queue or (closes and self._loop is not None and not self._takes_at_once()):
                await self._stand_in_line(message)
                return
            self._direct += 1
            try:
                if self._loop is None:
                    await self._send(message)
                else:
                    await within(self._send(message), self._timeout)
            finally:
                self._direct -= 1
                if self._queue and not self._direct:
                    self._wake_writer()
        except TimeoutError:
            self.abort()
            raise

    async def finish(self) -> None:
        """Wait until a Close in line is with the server, or given up."""
        if self._sealed and self._queue:
            self._finished = self.loop.create_future()
            await self._finished

    def end(self, closed: Closed) -> None:
        """Count the connection as over from now on, and tell those who asked."""
        if not self._alive:
            return
        self._alive = False
        self._on_ended(closed)
        marks, self._writable_marks = self._writable_marks, []
        callbacks, self._close_callbacks = self._close_callbacks, []
        for callback in (*(callback for _, callback in marks), *callbacks):
            callback()

    def abort(self) -> None:
        """Give the connection up: drop the waiting messages, and the socket too where the server lets us reach it.

        ASGI has no message for it. uvicorn's `send` is a method of the protocol that holds the transport.
        """
        transport = getattr(getattr(self._send, "__self__", None), "transport", None)
        abort = getattr(transport, "abort", None)
        if callable(abort):
            abort()
        self._fail(ConnectionAbortedError("the peer did not read in time"))
        self.stop()

    def stop(self) -> None:
        """End the writer: the connection's task is over, or nothing can be sent any more."""
        if self._writer is not None:
            self._writer.cancel()

    # The line

    def _takes_at_once(self) -> bool:
        """Whether the server's `send` would not suspend now. uvicorn lets one ask, if nothing stands between."""
        writable = getattr(getattr(self._send, "__self__", None), "writable", None)
        return isinstance(writable, asyncio.Event) and writable.is_set()

    def _put(self, entry: QueuedSend) -> None:
        self._queue.append(entry)
        self._buffered += entry.size
        if not self._direct:
            self._wake_writer()

    async def _stand_in_line(self, message: Message) -> None:
        entry = QueuedSend(message, 0, self.loop.create_future())
        assert entry.done is not None
        self._put(entry)
        try:
            async with asyncio.timeout(self._timeout):
                await entry.done
        except asyncio.CancelledError:
            if message["type"] == "websocket.close":
                self.loop.call_later(self._timeout, self.abort)
            elif entry is not self._sending and entry in self._queue:
                self._queue.remove(entry)
            raise

    def _wake_writer(self) -> None:
        if self._writer is None:
            # In the connection's context, not in the foreign sender's, which it would keep for as long as it lives.
            self._writer = self.loop.create_task(self._write(), name="antiphon.writer", context=self._context)
        elif self._work is not None and not self._work.done():
            self._work.set_result(None)

    def _write_line(self) -> None:
        """Write the waiting messages, in the writer's place, until the server's `send` suspends. The writer goes on
        from there.

        Waiting for the writer would take a turn of the loop. In the midst of a loop over connections, others join and
        leave in such a turn.
        """
        while self._queue:
            steps = self._write_one(self._queue[0]).__await__()
            try:
                waiting = self._context.run(next, steps)
            except StopIteration:
                continue
            self._begun = rest_of(steps, waiting)
            self._wake_writer()
            return

    async def _write(self) -> None:
        while True:
            if self._begun is not None:
                begun, self._begun = self._begun, None
                await begun
            while self._queue:
                await self._write_one(self._queue[0])
            self._wake_finisher()
            self._work = self.loop.create_future()
            await self._work

    async def _write_one(self, entry: QueuedSend) -> None:
        self._sending = entry
        try:
            await self._send(entry.message)
        except Exception as exc:
            self._refused(entry, exc)
        else:
            self._taken(entry)
        finally:
            self._sending = None

    def _taken(self, entry: QueuedSend) -> None:
        if not self._queue or self._queue[0] is not entry:
            return  # given up while the server took it
        self._queue.popleft()
        self._buffered -= entry.size
        if entry.done is not None and not entry.done.done():
            entry.done.set_result(None)
        if entry.message["type"] == "websocket.close":
            self.end(Closed(code=entry.message["code"], reason=entry.message["reason"], by=ClosedBy.US))
        if self._writable_marks:
            self._call_writable()

    def _refused(self, entry: QueuedSend, exc: Exception) -> None:
        if entry.done is not None and not means_closed(exc):
            # The owner's own mistake, which only the owner is to hear of.
            if self._queue and self._queue[0] is entry:  # else given up while the server refused it
                self._queue.popleft()
            if not entry.done.done():
                entry.done.set_exception(exc)
            return
        if not means_closed(exc):
            logger.error("a foreign message could not be sent", exc_info=exc)
        self._fail(exc)

    def _call_writable(self) -> None:
        ready = [callback for mark, callback in self._writable_marks if self._buffered <= mark]
        self._writable_marks = [(mark, callback) for mark, callback in self._writable_marks if self._buffered > mark]
        for callback in ready:
            callback()

    def _fail(self, exc: Exception) -> None:
        waiting, self._queue = self._queue, deque()
        self._buffered = 0
        for entry in waiting:
            if entry.done is not None and not entry.done.done():
                entry.done.set_exception(exc)
        self._wake_finisher()
        self.end(LOST)

    def _wake_finisher(self) -> None:
        if self._finished is not None and not self._finished.done():
            self._finished.set_result(None)


def means_closed(exc: Exception) -> bool:
    """Whether an error of a server's `send` means that the connection is over.

    ASGI 2.4 says OSError. uvicorn raises RuntimeError when it has sent a Close of its own accord (a ping timeout, a
    message too big). The state tables have let the message pass, so its complaint can mean nothing else.
    """
    return isinstance(exc, OSError) or (isinstance(exc, RuntimeError) and "ASGI message" in str(exc))
