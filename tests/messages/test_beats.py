"""A channel's own heartbeat: a page learns that its link is dead, on a channel without topics too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel
from websockets.asyncio.client import connect

from antiphon import App, Caller, ChannelOptions, Framing, Hub, Topics, WebSocket, Wire
from antiphon.asyncapi.serving import document_of
from antiphon.exceptions import RegistrationError
from antiphon.heartbeat import Hearts
from antiphon.testing import Peer, Server, virtual_time
from tests.asyncapi.judges import complaints
from tests.browser.cable import Cable
from tests.clients.drivers import node
from tests.matrix.servers import SERVERS, ServerUnderTest
from tests.patience import PATIENCE
from tests.serving import serve


class Ask(BaseModel):
    text: str


class Said(BaseModel):
    text: str


news = Topics("news", Said, framing=Framing.EVENT, history=5)


def channel(joins: bool = False, **options: Any) -> App:
    app = App(hub=Hub("memory://", heartbeat=2, topics=[news]))

    @app.channel("/", options=ChannelOptions(**options), sends=Said)
    async def chat(websocket: WebSocket) -> AsyncIterator[None]:
        await websocket.accept()
        if not joins:
            yield
            return
        async with news(hub=app.hub).join(websocket):
            yield

    @chat.on
    async def ask(message: Ask) -> int:
        return len(message.text)

    return app


async def heard(peer: Peer, seconds: float) -> list[Any]:
    """All frames that come in so many seconds."""
    frames: list[Any] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while (left := end - loop.time()) > 0:
        try:
            async with asyncio.timeout(left):
                frames.append(json.loads(await peer.receive(timeout=seconds * 2)))
        except TimeoutError:
            break
    return frames


BEAT = {"type": "heartbeat", "interval": 10}


@virtual_time
async def test_the_first_tells_the_interval_and_one_comes_in_each() -> None:
    async with Server(channel(heartbeat=10)) as server, server.connect("/") as ann:
        assert json.loads(await ann.receive()) == BEAT
        beats = await heard(ann, 100)
        assert beats == [BEAT] * len(beats)
        assert 9 <= len(beats) <= 11


@virtual_time
async def test_a_channel_without_one_says_nothing_and_has_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(Hearts, "add", lambda self, sink: made.append(sink))
    async with Server(channel()) as server, server.connect("/") as ann:
        assert await heard(ann, 1000) == []
    assert made == []


@virtual_time
async def test_the_heart_rests_when_the_last_connection_has_left() -> None:
    loop = asyncio.get_running_loop()
    async with Server(channel(heartbeat=10)) as server:
        async with server.connect("/") as ann:
            await ann.receive()
        await asyncio.sleep(5)
        waiting = {repr(handle) for handle in loop._scheduled if not handle.cancelled()}  # type: ignore[attr-defined]
        assert not [one for one in waiting if "_beat" in one], waiting


@virtual_time
async def test_beside_the_hubs_both_beat() -> None:
    async with Server(channel(joins=True, heartbeat=10)) as server, server.connect("/") as ann:
        beats = [one for one in await heard(ann, 100) if one["type"] == "heartbeat"]
        assert beats.count(BEAT) >= 10
        assert len(beats) >= 45  # one of the two is enough where both are due


@virtual_time
async def test_it_has_the_form_of_the_channels_wire() -> None:
    wire = Wire(tag="action", content="payload")
    async with Server(channel(heartbeat=10, wire=wire)) as server, server.connect("/") as ann:
        assert json.loads(await ann.receive()) == {"action": "heartbeat", "payload": {"interval": 10}}


@pytest.mark.parametrize("joins", [False, True])
@pytest.mark.parametrize("wire", [Wire(), Wire(tag="action", content="payload")])
async def test_documents_have_it_and_it_is_exactly_one_of_their_messages(wire: Wire, joins: bool) -> None:
    app = channel(joins, heartbeat=1, wire=wire)
    async with Server(app) as server, server.connect("/") as ann:
        frames = [await ann.receive_json() for _ in range(2)]
    document = document_of(app).content()
    assert document["channels"]["chat"]["x-antiphon"]["heartbeat"] == 1
    seen = [{"operation": "chat.events", "side": "send", "payload": one} for one in frames if "topic" not in one]
    assert seen
    assert complaints([{"name": "beats", "document": document, "frames": seen}]) == []
    assert "heartbeat" not in json.dumps(document_of(channel()).content()["channels"])


async def test_a_page_on_a_channel_without_topics_notices_a_dead_link_and_comes_back() -> None:
    async with serve(channel(heartbeat=2)) as server, Cable(server.port) as cable, node() as driver:
        await driver.opened(f"ws://127.0.0.1:{cable.port}/")
        assert await driver.run("return client.request('ask', { text: 'hi' })") == 2
        await asyncio.sleep(5)  # an otherwise quiet link is not a dead one
        assert await driver.run("return driven.log") == ["connecting", "open"]
        cable.stall()
        await driver.until("driven.states.some(({ reason }) => /did not answer/.test(reason))")
        cable.flow()
        await driver.until("client.state.name === 'open'")
        assert await driver.run("return client.request('ask', { text: 'hello' })") == 5


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_it_beats_on_every_server(server: ServerUnderTest) -> None:
    async with server.run(channel(heartbeat=1)) as running, connect(running.url) as client:
        async with asyncio.timeout(PATIENCE):
            assert [json.loads(await client.recv()) for _ in range(3)] == [{"type": "heartbeat", "interval": 1}] * 3


class Heartbeat(BaseModel):
    rate: int


def test_a_channel_that_sends_another_of_that_name_is_refused() -> None:
    app = App()
    chat = app.add_channel("/", options=ChannelOptions(heartbeat=10))
    with pytest.raises(RegistrationError, match="sends 'heartbeat' itself"):

        @chat.on
        async def ask(message: Ask, caller: Caller[Heartbeat]) -> None: ...


@pytest.mark.parametrize("bad", [0, 0.5, -1, 3601, float("nan"), float("inf"), "10", b"1", [10]])
def test_an_interval_that_is_none_is_told_by_its_name(bad: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^heartbeat: expected"):
        ChannelOptions(heartbeat=bad)
