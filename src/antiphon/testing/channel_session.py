"""`ChannelSession`: a typed client of a channel for tests without `async`, on `TestClient`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, overload

from antiphon.clients.waiting import RemoteError
from antiphon.messages import Wire

from .correspondence import Correspondence, Message
from .expectation import Expectation, ReceiveTimeout

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")


class RawSession(Protocol):
    """The session below a typed one, which is a `WebSocketTestSession`."""

    def __enter__(self) -> Any: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def send_text(self, data: str) -> None: ...
    def send_bytes(self, data: bytes) -> None: ...
    def receive_payload(self, timeout: float | None = None) -> str | bytes: ...
    def close(self, code: int = 1000, reason: str | None = None) -> None: ...


class ChannelSession:
    """One client of a channel: `with client.channel("/rooms/7") as ann: ann.request(Say(text="hi"), int)`.

    As `antiphon.testing.ChannelPeer`, without `await`. Messages go out under their class's tag, or the `tag` given.
    Each wait ends after the `timeout` in seconds, the client's by default, with a `ReceiveTimeout`. An error of the
    channel is raised as `RemoteError`. `session` is the one below, `wire` the names of the keys.

        def test_an_answer(client: TestClient) -> None:
            with client.channel("/chat") as ann:
                assert ann.request(Say(text="hi"), int) == 2
    """

    __test__ = False

    def __init__(self, session: RawSession, wire: Wire, timeout: float) -> None:
        self.session: RawSession = session
        """The session below: raw messages, the end."""
        self._timeout = timeout
        self._mail = Correspondence(wire)

    def __enter__(self) -> Self:
        self.session.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.__exit__(kind, error, trace)

    def send(self, message: Message | bytes | None = None, *, tag: str | None = None) -> None:
        """Send a message that nobody has to answer. bytes are a binary message."""
        if isinstance(message, bytes):
            self.session.send_bytes(message)
        else:
            self.session.send_text(self._mail.event(message, tag))

    @overload
    def request(self, message: Message, *, tag: str | None = None, timeout: float | None = None) -> None: ...

    @overload
    def request(self, message: None = None, *, tag: str, timeout: float | None = None) -> None: ...

    @overload
    def request(
        self, message: Message | None, answer: TypeForm[T], *, tag: str | None = None, timeout: float | None = None
    ) -> T: ...

    def request(
        self, message: Any = None, answer: Any = None, *, tag: str | None = None, timeout: float | None = None
    ) -> Any:
        """Send a request and wait for its answer, a value of the type. Without a type, for its ack.

        Raises AssertionError for an ack in place of data, and the other way round.
        """
        ref, text = self._mail.question(message, tag)
        try:
            self.session.send_text(text)
            frame = self._until(lambda: self._mail.answer(ref), "an answer", timeout)
        finally:
            self._mail.forget(ref)
        return self._mail.data(frame, answer)

    def receive_as(self, kind: TypeForm[T], timeout: float | None = None) -> T:
        """The first event of the class, or of one of a union. Others stay for calls that ask for them."""
        (message,) = self._until(lambda: self._mail.found(kind), f"an event {kind}", timeout)
        return message

    def receive_until(
        self, wanted: str | Callable[[dict[str, Any]], object], timeout: float | None = None
    ) -> dict[str, Any]:
        """The first event that is wanted, as its JSON object. Others stay for calls that ask for them.

        `wanted`: its `type`, such as `"presence_diff"`, or a function of the object that says whether it is the one.
        """
        expectation = Expectation(wanted)
        return self._until(lambda: self._mail.event_for(expectation), str(expectation), timeout)

    def receive_error(self, timeout: float | None = None) -> RemoteError:
        """The first error that belongs to no request, returned."""
        return self._until(self._mail.error, "an error", timeout)

    def receive_bytes(self, timeout: float | None = None) -> bytes:
        """The first binary message."""
        binary = self._mail.binary
        return self._until(lambda: binary.popleft() if binary else None, "a binary message", timeout)

    @contextlib.contextmanager
    def stream(
        self, message: Message | None, item: TypeForm[T], *, tag: str | None = None, timeout: float | None = None
    ) -> Iterator[Iterator[T]]:
        """The items of a stream: `with ann.stream(Search(query="x"), Hit) as hits: for hit in hits: ...`.

        Leaving the block before the end cancels the stream, and waits until the application has ended it.
        """
        ref, text = self._mail.question(message, tag)
        try:
            self.session.send_text(text)
            items = _Items(self, ref, item, timeout)
            yield items
            if not items.over:
                self.session.send_text(self._mail.cancel(ref))
                for _ in items.frames():
                    pass
        finally:
            self._mail.forget(ref)

    def _until(self, found: Callable[[], T | None], what: str, timeout: float | None) -> T:
        limit = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        while (value := found()) is None:
            try:
                self._mail.take(self.session.receive_payload(max(deadline - time.monotonic(), 0.0)))
            except ReceiveTimeout:
                raise ReceiveTimeout(f"{what} did not come within {limit:g} s; {self._mail.what_came()}") from None
        return value


class _Items:
    """The items of one stream of a session, as they come."""

    def __init__(self, session: ChannelSession, ref: int, kind: Any, timeout: float | None) -> None:
        self._session = session
        self._ref = ref
        self._kind = kind
        self._timeout = timeout
        self.over = False

    def frames(self) -> Iterator[dict[str, Any]]:
        mail = self._session._mail
        while not self.over:
            try:
                frame = self._session._until(lambda: mail.answer(self._ref), "an item", self._timeout)
            except RemoteError:
                self.over = True
                raise
            if frame[mail.wire.tag] == "end":
                self.over = True
            else:
                yield frame

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        for frame in self.frames():
            return self._session._mail.data(frame, self._kind, streamed=True)
        raise StopIteration
