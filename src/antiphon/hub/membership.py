"""A receiver's stay in a topic, as its owner sees it: `Membership` for sockets, `Subscription` for code."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Generic, NamedTuple, Protocol, Self, TypeVar

from starlette.websockets import WebSocketState

from antiphon.exceptions import NotAccepted, WebSocketDisconnected
from antiphon.types import Sink

from .arguments import OnlyAsyncWith
from .delivery import LocalReceiver
from .errors import SlowSubscriber
from .loops import in_loop
from .message import D_co, Message, MessageKind
from .records import Position, Track
from .subscription import QueueSink
from .topics import TopicOptions

T = TypeVar("T")


class JoinRequest(NamedTuple):
    """The arguments of a join."""

    since: Position | None
    history: int
    track: Track | None
    """Its presence. None: it is not among the members."""
    watch: bool
    """It wants to be told about presence."""

    @property
    def wants_page(self) -> bool:
        return self.since is not None or self.history > 0

    @property
    def plain(self) -> bool:
        """Only messages published from now on."""
        return self == PLAIN


PLAIN: Final = JoinRequest(None, 0, None, False)


class Entrance(Protocol):
    """How receivers come and go, in the loop of their sink. `joining.Joining` implements it."""

    async def enter(self, membership: Membership, receiver: LocalReceiver, request: JoinRequest) -> None: ...
    async def leave(self, membership: Membership, receiver: LocalReceiver, request: JoinRequest) -> None: ...
    def died(self, membership: Membership, receiver: LocalReceiver, request: JoinRequest) -> None: ...


class Membership(OnlyAsyncWith):
    """A connection in a topic: everything published to the topic reaches it, from joining to leaving.

    Made by `hub.join(...)`. Use it as `async with`. The block's end leaves, and so does the end of the connection,
    whichever is first.

        async with hub.join("news", websocket, history=20) as membership:
            print(membership.position, membership.recovered)
            await websocket.wait_closed()
    """

    __slots__ = (
        "_entered",
        "_entrance",
        "_receiver",
        "_request",
        "_websocket",
        "options",
        "position",
        "recovered",
        "topic",
    )

    def __init__(
        self,
        entrance: Entrance,
        topic: str,
        options: TopicOptions,
        receiver: LocalReceiver,
        request: JoinRequest,
        websocket: object = None,
    ) -> None:
        self._entered = False
        self._entrance = entrance
        self._websocket = websocket
        self._receiver = receiver
        self._request = request
        self.options: TopicOptions = options
        self.topic: str = topic
        self.position: Position | None = None
        """The receiver's position after the messages it got on joining. None for topics without history."""
        self.recovered: bool = False
        """`since` was given, and everything published behind it was delivered."""

    @property
    def active(self) -> bool:
        """Between joining and leaving."""
        return self._receiver.local is not None

    @property
    def dropped(self) -> int:
        """Messages of this topic that the overflow policy lost for this connection."""
        return self._receiver.dropped

    @property
    def user(self) -> str | None:
        """The user of this connection, for `close_connections` and among the members."""
        return self._receiver.user

    async def __aenter__(self) -> Self:
        self._entered = True
        sink = self._receiver.sink
        if getattr(self._websocket, "application_state", None) is WebSocketState.CONNECTING:
            raise NotAccepted(f"expected an accepted WebSocket to join topic {self.topic!r}: call accept() first")
        if not sink.alive:
            if (life := getattr(self._websocket, "life", None)) is not None:
                await life.used_in_vain(getattr(self._websocket, "scope", {}))
            raise _closed(sink, self.topic)
        if self.active:
            raise RuntimeError(f"this membership of topic {self.topic!r} was entered already; join once more")
        await in_loop(sink.loop, self._entrance.enter(self, self._receiver, self._request))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.leave()

    async def leave(self) -> None:
        """Nothing published from now on reaches the connection through this membership. Safe to call again."""
        if self.active:
            loop = self._receiver.sink.loop
            await in_loop(loop, self._entrance.leave(self, self._receiver, self._request))

    def died(self) -> None:
        """The sink's `on_close` callback."""
        self._entrance.died(self, self._receiver, self._request)


class Subscription(Membership, Generic[D_co]):
    """The messages of a topic as an async iterator, for code without a socket.

    The iteration ends when the block or the hub does. Raises `SlowSubscriber` when the loop falls behind by more than
    `outbox_bytes` under `Overflow.DISCONNECT`.

        async with hub.subscribe("news", history=20) as messages:
            async for message in messages:
                print(message.data)
    """

    __slots__ = ("_queue",)

    def __init__(
        self,
        entrance: Entrance,
        topic: str,
        options: TopicOptions,
        receiver: LocalReceiver,
        request: JoinRequest,
        queue: QueueSink,
    ) -> None:
        super().__init__(entrance, topic, options, receiver, request)
        self._queue = queue

    def __aiter__(self) -> Self:
        if not self.active and self._queue.alive:
            self._entered = True  # told here
            raise RuntimeError(f"iterate inside of `async with hub.subscribe({self.topic!r}) as messages:`")
        return self

    async def __anext__(self) -> Message[D_co]:
        while True:
            parcel = await self._queue.get()
            if parcel is None:
                raise StopAsyncIteration
            if parcel.kind is not MessageKind.JOINED:
                message = parcel.message(self.options.messages)
                if message is not None:
                    return message

    async def leave(self) -> None:
        """Receive nothing that is published from now on, and end the iteration. Safe to call again."""
        await super().leave()
        self._queue.disconnect(1000, "")


def _closed(sink: Sink, topic: str) -> Exception:
    if isinstance(sink, QueueSink):
        return SlowSubscriber(f"the subscription of topic {topic!r} has ended")
    code = getattr(sink, "close_code", None)
    reason = getattr(sink, "close_reason", None)
    return WebSocketDisconnected(
        f"expected an open connection to join topic {topic!r}; it is closed",
        code=1006 if code is None else code,
        reason=reason,
    )
