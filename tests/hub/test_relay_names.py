"""Several hubs of one program on the relay of its workers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from antiphon.gate import Identity
from antiphon.hub import Hub, TopicOptions
from antiphon.hub.backends.relay import Supervisor
from antiphon.hub.environment import ENVIRONMENT
from antiphon.hub.errors import Revoked
from antiphon.testing.hub_sinks import Connection, eventually

KEPT = {"kept": TopicOptions(history=10)}


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """That of the workers of a server: this process is one of them."""
    with Supervisor() as running:
        monkeypatch.setenv(ENVIRONMENT, running.environment[ENVIRONMENT])
        yield running


@pytest.mark.parametrize("prefix", ["game", "antiphon"])
async def test_hubs_meet_where_their_prefixes_are_the_same(relay: Supervisor, prefix: str) -> None:
    mine, theirs = Connection(), Connection()
    async with Hub() as hub, Hub(prefix=prefix) as other:
        async with hub.join("t", mine, presence="ann"), other.join("t", theirs, presence="bob"):
            await hub.publish("t", "x")
            await other.publish("t", "y")
            ours = ["x"] if prefix == "game" else ["x", "y"]
            await eventually(lambda: len(mine.received) == len(ours) and theirs.received[-1:] == ["y"])
            assert mine.received == ours
            assert theirs.received == (["y"] if prefix == "game" else ["x", "y"])
            assert set(await hub.presence("t")) == ({"ann"} if prefix == "game" else {"ann", "bob"})
            assert await other.presence_count("t") == (1 if prefix == "game" else 2)


async def test_histories_of_other_prefixes_are_others(relay: Supervisor) -> None:
    async with Hub(topics=KEPT) as hub, Hub(topics=KEPT, prefix="game") as other:
        await hub.publish("kept", "ours")
        position = await other.publish("kept", "theirs")
        await other.publish("kept", "theirs, too")
        assert [message.data for message in await hub.history("kept")] == ["ours"]
        assert [message.data for message in await other.history("kept")] == ["theirs", "theirs, too"]
        assert [message.data for message in await other.history("kept", since=position)] == ["theirs, too"]


async def test_what_is_said_to_all_processes_is_heard_by_hubs_of_the_prefix(
    relay: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    connections = {name: Connection() for name in ("mine", "same", "theirs")}
    async with Hub(prefix="game") as hub, Hub(prefix="game") as same, Hub() as other:
        async with (
            hub.join("t", connections["mine"], user="ann"),
            same.join("t", connections["same"], user="ann"),
            other.join("t", connections["theirs"], user="ann"),
        ):
            await hub.send("from mine", user="ann")
            await eventually(lambda: connections["mine"].received == connections["same"].received == ["from mine"])
            await other.send("from theirs", user="ann")
            await eventually(lambda: connections["theirs"].received == ["from theirs"])
            await hub.close_connections(user="ann", code=4001)
            await eventually(lambda: connections["same"].sink.closed is not None)
            await other.send("still here", user="ann")
            await eventually(lambda: "still here" in connections["theirs"].received)
        assert connections["theirs"].received == ["from theirs", "still here"]
        assert connections["theirs"].sink.closed is None
    assert "malformed" not in caplog.text


async def test_tickets_quotas_and_revocations_belong_to_a_prefix(relay: Supervisor) -> None:
    async with Hub(prefix="game") as hub, Hub() as other:
        for one, number in ((hub, b"1"), (other, b"2")):
            await one.door.put("a test", "key", number, 60)
            claimed = await one.door.claim("seat", 1, Connection().sink, evict=False, alone=False)
            assert claimed.granted
        assert await hub.door.take("a test", "key") == b"1"
        assert await other.door.take("a test", "key") == b"2"

        await hub.revoke(user="ann")
        async with Hub(prefix="game") as same, Hub() as foreign:
            assert await revoked(same)
            assert not await revoked(foreign)
        assert not await revoked(other)


async def revoked(hub: Hub, user: str = "ann", session: str = "") -> bool:
    try:
        await hub.door.admit(None, Identity(user=user, session=session or None, issued_at=1.0))
    except Revoked:
        return True
    return False


async def test_a_prefix_is_kept_over_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = str(tmp_path / "hub.state")
    long = "p" * 100
    for turn in range(2):
        with Supervisor(state) as running:
            monkeypatch.setenv(ENVIRONMENT, running.environment[ENVIRONMENT])
            async with Hub(topics=KEPT, prefix=long) as hub:
                if turn == 0:
                    await hub.publish("kept", "before")
                    await hub.revoke(user="u" * 100, session="s" * 100)
                else:
                    assert [message.data for message in await hub.history("kept")] == ["before"]
                    assert await revoked(hub, "u" * 100, "s" * 100)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


async def test_a_second_hub_that_is_used_under_the_same_prefix_is_warned_of_once(
    relay: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    async with Hub() as hub, Hub() as other, Hub(prefix="game") as game:
        await hub.publish("t", "x")
        await game.publish("t", "x")
        assert not warnings_of(caplog)
        for _ in range(2):
            await other.publish("t", "x")
        [line] = warnings_of(caplog)
        assert "two hubs of this program share the relay" in line


async def test_hubs_that_follow_one_another_are_not_warned_of(
    relay: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        async with Hub() as hub:
            await hub.publish("t", "x")
    assert not warnings_of(caplog)


async def test_hubs_that_name_their_relay_are_not_warned_of(
    relay: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"relay://{relay.environment[ENVIRONMENT]}"
    async with Hub(url) as hub, Hub(url) as other:
        await hub.publish("t", "x")
        await other.publish("t", "x")
    assert not warnings_of(caplog)
