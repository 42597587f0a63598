"""Messages as values of a declared type, on the real engine: `receive_as`, `iter_as`, `send_model`."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from antiphon import App, InvalidMessage, OnInvalid, WebSocket, WebSocketDisconnect
from antiphon.connection import typed
from antiphon.exceptions import UnexpectedMessageKind
from antiphon.testing import Server
from tests.connection.peer import Peer


class Move(BaseModel):
    type: Literal["move"] = "move"
    x: int
    y: int


class Quit(BaseModel):
    type: Literal["quit"] = "quit"


@dataclass
class Point:
    x: float
    label: str = "p"


class Named(TypedDict):
    name: str


class Aliased(BaseModel):
    user_name: str = Field(alias="userName")


KINDS: list[tuple[Any, str, Any]] = [
    (Move, '{"type":"move","x":1,"y":2}', Move(x=1, y=2)),
    (Move | Quit, '{"type":"quit"}', Quit()),
    (Point, '{"x":1.5}', Point(1.5)),
    (Named, '{"name":"ann"}', {"name": "ann"}),
    (list[int], "[1,2]", [1, 2]),
    (Annotated[int, Field(gt=0)], "3", 3),
    (Aliased, '{"userName":"ann"}', Aliased(userName="ann")),
    (dict[str, Any], '{"a":"\\ud800"}', {"a": "\ud800"}),
]


@pytest.mark.parametrize(("kind", "text", "value"), KINDS)
@pytest.mark.parametrize("mode", ["text", "binary"])
async def test_a_message_becomes_a_value_of_the_type(kind: Any, text: str, value: Any, mode: str) -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.come(text if mode == "text" else text.encode())
    assert await websocket.receive_as(kind, mode) == value


BAD: list[tuple[str, str, tuple[str | int, ...]]] = [
    ("nope", "json_invalid", ()),
    ("", "json_invalid", ()),
    ("[" * 5000, "json_invalid", ()),
    ("1" * 5000, "json_invalid", ()),
    ('{"type":"move","x":"a","y":2}', "int_parsing", ("x",)),
    ('{"type":"move","x":1}', "missing", ("y",)),
    ('{"x":"\\ud800","y":2}', "string_unicode", ("x",)),
    ("[]", "model_type", ()),
]


@pytest.mark.parametrize(("text", "kind", "loc"), BAD)
async def test_what_does_not_fit_is_invalid_and_says_where_without_the_input(
    text: str, kind: str, loc: tuple[str | int, ...]
) -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.come(text)
    with pytest.raises(InvalidMessage) as caught:
        await websocket.receive_as(Move)
    (error,) = caught.value.errors()
    assert (error["type"], tuple(error["loc"])) == (kind, loc)
    assert "input" not in error
    peer.come('{"x":1,"y":2}')
    assert await websocket.receive_as(Move) == Move(x=1, y=2)


async def test_a_binary_frame_where_text_is_awaited_is_of_the_wrong_kind() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.come(b"{}")
    with pytest.raises(UnexpectedMessageKind):
        await websocket.receive_as(Quit)


@pytest.mark.parametrize("wrong", ["Move", 42, lambda: None])
async def test_what_is_no_type_is_refused_before_the_peer_says_anything(wrong: Any) -> None:
    websocket = await Peer().accepted()
    with pytest.raises(TypeError, match=r"expected a type|no type that pydantic can validate"):
        await websocket.receive_as(wrong)


async def test_an_uncaught_invalid_message_closes_with_1007_and_a_line(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_as(Move)

    with caplog.at_level(logging.INFO, logger="antiphon"):
        async with Server(app) as server, server.connect("/") as peer:
            await peer.send('{"x":1}')
            assert await peer.wait_closed() == 1007
    assert "Traceback" not in caplog.text


async def test_iteration_ends_with_the_connection() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.come('{"x":1,"y":2}', '{"type":"quit"}')
    peer.leave()
    assert [message async for message in websocket.iter_as(Move | Quit)] == [Move(x=1, y=2), Quit()]


async def test_iteration_over_a_dead_connection_raises() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.leave()
    await websocket.receive()
    with pytest.raises(WebSocketDisconnect):
        await anext(websocket.iter_as(Move))


async def test_by_default_an_invalid_message_ends_the_iteration() -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.come("nope")
    with pytest.raises(InvalidMessage):
        await anext(websocket.iter_as(Move))


@pytest.mark.parametrize("policy", [OnInvalid.IGNORE, OnInvalid.REPLY])
async def test_other_policies_go_on_behind_it(policy: OnInvalid) -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.come('{"x":"?","y":1}', '{"x":1,"y":2}')
    assert await anext(websocket.iter_as(Move, invalid=policy)) == Move(x=1, y=2)
    assert len(peer.texts) == (policy is OnInvalid.REPLY)


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ('{"ref":7,"x":"?"}', 7),
        ('{"ref":"a","x":"?"}', "a"),
        ('{"ref":"' + "a" * 65 + '","x":"?"}', None),
        ('{"ref":1.5}', None),
        ('{"ref":true}', None),
        ('{"ref":"\\ud800"}', None),
        ('{"ref":1' + "0" * 30 + "}", None),
        ("[1]", None),
    ],
)
async def test_a_reply_names_the_fault_and_the_ref(text: str, ref: int | str | None) -> None:
    peer = Peer()
    websocket = await peer.accepted()
    peer.come(text, '{"x":1,"y":2}')
    await anext(websocket.iter_as(Move, invalid=OnInvalid.REPLY))
    reply = json.loads(peer.texts[0])
    assert (reply["type"], reply["code"], reply.get("ref")) == ("error", "invalid", ref)
    assert reply["message"]
    assert 1 <= len(reply["detail"]) <= 5
    assert all(set(item) == {"loc", "type", "msg"} for item in reply["detail"])


@pytest.mark.parametrize("policy", [OnInvalid.IGNORE, OnInvalid.REPLY])
async def test_too_many_invalid_messages_in_a_minute_close_with_1008(policy: OnInvalid) -> None:
    app = App()
    seen: list[Move] = []

    @app.websocket("/")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        seen.extend([message async for message in websocket.iter_as(Move, invalid=policy)])

    async with Server(app) as server, server.connect("/") as peer:
        for _ in range(20):
            await peer.send("nope")
        await peer.send('{"x":1,"y":2}')
        await peer.send("nope")
        assert await peer.wait_closed() == 1008
    assert seen == [Move(x=1, y=2)]


def test_mistakes_are_forgotten_after_a_minute() -> None:
    limit = typed.InvalidLimit()
    assert not any(limit.passed(float(second)) for second in range(0, 300, 4))
    assert not any(limit.passed(1000.0) for _ in range(20))
    assert limit.passed(1059.9)
    assert not limit.passed(1200.0)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Move(x=1, y=2), '{"type":"move","x":1,"y":2}'),
        (Aliased(userName="ann"), '{"userName":"ann"}'),
        (Point(1.5), '{"x":1.5,"label":"p"}'),
        ({"a": Decimal("1.10")}, '{"a":"1.10"}'),
        (Point(float("nan")), '{"x":null,"label":"p"}'),
        (Aliased(userName="a").model_copy(update={"user_name": "\ud800"}), '{"userName":"\\ud800"}'),
    ],
)
async def test_a_model_goes_out_as_it_is_read(message: Any, text: str) -> None:
    peer = Peer()
    websocket = await peer.accepted()
    await websocket.send_model(message)
    assert peer.texts == [text]


@pytest.mark.parametrize("wrong", [object(), {"a": object()}])
async def test_what_has_no_json_form_is_a_type_error_and_nothing_is_sent(wrong: Any) -> None:
    peer = Peer()
    websocket = await peer.accepted()
    with pytest.raises(TypeError):
        await websocket.send_model(wrong)
    assert peer.sent == []


@given(
    st.binary(max_size=60) | st.text(max_size=60) | st.recursive(st.integers() | st.text(), st.lists).map(json.dumps)
)
def test_no_bytes_raise_anything_but_an_invalid_message(data: str | bytes) -> None:
    try:
        typed.decode(Move | Quit, data)
    except InvalidMessage as exc:
        reply = typed.error_reply(exc, data)
    else:
        reply = "{}"
    json.loads(reply.encode())
