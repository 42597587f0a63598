"""The application that generated clients are tried on for their types: every kind of field, both ways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field, PlainSerializer, WithJsonSchema, computed_field
from typing_extensions import TypeAliasType

from antiphon import App, Caller, ChannelOptions, MessageError

T = TypeVar("T")
BigInt = Annotated[int, PlainSerializer(str), WithJsonSchema({"type": "string", "pattern": "^-?[0-9]+$"})]
"""The recipe of docs/clients.md."""


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Node(BaseModel):
    name: str
    children: list[Node] = []


class Pair(BaseModel, Generic[T]):
    left: T
    right: list[T] | None = None


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float


class Square(BaseModel):
    kind: Literal["square"]
    side: float


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    name: str


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    friends: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
Tree = TypeAliasType("Tree", "dict[str, Tree] | list[Tree] | str | int | None")


@dataclass
class Point:
    x: int
    y: int = 0


class Everything(BaseModel):
    """Every kind of field."""

    identity: UUID
    at: datetime
    day: date
    clock: time
    long: timedelta
    price: Decimal
    big: BigInt
    count: int
    ratio: float
    yes: bool
    nothing: None = None
    color: Color
    level: Level
    pair: tuple[int, str]
    many: tuple[int, ...] = ()
    names: frozenset[str] = frozenset()
    by_color: dict[Color, int] = {}
    by_number: dict[int, Node] = {}
    shape: Annotated[Circle | Square, Field(discriminator="kind")]
    loose: int | str | list[int] = 0
    maybe: str | None = None
    node: Node
    nested: Pair[Pair[Point]]
    user_name: str = Field(default="ann", alias="userName")
    class_: str = Field(default="x", alias="class")
    bigger: BigInt = 2**60
    by_level: dict[Level, str] = {}
    pet: Pet = Dog()
    pets: Pair[Pet] | None = None
    tree: Tree = None
    trees: list[dict[str, Tree]] = []
    blob: Annotated[bytes, Field(json_schema_extra={"contentEncoding": "base64"})] = b""

    model_config = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}

    @computed_field
    def twice(self) -> int:
        return 2 * self.count


class Seen(Everything):
    """The same as an event."""


class Wrong(MessageError):
    node: Node
    color: Color


class Fail(BaseModel):
    name: str


class Repeat(BaseModel):
    everything: Everything
    times: int


app = App(title="Torture", channel_options=ChannelOptions(heartbeat=1))
torture = app.add_channel("/torture/{room:int}")


@torture.on
async def everything(message: Everything, caller: Caller[Seen], room: int) -> Everything:
    await caller.send(Seen.model_validate(message.model_dump(by_alias=True)))
    return message


@torture.on
async def repeat(message: Repeat) -> AsyncIterator[Everything]:
    for _ in range(message.times):
        yield message.everything


@torture.on(errors=[Wrong])
async def fail(message: Fail) -> None:
    raise Wrong(node=Node(name=message.name, children=[Node(name="leaf")]), color=Color.BLUE)


@torture.on
async def either(message: Circle | Square) -> Circle | Square | None:
    return message if isinstance(message, Circle) else None
