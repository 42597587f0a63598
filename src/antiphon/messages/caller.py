"""`Caller`: sends from a handler to the client that called, typed by the messages it may send."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from antiphon.connection import WebSocket

    from .outgoing import Events

Out = TypeVar("Out", contravariant=True)


class Caller(Generic[Out]):
    """The client whose message is handled. `Caller[Said | Typing]` may be sent these two.

        @chat.on
        async def say(message: Say, caller: Caller[Said]) -> None:
            await caller.send(Said(name="ann", text=message.text))

    A parameter with this annotation gets it, in handlers, in the connection function and in dependencies. The document
    lists the classes named here among the messages that the channel sends. It may be kept for as long as the
    connection lasts, and used by tasks, other connections and HTTP routes. `websocket` is the connection, `events` are
    the messages that it may send.
    """

    __slots__ = ("_events", "websocket")

    injected_elsewhere: ClassVar[str] = (
        "an endpoint sends with websocket.send_model(), an HTTP route with hub.send() or a topic's publish()"
    )
    """For dependencies, which refuse it there."""

    def __init__(self, websocket: WebSocket, events: Events) -> None:
        self.websocket: WebSocket = websocket
        """The connection, as in `hub.publish(..., exclude=caller.websocket)`."""
        self._events = events

    async def send(self, message: Out) -> None:
        """Send an event. Raises `UndeclaredMessage` for a class that the channel does not declare. Otherwise as
        `WebSocket.send_text`."""
        await self.websocket.send_text(self._events.frame(message))

    async def send_bytes(self, data: bytes | bytearray | memoryview) -> None:
        """Send a binary message, as `WebSocket.send_bytes`."""
        await self.websocket.send_bytes(data)
