"""Middleware's answer in the endpoint's place is an ending that every server understands."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse

from antiphon import App, WebSocket, WebSocketDisconnect
from antiphon.routing.middleware_answer import MiddlewareAnswer
from antiphon.testclient import TestClient, WebSocketDenialResponse
from antiphon.types import ASGIApp, Message, Receive, Scope, Send

DENIALS: dict[str, Any] = {"websocket.http.response": {}}


class Server:
    """The server's end of a handshake, with the messages sent to it."""

    def __init__(self, extensions: dict[str, Any] | None) -> None:
        self.sent: list[Message] = []
        self.scope: Scope = {"type": "websocket", "path": "/ws", "client": ("10.0.0.1", 5), "headers": []}
        if extensions is not None:
            self.scope["extensions"] = extensions
        self.answer = MiddlewareAnswer(self.scope, self.send)

    async def send(self, message: Message) -> None:
        self.sent.append(message)


async def receive() -> Message:
    return {"type": "websocket.connect"}


async def test_an_http_response_becomes_a_denial_response() -> None:
    server = Server(DENIALS)
    await PlainTextResponse("not you", 401)({**server.scope, "type": "http"}, receive, server.answer.send)
    await server.answer.close()
    assert [message["type"] for message in server.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert server.sent[0]["status"] == 401
    assert server.sent[1]["body"] == b"not you"


@pytest.mark.parametrize("extensions", [None, {}])
async def test_where_the_server_knows_no_denial_response_it_is_one_close(extensions: dict[str, Any] | None) -> None:
    server = Server(extensions)
    await PlainTextResponse("not you", 401)({**server.scope, "type": "http"}, receive, server.answer.send)
    await server.answer.close()
    assert server.sent == [{"type": "websocket.close", "code": 1000}]


async def test_middleware_that_returns_without_an_answer_is_a_403_and_named(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(DENIALS)
    with caplog.at_level(logging.WARNING, "antiphon"):
        await server.answer.close()
    assert [message["type"] for message in server.sent] == ["websocket.close"]
    assert "middleware returned without an answer for" in caplog.text
    assert "/ws" in caplog.text


async def test_a_connection_that_is_through_gets_the_servers_own_send() -> None:
    server = Server(DENIALS)
    assert server.answer.leave(server.answer.send) == server.send
    await server.answer.close()
    assert server.sent == []


async def test_middleware_that_wraps_send_keeps_seeing_every_message() -> None:
    server = Server(DENIALS)

    async def wrapped(message: Message) -> None:
        await server.answer.send(message)

    assert server.answer.leave(wrapped) is wrapped
    await wrapped({"type": "websocket.accept"})
    assert server.sent == [{"type": "websocket.accept"}]


class Doorkeeper:
    """Lets in who knows the word; tells others in JSON."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and scope["query_string"] != b"word=sesame":
            await JSONResponse({"detail": "say the word"}, 418)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def test_a_doorkeeper_before_an_app_denies_in_its_own_words_and_lets_others_in(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App(middleware=[Middleware(Doorkeeper)])

    @app.websocket("/ws")
    async def greet(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("welcome")

    client = TestClient(app)
    with client.websocket_connect("/ws?word=sesame") as session:
        assert session.receive_text() == "welcome"
    with (
        caplog.at_level(logging.INFO, "antiphon"),
        pytest.raises(WebSocketDisconnect) as caught,
        client.websocket_connect("/ws"),
    ):
        pass
    assert isinstance(caught.value, WebSocketDenialResponse)
    assert caught.value.status_code == 418
    assert caught.value.json() == {"detail": "say the word"}
    assert "refused: 418, by middleware" in caplog.text
