"""The typed test clients of channels: events by their type, and the errors of wrong calls."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydantic import BaseModel

from antiphon import App, Depends, Framing, Hub, Topic, Topics, WebSocket
from antiphon.testclient import TestClient
from antiphon.testing import ReceiveTimeout, Server


class Say(BaseModel):
    text: str


class Said(BaseModel):
    text: str


def chat() -> App:
    rooms = Topics("room/{room}", Said, presence=True, history=10, framing=Framing.EVENT)
    app = App(hub=Hub(topics=[rooms]))

    @app.channel("/{room}")
    async def chat(websocket: WebSocket, name: str, room: Topic[Said] = Depends(rooms)) -> AsyncIterator[None]:
        await websocket.accept()
        async with room.join(websocket, presence=name):
            yield

    @chat.on
    async def say(message: Say, room: Topic[Said] = Depends(rooms)) -> None:
        await room.publish(Said(text=message.text))

    @chat.on("count")
    async def count() -> AsyncIterator[int]:
        yield 1

    @chat.on("length")
    async def length(message: Say) -> int:
        return len(message.text)

    return app


async def test_an_event_of_the_hub_is_found_by_its_type_and_the_others_stay() -> None:
    async with Server(chat()) as server, server.channel("/tea?name=ann") as ann:
        await ann.request(Say(text="hi"))
        assert (await ann.receive_until("presence_diff"))["joins"] == {"ann": ["ann"]}
        assert (await ann.receive_until(lambda event: event["offset"] == 1))["type"] == "message"
        assert (await ann.receive_until("joined"))["topic"] == "room/tea"
        with pytest.raises(ReceiveTimeout, match=r'a message of type "joined" did not come within 0\.01 s; 4 came'):
            await ann.receive_until("joined", timeout=0.01)


def test_without_await_too() -> None:
    with TestClient(chat()) as client, client.channel("/tea?name=ann") as ann:
        ann.request(Say(text="hi"))
        assert ann.receive_until("presence_diff")["joins"] == {"ann": ["ann"]}
        assert ann.receive_as(Said) == Said(text="hi")


async def test_an_answer_with_data_that_nobody_expected_says_how_to_get_it() -> None:
    async with Server(chat()) as server, server.channel("/tea?name=ann") as ann:
        with pytest.raises(AssertionError, match=r"got 2: pass its type: request\(message, int\)"):
            await ann.request({"type": "length", "text": "hi"})
        assert await ann.request({"type": "length", "text": "hi"}, int) == 2


async def test_a_request_that_is_answered_with_a_stream_says_so() -> None:
    async with Server(chat()) as server, server.channel("/tea?name=ann") as ann:
        with pytest.raises(AssertionError, match=r"a stream began: read it with stream\(\)"):
            await ann.request({"type": "count"})
        with pytest.raises(AssertionError, match=r"a stream began: read it with stream\(\)"):
            await ann.request({"type": "count"}, int)
        async with ann.stream({"type": "count"}, int) as numbers:
            assert [number async for number in numbers] == [1]
