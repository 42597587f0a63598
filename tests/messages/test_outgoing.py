"""Every message of a channel has its tag, on every way, and its test client finds the messages of topics."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

import pytest

from antiphon import App, Channel, ChannelOptions, Depends, Framing, Hub, Topic, Topics, WebSocket, Wire
from antiphon.testing import Server


@dataclass
class Said:
    text: str


@dataclass
class Stray:
    text: str


@dataclass
class Say:
    text: str


rooms = Topics("room/{room}", Said, framing=Framing.EVENT)
Room = Annotated[Topic[Said], Depends(rooms)]


def application(wire: Wire) -> App:
    app = App(hub=Hub(topics=[rooms]))

    @app.channel("/chat/{room}", options=ChannelOptions(wire=wire), sends=Said)
    async def chat(websocket: WebSocket, room: Room) -> AsyncIterator[None]:
        await websocket.accept()
        async with room.join(websocket):
            yield

    handle(chat)
    return app


def handle(chat: Channel) -> None:
    @chat.on
    async def say(message: Say, room: Room) -> None:
        await room.publish(Said(text=message.text))

    @chat.on("direct")
    async def direct(websocket: WebSocket) -> None:
        await websocket.send_model(Said(text="to you"))

    @chat.on("stray")
    async def stray(websocket: WebSocket) -> None:
        await websocket.send_model(Stray(text="nobody knows me"))


WIRES = [Wire(), Wire(tag="kind", ref="id"), Wire(content="data")]


@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_an_event_of_a_typed_topic_is_received_as_its_message(wire: Wire) -> None:
    async with Server(application(wire)) as server, server.channel("/chat/7", wire=wire) as ann:
        await ann.send(Say(text="hello"))
        assert await ann.receive_as(Said) == Said(text="hello")


@pytest.mark.parametrize("wire", WIRES, ids=str)
async def test_send_model_on_a_channel_sends_an_event_with_its_tag(wire: Wire) -> None:
    async with Server(application(wire)) as server, server.channel("/chat/7", wire=wire) as ann:
        await ann.send(tag="direct")
        assert await ann.receive_as(Said) == Said(text="to you")


async def test_send_model_on_a_channel_fails_by_name_for_what_it_does_not_declare(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Server(application(Wire())) as server, server.connect("/chat/7") as client:
        await client.receive()  # it has joined
        await client.send('{"type": "stray", "ref": 1}')
        assert json.loads(str(await client.receive()))["code"] == "internal"
    assert "Stray is nothing that this channel declares to send (Said)" in caplog.text
