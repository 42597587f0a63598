"""Misuse: a join's arguments in vain, a membership nobody enters, a topic joined twice."""

from __future__ import annotations

import asyncio
import logging
import warnings
from typing import Any

import pytest

from antiphon.exceptions import RegistrationWarning
from antiphon.hub import AlreadyJoined, Hub, Position, TopicOptions
from antiphon.testing.hub_sinks import Connection, eventually
from tests.redis_server import RedisServer
from tests.relay_server import RelayServer


@pytest.mark.parametrize(
    "asked", [{"history": 5}, {"since": Position(1, "x")}, {"history": 5, "since": Position(1, "x")}]
)
async def test_history_of_a_topic_that_keeps_none_is_warned_of_once_and_at_the_join(asked: dict[str, Any]) -> None:
    hub = Hub()
    name = next(iter(asked))
    with pytest.warns(RegistrationWarning, match=rf"{name}= for topic 't', .* TopicOptions\(history=100\)") as caught:
        async with hub.join("t", Connection(), **asked):
            pass
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with hub.join("other", Connection(), **asked):
            pass


async def test_so_is_a_subscription() -> None:
    with pytest.warns(RegistrationWarning, match="history="):
        async with Hub().subscribe("t", history=1):
            pass


async def test_so_is_asking_for_it_once_and_where_it_was_asked() -> None:
    hub = Hub()
    with pytest.warns(RegistrationWarning, match=r"hub\.history\(\) for topic 't', .*history=100") as caught:
        assert await hub.history("t") == []
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert await hub.history("other") == []


async def test_what_the_topic_has_is_given_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub(topics={"t": TopicOptions(history=5, presence=True), "listed": TopicOptions(presence=False)})
    async with hub.join("t", Connection(), history=5, presence="ann"), hub.join("listed", Connection(), presence="ann"):
        pass
    async with hub.join("plain", Connection(), user="ann"):
        pass
    assert caplog.records == []


async def test_presence_where_nobody_is_told_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    for topic in ("t", "t", "other"):
        async with hub.join(topic, Connection(), presence="ann"):
            assert list(await hub.presence(topic)) == ["ann"]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("antiphon.hub", logging.WARNING)
    assert "presence= for topic 't'" in record.getMessage()
    assert "TopicOptions(presence=True)" in record.getMessage()


async def test_a_membership_that_is_never_entered_is_warned_of_where_it_was_made() -> None:
    hub = Hub()
    with pytest.warns(RegistrationWarning, match=r"a membership of topic 't' was never entered.*async with") as caught:
        hub.join("t", Connection())
    assert caught[0].filename == __file__


async def test_a_membership_is_neither_awaited_nor_entered_without_async() -> None:
    membership = Hub().join("t", Connection())
    with pytest.raises(TypeError, match=r"not awaited: async with hub\.join\('t', websocket\)"):
        await membership  # type: ignore[misc]
    with pytest.raises(TypeError, match=r"with async: async with hub\.join\('t', websocket\)"):
        with membership:  # type: ignore[attr-defined]
            pass
    async with membership:
        assert membership.active


async def test_a_connection_is_in_a_topic_once() -> None:
    hub, connection = Hub(topics={"kept": TopicOptions(history=9, presence=True)}), Connection()
    for topic in ("t", "kept"):
        async with hub.join(topic, connection, presence="ann") as first:
            with pytest.raises(AlreadyJoined, match=f"in topic '{topic}' already"):
                await hub.join(topic, connection, presence="eve").__aenter__()
            assert first.active
            assert list(await hub.presence(topic)) == ["ann"]
            async with hub.join(topic, Connection()), hub.join("another", connection):
                await hub.publish(topic, "once")
        async with hub.join(topic, connection):
            pass
    assert [one for one in connection.received if one == "once"] == ["once", "once"]
    assert hub.stats().memberships == 0


async def test_who_left_may_join_again_and_so_may_the_loser_of_a_race() -> None:
    hub, connection = Hub(topics={"kept": TopicOptions(history=9)}), Connection()
    outcomes = await asyncio.gather(
        *(hub.join("kept", connection, history=9).__aenter__() for _ in range(5)), return_exceptions=True
    )
    first, *others = sorted(outcomes, key=lambda one: isinstance(one, AlreadyJoined))
    assert not isinstance(first, BaseException)
    assert [type(other) for other in others] == [AlreadyJoined] * 4
    await first.leave()
    async with hub.join("kept", connection):
        assert hub.stats().memberships == 1


async def test_a_pattern_is_no_topic_and_braces_are_no_pattern() -> None:
    hub = Hub(topics={"room/*": TopicOptions()})
    with pytest.warns(RegistrationWarning, match=r"'room/\*' is used as a topic, and is a pattern") as caught:
        async with hub.join("room/*", Connection()):
            pass
    assert caught[0].filename == __file__
    with pytest.warns(
        RegistrationWarning, match=r"topics\['room/\{id\}'\] .* the wildcard of a pattern is \*"
    ) as caught:
        Hub(topics={"room/{id}": TopicOptions()})
    assert caught[0].filename == __file__


class InRoom(Connection):
    """A connection to the route `/rooms/{room}`."""

    def __init__(self, room: str) -> None:
        super().__init__()
        self.scope = {"type": "websocket", "path_params": {"room": room}}


async def test_an_f_that_is_missing_is_warned_of() -> None:
    """All rooms would be one, and everybody would read everything."""
    hub = Hub()
    with pytest.warns(
        RegistrationWarning, match=r"'room/\{room\}' is one topic for every room: .* f'room/\{room\}'"
    ) as caught:
        async with hub.join("room/{room}", InRoom("7")):
            pass
    assert caught[0].filename == __file__


@pytest.mark.parametrize("topic", ["room/{other}", "{7}:feed", "room/7"])
async def test_braces_with_another_meaning_are_no_missing_f(topic: str) -> None:
    async with Hub().join(topic, InRoom("7")):
        pass


async def test_a_client_that_names_its_room_like_a_placeholder_is_no_missing_f() -> None:
    async with Hub().join("room/{room}", InRoom("{room}")):
        pass


async def test_a_hub_without_any_options_says_that_another_may_be_meant() -> None:
    """A module has a hub with options, and `App()` was not given it."""
    with pytest.warns(RegistrationWarning, match=r"keeps none.* another one was meant, App\(hub=hub\) takes it"):
        async with Hub().join("t", Connection(), history=5):
            pass
    with pytest.warns(RegistrationWarning, match=r"in Hub\(topics=\)$"):
        async with Hub(topics={"kept": TopicOptions(history=9)}).join("t", Connection(), history=5):
            pass


async def test_a_second_hub_by_accident_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """`hub = Hub()` beside `App()`: sockets join the app's, and others publish to this one."""
    joined, meant = Hub(), Hub()
    async with joined.join("news", Connection()):
        await meant.publish("other", "hi")
        assert caplog.records == []
        for _ in range(2):
            await meant.publish("news", "hi")
    [line] = caplog.messages
    assert line.startswith("a message for topic 'news' reaches nobody")
    assert "App(hub=hub)" in line


async def test_two_hubs_that_are_both_joined_are_two_on_purpose(caplog: pytest.LogCaptureFixture) -> None:
    one, other = Hub(), Hub()
    async with one.join("news", Connection()), other.subscribe("somewhere"):
        pass
    async with one.join("news", Connection()):
        await other.publish("news", "hi")
    assert caplog.records == []


@pytest.mark.parametrize("kind", [RelayServer, RedisServer])
async def test_a_publisher_that_keeps_no_history_of_a_topic_is_told_of_once_where_it_is_kept(
    kind: type[RelayServer | RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    connection = Connection()
    with kind() as server:
        async with Hub(server.url, topics={"t": TopicOptions(history=10)}) as hub, Hub(server.url) as other:
            async with hub.join("t", connection), hub.join("u", connection):
                await hub.publish("t", "kept")
                await other.publish("u", "without a history on either side")
                await eventually(lambda: len(connection.received) == 2)
                assert "Hub(topics=)" not in caplog.text
                await other.publish("t", "not kept")
                await other.publish("t", "nor this")
                await eventually(lambda: len(connection.received) == 4)
    assert caplog.text.count("topic 't' keeps a history here, and another process publishes to it without") == 1
