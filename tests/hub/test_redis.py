"""Redis's own behaviour: lost messages and data, keys and their lifetimes, faults at start."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import re
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from antiphon.hub import BackendUnavailable, Hub, OnOutage, TopicOptions, UnknownBackend
from antiphon.hub.backends.base import BackendConfig
from antiphon.hub.backends.memory import MemoryBackend
from antiphon.hub.backends.redis import RedisBackend
from antiphon.hub.backends.redis.scripts import PRESENCE, PUBLISH
from antiphon.hub.records import Change, Entry, Keep, Track
from antiphon.testing.hub_contract.base import until
from antiphon.testing.hub_sinks import Connection, eventually
from tests.patience import PATIENCE
from tests.redis_server import RedisServer, redis_server

OPTIONS = {"kept*": TopicOptions(history=100), "people": TopicOptions(presence=True, history=10)}
LEASE = 0.6
PAGE = Path(__file__).parents[2] / "docs" / "deploying" / "redis.md"
STEADY_LEASE = 6.0
"""Of a process that may not count as dead where a busy machine delays it."""


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    """One server for all tests that leave it running. Each finds it empty."""
    shared.command("FLUSHALL")
    shared.command("SCRIPT", "FLUSH")
    return shared


@pytest.fixture
async def hub(server: RedisServer) -> AsyncGenerator[Hub]:
    async with Hub(server.url, topics=OPTIONS, presence_lease=LEASE) as hub:
        yield hub


def resyncs(connection: Connection) -> int:
    return sum(event["type"] == "resync" for event in connection.sink.events)


def plain(connection: Connection) -> list[str]:
    return [str(one) for one in connection.received if not str(one).startswith("{")]


def connected(server: RedisServer) -> int:
    """Clients of the server, the one that asks included."""
    return server.command("CLIENT", "LIST").count(" addr=")


async def publish_unheard(server: RedisServer, hub: Hub, topic: str, data: str) -> None:
    """A failover or a proxy may cause this: the entry is in the history, and no subscriber ever gets it."""
    backend = hub.backend
    assert isinstance(backend, RedisBackend)
    envelope = (await backend.history(topic, Keep(100, 60), None, 1)).entries[0].data
    silent = PUBLISH.source.replace("redis.call('PUBLISH'", "tostring('PUBLISH'")
    assert silent != PUBLISH.source
    async with Redis.from_url(server.url) as client:
        entry = envelope.replace(b"heard", data.encode())
        await client.eval(silent, 1, backend._names.key(topic), "word", topic, entry, 100, 60_000)


# Losses


async def test_an_entry_that_was_lost_on_the_way_is_found_by_the_next_one(server: RedisServer) -> None:
    async with Hub(server.url, topics=OPTIONS, presence_lease=3600) as hub:
        connection = Connection()
        async with hub.join("kept", connection):
            await hub.publish("kept", "heard")
            await publish_unheard(server, hub, "kept", "lost")
            await hub.publish("kept", "next")
            await eventually(lambda: plain(connection) == ["heard", "lost", "next"])
        assert resyncs(connection) == 0


async def test_a_last_entry_that_was_lost_is_found_within_bounded_time(server: RedisServer, hub: Hub) -> None:
    connection = Connection()
    async with hub.join("kept", connection):
        await hub.publish("kept", "heard")
        await publish_unheard(server, hub, "kept", "lost")
        await eventually(lambda: plain(connection) == ["heard", "lost"])
    assert resyncs(connection) == 0


async def test_a_subscribing_connection_that_was_cut_is_made_again_without_a_gap(server: RedisServer, hub: Hub) -> None:
    connection = Connection()
    certain = []
    async with Hub(server.url, topics=OPTIONS, on_outage=OnOutage.WAIT) as writer, hub.join("kept", connection):
        for n in range(300):
            if n == 150:
                server.command("CLIENT", "KILL", "TYPE", "pubsub")
            try:
                await writer.publish("kept", str(n))
            except BackendUnavailable as error:
                if not error.uncertain:
                    raise
            else:
                certain.append(n)
        await publish_certainly(writer, "kept", "300")
        await eventually(lambda: plain(connection)[-1] == "300")
    received = [int(one) for one in plain(connection)]
    assert received == sorted(set(received))
    if not resyncs(connection):  # a loss of more than the history keeps is announced instead
        assert set(certain) <= set(received)


async def publish_certainly(hub: Hub, topic: str, data: str) -> None:
    while True:
        try:
            await hub.publish(topic, data)
        except BackendUnavailable:
            continue
        return


@pytest.mark.parametrize("speaks", [True, False], ids=["a publish follows", "silence follows"])
async def test_data_that_is_gone_means_a_new_epoch_and_a_resync(server: RedisServer, hub: Hub, speaks: bool) -> None:
    connection, backend = Connection(), hub.backend
    assert isinstance(backend, RedisBackend)
    async with hub.join("kept", connection):
        before = await hub.publish("kept", "before")
        await eventually(lambda: plain(connection) == ["before"])
        await eventually(lambda: "kept" in backend._heads._observed)  # a look at the heads while all was well
        server.command("FLUSHALL")
        if speaks:
            await hub.publish("kept", "after")
        await eventually(lambda: resyncs(connection) == 1)
        after = await hub.publish("kept", "later")
        assert before is not None
        assert after is not None
        assert after.epoch != before.epoch
        await eventually(lambda: plain(connection)[-1] == "later")
    async with hub.join("kept", Connection(), since=before) as membership:
        assert not membership.recovered


async def test_members_are_back_after_the_data_was_lost(server: RedisServer, hub: Hub) -> None:
    async with hub.join("people", Connection(), presence="me"):
        server.command("FLUSHALL")
        await until(lambda: hub.presence("people"), {"me": ["me"]})


async def test_scripts_the_server_forgot_are_loaded_again(server: RedisServer, hub: Hub) -> None:
    connection = Connection()
    async with hub.join("kept", connection):
        server.command("SCRIPT", "FLUSH")
        assert await hub.publish("kept", "x") is not None
        server.command("SCRIPT", "FLUSH")
        assert [message.data for message in await hub.history("kept")] == ["x"]
        await eventually(lambda: plain(connection) == ["x"])


async def test_upkeep_alone_loads_scripts_the_server_forgot_and_nobody_leaves(server: RedisServer) -> None:
    connection, hub = Connection(), Hub(server.url, topics=OPTIONS, presence_lease=STEADY_LEASE)
    async with hub, hub.join("people", connection, presence="me"):
        server.command("SCRIPT", "FLUSH")
        await eventually(lambda: server.lines("SCRIPT", "EXISTS", PRESENCE.sha) == ["1"])
        await hub.publish("people", "end")
        await eventually(lambda: connection.received[-1] == "end")
        assert [event["leaves"] for event in connection.sink.events] == [{}]


async def test_a_paused_server_delays_and_loses_nothing(server: RedisServer, hub: Hub) -> None:
    connection = Connection()
    async with hub.join("kept", connection), hub.join("t", connection):
        started = time.monotonic()
        server.command("CLIENT", "PAUSE", "1500", "ALL")
        await asyncio.gather(*(hub.publish("kept", str(n)) for n in range(50)))
        assert time.monotonic() - started > 1
        await hub.publish("t", "end")
        await eventually(lambda: plain(connection) == [*map(str, range(50)), "end"])


# Keys


async def test_every_key_has_a_prefix_and_a_lifetime(server: RedisServer) -> None:
    async with Hub(server.url, topics=OPTIONS, prefix="mine") as hub:
        lost = Connection()
        async with hub.join("people", Connection(), presence="a"), hub.join("people", lost, presence="b"):
            await hub.publish("people", "x")
            await hub.publish("kept}", "x")
            lost.sink.die()
            await eventually(lambda: any(key.endswith(":linger") for key in server.key_names()))
            keys = server.key_names()
            kinds = {key.split("}:")[1].split(":")[0] for key in keys}
            assert kinds == {"state", "rings", "h", "m", "p", "leases", "linger"}
            assert all(key.startswith("mine:{") for key in keys)
            assert all(int(server.command("PTTL", key)) > 0 for key in keys)


async def test_a_stopped_hub_leaves_no_members_and_no_lease(server: RedisServer) -> None:
    async with Hub(server.url, topics=OPTIONS) as hub:
        for n in range(3):
            await hub.join("people", Connection(), presence=f"user-{n}").__aenter__()
    assert all(key.endswith(":state") for key in server.key_names())
    assert server.channels() == []


async def test_a_part_of_a_page_looks_at_little_more_than_it_sends(server: RedisServer, hub: Hub) -> None:
    """Redis is busy as long for an entry that is looked at as for one that is sent."""
    keep = Keep(100, 60)
    for size in [100] * 30 + [20_000] * 40:
        await hub.publish("kept", "x" * size)
    looked: list[int] = []
    async with Redis.from_url(server.url) as client, client.monitor() as monitor:
        page = await hub.backend.history("kept", keep, None, None, 64 << 10)
        counts = [len(page.entries)]
        while page.rest:
            page = await hub.backend.history("kept", keep, page.position, None, 64 << 10)
            counts.append(len(page.entries))
        await client.echo("over")
        while not (command := (await monitor.next_command())["command"]).startswith("ECHO"):
            if command.startswith("LRANGE"):
                first, last = command.split()[-2:]
                looked.append(int(last) - int(first) + 1)
    assert sum(counts) == 70
    assert len(counts) > 10
    assert sum(looked) <= 2 * 70


async def test_histories_whose_time_is_over_are_swept_away(server: RedisServer) -> None:
    topics = {"brief*": TopicOptions(history=10, ttl=0.2)}
    async with Hub(server.url, topics=topics, presence_lease=LEASE) as hub:
        await asyncio.gather(*(hub.publish(f"brief-{n}", "x") for n in range(500)))
        await eventually(lambda: all(key.endswith(":state") for key in server.key_names()))


async def test_an_offset_is_not_used_again_after_a_history_was_forgotten(server: RedisServer) -> None:
    topics = {"brief": TopicOptions(history=10, ttl=0.1)}
    async with Hub(server.url, topics=topics) as hub:
        positions = []
        for _ in range(3):
            positions += [await hub.publish("brief", "x"), await hub.publish("brief", "x")]
            await asyncio.sleep(0.15)  # longer than the ttl
        assert len(set(positions)) == 6


@pytest.mark.parametrize("change", ["database", "prefix"])
async def test_hubs_of_other_databases_or_prefixes_hear_nothing(server: RedisServer, change: str) -> None:
    url = server.url.removesuffix("0") + "1" if change == "database" else server.url
    prefix = "other" if change == "prefix" else "antiphon"
    mine, theirs = Connection(), Connection()
    async with Hub(server.url) as hub, Hub(url, prefix=prefix) as other:
        async with hub.join("t", mine), other.join("t", theirs):
            await hub.publish("t", "x")
            await other.publish("t", "end")
            await eventually(lambda: theirs.received and mine.received)
    assert (mine.received, theirs.received) == (["x"], ["end"])


@pytest.mark.parametrize("garbage", ["", "E", "Ex-y\nz", "P5\n\x00", "D", "Dgarbage", "?", "{"])
async def test_what_strangers_publish_to_our_channels_keeps_nobody_from_hearing(
    server: RedisServer, hub: Hub, garbage: str
) -> None:
    connection, backend = Connection(), hub.backend
    assert isinstance(backend, RedisBackend)
    async with hub.join("kept", connection):
        for channel in (backend._names.channel("kept"), backend._names.control):
            server.command("PUBLISH", channel.decode(), garbage)
        await hub.publish("kept", "ours")
        await eventually(lambda: connection.received[-1:] == ["ours"])
        assert hub.stats().connected


# At start


async def test_an_unreachable_server_is_an_error_at_once_that_keeps_the_password() -> None:
    backend = RedisBackend("redis://user:sekret@127.0.0.1:1/0", BackendConfig(start_timeout=10 * PATIENCE))
    with pytest.raises(BackendUnavailable) as caught:
        await backend.start(Recorder())
    assert "sekret" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)


async def test_a_wrong_password_is_an_error_at_start() -> None:
    with redis_server(password="right") as server:
        with pytest.raises(BackendUnavailable) as caught:
            await Hub(server.url.replace("right", "wr0ng")).start()
        assert "wr0ng" not in str(caught.value)
        async with Hub(server.url) as hub:
            assert await hub.publish("t", "x") is None


async def test_a_user_without_channels_is_told_so_by_redis_own_words() -> None:
    with redis_server() as server:
        server.command("ACL", "SETUSER", "chat", "on", ">secret", "~*", "resetchannels", "+@all")
        with pytest.raises(BackendUnavailable, match=r"NOPERM .*permissions to access"):
            await Hub(server.url.replace("127.0.0.1", "chat:secret@127.0.0.1")).start()


async def test_a_user_of_the_documents_suffices() -> None:
    [rules] = re.findall(r"^user (chat on .*)$", PAGE.read_text(), re.MULTILINE)
    with redis_server() as server:
        server.command("ACL", "SETUSER", *rules.split())
        topics = {"kept": TopicOptions(history=10, presence=True)}
        async with Hub(server.url.replace("127.0.0.1", "chat:a-long-password@127.0.0.1"), topics=topics) as hub:
            connection = Connection()
            async with hub.join("kept", connection, presence="ann"):
                await hub.publish("kept", "x")
                await eventually(lambda: "x" in connection.received)
                assert set(await hub.presence("kept")) == {"ann"}
                await hub.revoke(user="bob")
                assert len(await hub.history("kept")) == 1


async def test_a_password_that_was_changed_is_told_once_while_away(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "antiphon.hub")

    def lines() -> list[str]:
        return [one.getMessage() for one in caplog.records if "cannot be joined again yet" in one.getMessage()]

    with redis_server() as server:
        server.command("ACL", "SETUSER", "chat", "on", ">old", "~*", "&*", "+@all")
        async with Hub(server.url.replace("127.0.0.1", "chat:old@127.0.0.1")):
            server.command("ACL", "SETUSER", "chat", "resetpass", ">new")
            server.command("CLIENT", "KILL", "USER", "chat")
            await eventually(lambda: lines())
            server.command("ACL", "SETUSER", "chat", "reset")
            server.command("ACL", "SETUSER", "chat", "on", ">old", "~*", "&*", "+@all")
            await eventually(lambda: "joined redis" in caplog.text)
    [line] = lines()
    assert "invalid username-password" in line
    assert "old" not in line


async def test_a_name_that_is_nobodys_leaves_no_traceback() -> None:
    loop, faults = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: faults.append(context["message"]))
    with pytest.raises(BackendUnavailable, match="-:6379"):
        await Hub("redis://-:6379").start()
    for _ in range(20):  # names that were asked for before are answered by then
        with contextlib.suppress(OSError):
            await loop.getaddrinfo("-", 6379)
    gc.collect()
    assert not faults


async def test_a_server_that_hangs_is_an_error_within_the_bound() -> None:
    with redis_server() as server:
        server.stop_answering()
        backend = RedisBackend(server.url, BackendConfig(start_timeout=0.5))
        with pytest.raises(BackendUnavailable, match=r"no answer within 0\.5 s"):
            await backend.start(Recorder())


async def test_a_node_of_a_cluster_is_refused_at_start() -> None:
    with RedisServer(cluster=True) as server:
        with pytest.raises(BackendUnavailable, match=r"(?i)cluster|moved|slot"):
            await Hub(server.url).start()


async def test_a_start_that_fails_leaves_no_connection_open(server: RedisServer) -> None:
    with redis_server("--replicaof", "127.0.0.1", str(server.port)) as replica:
        before = connected(replica)
        with pytest.raises(BackendUnavailable, match=r"(?i)read only"):
            await Hub(replica.url).start()
        await eventually(lambda: connected(replica) <= before)


async def test_a_redis_of_this_machine_is_reached_by_its_socket() -> None:
    with redis_server(password="right") as server:
        url = f"unix://:right@{server.socket_path}"
        async with Hub(f"{url}?db=1") as hub, Hub(server.url.replace("/0", "/1")) as other:
            heard, connection = Connection(), Connection()
            async with other.join("room", heard, presence="ann"), hub.join("room", connection, presence="bob"):
                await hub.publish("room", "hello")
                await eventually(lambda: heard.received[-1:] == ["hello"] == connection.received[-1:])
                assert set(await hub.presence("room")) == {"ann", "bob"}
                server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                server.command("CLIENT", "KILL", "TYPE", "pubsub")
                async with asyncio.timeout(PATIENCE):
                    while connection.received[-1:] != ["again"]:
                        with contextlib.suppress(BackendUnavailable):
                            await other.publish("room", "again")
                        await asyncio.sleep(0.02)
        with pytest.raises(BackendUnavailable) as caught:
            await Hub(url.replace("right", "wr0ng").replace(".sock", ".no")).start()
        assert "wr0ng" not in str(caught.value)
        assert "redis.no" in str(caught.value)


@pytest.mark.parametrize(
    "url", ["unix://redis.sock", "unix://:sekret@", "unix://", "unix:///", "unix://tmp/redis.sock"]
)
def test_a_socket_has_an_absolute_path(url: str) -> None:
    with pytest.raises(UnknownBackend, match=r"expected unix://.*/path/to/redis\.sock") as caught:
        Hub(url)
    assert "sekret" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis+cluster://localhost", "redis://localhost:port/0"])
def test_a_url_that_cannot_be_read_is_an_error_when_the_hub_is_made(url: str) -> None:
    with pytest.raises(UnknownBackend):
        Hub(url)


def test_a_prefix_with_braces_is_refused() -> None:
    with pytest.raises(UnknownBackend, match="braces"):
        Hub("redis://localhost", prefix="a{b")


# The scripts against the pure store


class Recorder:
    """A listener that keeps all changes."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str, tuple[bytes, ...]]] = []
        self.versions: list[int] = []

    def deliver(self, topic: str, entry: Entry) -> None: ...
    def controlled(self, payload: bytes) -> None: ...
    def flush(self) -> None: ...
    def lost(self) -> None: ...
    def restored(self) -> None: ...
    def forgotten(self) -> None: ...

    def presence_changed(self, topic: str, change: Change) -> None:
        self.changes.append((topic, change.user, change.metas))
        self.versions.append(change.version)


@pytest.mark.parametrize("seed", range(3))
async def test_presence_is_what_the_pure_store_says(server: RedisServer, seed: int) -> None:
    draw = random.Random(seed)
    config = BackendConfig(presence_lease=60)
    redis, memory = RedisBackend(server.url, config), MemoryBackend("memory://", config)
    heard, expected = Recorder(), Recorder()
    await redis.start(heard)
    await memory.start(expected)
    try:
        await redis.subscribe("a", None)
        refs: list[str] = []
        for n in range(150):
            if refs and draw.random() < 0.45:
                ref = draw.choice(refs)
                refs.remove(ref)
                grace = draw.choice([0.0, 30.0])
                for backend in (redis, memory):
                    await backend.untrack("a", ref, grace)
            else:
                user = draw.choice("uvw")
                again = [ref for ref in refs if ref.startswith(user)]
                ref = draw.choice(again) if again and draw.random() < 0.3 else f"{user}{n}"
                track = Track(ref, user, draw.choice([b"", b"1", b"\xff\x00\n"]))
                refs = [*(one for one in refs if one != ref), ref]
                for backend in (redis, memory):
                    await backend.track("a", track)
            assert (await redis.presence("a")).members == (await memory.presence("a")).members
        await eventually(lambda: heard.changes == expected.changes)
        assert heard.versions == sorted(set(heard.versions))
    finally:
        await redis.stop()
