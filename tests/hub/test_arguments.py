"""Unexpected arguments are a named error, before anything is sent."""

from __future__ import annotations

import asyncio
import enum
import math
from typing import Any

import pytest

from antiphon.hub import Hub, InvalidTopic, Overflow, Position, TopicOptions, UnencodableData, UnknownBackend
from antiphon.hub.arguments import read_position
from antiphon.hub.envelope import MAX_DATA
from antiphon.hub.errors import InvalidPosition
from antiphon.testing.hub_sinks import Connection

OPTIONS = {"kept": TopicOptions(history=10)}


class Rooms(enum.StrEnum):
    LOBBY = "lobby"


@pytest.mark.parametrize("topic", [None, 5, b"t", [], {}, ("t",), 1.5, object()])
async def test_a_topic_that_is_no_str_is_an_invalid_topic_everywhere(topic: Any) -> None:
    hub = Hub("memory://")
    with pytest.raises(InvalidTopic, match="expected a str, got"):
        await hub.publish(topic, "x")
    with pytest.raises(InvalidTopic):
        hub.join(topic, Connection())
    with pytest.raises(InvalidTopic):
        hub.subscribe(topic)
    with pytest.raises(InvalidTopic):
        await hub.history(topic)
    with pytest.raises(InvalidTopic):
        await hub.presence(topic)
    assert hub.stats().topics == 0


async def test_a_member_of_an_enum_is_the_topic_it_stands_for() -> None:
    hub = Hub("memory://", topics={"lobby": TopicOptions(history=1)})
    connection = Connection()
    async with hub.join("lobby", connection):
        assert await hub.publish(Rooms.LOBBY, "x") is not None
        assert connection.received == ["x"]


@pytest.mark.parametrize(
    ("since", "error"),
    [
        ("1-a", TypeError),
        (3, TypeError),
        ((1, "a", 2), TypeError),
        (Position("1", "a"), InvalidPosition),  # type: ignore[arg-type]
        (Position(math.nan, "a"), InvalidPosition),  # type: ignore[arg-type]
        (Position(1, 5), InvalidPosition),  # type: ignore[arg-type]
        (Position(None, None), InvalidPosition),  # type: ignore[arg-type]
        (Position(-1, "a"), InvalidPosition),
        (Position(10**18, "a"), InvalidPosition),
        (Position(1, "e" * 65), InvalidPosition),
        (Position(1, "\0"), InvalidPosition),
        (Position(1, "\ud800"), InvalidPosition),
    ],
)
async def test_a_since_that_is_no_position_is_an_error(since: Any, error: type[Exception]) -> None:
    hub = Hub("memory://", topics=OPTIONS)
    with pytest.raises(error, match="since: expected"):
        hub.join("kept", Connection(), since=since)
    with pytest.raises(error, match="since: expected"):
        await hub.history("kept", since)


def test_a_position_becomes_exact_types() -> None:
    assert read_position((True, Rooms.LOBBY)) == (1, "lobby")
    assert [type(part) for part in read_position((True, Rooms.LOBBY)) or ()] == [int, str]


@pytest.mark.parametrize("text", ["", "1", "-1-a", "1-\ud800", "x-a", "1-" + "e" * 65, "1-\0", "1" * 19 + "-a"])
def test_what_a_client_sends_as_a_position_is_a_position_or_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="not a position"):
        Position.parse(text)


@pytest.mark.parametrize("count", ["5", 2.5, None, math.inf, True])
async def test_a_history_that_is_no_number_of_messages_is_an_error(count: Any) -> None:
    with pytest.raises(TypeError, match="history: expected a number of messages"):
        Hub("memory://", topics=OPTIONS).join("kept", Connection(), history=count)


@pytest.mark.parametrize(
    "options",
    [
        {"history": "5"},
        {"history": 1.5},
        {"ttl": None},
        {"outbox_bytes": 1.5},
        {"overflow": "disconnect"},
        {"framing": "event"},
        {"overflow": Overflow.CONFLATE, "conflate_by": 5},
    ],
)
def test_options_of_another_type_are_type_errors(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{list(options)[-1]}: expected"):
        TopicOptions(**options)


@pytest.mark.parametrize(
    "options", [{"ttl": math.inf}, {"ttl": math.nan}, {"ttl": 1e300}, {"presence_grace": math.inf}, {"ttl": 0}]
)
def test_options_without_sense_are_value_errors(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}: expected"):
        TopicOptions(**options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"presence_lease": 0}, ValueError),
        ({"presence_lease": math.nan}, ValueError),
        ({"outage_timeout": None}, TypeError),
        ({"on_outage": "wait"}, TypeError),
        ({"prefix": ""}, ValueError),
        ({"prefix": "a\n"}, ValueError),
        ({"prefix": 5}, TypeError),
        ({"topics": ["kept"]}, TypeError),
        ({"topics": {"kept": {"history": 5}}}, TypeError),
    ],
)
def test_a_hub_with_wrong_options_is_not_made(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        Hub("memory://", **options)


@pytest.mark.parametrize(
    "url",
    [
        5,
        b"memory://",
        "redis://localhost?bogus=1",
        "redis://:geheim@localhost?bogus=1",
        "redis://localhost/one",
        "redis://:geheim@localhost/one",
        "rediss://localhost/-1",
    ],
)
def test_a_url_that_is_none_is_an_error_when_the_hub_is_made(url: Any) -> None:
    with pytest.raises(UnknownBackend) as caught:
        Hub(url)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, ValueError),
        ({"user": ""}, ValueError),
        ({"topic": "kept", "user": ""}, ValueError),
        ({"topic": "kept", "code": "1008"}, TypeError),
        ({"topic": "kept", "code": None}, TypeError),
        ({"topic": "kept", "code": 1005}, ValueError),
        ({"topic": "kept", "reason": 5}, TypeError),
        ({"user": "\ud800"}, UnencodableData),
    ],
)
async def test_closing_connections_by_wrong_arguments_closes_none(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    hub, connection = Hub("memory://", topics=OPTIONS), Connection()
    async with hub.join("kept", connection):
        with pytest.raises(error):
            await hub.close_connections(**arguments)
        assert connection.sink.alive


@pytest.mark.parametrize("user", ["\ud800", Rooms.LOBBY, 5])
async def test_a_user_has_a_name_in_utf_8(user: Any) -> None:
    hub = Hub("memory://")
    if user == "\ud800":
        with pytest.raises(UnencodableData, match="user: expected UTF-8"):
            hub.join("t", Connection(), presence={}, user=user)
        return
    async with hub.join("t", Connection(), presence={}, user=user):
        assert list(await hub.presence("t")) == [str(user)]


async def test_data_larger_than_any_backend_takes_is_refused() -> None:
    hub = Hub("memory://", topics=OPTIONS)
    await hub.publish("kept", b"x" * MAX_DATA)
    with pytest.raises(UnencodableData, match=f"expected at most {MAX_DATA}"):
        await hub.publish("kept", b"x" * (MAX_DATA + 1))
    assert len(await hub.history("kept")) == 1


@pytest.mark.parametrize("data", [10**5000, {"a": ['"', -(10**4300)]}], ids=["alone", "within"])
async def test_an_integer_that_no_subscriber_could_read_is_refused(data: Any) -> None:
    hub = Hub("memory://", topics=OPTIONS)
    with pytest.raises(UnencodableData, match="more than 4300 digits"):
        await hub.publish("kept", data)
    assert await hub.history("kept") == []


async def test_digits_in_text_are_no_integer() -> None:
    hub, text = Hub("memory://", topics=OPTIONS), '\\"' + "1" * 5000
    async with hub.subscribe("kept") as messages:
        for data in ({"a": text}, [text, 10**4299]):
            await hub.publish("kept", data)
            assert (await anext(messages)).data == data


async def test_data_nested_as_deep_as_can_be_written_can_be_read() -> None:
    hub = Hub("memory://", topics=OPTIONS)
    data: Any = 1
    for _ in range(240):
        data = [data]
    async with hub.subscribe("kept") as messages:
        await hub.publish("kept", data)
        await hub.publish("kept", {"n": 10**4200, "deep": data})
        assert (await anext(messages)).data == data
    first, second = await hub.history("kept")
    assert first.data == data
    assert second.data["n"] == 10**4200
    assert second.data["deep"] == data


async def test_an_observer_that_raises_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: object) -> None:
        raise RuntimeError("metrics are down")

    hub, one, other = Hub("memory://", topics=OPTIONS, observer=broken), Connection(), Connection()
    async with hub.join("kept", one), hub.join("kept", other):
        for text in ("a", "b"):
            await hub.publish("kept", text)
        assert one.received == other.received == ["a", "b"]
    assert "metrics are down" in caplog.text


async def test_who_leaves_while_joining_is_no_member(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub("memory://", topics={"t": TopicOptions(presence=True)})
    tracked, go_on, track = asyncio.Event(), asyncio.Event(), hub.backend.track

    async def slow_track(*arguments: Any) -> None:
        tracked.set()
        await go_on.wait()
        await track(*arguments)

    monkeypatch.setattr(hub.backend, "track", slow_track)
    membership = hub.join("t", Connection(), presence={"user": "ann"})
    joining = asyncio.create_task(membership.__aenter__())
    await tracked.wait()
    await membership.leave()
    go_on.set()
    await joining
    assert await hub.presence("t") == {}
    assert hub.stats().topics == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"history": True}, "history: expected a whole number, got bool"),
        ({"outbox_bytes": True}, "outbox_bytes: expected a whole number, got bool"),
        ({"ttl": True}, "ttl: expected a number, got bool"),
        ({"presence": "no"}, "presence: expected True, False or None, got 'no'"),
    ],
)
def test_an_option_of_a_topic_has_its_type(options: Any, told: str) -> None:
    """`history=True` beside `presence=True` would keep one message."""
    with pytest.raises(TypeError, match=told):
        TopicOptions(**options)
