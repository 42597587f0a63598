"""Applications whose documents are judged: the chat of the documentation, and one with every hard case."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NotRequired, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, computed_field
from typing_extensions import TypedDict

from antiphon import (
    App,
    Cookie,
    Depends,
    Framing,
    Header,
    Hub,
    Path,
    Position,
    Query,
    Security,
    Topic,
    Topics,
    WebSocket,
)
from antiphon.messages import Caller, ChannelOptions, MessageError, MessageRouter, Wire
from antiphon.security import APIKeyCookie, APIKeyQuery, HTTPBearer, OAuth2PasswordBearer

T = TypeVar("T")


class Say(BaseModel):
    """Say something to everybody in the room."""

    text: Annotated[str, Field(min_length=1, max_length=500)]


class Search(BaseModel):
    query: str
    limit: int = 10


class Said(BaseModel):
    number: int
    name: str
    text: str


class Typing(BaseModel):
    name: str


class Hit(BaseModel):
    text: str
    score: float


class Muted(MessageError):
    """You may not write in this room for now."""

    seconds: int


def rooms_of(framing: Framing) -> Topics[Said | Typing]:
    """The rooms of the chat."""
    return Topics("room/{room}", Said | Typing, history=100, presence=True, framing=framing)


def chat(framing: Framing = Framing.RAW) -> App:
    """The chat room of the documentation."""
    rooms = rooms_of(framing)
    app = App(hub=Hub("memory://", topics=[rooms]), title="Chat", version="1.2.3")

    @app.channel("/rooms/{room}")
    async def chat(
        websocket: WebSocket,
        name: str,
        room: Topic[Said | Typing] = Depends(rooms),
        since: Position | None = None,
    ) -> AsyncIterator[None]:
        """One room of the chat.

        With its history.
        """
        await websocket.accept()
        async with room.join(websocket, since=since, history=20, presence=name):
            yield

    @chat.on(errors=[Muted])
    async def say(message: Say, name: str, room: Topic[Said | Typing] = Depends(rooms)) -> int:
        """The answer is the number of the message."""
        if message.text == "shout":
            raise Muted(seconds=30)
        await room.publish(Said(number=1, name=name, text=message.text))
        return 1

    @chat.on
    async def search(message: Search) -> AsyncIterator[Hit]:
        yield Hit(text=message.query, score=0.5)

    @chat.on("typing", deprecated=True)
    async def typing(caller: Caller[Typing], name: str, room: Topic[Said | Typing] = Depends(rooms)) -> None:
        await room.publish(Typing(name=name), exclude=caller.websocket)

    return app


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Node(BaseModel):
    name: str
    children: list[Node] = []


class Page(BaseModel, Generic[T]):
    type: Literal["page"] = "page"
    items: list[T]
    next: Page[T] | None = None


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"a": 5}]})
    a: Annotated[int, Field(ge=5, multiple_of=5)]


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float


class Square(BaseModel):
    kind: Literal["square"]
    side: float


@dataclass
class Point:
    x: int
    y: int = 0
    tags: set[str] = field(default_factory=set)


class Left(TypedDict):
    type: Literal["left"]
    name: str
    why: NotRequired[str]


class Everything(BaseModel):
    """Every kind of field."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    identity: UUID
    at: datetime
    day: date
    clock: time
    long: timedelta
    price: Decimal
    color: Color
    pair: tuple[int, str]
    many: tuple[int, ...] = ()
    names: frozenset[str] = frozenset()
    by_color: dict[Color, int] = {}
    by_number: dict[int, Node] = {}
    shape: Annotated[Circle | Square, Field(discriminator="kind")]
    maybe: str | None = None
    node: Annotated[Node, Field(description="A tree.")]
    any: Any = None
    user_name: str = Field(default="ann", alias="userName", title="Name", examples=["bob"])
    blob: Annotated[bytes, Field(json_schema_extra={"contentEncoding": "base64"})] = b""
    pattern: Annotated[str, Field(pattern="^a+$")] = "a"
    old: Annotated[int, Field(deprecated=True)] = 0

    @computed_field
    def twice(self) -> int:
        return 2


class Outer:
    class Say(BaseModel):
        """Another class of that name."""

        type: Literal["say_again"] = "say_again"
        times: int


class State(BaseModel):
    type: Literal["state"] = "state"
    at: datetime | None = None


class Filter(BaseModel):
    min_price: Annotated[int, Field(ge=0)] = 0
    tags: list[str] = []


bearer = HTTPBearer(description="A token.")
key = APIKeyQuery(name="key")
session = APIKeyCookie(name="session")
oauth = OAuth2PasswordBearer(tokenUrl="token", scopes={"rooms": "Enter rooms"})


news = Topics("news", Said | Left, framing=Framing.EVENT, history=5)


def torture() -> App:
    """Every hard case in one application."""
    app = App(hub=Hub("memory://", topics=[news]), title="Torture", description="All of it.")

    @app.channel("/t/{room}/{number:int}/{rest:path}", sends=Everything | Page[Node], dependencies=[Depends(bearer)])
    async def torture(
        websocket: WebSocket,
        room: Annotated[Color, Path(description="Which.")],
        number: int,
        filters: Annotated[Filter, Query()],
        topic: Annotated[Topic[Said | Left], Depends(news)],
        x_client: Annotated[str, Header()],
        tracking: Annotated[str | None, Cookie()] = None,
        since: Position | None = None,
        hidden: Annotated[str, Query(include_in_schema=False)] = "",
    ) -> AsyncIterator[None]:
        async with topic.join(websocket, since=since):
            yield

    @torture.on
    async def everything(message: Everything) -> Everything:
        return message

    @torture.on
    async def strict(message: Strict | Point) -> None: ...

    @torture.on
    async def again(message: Outer.Say) -> dict[str, list[Node]]:
        return {}

    @torture.on
    async def say(message: Say) -> Page[Node]:
        return Page(items=[])

    @torture.on
    async def left(message: Left) -> tuple[int, str] | None:
        return None

    @torture.on_bytes
    async def data(data: bytes) -> None:
        """A picture."""

    @torture.fallback
    async def other(message: dict[str, Any]) -> None: ...

    group = MessageRouter(prefix="doc.")

    @group.on(errors=[Muted])
    async def edit(message: Strict) -> AsyncIterator[Circle | Square]:
        yield Circle(kind="circle", radius=1)

    torture.include(group)

    nested = ChannelOptions(wire=Wire(tag="action", ref="id", content="payload"))

    @app.channel("/nested", options=nested, sends=State, dependencies=[Depends(oauth)])
    async def nested_channel(websocket: WebSocket) -> None: ...

    @nested_channel.on(errors=[Muted])
    async def strictly(message: Strict) -> int:
        return 1

    @nested_channel.on("nothing")
    async def nothing() -> None: ...

    @app.websocket("/game", receives=Circle | Square | Outer.Say | State, sends=State | list[int])
    async def game(websocket: WebSocket, user: Annotated[str, Security(oauth, scopes=["rooms"])]) -> None:
        """A game."""

    @app.websocket("/echo/{name}", receives=Node, sends=Node, dependencies=[Depends(key), Depends(session)])
    async def echo(websocket: WebSocket, name: str) -> None: ...

    @app.websocket("/feed")
    async def feed(websocket: WebSocket, topic: Annotated[Topic[Said | Left], Depends(news)]) -> None: ...

    @app.websocket("/silent")
    async def silent(websocket: WebSocket) -> None: ...

    return app
