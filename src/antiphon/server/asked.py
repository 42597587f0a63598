"""What a pipe asks of those around it: its engine (`Shared`), its connection (`PipeOwner`), and who has the deadlines
(`PipeWatch`). It tells the last two while its connection is not over.
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
    """What the pipes of one server share; `engine.Engine` is it."""

    @property
    def config(self) -> ServerConfig: ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def flusher(self) -> Flusher: ...

    @property
    def turns(self) -> Turns: ...


class PipeOwner(Protocol):
    """What a pipe tells its connection, while that is not over; `session.Session` is one."""

    def on_early_data(self, data: bytes) -> None:
        """Bytes came while the connection is not open."""

    def on_control(self, event: Ping | Close) -> None:
        """A control frame came."""

    def on_finished(self) -> None:
        """What the peer said before its end (`finish_later`) has been parsed."""

    def drop_if_gone(self) -> bool:
        """Many wait for a turn, and it is this one's. Whether the connection was ended because its peer is gone."""

    def on_violation(self, error: ProtocolError) -> None:
        """The peer broke the protocol. The reader has been woken for what came before."""

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
    """Whom a pipe tells that somebody waits: for the app, for the peer, for the end; `watch.Watch` is one."""

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
