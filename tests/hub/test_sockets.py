"""The hub on real servers: our engine, and two stock ones where a Sink is only a task over `send`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator
from typing import Any

import httpx2 as httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from antiphon.connection import WebSocket
from antiphon.exceptions import NotAccepted, WebSocketDisconnect
from antiphon.hub import Framing, Hub, Overflow, Position, TopicOptions
from antiphon.server import WebSocketProtocol
from antiphon.testing.hub_sinks import eventually
from antiphon.types import Receive, Scope, Send
from tests.patience import PATIENCE
from tests.serving import Served, serve, serve_hypercorn

SERVERS = ["antiphon", "websockets-sansio", "wsproto", "hypercorn"]

TOPICS = {
    "room": TopicOptions(history=100, presence=True, presence_grace=0.3),
    "resumable": TopicOptions(history=100, framing=Framing.EVENT),
    "flood": TopicOptions(outbox_bytes=1 << 18),
    "lossy": TopicOptions(outbox_bytes=1 << 18, overflow=Overflow.DROP_OLDEST),
}


class Chat:
    """A little app: a socket joins the topic of its path; POST publishes to it."""

    def __init__(self) -> None:
        self.hub = Hub(topics=TOPICS)
        self.closed: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._join(WebSocket(scope, receive, send))
        elif scope["type"] == "http":
            request = Request(scope, receive)
            position = await self.hub.publish(request.url.path.strip("/"), await request.json())
            await JSONResponse(str(position))(scope, receive, send)

    async def _join(self, websocket: WebSocket) -> None:
        await websocket.accept()
        query = websocket.query_params
        since = Position.parse(query["since"]) if "since" in query else None
        presence = query.get("user")
        topic = websocket.url.path.strip("/")
        try:
            async with self.hub.join(topic, websocket, since=since, presence=presence):
                async for text in websocket.iter_text():
                    await self.hub.publish(topic, text, exclude=websocket if "quiet" in query else None)
                await websocket.wait_closed()
        except WebSocketDisconnect as error:
            self.closed.append(error.code)


@pytest.fixture(params=SERVERS)
async def served(request: pytest.FixtureRequest) -> AsyncGenerator[tuple[Chat, Served]]:
    chat = Chat()
    if request.param == "hypercorn":
        manager = serve_hypercorn(chat)
    else:
        manager = serve(chat, ws=WebSocketProtocol if request.param == "antiphon" else request.param, lifespan="off")
    async with manager as server:
        yield chat, server


async def test_joining_before_accept_is_a_programming_error(served: tuple[Chat, Served]) -> None:
    chat, server = served
    caught: list[Exception] = []

    async def join_early(websocket: WebSocket) -> None:
        try:
            async with chat.hub.join("any", websocket):
                pytest.fail("joined")
        except NotAccepted as error:
            caught.append(error)
        await websocket.accept()
        await websocket.close()

    chat._join = join_early  # type: ignore[method-assign]
    async with connect(f"{server}/any") as client:
        await client.wait_closed()
    assert [str(error) for error in caught] == [
        "expected an accepted WebSocket to join topic 'any': call accept() first"
    ]
    assert chat.hub.stats().topics == 0


async def take(client: ClientConnection, count: int = 1) -> list[Any]:
    return [await asyncio.wait_for(client.recv(), PATIENCE) for _ in range(count)]


async def joined(chat: Chat, count: int) -> None:
    await eventually(lambda: chat.hub.stats().memberships == count)


async def test_what_one_client_says_all_hear_in_one_order(served: tuple[Chat, Served]) -> None:
    chat, server = served
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(f"{server}/any")) for _ in range(5)]
        await joined(chat, 5)

        async def speak(number: int) -> None:
            for n in range(20):
                await clients[number].send(f"{number}:{n} ü")

        await asyncio.gather(*(speak(number) for number in range(5)))
        heard = [await take(client, 100) for client in clients]
    assert all(one == heard[0] for one in heard)
    for number in range(5):
        assert [one for one in heard[0] if one.startswith(f"{number}:")] == [f"{number}:{n} ü" for n in range(20)]
    await joined(chat, 0)
    assert chat.hub.stats().topics == 0


async def test_an_http_route_publishes_and_bytes_stay_bytes(served: tuple[Chat, Served]) -> None:
    chat, server = served
    async with connect(f"{server}/any") as client, httpx.AsyncClient() as http:
        await joined(chat, 1)
        response = await http.post(f"{server.http_url}/any", json={"temperature": 20.5})
        assert response.json() == "None"
        await chat.hub.publish("any", b"\x00\x01")
        assert await take(client, 2) == ['{"temperature":20.5}', b"\x00\x01"]


async def test_a_page_resumes_where_its_connection_broke(served: tuple[Chat, Served]) -> None:
    chat, server = served
    async with connect(f"{server}/resumable") as client:
        assert json.loads((await take(client))[0])["type"] == "joined"
        await chat.hub.publish("resumable", "seen")
        seen = json.loads((await take(client))[0])
    for n in range(3):
        await chat.hub.publish("resumable", n)
    async with connect(f"{server}/resumable?since={seen['offset']}-{seen['epoch']}") as client:
        await chat.hub.publish("resumable", "live")
        events = [json.loads(one) for one in await take(client, 5)]
    assert events[0]["recovered"] is True
    assert [event["data"] for event in events[1:]] == [0, 1, 2, "live"]
    assert [event["offset"] - seen["offset"] for event in events[1:]] == [1, 2, 3, 4]


async def test_presence_tells_a_page_who_is_there(served: tuple[Chat, Served]) -> None:
    _, server = served
    async with connect(f"{server}/room?user=ann") as ann:
        assert json.loads((await take(ann))[0])["joins"] == {"ann": ["ann"]}
        async with connect(f"{server}/room?user=bob"):
            assert json.loads((await take(ann))[0])["joins"] == {"bob": ["bob"]}
        assert json.loads((await take(ann))[0])["leaves"] == {"bob": ["bob"]}


async def test_a_connection_that_breaks_without_a_word_is_left_out(served: tuple[Chat, Served]) -> None:
    chat, server = served
    async with connect(f"{server}/any") as steady:
        broken = await connect(f"{server}/any")
        await joined(chat, 2)
        broken.transport.abort()
        await joined(chat, 1)
        await steady.send("still here")
        assert await take(steady) == ["still here"]


async def test_closing_a_users_connections_closes_the_sockets(served: tuple[Chat, Served]) -> None:
    chat, server = served
    async with connect(f"{server}/room?user=ann") as ann, connect(f"{server}/room?user=bob") as bob:
        await joined(chat, 2)
        await chat.hub.close_connections(user="ann", code=4001, reason="signed out elsewhere")
        with pytest.raises(ConnectionClosed) as caught:
            await take(ann, 10)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "signed out elsewhere")
        await joined(chat, 1)
        await bob.send("x")
        while (await take(bob))[0] != "x":
            pass


async def stalled_client(server: Served, topic: str) -> socket.socket:
    """A peer that shakes hands and never reads."""
    peer = socket.create_connection(("127.0.0.1", server.port))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    request = (
        f"GET /{topic} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    peer.setblocking(False)
    await asyncio.get_running_loop().sock_sendall(peer, request.encode())
    return peer


@pytest.mark.parametrize(("topic", "left"), [("flood", 1), ("lossy", 2)])
async def test_a_peer_that_does_not_read_delays_nobody(served: tuple[Chat, Served], topic: str, left: int) -> None:
    chat, server = served
    async with connect(f"{server}/{topic}", max_size=None) as reader:
        await joined(chat, 1)
        peer = await stalled_client(server, topic)
        try:
            await joined(chat, 2)
            for n in range(400):
                await chat.hub.publish(topic, f"{n:<60000}")
                assert (await take(reader))[0].strip() == str(n)
            await joined(chat, left)
            stats = chat.hub.stats()
            assert (stats.disconnected == 1) == (topic == "flood")
            assert (stats.dropped > 0) == (topic == "lossy")
            assert stats.high_water <= 1 << 18
        finally:
            peer.close()
