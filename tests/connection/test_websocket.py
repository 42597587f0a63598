"""The promises of `WebSocket` to an endpoint, on any server."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pydantic
import pytest
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketDisconnect as StarletteWebSocketDisconnect

from antiphon.connection import ConnectionOptions, WebSocket, WebSocketState
from antiphon.connection.ways import OverAsgi
from antiphon.exceptions import (
    InvalidJSON,
    NotAccepted,
    UnexpectedMessageKind,
    WebSocketDisconnect,
    WebSocketDisconnected,
)
from antiphon.types import Message
from tests.connection.peer import Peer

# The object


async def test_it_is_an_http_connection_with_everything_of_the_handshake() -> None:
    headers = [(b"host", b"example.org"), (b"cookie", b"session=abc")]
    websocket = Peer(path="/chat", query_string=b"room=1", headers=headers, state={"db": 1}).websocket()
    assert isinstance(websocket, HTTPConnection)
    assert str(websocket.url) == "ws://example.org/chat?room=1" or str(websocket.url).endswith("/chat?room=1")
    assert websocket.query_params["room"] == "1"
    assert websocket.cookies == {"session": "abc"}
    assert websocket.state.db == 1
    assert (websocket.client_state, websocket.application_state) == (WebSocketState.CONNECTING,) * 2


async def test_starlettes_code_takes_it_for_its_own() -> None:
    assert isinstance(Peer().websocket(), StarletteWebSocket)
    assert issubclass(WebSocket, StarletteWebSocket)


async def test_a_scope_that_is_no_websockets_is_refused() -> None:
    peer = Peer(type="http")
    with pytest.raises(ValueError, match="'http'"):
        WebSocket(peer.scope, peer.receive, peer.send)


async def test_a_subclass_sees_every_message_in_its_own_receive_and_send() -> None:
    seen: list[str] = []

    class Logged(WebSocket):
        async def receive(self) -> Message:
            message = await super().receive()
            seen.append(message["type"])
            return message

        async def send(self, message: Message) -> None:
            seen.append(message["type"])
            await super().send(message)

    peer = Peer()
    websocket = await peer.accepted(Logged)
    peer.come("x")
    await websocket.send_text(await websocket.receive_text())
    assert seen == ["websocket.connect", "websocket.accept", "websocket.receive", "websocket.send"]


# Opening


async def test_accept_reads_the_connect_message_if_nobody_has() -> None:
    peer = Peer()
    await peer.websocket().accept(headers=[(b"x-a", b"1")])
    assert peer.unread == 0
    assert peer.sent == [{"type": "websocket.accept", "subprotocol": None, "headers": [(b"x-a", b"1")]}]


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"x-a": "1"}, TypeError),
        ([("x-a", "1")], TypeError),
        ([b"x-a"], TypeError),
        ([(b"x-a", b"1", b"2")], TypeError),
        ([(b"x-a", b"1\r\nset-cookie: a=b")], ValueError),
    ],
)
async def test_headers_that_no_server_can_send_are_refused_before_the_handshake(
    headers: Any, error: type[Exception]
) -> None:
    peer = Peer()
    websocket = peer.websocket()
    with pytest.raises(error):
        await websocket.accept(headers=headers)
    assert peer.sent == []
    assert websocket.application_state is WebSocketState.CONNECTING


async def test_accept_leaves_the_next_message_alone_when_the_connect_message_was_read() -> None:
    peer = Peer()
    websocket = peer.websocket()
    await websocket.receive()
    peer.come("first")
    await websocket.accept()
    assert await websocket.receive_text() == "first"


async def test_an_offered_subprotocol_is_selected(caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer(subprotocols=["soap", "wamp"])
    await peer.websocket().accept("wamp")
    assert peer.sent[0]["subprotocol"] == "wamp"
    assert not caplog.records


async def test_a_subprotocol_that_was_not_offered_is_not_selected_and_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    peer = Peer(subprotocols=["soap"])
    await peer.websocket().accept("wamp")
    assert peer.sent[0]["subprotocol"] is None
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("antiphon", logging.WARNING)
    assert "'wamp'" in record.getMessage()


async def test_a_list_of_subprotocols_is_no_choice() -> None:
    peer = Peer(subprotocols=["soap"])
    with pytest.raises(TypeError, match=r"accept\(\) takes one subprotocol, a str .*, not \['soap'\]"):
        await peer.websocket().accept(["soap"])  # type: ignore[arg-type]
    assert peer.sent == []


async def test_accept_on_a_connection_that_is_lost_is_a_disconnect() -> None:
    peer = Peer()
    websocket = peer.websocket()
    peer.lost = True
    with pytest.raises(WebSocketDisconnect) as caught:
        await websocket.accept()
    assert caught.value.code == 1006
    assert websocket.application_state is WebSocketState.DISCONNECTED


async def test_accept_after_the_client_left_is_a_disconnect_with_its_code() -> None:
    peer = Peer()
    websocket = peer.websocket()
    await websocket.receive()
    peer.leave(1001, reason="bye")
    await websocket.receive()
    with pytest.raises(WebSocketDisconnect) as caught:
        await websocket.accept()
    assert (caught.value.code, caught.value.reason) == (1001, "bye")


async def test_a_denial_is_sent_as_the_response_says() -> None:
    peer = Peer()
    await peer.websocket().send_denial_response(JSONResponse({"detail": "no"}, status_code=401))
    assert [message["type"] for message in peer.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert peer.sent[0]["status"] == 401


async def test_a_denial_may_be_streamed() -> None:
    peer = Peer()

    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    websocket = peer.websocket()
    await websocket.send_denial_response(StreamingResponse(parts(), status_code=403))
    assert b"".join(message["body"] for message in peer.sent[1:]) == b"onetwo"
    assert websocket.application_state is WebSocketState.DISCONNECTED


async def test_a_denial_on_a_server_without_the_extension_is_a_runtime_error() -> None:
    with pytest.raises(RuntimeError, match="Denial Response"):
        await Peer(extensions={}).websocket().send_denial_response(JSONResponse({}))


# Receiving


@pytest.mark.parametrize("method", ["receive_text", "receive_bytes", "receive_json"])
async def test_a_receive_before_accept_is_a_programming_error_and_no_disconnect(method: str) -> None:
    websocket = Peer().websocket()
    with pytest.raises(NotAccepted, match=r"accept\(\)") as caught:
        await getattr(websocket, method)()
    assert isinstance(caught.value, RuntimeError)
    assert not isinstance(caught.value, StarletteWebSocketDisconnect)


@pytest.mark.parametrize("method", ["send_text", "send_bytes", "send_json"])
async def test_a_send_before_accept_is_a_programming_error_and_no_disconnect(method: str) -> None:
    with pytest.raises(NotAccepted):
        await getattr(Peer().websocket(), method)(b"x" if method == "send_bytes" else "x")


@pytest.mark.parametrize("empty", [{"bytes": None}, {}])
async def test_a_received_text_message_holds_no_other_key(empty: dict[str, None]) -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.come({"type": "websocket.receive", "text": "x", **empty})
    assert await websocket.receive() == {"type": "websocket.receive", "text": "x"}


async def test_a_received_binary_message_holds_no_other_key_even_when_empty() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.come({"type": "websocket.receive", "text": None, "bytes": b""})
    assert await websocket.receive() == {"type": "websocket.receive", "bytes": b""}


async def test_the_disconnect_message_is_returned_and_then_nothing_more_comes() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.leave(4001, reason="bye")
    assert (await websocket.receive())["code"] == 4001
    assert websocket.client_state is WebSocketState.DISCONNECTED
    for _ in range(2):
        with pytest.raises(WebSocketDisconnected) as caught:
            await websocket.receive()
        assert (caught.value.code, caught.value.reason) == (4001, "bye")
        assert isinstance(caught.value, RuntimeError)
        assert isinstance(caught.value, WebSocketDisconnect)


@pytest.mark.parametrize(
    ("message", "server_speaks", "code"),
    [
        ({"code": 1005}, "2.4", 1006),  # uvicorn, when the connection is lost
        ({"code": 1005, "reason": ""}, "2.4", 1005),  # uvicorn, for a Close frame without a code
        ({"code": 1005, "reason": None}, "2.4", 1005),
        ({"code": 1005}, "2.1", 1005),  # a server that never tells reasons
        ({"code": 1006}, "2.3", 1006),
        ({}, "2.4", 1005),
    ],
)
async def test_a_lost_connection_is_1006_and_a_close_without_code_is_1005(
    message: Message, server_speaks: str, code: int
) -> None:
    peer = Peer(asgi={"spec_version": server_speaks})
    websocket = await peer.accepted()
    peer.come({"type": "websocket.disconnect", **message})
    with pytest.raises(WebSocketDisconnect) as caught:
        await websocket.receive_text()
    assert caught.value.code == code


async def test_a_frame_of_the_wrong_kind_is_a_key_error_that_names_both_kinds() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.come(b"binary", "text", "text")
    with pytest.raises(UnexpectedMessageKind, match=r"expected a text message.*sent binary") as caught:
        await websocket.receive_text()
    assert isinstance(caught.value, KeyError)
    with pytest.raises(UnexpectedMessageKind, match=r"expected a binary message.*sent text"):
        await websocket.receive_bytes()
    with pytest.raises(UnexpectedMessageKind):
        await websocket.receive_json(mode="binary")


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", "[" * 100_000, "1" * 5000, "nul", '"\x01"', "\ufeff1"])
async def test_bad_json_is_one_kind_of_error_and_the_connection_stays_open(text: str) -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.come(text, text.encode(), b'"\xff"', '{"a": 1}')
    with pytest.raises(InvalidJSON) as caught:
        await websocket.receive_json()
    assert isinstance(caught.value, json.JSONDecodeError)
    for _ in range(2):
        with pytest.raises(InvalidJSON):
            await websocket.receive_json(mode="binary")
    assert await websocket.receive_json() == {"a": 1}


async def test_two_receives_at_one_time_are_a_runtime_error_that_says_so() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    first = asyncio.create_task(websocket.receive_text())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="two tasks receive"):
        await websocket.receive_text()
    peer.come("x")
    assert await first == "x"


async def test_a_receive_that_was_cancelled_loses_nothing() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await websocket.receive_text()
    peer.come("x")
    assert await websocket.receive_text() == "x"


@pytest.mark.parametrize(("method", "sent"), [("iter_text", "1"), ("iter_bytes", b"1"), ("iter_json", "1")])
async def test_an_iteration_ends_silently_on_a_disconnect(method: str, sent: str | bytes) -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.come(sent, sent)
    peer.leave(1001)
    assert len([message async for message in getattr(websocket, method)()]) == 2


@pytest.mark.parametrize("method", ["iter_text", "iter_bytes", "iter_json"])
async def test_an_iteration_on_a_dead_connection_is_an_error_and_no_empty_loop(method: str) -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.leave(1001)
    await websocket.receive()
    with pytest.raises(WebSocketDisconnected):
        async for _ in getattr(websocket, method)():
            pass


async def test_an_iteration_ends_when_its_own_body_closes() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.come("a", "b")
    seen = []
    async for text in websocket.iter_text():
        seen.append(text)
        await websocket.close()
    assert seen == ["a"]


# Sending


async def test_json_is_compact_and_not_ascii_escaped() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    await websocket.send_json({"name": "数据", "list": [1, 2.5, None, True]})
    await websocket.send_json({"name": "数据"}, mode="binary")
    assert peer.sent[0] == {"type": "websocket.send", "text": '{"name":"数据","list":[1,2.5,null,true]}'}
    assert peer.sent[1] == {"type": "websocket.send", "bytes": '{"name":"数据"}'.encode()}


async def test_models_dataclasses_and_times_are_json_too() -> None:
    class Model(pydantic.BaseModel):
        at: datetime

    @dataclass
    class Point:
        x: int

    peer = Peer()
    websocket = await peer.accepted()
    at = datetime(2026, 1, 2, tzinfo=UTC)
    await websocket.send_json({"model": Model(at=at), "point": Point(1), "at": at, "id": uuid.UUID(int=0)})
    assert json.loads(peer.texts[0]) == {
        "model": {"at": "2026-01-02T00:00:00Z"},
        "point": {"x": 1},
        "at": "2026-01-02T00:00:00Z",
        "id": "00000000-0000-0000-0000-000000000000",
    }


async def test_what_json_cannot_hold_is_a_type_error() -> None:
    websocket = await Peer().accepted()
    with pytest.raises(TypeError, match="object"):
        await websocket.send_json(object())


@pytest.mark.parametrize("mode", ["invalid", ""])
async def test_an_unknown_json_mode_is_an_error(mode: str) -> None:
    websocket = await Peer().accepted()
    with pytest.raises(RuntimeError, match="mode"):
        await websocket.send_json({}, mode=mode)
    with pytest.raises(RuntimeError, match="mode"):
        await websocket.receive_json(mode=mode)


@pytest.mark.parametrize("data", [b"bytes", bytearray(b"bytes"), memoryview(b"bytes")])
async def test_everything_bytes_like_is_sent_as_bytes(data: bytes) -> None:
    peer = Peer()
    websocket = await peer.accepted()
    await websocket.send_bytes(data)
    assert peer.sent == [{"type": "websocket.send", "bytes": b"bytes"}]
    assert type(peer.sent[0]["bytes"]) is bytes


@pytest.mark.parametrize(
    "call",
    [
        lambda ws: ws.send_text(b"x"),
        lambda ws: ws.send_text({"a": 1}),
        lambda ws: ws.send_text(None),
        lambda ws: ws.send_bytes("x"),
        lambda ws: ws.send_bytes([1]),
        lambda ws: ws.close("1000"),
    ],
)
async def test_a_value_of_the_wrong_type_is_a_type_error_at_the_call(call: Callable[[Any], Awaitable[None]]) -> None:
    peer = Peer()
    websocket = await peer.accepted()
    with pytest.raises(TypeError):
        await call(websocket)
    await websocket.send_text("still open")
    assert peer.texts == ["still open"]


async def test_what_is_called_twice_or_too_late_is_named_as_it_was_called() -> None:
    websocket = await Peer().accepted()
    with pytest.raises(RuntimeError, match=r"^accept\(\) was called on a connection that is accepted already"):
        await websocket.accept()
    websocket.scope["extensions"] = {"websocket.http.response": {}}
    with pytest.raises(RuntimeError, match=r"^send_denial_response\(\) .* already; close\(code, reason\) ends it"):
        await websocket.send_denial_response(PlainTextResponse("no"))
    await websocket.close(4000)
    with pytest.raises(WebSocketDisconnected, match=r"^close\(\) on a connection that has ended \(4000\)"):
        await websocket.close()
    with pytest.raises(WebSocketDisconnected, match=r"^accept\(\) on a connection that has ended \(4000\)"):
        await websocket.accept()


async def test_text_that_is_no_unicode_is_an_error_at_the_call_and_the_connection_stays_open() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    with pytest.raises(UnicodeEncodeError):
        await websocket.send_text("\ud800")
    await websocket.send_json({"a": "\ud800", "ä": "\\"})
    assert peer.texts == ['{"a":"\\ud800","ä":"\\\\"}']


async def test_a_send_to_a_peer_that_is_gone_is_1006_and_then_it_is_known() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.lost = True
    with pytest.raises(WebSocketDisconnect) as caught:
        await websocket.send_text("x")
    assert caught.value.code == 1006
    assert websocket.application_state is WebSocketState.DISCONNECTED
    for call in (websocket.send_text("x"), websocket.receive_text(), websocket.close()):
        with pytest.raises(WebSocketDisconnected):
            await call


async def test_a_send_after_the_disconnect_message_carries_the_real_code() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.leave(4321, reason="why")
    await websocket.receive()
    with pytest.raises(WebSocketDisconnected) as caught:
        await websocket.send_text("x")
    assert (caught.value.code, caught.value.reason) == (4321, "why")
    assert peer.sent == []


async def test_a_disconnect_message_behind_a_failed_send_tells_the_real_code() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.lost = True
    with pytest.raises(WebSocketDisconnect):
        await websocket.send_text("x")
    peer.leave(1001, reason="away")
    assert (await websocket.receive())["code"] == 1001
    with pytest.raises(WebSocketDisconnected) as caught:
        await websocket.receive_text()
    assert (caught.value.code, caught.value.reason) == (1001, "away")


async def test_uvicorns_complaint_about_its_own_close_is_a_disconnect() -> None:
    peer = Peer()
    websocket = await peer.accepted()

    async def refuse(message: Message) -> None:
        raise RuntimeError("Unexpected ASGI message 'websocket.send', after sending 'websocket.close'.")

    assert isinstance(websocket._life.way, OverAsgi)
    websocket._life.way.writer._send = refuse
    with pytest.raises(WebSocketDisconnect):
        await websocket.send_text("x")


# Closing


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1014, 3000, 4999])
async def test_a_code_that_may_be_sent_is_sent(code: int) -> None:
    peer = Peer()
    websocket = await peer.accepted()
    await websocket.close(code, "r")
    assert peer.sent == [{"type": "websocket.close", "code": code, "reason": "r"}]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, -1])
async def test_a_code_that_may_not_be_sent_is_a_value_error_and_nothing_happens(code: int) -> None:
    peer = Peer()
    websocket = await peer.accepted()
    with pytest.raises(ValueError, match=str(code)):
        await websocket.close(code)
    with pytest.raises(ValueError, match=str(code)):
        await websocket.send({"type": "websocket.close", "code": code})
    assert websocket.application_state is WebSocketState.CONNECTED
    assert peer.sent == []


@pytest.mark.parametrize(("reason", "length"), [("x" * 200, 123), ("é" * 100, 122), ("😀" * 50, 120), ("a" * 123, 123)])
async def test_a_reason_is_cut_between_characters(reason: str, length: int) -> None:
    peer = Peer()
    websocket = await peer.accepted()
    await websocket.close(1000, reason)
    sent = peer.sent[0]["reason"]
    assert len(sent.encode()) == length
    assert reason.startswith(sent)


async def test_a_second_close_is_an_error_with_the_code_of_the_first() -> None:
    websocket = await Peer().accepted()
    await websocket.close(4000, "enough")
    with pytest.raises(WebSocketDisconnected) as caught:
        await websocket.close()
    assert (caught.value.code, caught.value.reason) == (4000, "enough")


async def test_closing_what_the_peer_has_closed_is_no_error() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.leave(1001)
    await websocket.receive()
    peer.lost = True
    await websocket.close()


@pytest.mark.parametrize("lost", [False, True])
async def test_no_call_on_a_dead_connection_returns_quietly_for_ever(lost: bool) -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.leave(1001)
    peer.lost = lost
    for call in (websocket.receive_text, lambda: websocket.send_text("x"), websocket.close):
        with pytest.raises(WebSocketDisconnect):
            await _for_ever(call)


async def _for_ever(call: Callable[[], Awaitable[object]]) -> None:
    while True:
        await call()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda ws: ws.close(reason=3), "reason: expected a str, got int"),
        (lambda ws: ws.send("hello"), "send.. takes an ASGI message, a dict with its type, not 'hello'"),
        (lambda ws: ws.send({"text": "hello"}), "a dict with its type, not {'text': 'hello'}"),
        (lambda ws: ws.send_denial_response({"no": 1}), "takes a Response.*got {'no': 1}"),
    ],
)
async def test_arguments_of_the_wrong_kind_are_named(call: Any, told: str) -> None:
    peer = Peer()
    websocket = peer.websocket()
    with pytest.raises(TypeError, match=told):
        await call(websocket)


@pytest.mark.parametrize("option", ["outbox_bytes", "inbox_bytes", "json_values", "send_timeout"])
@pytest.mark.parametrize("value", [0, -1, "1MB", True])
def test_a_limit_of_a_connection_is_a_positive_number(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{option} is a positive number"):
        ConnectionOptions(**{option: value})
