"""Errors that type checkers find in a program: each line with an ignore is an error, and they complain about one that
is not.

mypy reads it with all tests, pyright by scripts/public_types.sh. Both find the rest clean in their strictest mode.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict, assert_never, assert_type

from pydantic import BaseModel, Field

from antiphon import (
    APIRouter,
    App,
    Caller,
    ChannelOptions,
    Depends,
    HTTPException,
    Hub,
    MessageError,
    MessageRouter,
    OnInvalid,
    Topic,
    Topics,
    WebSocket,
)
from antiphon.clients.runtime import Client, ClientState, RemoteError
from antiphon.testclient import TestClient
from antiphon.testing import Server


class Say(BaseModel):
    text: str


class Said(BaseModel):
    text: str


class Typing(BaseModel):
    name: str


class Muted(MessageError):
    seconds: int


rooms = Topics("room/{room}", Said | Typing, history=10)
app = App(hub=Hub(topics=[rooms]))
Room = Annotated[Topic[Said | Typing], Depends(rooms)]
editing = MessageRouter("doc.")


@app.channel("/rooms/{room}")
async def chat(websocket: WebSocket, room: int) -> AsyncIterator[None]:
    yield


@chat.on(errors=[Muted], concurrent=4, timeout=1.5, deprecated=True)
async def say(message: Say, caller: Caller[Said | Typing]) -> int:
    await caller.send(Said(text=message.text))
    await caller.send(message)  # type: ignore[arg-type]
    raise Muted(seconds=3)


@chat.on
async def typing(message: Typing, caller: Caller[Said]) -> None:
    await say(Say(text="x"), caller)  # type: ignore[arg-type]
    raise Muted(second=3)  # type: ignore[call-arg]


@chat.on("shout")
async def shout(message: Say, room: Room) -> None:
    await room.publish(Said(text=message.text))
    await room.publish(message)  # type: ignore[arg-type]
    await room.publish("text")  # type: ignore[arg-type]
    for kept in await room.history():
        assert_type(kept.data, Said | Typing)


def narrower(caller: Caller[Said | Typing]) -> Caller[Said]:
    return caller


def wider(caller: Caller[Said]) -> Caller[Said | Typing]:
    return caller  # type: ignore[return-value]


chat.on(errors=["muted"])  # type: ignore[list-item]
chat.on(concurrent="4")  # type: ignore[call-overload]
chat.include("editing")  # type: ignore[arg-type]


async def complete(websocket: WebSocket) -> str:
    match await websocket.receive_as(Say | Typing):
        case Say(text=text) | Typing(name=text):
            return text


async def forgetful(websocket: WebSocket) -> None:
    async for message in websocket.iter_as(Say | Typing):
        match message:
            case Say():
                assert_type(message.text, str)
            case other:
                assert_never(other)  # type: ignore[arg-type]


class Walk(TypedDict):
    type: Literal["walk"]
    x: int


class Turn(BaseModel):
    type: Literal["left", "right"]


@dataclass
class Place:
    x: int


class Over(MessageError):
    """The game is over."""


plays = Topics("plays", Turn)
router = APIRouter(prefix="/v1")


@chat.on("replies")
async def replies(message: Say) -> int:
    return message.text  # type: ignore[return-value]


@chat.on("streams")
async def streams(message: Say) -> AsyncIterator[Said]:
    yield message  # type: ignore[misc]


@chat.on("binary")
async def binary(message: Say, caller: Caller[Said]) -> None:
    await caller.send_bytes(message.text)  # type: ignore[arg-type]
    await caller.send(Said)  # type: ignore[arg-type]
    raise Over(score=1)  # type: ignore[call-arg]


def errors_have_typed_fields(error: Muted) -> MessageError:
    error.minutes  # type: ignore[attr-defined]
    text: str = error.seconds  # type: ignore[assignment]
    Muted(seconds=text)  # type: ignore[arg-type]
    return Muted()  # type: ignore[call-arg]


async def topics_have_their_types(narrow: Topic[Turn]) -> None:
    await plays().publish(Said(text="x"))  # type: ignore[arg-type]
    await narrow.publish(Turn(type="up"))  # type: ignore[arg-type]
    wide: Topic[Turn | Said] = narrow  # type: ignore[assignment]
    narrow.join(wide)  # type: ignore[arg-type]
    async for kept in narrow.subscribe():
        kept.text  # type: ignore[attr-defined]
    await rooms.publish(Said(text="x"))  # type: ignore[attr-defined]


Topics("x")  # type: ignore[call-arg]
Topics("x", Said, history="10")  # type: ignore[arg-type]
Topics("x", Said(text="x"))  # type: ignore[arg-type]
Hub(topics=[Said])  # type: ignore[list-item]
chat.on("a", errors=[HTTPException])  # type: ignore[list-item]
chat.on("b", streams=3)  # type: ignore[call-overload]
chat.on("c", rate="2/second")  # type: ignore[call-overload]
chat.include(router)  # type: ignore[arg-type]
app.channel("/d", options={"streams": 3})  # type: ignore[arg-type]
app.channel("/e", sends=[Said])  # type: ignore[arg-type]
app.channel("/f", sends=Said | Turn)
app.channel("/g", send=Said)  # type: ignore[call-arg]
app.websocket("/h", receives=Annotated[Turn | Walk, Field(discriminator="type")], sends=Said)
app.websocket("/i", receives=7)  # type: ignore[arg-type]
ChannelOptions(on_invalid="close")  # type: ignore[arg-type]
ChannelOptions(stream=3)  # type: ignore[call-arg]


async def reads(websocket: WebSocket) -> str:
    walk = await websocket.receive_as(Walk)
    walk["y"]  # type: ignore[typeddict-item]
    number: int = await websocket.receive_as(str)  # type: ignore[arg-type]
    await websocket.receive_as(number)  # type: ignore[arg-type]
    async for either in websocket.iter_as(Walk | Turn, invalid=OnInvalid.REPLY):
        assert_type(either, Walk | Turn)
        either.type  # type: ignore[union-attr]
    async for turn in websocket.iter_as(Turn, invalid="reply"):  # type: ignore[arg-type]
        match turn.type:
            case "left":
                return "l"
            case other:
                assert_never(other)  # type: ignore[arg-type]
    for _ in websocket.iter_as(Turn):  # type: ignore[attr-defined]
        pass
    return ""


async def peers(server: Server) -> None:
    async with server.channel("/rooms/7") as ann:
        await ann.request({"type": "say"})
        await ann.request(Walk(type="walk", x=1))
        await ann.request(Place(x=1))
        await ann.request(tag="typing")
        await ann.send(b"bytes")
        assert_type(await ann.request(Say(text="x"), list[Said] | None), list[Said] | None)
        assert_type(await ann.receive_as(Said | Typing), Said | Typing)
        await ann.request()  # type: ignore[call-overload]
        await ann.request("say", int)  # type: ignore[call-overload]
        await ann.request(b"bytes")  # type: ignore[call-overload]
        await ann.request(Say, int)  # type: ignore[call-overload]
        await ann.send("say")  # type: ignore[arg-type]
        await ann.receive_until(Said)  # type: ignore[arg-type]
        await ann.receive_as(Said(text="x"))  # type: ignore[arg-type]
        (await ann.receive_as(Said | Typing)).text  # type: ignore[union-attr]
        async with ann.stream("say", Said) as items:  # type: ignore[arg-type]
            for _ in items:  # type: ignore[attr-defined]
                pass
    with server.channel("/rooms/7"):  # type: ignore[attr-defined]
        pass


def sessions(client: TestClient) -> None:
    with client.channel("/rooms/7") as ann:
        assert_type(ann.request(Say(text="x"), int), int)
        ann.request(tag="typing")
        ann.send(5)  # type: ignore[arg-type]
        ann.request("say", int)  # type: ignore[call-overload]
        ann.receive_as(Said).name  # type: ignore[attr-defined]
        with ann.stream(Say(text="x"), Said) as items:
            for item in items:
                item.name  # type: ignore[attr-defined]


def heard(state: ClientState) -> None: ...


async def clients(client: Client[dict[str, Any]]) -> None:
    async for event in client:
        assert_type(event, dict[str, Any])
    client.watch(heard)
    client.watch(lambda: None)  # type: ignore[arg-type,misc]
    client.state.number  # type: ignore[attr-defined]
    Client(5)  # type: ignore[arg-type]
    Client("ws://x", token="t")  # type: ignore[arg-type]
    Client("ws://x", token_via="body")  # type: ignore[arg-type]
    async for _ in client.stream("s"):  # type: ignore[attr-defined]
        pass
    raise RemoteError("closed")  # type: ignore[call-arg]


async def test(server: Server) -> None:
    async with server.channel("/rooms/7") as ann:
        assert_type(await ann.request(Say(text="x"), int), int)
        assert_type(await ann.receive_as(Said), Said)
        text: str = await ann.request(Say(text="x"), int)  # type: ignore[arg-type]
        async with ann.stream(Say(text=text), Said) as items:
            async for item in items:
                assert_type(item, Said)
