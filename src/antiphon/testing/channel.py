"""`ChannelPeer`: a typed client of a channel, on the real engine in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, overload

from antiphon.messages import Wire

from .correspondence import Correspondence, Message
from .expectation import Expectation, ReceiveTimeout

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")


class RawPeer(Protocol):
    """The client below a typed one, which is a `Peer`: raw messages, the end, bad manners."""

    async def __aenter__(self) -> Any: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    async def send(self, message: str | bytes) -> None: ...
    async def receive(self, timeout: float | None = None) -> str | bytes: ...
    async def close(self, code: int = 1000, reason: str = "") -> None: ...
    async def wait_closed(self, timeout: float | None = None) -> int: ...
    def drop(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    @property
    def close_code(self) -> int | None: ...
    @property
    def close_reason(self) -> str: ...


class ChannelPeer:
    """One client of a channel: `async with server.channel("/rooms/7") as ann: await ann.request(Say(text="hi"), int)`.

    Messages go out under their class's tag, or the `tag` given. Several tasks may ask at once. Each wait ends after
    the `timeout` in seconds, the peer's by default, with a `ReceiveTimeout` that shows the messages that came instead.
    An error of the channel is raised as `RemoteError`, the end of the connection as `ConnectionEnded`. `wire`: the
    names of the keys.

        async def test_an_answer(server: Server) -> None:
            async with server.channel("/chat") as ann:
                assert await ann.request(Say(text="hi"), int) == 2
    """

    def __init__(self, peer: RawPeer, wire: Wire, timeout: float) -> None:
        self.peer: RawPeer = peer
        """The client below: raw messages, the close code, bad manners."""
        self._timeout = timeout
        self._mail = Correspondence(wire)
        self._reading = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.peer.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.peer.__aexit__(kind, error, trace)

    async def send(self, message: Message | bytes | None = None, *, tag: str | None = None) -> None:
        """Send a message that nobody has to answer. bytes are a binary message."""
        await self.peer.send(message if isinstance(message, bytes) else self._mail.event(message, tag))

    @overload
    async def request(self, message: Message, *, tag: str | None = None, timeout: float | None = None) -> None: ...

    @overload
    async def request(self, message: None = None, *, tag: str, timeout: float | None = None) -> None: ...

    @overload
    async def request(
        self, message: Message | None, answer: TypeForm[T], *, tag: str | None = None, timeout: float | None = None
    ) -> T: ...

    async def request(
        self, message: Any = None, answer: Any = None, *, tag: str | None = None, timeout: float | None = None
    ) -> Any:
        """Send a request and wait for its answer, a value of the type. Without a type, for its ack.

        Raises AssertionError for an ack in place of data, and the other way round.
        """
        ref, text = self._mail.question(message, tag)
        try:
            await self.peer.send(text)
            frame = await self._until(lambda: self._mail.answer(ref), "an answer", timeout)
        finally:
            self._mail.forget(ref)
        return self._mail.data(frame, answer)

    async def receive_as(self, kind: TypeForm[T], timeout: float | None = None) -> T:
        """The first event of the class, or of one of a union. Others stay for calls that ask for them."""
        (message,) = await self._until(lambda: self._mail.found(kind), f"an event {kind}", timeout)
        return message

    async def receive_until(
        self, wanted: str | Callable[[dict[str, Any]], object], timeout: float | None = None
    ) -> dict[str, Any]:
        """The first event that is wanted, as its JSON object. Others stay for calls that ask for them.

        `wanted`: its `type`, such as `"presence_diff"`, or a function of the object that says whether it is the one.
        """
        expectation = Expectation(wanted)
        return await self._until(lambda: self._mail.event_for(expectation), str(expectation), timeout)

    async def receive_error(self, timeout: float | None = None) -> Any:
        """The first error that belongs to no request, returned as a `RemoteError`."""
        return await self._until(self._mail.error, "an error", timeout)

    async def receive_bytes(self, timeout: float | None = None) -> bytes:
        """The first binary message."""
        binary = self._mail.binary
        return await self._until(lambda: binary.popleft() if binary else None, "a binary message", timeout)

    @asynccontextmanager
    async def stream(
        self, message: Message | None, item: TypeForm[T], *, tag: str | None = None, timeout: float | None = None
    ) -> AsyncIterator[AsyncIterator[T]]:
        """The items of a stream: `async with ann.stream(Search(query="x"), Hit) as hits: async for hit in hits: ...`.

        Leaving the block before the end cancels the stream, and waits until the server has ended it.
        """
        ref, text = self._mail.question(message, tag)
        over = False

        async def items() -> AsyncIterator[T]:
            nonlocal over
            while not over:
                try:
                    frame = await self._until(lambda: self._mail.answer(ref), "an item", timeout)
                except ReceiveTimeout:
                    raise
                except Exception:
                    over = True
                    raise
                if frame[self._mail.wire.tag] == "end":
                    over = True
                else:
                    yield self._mail.data(frame, item, streamed=True)

        try:
            await self.peer.send(text)
            yield items()
            if not over:
                await self.peer.send(self._mail.cancel(ref))
                while (await self._until(lambda: self._mail.answer(ref), "the end", timeout))[
                    self._mail.wire.tag
                ] != "end":
                    pass
        finally:
            self._mail.forget(ref)

    async def _until(self, found: Callable[[], T | None], what: str, timeout: float | None) -> T:
        """Read until that is found. One task reads at a time, for all."""
        limit = self._timeout if timeout is None else timeout
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    async with self._reading:
                        if (value := found()) is not None:
                            return value
                        self._mail.take(await self.peer.receive(limit + 1.0))
        except ReceiveTimeout:
            raise
        except TimeoutError:
            raise ReceiveTimeout(f"{what} did not come within {limit:g} s; {self._mail.what_came()}") from None
