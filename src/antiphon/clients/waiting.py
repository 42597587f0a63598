"""The queues of a client: answers for callers, events for readers, messages for a connection. All of them are bounded.

Knows nothing of sockets. Part of `runtime_py()`.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Self

from pydantic import TypeAdapter, ValidationError

MOST_UNREAD: Final = 4 << 20
"""Characters of events, or of one stream's items, that nobody has read: then reading pauses, or the stream is over."""


class RemoteError(Exception):
    """An error that the server answered: its `code`, its `message` for people, its `detail` (None where it has none).

    Codes of our own are `closed`, `timeout`, `busy`, `too_slow`, `invalid_answer`.

        from antiphon.clients.runtime import Client, RemoteError

        async with Client("ws://localhost:8000/chat") as client:
            try:
                await client.request("say", {"text": ""})
            except RemoteError as error:
                print(error.code, error.message, error.detail)
    """

    def __init__(self, code: str, message: str, detail: Any = None) -> None:
        super().__init__(f"{code}: {message}" if detail is None else f"{code}: {message} {detail}")
        self.code = code
        self.message = message
        self.detail: Any = detail


class Pending:
    """A request or a stream on its way: its unread answers, and its end."""

    def __init__(self, ref: int, adapter: TypeAdapter[Any] | None, *, is_stream: bool) -> None:
        self.ref = ref
        self.sent: float = 0.0
        """When, by `time.monotonic()`; 0: it was not."""
        self.is_stream = is_stream
        self._adapter = adapter
        self._items: deque[tuple[Any, int]] = deque()
        self._unread = 0
        self._over = False
        self._error: BaseException | None = None
        self._came = asyncio.Event()

    def take(self, data: Any, size: int) -> bool:
        """Keep an item for the reader. False: there are too many."""
        self._items.append((data, size))
        self._unread += size
        self._came.set()
        return self._unread <= MOST_UNREAD

    def end(self, error: BaseException | None = None) -> None:
        if not self._over:
            self._over, self._error = True, error
            self._came.set()

    async def something(self) -> None:
        """Wait for an item, or for the end."""
        while not self._items and not self._over:
            self._came.clear()
            await self._came.wait()

    async def answer(self) -> Any:
        await self.something()
        if self._error is not None:
            raise self._error
        return self._validated(self._items.popleft()[0] if self._items else None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        await self.something()
        if self._items:
            data, size = self._items.popleft()
            self._unread -= size
            return self._validated(data)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopAsyncIteration

    def _validated(self, data: Any) -> Any:
        if self._adapter is None:
            return data
        try:
            return self._adapter.validate_json(json.dumps(data))
        except ValidationError as error:
            raise RemoteError("invalid_answer", "the answer is not of the declared type", error.errors()) from error


@dataclass(frozen=True, slots=True)
class ToSend:
    """A message that waits to be sent."""

    data: str | bytes
    waits: bool
    """Also for a connection."""
    pending: Pending | None = None


@dataclass(frozen=True, slots=True)
class Unread:
    """An event that was not read yet, and where its topic then stands."""

    data: Any
    size: int
    topic: str | None = None
    position: str = ""


class Inbox:
    """Events that were not read yet. Where nobody ever reads, the oldest go."""

    def __init__(self) -> None:
        self.wanted = False
        """Somebody reads."""
        self.dropped: int = 0
        self._events: deque[Unread] = deque()
        self._unread = 0
        self._over = False
        self._changed = asyncio.Event()

    @property
    def full(self) -> bool:
        """Somebody reads, and not fast enough."""
        return self.wanted and self._unread > MOST_UNREAD

    @property
    def overfull(self) -> bool:
        return self.wanted and self._unread > 2 * MOST_UNREAD

    def put(self, event: Unread) -> None:
        self._events.append(event)
        self._unread += event.size
        while not self.wanted and self._unread > MOST_UNREAD and len(self._events) > 1:
            self._unread -= self._events.popleft().size
            self.dropped += 1
        self._changed.set()

    async def get(self) -> Unread | None:
        """The next. None behind the last."""
        while not self._events:
            if self._over:
                return None
            await self._change()
        event = self._events.popleft()
        self._unread -= event.size
        self._changed.set()
        return event

    async def read_down(self) -> None:
        """Wait until somebody who was too slow has read on."""
        while self.full and not self._over:
            await self._change()

    def end(self) -> None:
        self._over = True
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
