"""The interfaces that a pipe needs: its engine (`Shared`), its connection (`PipeOwner`), and the owner of the deadlines
(`PipeWatch`). It calls the last two until its connection is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from antiphon.types import Message
from antiphon.wire import Close, Ping, ProtocolError

from ._turns import Flusher, Turns
from .config import ServerConfig


class Shared(Protocol):
    """The state that the pipes of one server share. `engine.Engine` implements it."""

    @property
    def config(self) -> ServerConfig: ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def flusher(self) -> Flusher: ...

    @property
    def turns(self) -> Turns: ...


class PipeOwner(Protocol):
    """A pipe's calls to its connection, until that is over. `session.Session` implements it."""

    def on_early_data(self, data: bytes) -> None:
        """Bytes came while the connection is not open."""

    def on_control(self, event: Ping | Close) -> None:
        """A control frame came."""

    def on_finished(self) -> None:
        """The peer's bytes before its end (`finish_later`) have been parsed."""

    def drop_if_gone(self) -> bool:
        """Many wait for a turn, and it is this one's. Returns whether the connection was ended because its peer is
        gone."""

    def on_violation(self, error: ProtocolError) -> None:
        """The peer broke the protocol. The reader has been woken for the messages before that."""

    def on_rate(self, size: int) -> None:
        """A chunk of `size` bytes was parsed, and rates are limited."""

    def on_unfinished(self, size: int) -> None:
        """The unfinished message is `size` bytes now, more than a slice; or 0: it is finished."""

    def on_unread(self, size: int) -> None:
        """The inbox holds `size` bytes beyond its bound; or 0: it does not."""

    async def send_other(self, message: Message) -> None:
        """An ASGI message that is not `websocket.send` on an open connection."""

    def disconnect(self, code: int, reason: str) -> None:
        """`types.Sink`: somebody wants the connection closed."""


class PipeWatch(Protocol):
    """A pipe's notices that something waits: for the app, for the peer, for the end. `watch.Watch` implements it."""

    def on_paused(self) -> None:
        """The socket is read no more until the app has read."""

    def on_handed(self) -> None:
        """The transport holds bytes that the kernel did not take."""

    async def drain_slowly(self) -> None:
        """Wait for room in the outbox."""

    async def yield_to_loop(self) -> None:
        """Let the loop turn once."""

    def on_writable(self, callback: Callable[[], None]) -> None:
        """Call back once, when the transport holds nothing any more or the connection is over."""

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call back once, when the connection is over."""

    def off_close(self, callback: Callable[[], None]) -> None:
        """Forget a callback given to `on_close`."""
