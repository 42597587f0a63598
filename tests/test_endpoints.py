"""Class-based endpoints: one method for each thing that can happen, and `on_disconnect` always the last of them."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from antiphon import App, WebSocket
from antiphon.endpoints import WebSocketEndpoint
from antiphon.exceptions import WrongEncoding
from antiphon.testclient import TestClient


class Noting(WebSocketEndpoint):
    """Notes each message, and echoes it."""

    notes: ClassVar[list[Any]]

    async def on_receive(self, websocket: WebSocket, data: Any) -> None:
        self.notes.append(data)
        await websocket.send_json(repr(data))

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        self.notes.append(close_code)


def noting(encoding: str | None) -> tuple[TestClient, list[Any]]:
    notes: list[Any] = []
    app = App()
    app.add_websocket_route("/ws", type("Endpoint", (Noting,), {"encoding": encoding, "notes": notes}))
    return TestClient(app, raise_server_exceptions=False), notes


@pytest.mark.parametrize(
    ("encoding", "sent", "received"),
    [
        ("text", "hi", "hi"),
        ("bytes", b"hi", b"hi"),
        ("json", '{"a": 1}', {"a": 1}),
        ("json", b"[1]", [1]),
        (None, "hi", "hi"),
        (None, b"hi", b"hi"),
    ],
)
def test_a_message_comes_as_the_encoding_says(encoding: str | None, sent: str | bytes, received: Any) -> None:
    client, notes = noting(encoding)
    with client.websocket_connect("/ws") as session:
        session.send_bytes(sent) if isinstance(sent, bytes) else session.send_text(sent)
        assert session.receive_json() == repr(received)
        session.close(4001)
    assert notes == [received, 4001]


@pytest.mark.parametrize(
    ("encoding", "sent"), [("text", b"hi"), ("bytes", "hi"), ("json", "{"), ("json", b"\xff")], ids=repr
)
def test_another_kind_of_message_closes_with_1003_and_the_endpoint_hears_of_it(
    encoding: str, sent: str | bytes
) -> None:
    client, notes = noting(encoding)
    with client.websocket_connect("/ws") as session:
        session.send_bytes(sent) if isinstance(sent, bytes) else session.send_text(sent)
        assert session.receive() == {"type": "websocket.close", "code": 1003, "reason": ""}
    assert notes == [WrongEncoding.close_code]


def test_an_error_of_the_endpoints_own_is_a_1011_there() -> None:
    notes: list[int] = []

    class Fails(WebSocketEndpoint):
        async def on_receive(self, websocket: WebSocket, data: Any) -> None:
            raise LookupError("no such row")

        async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
            notes.append(close_code)

    app = App()
    app.add_websocket_route("/ws", Fails)
    client = TestClient(app, raise_server_exceptions=False)
    with client.websocket_connect("/ws") as session:
        session.send_text("x")
        assert session.receive()["code"] == 1011
    assert notes == [1011]


def test_an_endpoint_that_overrides_nothing_accepts_and_listens() -> None:
    app = App()
    app.add_websocket_route("/ws", WebSocketEndpoint)
    with TestClient(app).websocket_connect("/ws") as session:
        session.send_text("nobody answers")
