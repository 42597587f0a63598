"""Typed topics: `Topics`, which declares a pattern and the messages of its topics, and `Topic`, one of them.

All messages pass through the hub, which knows the declaration as options of the topic. Knows nothing of dependencies:
they see a callable with a signature.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Generic, TypedDict, TypeVar, Unpack

from pydantic import BeforeValidator

from antiphon.tagged import MessageSet
from antiphon.types import Overflow, SupportsSink

from .errors import HubError
from .hub import Hub
from .membership import Membership, Subscription
from .message import History
from .pattern import RESERVED, TopicPattern
from .records import Position
from .topics import DeclaredTopics, Framing, TypedOptions

if TYPE_CHECKING:
    from typing_extensions import TypeForm

M = TypeVar("M")

_EVENTS: Final = frozenset({"presence_diff", "resync"})
"""The events on a socket that joined a topic with `Framing.RAW`, where they stand beside the messages."""


class TopicKeywords(TypedDict, total=False):
    """The fields of `TopicOptions`, as `Topics` takes them."""

    history: int
    ttl: float
    presence: bool | None
    presence_grace: float
    overflow: Overflow
    outbox_bytes: int
    conflate_by: str | Callable[[Any], object] | None
    framing: Framing


def _signature(pattern: TopicPattern) -> inspect.Signature:
    wanted = (*((name, _Text) for name in pattern.placeholders), (RESERVED, Hub))
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature([inspect.Parameter(name, kind, annotation=annotation) for name, annotation in wanted])


class Topics(DeclaredTopics, Generic[M]):
    """Topics that carry messages of declared types.

        rooms = Topics("room/{room}", Said | Typing, history=100, presence=True)
        app = App(hub=Hub(topics=[rooms]))

    `rooms(room="7")` is one of them. As a dependency, `room: Annotated[Topic[Said | Typing], Depends(rooms)]`, it takes
    `room` from the path or the query as any parameter. A placeholder takes no `/`.
    """

    in_line: ClassVar[bool] = True
    """For dependencies: to call it never waits."""

    def __init__(self, pattern: str, messages: TypeForm[M], /, **options: Unpack[TopicKeywords]) -> None:
        """`pattern`: the name, with placeholders in braces. `messages`: a model, dataclass or TypedDict, or a union of
        them. `options`: those of `TopicOptions`.

        Raises RegistrationError for a bad pattern and for messages that cannot be told apart. TypeError and ValueError
        as `TopicOptions`.
        """
        where = f"Topics({pattern!r})"
        name = TopicPattern(pattern)
        reserved = frozenset() if options.get("framing") is Framing.EVENT else _EVENTS
        self.messages: MessageSet[M] = MessageSet(messages, where, reserved)
        super().__init__(name, TypedOptions(messages=self.messages, **options))
        self.__signature__: inspect.Signature = _signature(name)
        """The arguments from dependency injection: its placeholders, as text, and the hub."""
        self._hubs: list[weakref.ref[Hub]] = []

    def __call__(self, *, hub: Hub | None = None, **values: object) -> Topic[M]:
        """The topic with these values in its placeholders. `hub`: where there are several that declare it, else the one
        that was made last.

        Raises `InvalidTopic` for a value that is empty or holds a `/`, TypeError for too few or too many, HubError when
        no hub declares it.
        """
        name = self.pattern.fill(values)
        hub = self._hub() if hub is None else hub
        if hub.messages_of(name) is not self.messages:
            raise self._undeclared()
        return Topic(hub, name, self)

    def bind(self, hub: Hub) -> None:
        """A hub was made with them."""
        self._hubs = [known for known in self._hubs if known() is not None]
        self._hubs.append(weakref.ref(hub))

    def __repr__(self) -> str:
        return f"Topics({self.pattern.text!r}, {self.messages.names})"

    def _hub(self) -> Hub:
        for known in reversed(self._hubs):
            if (hub := known()) is not None:
                return hub
        raise self._undeclared()

    def _undeclared(self) -> HubError:
        return HubError(f"no hub has declared Topics({self.pattern.text!r}): Hub(topics=[...]) takes it")


_Text = Annotated[str, BeforeValidator(str)]
"""Also from a value that a path converter made, as in `/rooms/{room:int}`."""


class Topic(Generic[M]):
    """One topic of `Topics`: the hub's calls, with messages of its type. `rooms(room="7")` makes it.

        Room = Annotated[Topic[Said | Typing], Depends(rooms)]

        @app.websocket("/rooms/{room}")
        async def enter(websocket: WebSocket, room: Room) -> None:
            await websocket.accept()
            async with room.join(websocket, history=20):
                await room.publish(Said(name="ann", text="hi"))

    `hub` carries it, `name` is its name there (`room/7`), `topics` declares its messages.
    """

    __slots__ = ("hub", "name", "topics")

    def __init__(self, hub: Hub, name: str, topics: Topics[M]) -> None:
        self.hub: Hub = hub
        self.name: str = name
        self.topics: Topics[M] = topics

    def __repr__(self) -> str:
        return f"Topic({self.name!r}, {self.topics.messages.names})"

    def publish(self, message: M, *, exclude: SupportsSink | None = None) -> Coroutine[Any, Any, Position | None]:
        """Send a message to all who joined, as its declared class writes it, with its tag (a coroutine).

        Returns and raises as `hub.publish`. `UndeclaredMessage` for a message of another type.
        """
        return self.hub.publish(self.name, message, exclude=exclude)

    def join(
        self,
        websocket: SupportsSink,
        *,
        since: Position | None = None,
        history: int = 0,
        presence: object = None,
        user: str | int | None = None,
    ) -> Membership:
        """`async with`: published messages reach the socket until the block or the socket ends. As `hub.join`.

        Raises `UndeclaredTopic` in a channel that does not declare these messages.
        """
        return self.hub.join(self.name, websocket, since=since, history=history, presence=presence, user=user)

    def subscribe(self, *, since: Position | None = None, history: int = 0) -> Subscription[M | None]:
        """The same without a socket: `async with room.subscribe() as messages: async for message in messages`.

        `message.data` is a message of the topic, or None after trouble that lost some: load the state again. As
        `hub.subscribe`.
        """
        return self.hub.subscribe(self.name, since=since, history=history)

    async def history(self, since: Position | None = None, limit: int | None = None) -> History[M]:
        """The messages that are kept, oldest first. Messages that do not fit the declared type are left out, with a
        line in the log. As `hub.history`."""
        return await self.hub.history(self.name, since, limit)

    async def presence(self) -> dict[str, list[Any]]:
        """The members, with the `presence` of each of their connections. As `hub.presence`."""
        return await self.hub.presence(self.name)

    async def presence_count(self) -> int:
        """How many members there are: users, not connections. As `hub.presence_count`."""
        return await self.hub.presence_count(self.name)
