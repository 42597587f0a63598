"""What type checkers refuse of a program: each line with an ignore is an error, and they say so when one is none.

mypy reads it with all tests, pyright by scripts/public_types.sh. Both find the rest clean in their strictest mode.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, assert_never, assert_type

from pydantic import BaseModel

from antiphon import App, Caller, Depends, Hub, MessageError, MessageRouter, Topic, Topics, WebSocket
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


async def test(server: Server) -> None:
    async with server.channel("/rooms/7") as ann:
        assert_type(await ann.request(Say(text="x"), int), int)
        assert_type(await ann.receive_as(Said), Said)
        text: str = await ann.request(Say(text="x"), int)  # type: ignore[arg-type]
        async with ann.stream(Say(text=text), Said) as items:
            async for item in items:
                assert_type(item, Said)
