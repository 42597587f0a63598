"""A message to a user: to each connection once, as its channel declares it, and never more than it takes."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from antiphon.hub import Hub, UnencodableData
from antiphon.identity import Identity
from antiphon.testing.hub_sinks import Connection
from antiphon.types import DECLARED_EXTENSION


class Told(BaseModel):
    text: str


class Empty(BaseModel):
    pass


class Own(BaseModel):
    type: Literal["mine", "yours"]


class Plain(TypedDict):
    type: Literal["plain"]
    n: int


class ChannelConnection(Connection):
    """A connection of a channel that declares these."""

    def __init__(self, *declared: Any) -> None:
        super().__init__()
        self.scope = {DECLARED_EXTENSION: frozenset(declared)}


ANN = Identity(user="ann")


async def test_a_channel_is_sent_what_it_declares_with_its_tag_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub()
    channel, joined, plain = ChannelConnection(Told, Empty, Own, Plain), ChannelConnection(Told), Connection()
    await hub.admit(channel, ANN)
    await hub.admit(plain, ANN)
    async with hub.join("t", joined, user="ann"):
        await hub.send(Told(text="hi"), user="ann")
        assert joined.received == ['{"type":"told","text":"hi"}']
        assert not caplog.records
        for data in (Empty(), Own(type="yours"), Plain(type="plain", n=1), {"type": "other"}, {"n": 1}, "text", b"\0"):
            await hub.send(data, user="ann")
    assert channel.received == [
        '{"type":"told","text":"hi"}',
        '{"type":"empty"}',
        '{"type":"yours"}',
        '{"type":"plain","n":1}',
    ]
    assert len(joined.received) == 1
    assert plain.received == [
        '{"text":"hi"}',
        "{}",
        '{"type":"yours"}',
        '{"type":"plain","n":1}',
        '{"type":"other"}',
        '{"n":1}',
        "text",
        b"\0",
    ]
    assert "'other' is nothing that the channel of a connection declares" in caplog.text


async def test_who_does_not_keep_up_is_closed_as_in_a_topic() -> None:
    hub, slow, quick = Hub(), Connection(), Connection()
    await hub.admit(slow, ANN)
    await hub.admit(quick, ANN)
    slow.sink.stall()
    for _ in range(3):
        await hub.send(b"x" * (1 << 19), user="ann")
    assert slow.sink.closed is not None
    assert slow.sink.closed[0] == 1013
    assert slow.sink.most_buffered <= 1 << 20
    assert len(quick.received) == 3


@pytest.mark.parametrize(
    ("data", "user", "error"),
    [(object(), "ann", UnencodableData), (b"x" * ((8 << 20) + 1), "ann", UnencodableData), ("x", "", ValueError)],
)
async def test_what_cannot_be_sent_is_said(data: object, user: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await Hub().send(data, user=user)


@pytest.mark.parametrize("payload", [b"s", b"s\xff\xff\xff\xff\x01x", b"r{", b"r[1]", b"e", b"e7", b"?", b"", b"\xff"])
async def test_what_is_no_control_message_is_told_in_the_log(payload: bytes, caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    await hub.admit(Connection(), ANN)
    hub._rooms.controlled(payload)
    assert "a malformed control message" in caplog.text
