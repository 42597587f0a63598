"""Messages from foreign senders: in order into the connection's bounded outbox, from any task, thread or event loop.

Owns the patience of a foreign sender (a few turns of the loop) and the fate of a message that finds no room. Made at
the first foreign message of a connection. Knows nothing of the ways to the server.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol

from antiphon.exceptions import NotAccepted
from antiphon.shown import shown
from antiphon.types import Message, Overflow, PreparedMessage, Sink

from . import codec
from .options import ConnectionOptions
from .owner import run_in, running_loop
from .state import CONNECTED, CONNECTING, WebSocketState

logger: Final = logging.getLogger("antiphon")

ROOM_TURNS: Final = 16
"""Turns of the loop that a foreign sender waits for room at most."""

UNHEEDED_PER_TURN: Final = 1000
"""Sends of foreign senders, all together, to a connection that is dead, after which the loop gets a turn. Far more than
a crowd of endpoints with one message each. Where a loop over connections waits, others change the collection that it
iterates over."""

_handing_over = threading.Lock()


class Receiver(Protocol):
    """The connection that foreign senders send to."""

    application_state: WebSocketState

    @property
    def sink(self) -> Sink:
        """The bounded outbox."""

    def end_by_foreign(self, code: int, reason: str) -> None:
        """Close behind the buffered messages, on behalf of other code than the endpoint."""


class ForeignSenders:
    """Messages to the connection from other code than its endpoint. `loop` is the connection's, `path` for the log."""

    __slots__ = (
        "_awaits_room",
        "_loop",
        "_options",
        "_path",
        "_pressed",
        "_receiver",
        "_room_made",
        "_unheeded",
        "dropped",
        "handed_over",
    )

    def __init__(
        self, receiver: Receiver, loop: asyncio.AbstractEventLoop | None, *, options: ConnectionOptions, path: str
    ) -> None:
        self._receiver = receiver
        self._options = options
        self._path = path
        self._loop = loop
        self.dropped: int = 0
        self.handed_over: int = 0
        """Bytes on their way from other threads and loops."""
        self._unheeded = 0
        self._pressed = False
        """A message came in this turn of the loop, to an outbox that is more than half full."""
        self._awaits_room = False
        self._room_made = 0
        """How often the outbox has emptied while a foreign sender asked for room."""

    async def send(self, message: Message) -> None:
        """Take a `websocket.send` or `websocket.close` message. Raises NotAccepted before `accept`."""
        if self._receiver.application_state is CONNECTING:
            raise NotAccepted(f"{message['type']} from a foreign sender before the connection is accepted")
        if message["type"] == "websocket.close":
            run_in(self._loop, lambda: self._receiver.end_by_foreign(message["code"], message["reason"]))
            await self._be_patient()
            return
        text, data = message.get("text"), message.get("bytes")
        if (text is None) == (data is None):
            raise ValueError("a websocket.send message holds either text or bytes")
        await self.offer(codec.check_text(text) if text is not None else codec.check_bytes(data or b""))

    async def offer(self, payload: str | bytes) -> None:
        """Leave the message in the outbox, after a few turns of the loop at most where there is no room."""
        prepared = codec.prepare(payload)
        if running_loop() is not self._loop:
            self._offer_from_elsewhere(prepared, codec.size_of(payload))
            await asyncio.sleep(0)
            return
        sink = self._receiver.sink
        if self._receiver.application_state is not CONNECTED or not sink.alive:
            await self._be_patient()
        elif buffered := sink.buffered:
            limit = self._options.outbox_bytes
            size = _most_bytes(payload)
            if buffered + size > limit or (buffered * 2 > limit and self._pressed):
                await self._wait_for_room(sink, size)
            elif buffered * 2 > limit:
                self._pressed = True
                sink.loop.call_soon(self._relax)
        self._put(prepared)

    async def _wait_for_room(self, sink: Sink, size: int) -> None:
        """A turn of the loop lets a peer that reads make room. Another turn follows if others have taken the room."""
        for _ in range(ROOM_TURNS):
            made = self._room_made
            if not self._awaits_room:
                self._awaits_room = True
                sink.on_writable(self._note_room)
            await asyncio.sleep(0)
            if self._room_made == made or sink.buffered + size <= self._options.outbox_bytes:
                return

    def _note_room(self) -> None:
        self._awaits_room = False
        self._room_made += 1

    def _relax(self) -> None:
        self._pressed = False
        self._unheeded = 0

    async def _be_patient(self) -> None:
        """Keep a loop that only sends to the dead from hogging the event loop.

        As seldom as will do, like the wait for room.
        """
        if not self._unheeded:
            asyncio.get_running_loop().call_soon(self._relax)
        self._unheeded += 1
        if self._unheeded % UNHEEDED_PER_TURN == 0:
            await asyncio.sleep(0)

    def _offer_from_elsewhere(self, prepared: PreparedMessage, size: int) -> None:
        """Hand over to the connection's loop. Messages on their way there count against the same bound."""
        with _handing_over:
            fits = not self.handed_over or self.handed_over + size <= self._options.outbox_bytes
            if fits:
                self.handed_over += size

        def arrive() -> None:
            with _handing_over:
                self.handed_over -= size
            self._put(prepared)

        take: Callable[[], None] = arrive if fits else self._overflow
        run_in(self._loop, take)

    def _put(self, prepared: PreparedMessage) -> None:
        receiver = self._receiver
        if receiver.application_state is not CONNECTED:
            return
        if not receiver.sink.offer(prepared, self._options.outbox_bytes):
            self._overflow()

    def _overflow(self) -> None:
        receiver = self._receiver
        if self._options.overflow is Overflow.DROP_NEWEST:
            self.dropped += 1
        elif receiver.application_state is CONNECTED:
            logger.info("%s: the peer does not read; closing with 1013", shown(self._path))
            receiver.end_by_foreign(1013, "too slow")


def _most_bytes(payload: str | bytes) -> int:
    return len(payload) if isinstance(payload, bytes) or payload.isascii() else 4 * len(payload)
