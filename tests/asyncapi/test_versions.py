"""Two versions of one program: what breaks the clients of the first is found, and the way back is judged too."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model

from antiphon import (
    App,
    Caller,
    ChannelOptions,
    Cookie,
    Depends,
    Framing,
    Hub,
    Position,
    Topic,
    Topics,
    WebSocket,
    Wire,
)
from antiphon.asyncapi.changes import breaking_changes
from antiphon.asyncapi.serving import document_of


class Inner(BaseModel):
    deep: int


class Deeper(BaseModel):
    deep: int
    more: int


class Cat(BaseModel):
    pet: Literal["cat"]


class Dog(BaseModel):
    pet: Literal["dog"]


class Tree(BaseModel):
    value: int
    children: list[Tree] = []


class Bush(BaseModel):
    value: str
    children: list[Bush] = []


class Bytes(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


class Text(BaseModel):
    data: str


def content(app: App) -> Any:
    return json.loads(json.dumps(document_of(app).content()))


def program(incoming: Any = int, outgoing: Any = int, parameter: Any = str, cookie: Any = str) -> Any:
    """The document of a program whose only field, each way, is of this type."""
    order = create_model("Order", field=incoming)
    placed = create_model("Placed", field=outgoing)
    app = App()

    async def connect(websocket: WebSocket, number: Any, session: Any) -> AsyncIterator[None]:
        yield

    connect.__annotations__ |= {"number": parameter, "session": Annotated[cookie, Cookie()]}
    shop = app.channel("/shop")(connect)

    async def handle(message: Any, caller: Any) -> None: ...

    handle.__annotations__ |= {"message": order, "caller": Caller[placed]}  # type: ignore[valid-type]
    shop.on(handle)
    return content(app)


Ranged = Annotated[int, Field(ge=1, le=100)]
BREAKS, FITS = True, False
INCOMING: dict[str, tuple[Any, Any, bool, bool]] = {
    # before, after, whether that breaks clients, whether the way back does
    "an excluded bound": (Annotated[float, Field(ge=1)], Annotated[float, Field(gt=1)], BREAKS, FITS),
    "the same bound of integers": (Annotated[int, Field(ge=1)], Annotated[int, Field(gt=0)], FITS, FITS),
    "a higher minimum": (Ranged, Annotated[int, Field(ge=5, le=100)], BREAKS, FITS),
    "a lower maximum": (Ranged, Annotated[int, Field(ge=1, le=99)], BREAKS, FITS),
    "a maximum": (Annotated[int, Field(ge=1)], Ranged, BREAKS, FITS),
    "coarser steps": (Annotated[int, Field(multiple_of=2)], Annotated[int, Field(multiple_of=4)], BREAKS, FITS),
    "a pattern": (str, Annotated[str, Field(pattern="^a")], BREAKS, FITS),
    "a longer minimum": (str, Annotated[str, Field(min_length=1)], BREAKS, FITS),
    "null": (int | None, int, BREAKS, FITS),
    "a default": (int, (int, 5), FITS, BREAKS),
    "another default": ((int, 5), (int, 6), FITS, FITS),
    "whole numbers": (float, int, BREAKS, FITS),
    "a value fewer": (Literal["a", "b"], Literal["a"], BREAKS, FITS),
    "a class fewer": (Annotated[Cat | Dog, Field(discriminator="pet")], Cat, BREAKS, FITS),
    "the order of a union": (int | str, str | int, FITS, FITS),
    "a nested field": (Inner, Deeper, BREAKS, FITS),
    "the field of a tree": (Tree, Bush, BREAKS, BREAKS),
    "text for a time": (datetime, str, FITS, BREAKS),
    "a shorter list": (list[int], Annotated[list[int], Field(max_length=3)], BREAKS, FITS),
    "a set": (list[int], set[int], BREAKS, FITS),
    "another item": (list[int], list[str], BREAKS, BREAKS),
    "a longer tuple": (tuple[int, str], tuple[int, str, str], BREAKS, BREAKS),
    "a title": (int, Annotated[int, Field(title="New", description="New", examples=[1])], FITS, FITS),
}
OUTGOING: dict[str, tuple[Any, Any, bool, bool]] = {
    "a wider range": (Annotated[int, Field(ge=5, le=50)], Ranged, BREAKS, FITS),
    "no range": (Ranged, int, BREAKS, FITS),
    "an excluded bound that is taken": (Annotated[float, Field(lt=1)], Annotated[float, Field(le=1)], BREAKS, FITS),
    "longer texts": (Annotated[str, Field(max_length=5)], Annotated[str, Field(max_length=9)], BREAKS, FITS),
    "no pattern": (Annotated[str, Field(pattern="^a")], str, BREAKS, FITS),
    "null": (int, int | None, BREAKS, FITS),
    "a default": (int, (int, 5), FITS, FITS),
    "parts": (int, float, BREAKS, FITS),
    "a value more": (Literal["a"], Literal["a", "b"], BREAKS, FITS),
    "a class more": (Cat, Annotated[Cat | Dog, Field(discriminator="pet")], BREAKS, FITS),
    "a nested field fewer": (Deeper, Inner, BREAKS, FITS),
    "text for a time": (datetime, str, BREAKS, FITS),
    "bytes for text": (Text, Bytes, BREAKS, BREAKS),
    "a list for a set": (set[int], list[int], BREAKS, FITS),
    "anything": (int, Any, BREAKS, FITS),
    "the field of a tree": (Tree, Bush, BREAKS, BREAKS),
}
WRITTEN: dict[str, tuple[Any, Any, bool, bool]] = {
    "text for a number": (int, str, FITS, BREAKS),
    "text of a form for a number": (int, Annotated[str, Field(pattern="^a")], BREAKS, BREAKS),
    "a bound": (int, Annotated[int, Field(le=5)], BREAKS, FITS),
    "a value fewer": (Literal["a", "b"], Literal["a"], BREAKS, FITS),
}


def judged(old: Any, new: Any) -> tuple[bool, bool]:
    return bool(breaking_changes(old, new)), bool(breaking_changes(new, old))


@pytest.mark.parametrize("name", INCOMING)
def test_what_clients_send_must_still_be_taken(name: str) -> None:
    before, after, *expected = INCOMING[name]
    assert judged(program(incoming=before), program(incoming=after)) == tuple(expected)


@pytest.mark.parametrize("name", OUTGOING)
def test_what_clients_get_must_still_be_what_they_know(name: str) -> None:
    before, after, *expected = OUTGOING[name]
    assert judged(program(outgoing=before), program(outgoing=after)) == tuple(expected)


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("place", ["parameter", "cookie"])
def test_what_clients_write_in_the_handshake_is_text(name: str, place: str) -> None:
    before, after, *expected = WRITTEN[name]
    assert judged(program(**{place: before}), program(**{place: after})) == tuple(expected)


class Row(BaseModel):
    number: int


class Gone(BaseModel):
    reason: str


def sending(messages: Any, sends: Any = None, *, resumes: bool = True, wire: Wire | None = None) -> Any:
    rows = Topics("rows/{table}", messages, history=10, framing=Framing.EVENT)
    app = App(hub=Hub(topics=[rows]))
    options = ChannelOptions() if wire is None else ChannelOptions(wire=wire)

    async def connect(websocket: WebSocket, topic: Any, since: Position | None = None) -> AsyncIterator[None]:
        yield

    async def begin(websocket: WebSocket, topic: Any) -> AsyncIterator[None]:
        yield

    function = connect if resumes else begin
    function.__name__ = "connect"
    function.__annotations__["topic"] = Annotated[Topic[messages], Depends(rows)]
    app.channel("/{table}", sends=sends, options=options)(function)
    return content(app)


def test_a_message_that_is_sent_on_its_own_and_in_a_topic_is_two() -> None:
    both = sending(Row | Gone, Row)
    assert judged(both, both) == (False, False)
    assert judged(sending(Gone, Row), both) == (False, True)
    assert judged(sending(Row | Gone), both) == (False, True)


def test_clients_that_could_resume_rely_on_it() -> None:
    assert judged(sending(Row), sending(Row, resumes=False)) == (True, False)


def test_another_wire_is_another_protocol() -> None:
    assert judged(sending(Row), sending(Row, wire=Wire(tag="kind"))) == (True, True)
