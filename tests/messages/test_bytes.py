"""JSON has no bytes: types that would be written as text by chance are refused where they are declared."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, PlainSerializer, computed_field
from typing_extensions import TypedDict

from antiphon import App, Caller, MessageError, RegistrationError, Topics
from antiphon.testing import Server


class Picture(BaseModel):
    name: str
    pixels: bytes


class Album(BaseModel):
    pictures: dict[str, list[Picture | None]]
    again: list[Album] = []


@dataclass
class Point:
    raw: tuple[int, bytes] = (1, b"")
    more: list[int] = field(default_factory=list)


class Parts(TypedDict):
    data: bytes


class Computed(BaseModel):
    @computed_field
    def shown(self) -> bytes:
        return b""


class Broken(MessageError):
    at: bytes


class Encoded(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes
    more: list[bytes] = []


class Written(BaseModel):
    data: Base64Bytes = b""
    hexed: Annotated[bytes, PlainSerializer(lambda data: data.hex())] = b""
    secret: Annotated[bytes, Field(exclude=True)] = b""


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (Picture, "Picture.pixels"),
        (Album, "Picture.pixels"),
        (Point, "Point.raw"),
        (Parts, "Parts.data"),
        (Computed, "Computed.shown"),
        (list[bytes], "it"),
        (str | bytes, "it"),
    ],
)
def test_an_answer_with_bytes_is_refused_by_the_name_of_the_field(kind: Any, named: str) -> None:
    async def handle() -> Any: ...

    handle.__annotations__["return"] = kind
    with pytest.raises(RegistrationError, match=rf"handle: what it returns: {named} is bytes, .*ser_json_bytes"):
        App().add_channel("/").on("tag")(handle)


def test_so_are_items_events_errors_and_messages_of_topics() -> None:
    chat = App().add_channel("/")

    async def stream() -> AsyncIterator[Picture]:
        yield Picture(name="a", pixels=b"")

    async def event(caller: Caller[Picture]) -> None: ...
    async def failing() -> None: ...

    with pytest.raises(RegistrationError, match=r"Picture\.pixels is bytes"):
        chat.on("stream")(stream)
    with pytest.raises(RegistrationError, match=r"Picture\.pixels is bytes"):
        chat.on("event")(event)
    with pytest.raises(RegistrationError, match=r"Broken\.at is bytes"):
        chat.on("failing", errors=[Broken])(failing)
    with pytest.raises(RegistrationError, match=r"Picture\.pixels is bytes"):
        Topics("pictures", Picture)


async def test_bytes_that_are_written_as_text_on_purpose_and_those_received_are_fine() -> None:
    app = App()
    chat = app.add_channel("/")

    @chat.on
    async def encoded(message: Encoded) -> Encoded:
        return message

    @chat.on
    async def written(message: Written) -> Written:
        return message

    @chat.on
    async def received(message: Picture) -> int:
        return len(message.pixels)

    async with Server(app) as server, server.channel("/") as ann:
        sent = Encoded(data=b"\xff\x00", more=[b"\xfe"])
        assert await ann.request(sent, Encoded) == sent
        answer = await ann.request({"type": "written", "data": "aGk="}, dict)
        assert answer.pop("data").strip() == "aGk="
        assert answer == {"hexed": ""}
        assert await ann.request({"type": "picture", "name": "n", "pixels": "hi"}, int) == 2
