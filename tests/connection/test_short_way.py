"""On antiphon's own server the same promises hold on the short way, and behind middleware that wraps it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from websockets.asyncio.client import ClientConnection, connect

from antiphon.connection import Closed, WebSocket, WebSocketState
from antiphon.exceptions import NotAccepted, UnexpectedMessageKind, WebSocketDisconnect, WebSocketDisconnected
from antiphon.server import WebSocketProtocol
from antiphon.types import ClosedBy, Message, PreparedMessage, Receive, Scope, Send
from tests.patience import PATIENCE
from tests.serving import serve

Wrap = Callable[[Receive, Send], tuple[Receive, Send]]


def _bare(receive: Receive, send: Send) -> tuple[Receive, Send]:
    return receive, send


def _wrapped(receive: Receive, send: Send) -> tuple[Receive, Send]:
    async def wrapped_receive() -> Message:
        return await receive()

    async def wrapped_send(message: Message) -> None:
        await send(message)

    return wrapped_receive, wrapped_send


@pytest.fixture(params=[_bare, _wrapped], ids=["bare", "wrapped"])
def wrap(request: pytest.FixtureRequest) -> Wrap:
    return request.param  # type: ignore[no-any-return]


async def play(
    wrap: Wrap,
    endpoint: Callable[[WebSocket], Awaitable[None]],
    client_side: Callable[[ClientConnection], Awaitable[None]],
) -> None:
    """Run both sides of one connection to their ends. Raises the exceptions of both."""
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        websocket: WebSocket = WebSocket(scope, *wrap(receive, send))
        assert (websocket._carrier is not None) == (wrap is _bare)
        try:
            await endpoint(websocket)
        except BaseException as exc:
            over.set_exception(exc)
        else:
            over.set_result(None)

    async with asyncio.timeout(PATIENCE), serve(app, ws=WebSocketProtocol, lifespan="off") as server:
        async with connect(server.url) as client:
            await client_side(client)
            await over


async def nothing(client: ClientConnection) -> None:
    pass


async def test_raw_messages_and_typed_methods_mix(wrap: Wrap) -> None:
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        assert await websocket.receive_text() == "1"
        assert await websocket.receive() == {"type": "websocket.receive", "bytes": b"2"}
        assert await websocket.receive_json() == [3]
        await websocket.send_text("a")
        await websocket.send({"type": "websocket.send", "bytes": b"b"})
        await websocket.send_json({"c": "é"})
        assert websocket.is_connected
        assert (await websocket.receive())["type"] == "websocket.disconnect"
        assert websocket.client_state is WebSocketState.DISCONNECTED

    async def client_side(client: ClientConnection) -> None:
        for message in ("1", b"2", "[3]"):
            await client.send(message)
        assert [await client.recv() for _ in range(3)] == ["a", b"b", '{"c":"é"}']
        await client.close(4001, "bye")

    await play(wrap, endpoint, client_side)


async def test_the_end_is_a_disconnect_with_the_clients_code_and_then_an_error(wrap: Wrap) -> None:
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.receive_text()
        assert (caught.value.code, caught.value.reason) == (4001, "bye")
        assert websocket.closed == Closed(code=4001, reason="bye", by=ClosedBy.PEER)
        for call in (
            websocket.receive_text(),
            websocket.receive_bytes(),
            websocket.receive(),
            websocket.send_text("x"),
        ):
            with pytest.raises(WebSocketDisconnect) as caught:
                await call
            assert (caught.value.code, caught.value.reason) == (4001, "bye")
        with pytest.raises(WebSocketDisconnected):
            async for _ in websocket.iter_text():
                pass

    await play(wrap, endpoint, lambda client: client.close(4001, "bye"))


async def test_programming_errors_stay_visible(wrap: Wrap) -> None:
    async def endpoint(websocket: WebSocket) -> None:
        with pytest.raises(NotAccepted):
            await websocket.receive_text()
        with pytest.raises(NotAccepted):
            await websocket.send_text("x")
        await websocket.accept()
        with pytest.raises(RuntimeError, match="Expected ASGI message"):
            await websocket.accept()
        for wrong in (b"x", 1, None):
            with pytest.raises(TypeError):
                await websocket.send_text(wrong)  # type: ignore[arg-type]
        with pytest.raises(UnicodeEncodeError):
            await websocket.send_text("\ud800")
        with pytest.raises(ValueError, match="1006"):
            await websocket.close(1006)
        await websocket.send_text("still open")

    async def client_side(client: ClientConnection) -> None:
        assert await client.recv() == "still open"

    await play(wrap, endpoint, client_side)


async def test_a_message_of_the_wrong_kind_is_named_and_the_next_one_comes(wrap: Wrap) -> None:
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(UnexpectedMessageKind, match="sent binary"):
            await websocket.receive_text()
        with pytest.raises(UnexpectedMessageKind, match="sent text"):
            await websocket.receive_bytes()
        assert await websocket.receive_text() == "x"

    async def client_side(client: ClientConnection) -> None:
        for message in (b"x", "x", "x"):
            await client.send(message)

    await play(wrap, endpoint, client_side)


async def test_two_receives_at_one_time_are_an_error(wrap: Wrap) -> None:
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        first = asyncio.create_task(websocket.receive_text())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError) as caught:
            await websocket.receive_text()
        assert not isinstance(caught.value, WebSocketDisconnect)
        await websocket.send_text("go on")
        assert await first == "x"

    async def client_side(client: ClientConnection) -> None:
        await client.recv()
        await client.send("x")

    await play(wrap, endpoint, client_side)


async def test_a_close_from_here_is_known_at_once_and_carries_its_code(wrap: Wrap) -> None:
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4002, "x" * 200)
        assert not websocket.is_connected
        assert websocket.closed == Closed(code=4002, reason="x" * 123, by=ClosedBy.US)
        assert await websocket.wait_closed() == websocket.closed
        for call in (websocket.close(), websocket.send_text("x"), websocket.receive_text()):
            with pytest.raises(WebSocketDisconnected):
                await call

    async def client_side(client: ClientConnection) -> None:
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (4002, "x" * 123)

    await play(wrap, endpoint, client_side)


async def test_the_end_is_seen_without_receiving(wrap: Wrap) -> None:
    told = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        websocket.sink.on_close(lambda: told.append(1))
        await websocket.send_text("ready")
        assert (await websocket.wait_closed()).code == 4001
        assert told == [1]
        assert not websocket.sink.alive

    async def client_side(client: ClientConnection) -> None:
        await client.recv()
        await client.close(4001)

    await play(wrap, endpoint, client_side)


async def test_offers_through_the_sink_and_own_sends_keep_their_order(wrap: Wrap) -> None:
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        for number in range(0, 20, 2):
            assert websocket.sink.offer(PreparedMessage(str(number)), 1 << 20)
            await websocket.send_text(str(number + 1))
        await websocket.close()

    async def client_side(client: ClientConnection) -> None:
        assert [int(message) async for message in client] == list(range(20))

    await play(wrap, endpoint, client_side)


async def test_a_close_from_the_sink_ends_what_the_endpoint_does(wrap: Wrap) -> None:
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        asyncio.get_running_loop().call_soon(websocket.sink.disconnect, 4010, "out")
        with pytest.raises(WebSocketDisconnect) as caught:
            await websocket.receive_text()
        assert caught.value.code == 4010
        with pytest.raises(WebSocketDisconnect):
            await websocket.send_text("x")

    async def client_side(client: ClientConnection) -> None:
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (4010, "out")

    await play(wrap, endpoint, client_side)


seen: list[str] = []


class Listening(WebSocket):
    async def receive(self) -> Message:
        message = await super().receive()
        seen.append(message["type"])
        return message


class Speaking(WebSocket):
    async def send(self, message: Message) -> None:
        seen.append(message["type"])
        await super().send(message)


@pytest.mark.parametrize(
    ("cls", "expected"), [(Listening, ["connect", "receive"]), (Speaking, ["accept", "send", "close"])]
)
async def test_a_subclass_that_overrides_receive_or_send_sees_every_message(
    cls: type[WebSocket], expected: list[str]
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        websocket = cls(scope, receive, send)
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    seen.clear()
    async with serve(app, ws=WebSocketProtocol, lifespan="off") as server, connect(server.url) as client:
        await client.send("x")
        assert await client.recv() == "x"
    assert seen == [f"websocket.{name}" for name in expected]


async def test_a_thread_that_has_the_endpoints_context_hands_over_to_the_endpoints_loop(wrap: Wrap) -> None:
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()
        await asyncio.sleep(0)  # out of the turn that read, which writes at its end for every sender
        asyncio.get_running_loop().set_debug(True)  # which raises for a call from another thread
        await asyncio.to_thread(asyncio.run, websocket.send_text("from a thread"))
        await websocket.receive_text()  # behind ASGI, an application's return leaves nothing to wait for the message

    async def client_side(client: ClientConnection) -> None:
        await client.send("now")
        assert await client.recv() == "from a thread"
        await client.send("heard")

    await play(wrap, endpoint, client_side)
