"""The test client: sessions that show the application's behaviour, and never hang."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from antiphon import App, Depends
from antiphon.exceptions import InvalidJSON, UnexpectedMessageKind, WebSocketDisconnect
from antiphon.testclient import ReceiveTimeout, TestClient, WebSocketDenialResponse
from antiphon.types import RERAISE_EXTENSION, Receive, Scope, Send
from antiphon.websockets import WebSocket


def endpoint(function: Any) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await function(WebSocket(scope, receive, send))

    return app


@endpoint
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


# Talking


def test_every_kind_of_message_goes_both_ways() -> None:
    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.send_bytes(await websocket.receive_bytes())
        await websocket.send_json(await websocket.receive_json())
        await websocket.send_json(await websocket.receive_json(mode="binary"), mode="binary")

    with TestClient(app).websocket_connect("/") as session:
        session.send_text("é")
        assert session.receive_text() == "é"
        session.send_bytes(b"\xff")
        assert session.receive_bytes() == b"\xff"
        session.send_json({"a": "é"})
        assert session.receive_json() == {"a": "é"}
        session.send_json([1], mode="binary")
        assert session.receive_json(mode="binary") == [1]


def test_what_the_application_accepted_with_is_shown() -> None:
    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept("chat", headers=[(b"x-a", b"1")])

    with TestClient(app).websocket_connect("/", subprotocols=["chat", "other"]) as session:
        assert session.accepted_subprotocol == "chat"
        assert session.extra_headers == [(b"x-a", b"1")]


def test_headers_cookies_and_parameters_reach_the_application() -> None:
    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json([websocket.headers["x-a"], websocket.cookies["c"], websocket.query_params["q"]])

    given = {"x-a": "1"}
    with TestClient(app, cookies={"c": "2"}).websocket_connect("/", headers=given, params={"q": "3"}) as session:
        assert session.receive_json() == ["1", "2", "3"]
    assert given == {"x-a": "1"}


def test_a_message_of_the_wrong_kind_and_bad_json_are_clear_errors() -> None:
    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_bytes(b"x")
        await websocket.send_text("x")
        await websocket.send_text("{")

    with TestClient(app).websocket_connect("/") as session:
        with pytest.raises(UnexpectedMessageKind):
            session.receive_text()
        with pytest.raises(UnexpectedMessageKind):
            session.receive_bytes()
        with pytest.raises(InvalidJSON):
            session.receive_json()


# Ends


def test_a_close_of_the_application_is_a_disconnect_with_its_code_and_reason_again_and_again() -> None:
    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("last words")
        await websocket.close(4000, "why")

    with TestClient(app).websocket_connect("/") as session:
        assert session.receive_text() == "last words"
        for _ in range(2):
            with pytest.raises(WebSocketDisconnect) as caught:
                session.receive_text()
            assert (caught.value.code, caught.value.reason) == (4000, "why")


def test_the_application_sees_the_clients_code_and_reason() -> None:
    seen = []

    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            await websocket.receive_text()
        except WebSocketDisconnect as exc:
            seen.append((exc.code, exc.reason))

    with TestClient(app).websocket_connect("/") as session:
        session.close(4001, "bye")
    assert seen == [(4001, "bye")]


def test_what_the_application_does_after_the_disconnect_is_finished_before_the_block_ends() -> None:
    done = []

    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            await websocket.receive_text()
        except WebSocketDisconnect:
            await asyncio.sleep(0.05)
            done.append(True)

    with TestClient(app).websocket_connect("/"):
        pass
    assert done == [True]


def test_an_application_that_does_not_listen_is_cancelled_at_once() -> None:
    cancelled = []

    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with TestClient(app, receive_timeout=3600).websocket_connect("/"):
        pass
    assert cancelled == [True]


def test_an_application_that_only_sends_is_cancelled_too() -> None:
    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text("tick")

    with TestClient(app).websocket_connect("/") as session:
        assert session.receive_text() == "tick"


def test_what_a_dependency_raises_at_its_end_is_told_however_long_its_thread_takes() -> None:
    app = App()
    left = threading.Event()

    def session() -> Iterator[None]:
        yield
        left.wait(0.2)  # nobody sets it
        raise ValueError("the session broke")

    @app.websocket("/")
    async def over_at_once(websocket: WebSocket, session: None = Depends(session)) -> None:
        await websocket.accept()

    with pytest.raises(ValueError, match="the session broke"), TestClient(app).websocket_connect("/"):
        pass


def test_what_the_application_does_behind_its_own_close_is_finished_before_the_block_ends() -> None:
    done = []

    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()
        await asyncio.sleep(0.05)
        done.append(True)

    with TestClient(app).websocket_connect("/"):
        pass
    assert done == [True]


def test_an_application_that_waits_for_the_end_sees_it() -> None:
    seen = []

    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept()
        seen.append((await websocket.wait_closed()).code)

    with TestClient(app).websocket_connect("/") as session:
        session.close(4001)
    assert seen == [4001]


def test_a_timeout_is_not_hidden_by_the_disconnect_that_ends_the_block() -> None:
    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.receive_text()

    session = TestClient(app).websocket_connect("/")
    with pytest.raises(ReceiveTimeout), session:
        session.receive_text(timeout=0.05)


def test_a_receive_that_gets_nothing_times_out_with_a_clear_error() -> None:
    with TestClient(echo, receive_timeout=2).websocket_connect("/") as session:  # the accept has no longer, either
        with pytest.raises(ReceiveTimeout, match=r"nothing within 2 s.*still running"):
            session.receive_text()
        with pytest.raises(ReceiveTimeout, match=r"nothing within 0\.01 s"):
            session.receive(timeout=0.01)
        session.send_text("x")
        assert session.receive_text(timeout=math.inf) == "x"


def test_the_default_timeout_is_five_seconds() -> None:
    assert TestClient(echo).receive_timeout == 5


def test_an_application_that_has_returned_does_not_block() -> None:
    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("x")

    with TestClient(app, receive_timeout=60).websocket_connect("/") as session:
        assert session.receive_text() == "x"
        with pytest.raises(WebSocketDisconnect) as caught:
            session.receive_text()
        assert caught.value.code == 1000
        session.send_text("nobody hears this")


def test_an_application_that_returns_without_accepting_does_not_block() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    with pytest.raises(WebSocketDisconnect, match="without accepting"):
        TestClient(app, receive_timeout=60).websocket_connect("/").__enter__()


def test_an_exception_of_the_application_is_raised_where_the_test_waits() -> None:
    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("x")
        raise ZeroDivisionError

    with TestClient(app).websocket_connect("/") as session:
        assert session.receive_text() == "x"
        with pytest.raises(ZeroDivisionError):
            session.receive_text()


def test_an_exception_of_the_application_is_raised_at_the_end_of_the_block() -> None:
    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        with TestClient(app).websocket_connect("/"):
            pass


def test_an_exception_before_accept_is_raised_on_connecting() -> None:
    @endpoint
    async def app(websocket: WebSocket) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        TestClient(app).websocket_connect("/").__enter__()


def test_the_applications_exception_matters_more_than_the_close_it_causes() -> None:
    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(1011)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        with TestClient(app).websocket_connect("/") as session:
            session.receive_text()


def test_a_failed_assertion_of_the_test_is_not_hidden_by_the_application() -> None:
    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()

    with pytest.raises(AssertionError, match="of the test"):
        with TestClient(app).websocket_connect("/"):
            raise AssertionError("of the test")


def test_a_disconnect_that_leaves_the_application_is_raised_as_starlettes_client_does() -> None:
    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()

    with pytest.raises(WebSocketDisconnect):
        with TestClient(app).websocket_connect("/"):
            pass


def test_a_client_that_shows_no_exceptions_shows_what_a_peer_sees() -> None:
    scopes = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await WebSocket(scope, receive, send).accept()
        raise ZeroDivisionError

    with TestClient(app, raise_server_exceptions=False).websocket_connect("/") as session:
        with pytest.raises(WebSocketDisconnect) as caught:
            session.receive_text()
        assert caught.value.code == 1011
    assert RERAISE_EXTENSION not in scopes[0]["extensions"]


# Refusals


def test_a_refused_handshake_is_a_disconnect_with_the_code() -> None:
    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.close(4003, "no")

    with pytest.raises(WebSocketDisconnect) as caught:
        TestClient(app).websocket_connect("/").__enter__()
    assert (caught.value.code, caught.value.reason) == (4003, "no")


def test_a_denial_response_has_status_headers_and_body() -> None:
    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.send_denial_response(JSONResponse({"detail": "no"}, 401, {"www-authenticate": "Bearer"}))

    with pytest.raises(WebSocketDenialResponse, match="401") as caught:
        TestClient(app).websocket_connect("/").__enter__()
    assert caught.value.status_code == 401
    assert caught.value.headers["www-authenticate"] == "Bearer"
    assert caught.value.json() == {"detail": "no"}
    assert isinstance(caught.value, WebSocketDisconnect)


def test_a_streamed_denial_response_is_whole() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    @endpoint
    async def app(websocket: WebSocket) -> None:
        await websocket.send_denial_response(StreamingResponse(parts(), 403))

    with pytest.raises(WebSocketDenialResponse) as caught:
        TestClient(app).websocket_connect("/").__enter__()
    assert caught.value.content == b"onetwo"


# Several sessions, loops and threads


class Room:
    def __init__(self) -> None:
        self.members: list[WebSocket] = []
        self.threads: set[int] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        self.threads.add(threading.get_ident())
        self.members.append(websocket)
        with contextlib.suppress(WebSocketDisconnect):
            async for text in websocket.iter_text():
                await self.say(text)
        self.members.remove(websocket)
        await self.say("left")

    async def say(self, text: str) -> None:
        for member in self.members:
            await member.send_text(text)


def test_two_sessions_in_two_loops_talk_to_each_other() -> None:
    room = Room()
    client = TestClient(room)
    with client.websocket_connect("/") as alice:
        with client.websocket_connect("/") as bob:
            assert len(room.threads) == 2
            for number in range(50):
                speaker = alice if number % 2 else bob
                speaker.send_text(str(number))
                assert alice.receive_text() == str(number)
                assert bob.receive_text() == str(number)
        assert alice.receive_text() == "left"


def test_two_sessions_inside_with_share_one_loop() -> None:
    room = Room()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await room(scope, receive, send)
        else:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})

    with TestClient(app) as client:
        with client.websocket_connect("/") as alice, client.websocket_connect("/") as bob:
            alice.send_text("hello")
            assert (alice.receive_text(), bob.receive_text()) == ("hello", "hello")
            assert len(room.threads) == 1


def test_the_lifespan_runs_and_its_state_reaches_the_websocket() -> None:
    events = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        events.append("up")
        yield {"db": "connected"}
        events.append("down")

    async def ws(websocket: Any) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.state.db)

    with TestClient(Starlette(routes=[WebSocketRoute("/ws", ws)], lifespan=lifespan)) as client:
        with client.websocket_connect("/ws") as session:
            assert session.receive_text() == "connected"
        assert events == ["up"]
    assert events == ["up", "down"]


def test_http_requests_work_as_before() -> None:
    async def page(request: Any) -> JSONResponse:
        if "boom" in request.query_params:
            raise HTTPException(404)
        return JSONResponse({"q": request.query_params["q"]})

    client = TestClient(Starlette(routes=[Route("/", page)]))
    assert client.get("/", params={"q": "1"}).json() == {"q": "1"}
    assert client.get("/", params={"boom": "1"}).status_code == 404


def test_a_session_runs_on_trio_too() -> None:
    with TestClient(echo, backend="trio").websocket_connect("/") as session:
        session.send_text(json.dumps({"a": 1}))
        assert session.receive_json() == {"a": 1}


def test_a_session_that_was_not_entered_says_how_to() -> None:
    session = TestClient(App()).websocket_connect("/")
    for call in (lambda: session.send_text("hello"), session.receive_text, session.close):
        with pytest.raises(RuntimeError, match=r"not connected yet: `with client\.websocket_connect"):
            call()


def test_a_message_of_the_wrong_kind_is_refused_in_the_test_not_in_the_app() -> None:
    app = App()

    @app.websocket("/")
    async def listen(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive()

    with TestClient(app).websocket_connect("/") as session:
        with pytest.raises(TypeError, match="a text message is a str, not dict"):
            session.send_text({"a": 1})  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a binary message is bytes-like, not str"):
            session.send_bytes("hello")  # type: ignore[arg-type]
