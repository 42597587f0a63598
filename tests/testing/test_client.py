"""`antiphon.testing`: clients in the loop meet the same engine as on a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from antiphon import App, HTTPException, WebSocket, WebSocketDisconnect
from antiphon.server import ServerConfig
from antiphon.testing import ConnectionEnded, HandshakeRefused, ReceiveTimeout, Server, VirtualTimeLoop, virtual_time
from antiphon.types import ClosedBy
from antiphon.wire import DeflateConfig


def echo_app() -> App:
    app = App()

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol="b" if websocket.scope["subprotocols"] else None)
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    return app


def in_virtual_time(main: Callable[[], Coroutine[Any, Any, float]]) -> float:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())


@pytest.mark.parametrize("deflate", [None, DeflateConfig()])
async def test_messages_come_back_as_they_went(deflate: DeflateConfig | None) -> None:
    async with Server(echo_app()) as server, server.connect("/echo", deflate=deflate) as peer:
        for text in ("", "ä€😀", "x" * 300_000):
            await peer.send(text)
            assert await peer.receive() == text
        await peer.send_fragments("a", "b", "c")
        assert await peer.receive() == "abc"
        await peer.ping(b"now")
        await peer.send("then")
        assert await peer.receive() == "then"
        assert peer.pongs == [b"now"]


async def test_many_clients_share_one_server() -> None:
    app = App()
    everybody: list[WebSocket] = []

    @app.websocket("/chat")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        everybody.append(websocket)
        async for text in websocket.iter_text():
            for other in everybody:
                await other.send_text(text)

    async with Server(app) as server:
        async with server.connect("/chat") as first, server.connect("/chat") as second:
            await first.send("hello")
            assert await first.receive() == await second.receive() == "hello"


async def test_a_subprotocol_is_agreed_on() -> None:
    async with Server(echo_app()) as server, server.connect("/echo", subprotocols=["a", "b"]) as peer:
        assert peer.subprotocol == "b"


async def test_a_refused_handshake_tells_status_and_body() -> None:
    app = App()

    @app.websocket("/private")
    async def private(websocket: WebSocket) -> None:
        raise HTTPException(401, "who are you?", headers={"WWW-Authenticate": "Bearer"})

    async with Server(app) as server:
        with pytest.raises(HandshakeRefused) as refused:
            async with server.connect("/private"):
                pass
    assert refused.value.status == 401
    assert refused.value.json() == {"detail": "who are you?"}
    assert refused.value.headers["www-authenticate"] == "Bearer"


async def test_close_codes_are_those_of_the_wire() -> None:
    app = App()
    ends: list[int] = []

    @app.websocket("/wait")
    async def wait(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            await websocket.receive_text()
        except WebSocketDisconnect as disconnect:
            ends.append(disconnect.code)

    @app.websocket("/crash")
    async def crash(websocket: WebSocket) -> None:
        await websocket.accept()
        raise WebSocketDisconnect(4000) if websocket.query_params else ArithmeticError

    async with Server(app, config=ServerConfig(close_timeout=0.2)) as server:
        async with server.connect("/wait") as peer:
            await peer.close(4001, "bye")
        async with server.connect("/wait") as peer:
            peer.drop()
        async with server.connect("/wait") as peer:
            peer.half_close()
            assert await peer.wait_closed() == 1006
        async with server.connect("/wait") as peer:
            peer.write_raw(b"\xff\xff")
            with pytest.raises(ConnectionEnded) as ended:
                await peer.receive()
            assert ended.value.code == 1002
        async with server.connect("/crash") as peer:
            assert await peer.wait_closed() == 1011
            assert peer.closed_by is ClosedBy.PEER
    assert ends == [4001, 1006, 1006, 1002]


async def test_leaving_the_server_closes_its_clients_with_1012() -> None:
    server = Server(echo_app(), config=ServerConfig(stop_window=0.0))
    async with server:
        peer = await server.connect("/echo").__aenter__()
    assert await peer.wait_closed() == 1012


async def test_the_lifespan_runs_around_the_server() -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> Any:
        steps.append("up")
        yield {"greeting": "hello"}
        steps.append("down")

    app = App(lifespan=lifespan)

    @app.websocket("/")
    async def root(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.state.greeting)

    async with Server(app) as server:
        async with server.connect("/") as peer:
            assert await peer.receive() == "hello"
        assert steps == ["up"]
    assert steps == ["up", "down"]


async def test_an_app_that_sends_nothing_is_a_timeout_not_a_hang() -> None:
    async with Server(echo_app()) as server, server.connect("/echo") as peer:
        with pytest.raises(ReceiveTimeout, match="no message came"):
            await peer.receive(timeout=0.01)


def test_a_minute_of_keepalive_passes_in_no_time() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        async with Server(echo_app(), config=ServerConfig(ping_interval=20, ping_timeout=20)) as server:
            async with server.connect("/echo") as healthy, server.connect("/echo") as silent:
                silent.pause_reading()  # pings arrive, pongs never leave
                lost = await silent.wait_closed(timeout=600)
                assert lost == 1006
                elapsed = loop.time()
                await asyncio.sleep(3600)
                await healthy.send("still here")
                assert await healthy.receive() == "still here"
                return elapsed

    assert 20 < in_virtual_time(main) <= 40


def test_a_client_that_does_not_read_is_aborted_at_send_timeout() -> None:
    app = App()
    ended: list[tuple[float, int]] = []

    @app.websocket("/flood")
    async def flood(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_bytes(bytes(10_000))
        except WebSocketDisconnect as disconnect:
            ended.append((asyncio.get_running_loop().time(), disconnect.code))
            raise

    async def main() -> float:
        config = ServerConfig(send_timeout=7.0, ping_interval=None)
        async with Server(app, config=config) as server, server.connect("/flood") as peer:
            peer.pause_reading()
            return await peer.wait_closed(timeout=600)

    assert in_virtual_time(main) == 1006
    [(when, code)] = ended
    assert 7.0 <= when < 10.0
    assert code == 1006


@virtual_time
async def test_a_wait_ends_in_time_though_pings_come_meanwhile() -> None:
    app, loop = App(), asyncio.get_running_loop()

    @app.websocket("/")
    async def silent(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.wait_closed()

    config = ServerConfig(ping_interval=1, ping_timeout=1)
    async with Server(app, config=config) as server, server.connect("/") as peer:
        with pytest.raises(ReceiveTimeout, match="no message came within 60 s"):
            await peer.receive(timeout=60)
        with pytest.raises(TimeoutError, match="the connection did not end within 60 s"):
            await peer.wait_closed(timeout=60)
        assert loop.time() == pytest.approx(120)


async def test_a_peer_outside_its_block_says_so_at_once() -> None:
    """It would wait for a message that cannot come."""
    async with Server(echo_app()) as server:
        peer = server.connect("/echo")
        for receive in (peer.receive, peer.receive_json, lambda: peer.receive_until("said"), lambda: peer.send("x")):
            with pytest.raises(RuntimeError, match=r"use it as `async with server.connect"):
                await receive()


async def test_a_value_in_place_of_a_message_says_what_sends_it() -> None:
    async with Server(echo_app()) as server, server.connect("/echo") as peer:
        with pytest.raises(TypeError, match=r"a str or bytes, not dict: send_json\(\) sends values"):
            await peer.send({"type": "said"})  # type: ignore[arg-type]
        await peer.send("x")
        assert await peer.receive() == "x"
