"""The application that generated clients are tried on: a channel with everything a client can meet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from enum import Enum
from typing import Annotated

from pydantic import BaseModel, Field

from antiphon import App, Caller, Depends, Framing, Hub, MessageError, Position, Topic, Topics, WebSocket


class Say(BaseModel):
    """Say something to everybody in the room."""

    text: Annotated[str, Field(min_length=1, max_length=500)]


class Search(BaseModel):
    query: str
    limit: int = 10


class Said(BaseModel):
    name: str
    text: str


class Typing(BaseModel):
    name: str


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Node(BaseModel):
    """Refers to itself, and has the name of a thing of browsers."""

    value: int
    children: list[Node] = []


class Hit(BaseModel):
    text: str
    score: float
    at: datetime | None = None
    colour: Colour = Colour.RED
    pair: tuple[int, str] = (1, "a")
    counts: dict[str, int] = {"a": 1}
    node: Node = Node(value=1, children=[Node(value=2)])
    class_: str = Field(default="x", alias="class")


class Muted(MessageError):
    """You may not write in this room for now."""

    seconds: int


rooms = Topics("room/{room}", Said | Typing, history=100, presence=True, framing=Framing.EVENT)
app = App(hub=Hub(topics=[rooms], heartbeat=1))
Room = Annotated[Topic[Said | Typing], Depends(rooms)]


@app.channel("/rooms/{room}")
async def chat(websocket: WebSocket, room: Room, name: str, since: Position | None = None) -> AsyncIterator[None]:
    """One room of the chat."""
    await websocket.accept()
    async with room.join(websocket, since=since, history=20, presence=name):
        yield


@chat.on(errors=[Muted])
async def say(message: Say, room: Room, name: str) -> int:
    """The answer is the length of the message."""
    if message.text == "mute":
        raise Muted(seconds=30)
    await room.publish(Said(name=name, text=message.text))
    return len(message.text)


@chat.on
async def search(message: Search) -> AsyncIterator[Hit]:
    for number in range(message.limit):
        yield Hit(text=f"{message.query} {number}", score=number)


@chat.on("typing")
async def typing(room: Room, name: str, caller: Caller[Typing]) -> None:
    await room.publish(Typing(name=name), exclude=caller.websocket)


@chat.on("send")
async def send(name: str) -> str:
    """Has the name of something that clients have already."""
    return name
