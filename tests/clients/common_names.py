"""An application whose messages have the names of the hub's own events: nothing forbids them, and they are common."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from pydantic import BaseModel

from antiphon import App, Caller, Depends, Framing, Hub, Topic, Topics, WebSocket


class Message(BaseModel):
    text: str


class Joined(BaseModel):
    name: str


class Heartbeat(BaseModel):
    load: float


rooms = Topics("room/{room}", Message | Joined, history=10, framing=Framing.EVENT)
walls = Topics("wall/{room}", Message | Joined)
app = App(hub=Hub(topics=[rooms, walls]))
Room = Annotated[Topic[Message | Joined], Depends(rooms)]
Wall = Annotated[Topic[Message | Joined], Depends(walls)]


@app.channel("/placed/{room}")
async def placed(websocket: WebSocket, topic: Room) -> AsyncIterator[None]:
    await websocket.accept()
    async with topic.join(websocket):
        yield


@app.channel("/flat/{room}")
async def flat(websocket: WebSocket, topic: Wall) -> AsyncIterator[None]:
    await websocket.accept()
    async with topic.join(websocket):
        yield


@placed.on("message")
async def place_message(message: Message, topic: Room) -> None:
    await topic.publish(message)


@placed.on("joined")
async def place_joined(message: Joined, topic: Room) -> None:
    await topic.publish(message)


@flat.on("message")
async def send_message(message: Message, topic: Wall) -> None:
    await topic.publish(message)


@flat.on("joined")
async def send_joined(message: Joined, topic: Wall) -> None:
    await topic.publish(message)


@flat.on("heartbeat")
async def beat(message: Heartbeat, caller: Caller[Heartbeat]) -> None:
    await caller.send(message)
