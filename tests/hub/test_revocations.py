"""Revocations last as long as they were made for: in virtual time, and over stops and starts."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from pathlib import Path

import pytest

from antiphon.hub import Hub, Revoked
from antiphon.hub.backends import handover
from antiphon.hub.records import Note
from antiphon.hub.revocations import Revocations
from antiphon.hub.store import Saved, Snapshot
from antiphon.identity import Identity
from antiphon.testing import virtual_time
from antiphon.testing.hub_sinks import Connection, eventually
from tests.hub.test_contract_in_process import Drawer
from tests.patience import PATIENCE
from tests.relay_server import RelayServer

ANN = Identity(user="ann", issued_at=1.0)


@virtual_time
async def test_a_revocation_ends_with_its_lifetime() -> None:
    hub = Hub()
    await hub.revoke(user="ann", lifetime=3600)
    await asyncio.sleep(3599)
    with pytest.raises(Revoked):
        await hub.admit(Connection(), ANN)
    await asyncio.sleep(2)
    await hub.admit(Connection(), ANN)


@virtual_time
async def test_the_longer_of_two_lifetimes_counts() -> None:
    hub = Hub()
    await hub.revoke(user="ann", lifetime=3600)
    await hub.revoke(user="ann", lifetime=60)
    await asyncio.sleep(3000)
    with pytest.raises(Revoked):
        await hub.admit(Connection(), ANN)


async def test_a_memory_hub_that_is_stopped_and_started_still_knows() -> None:
    hub = Hub()
    await hub.revoke(user="ann")
    async with hub:
        with pytest.raises(Revoked):
            await hub.admit(Connection(), ANN)
    async with hub:
        with pytest.raises(Revoked):
            await hub.admit(Connection(), ANN)


async def test_revocations_get_over_a_clean_restart_of_the_server(tmp_path: Path) -> None:
    handover.offer(str(tmp_path / "state"))
    try:
        async with Hub("memory://") as before:
            await before.revoke(user="ann \u00e9")
        async with Hub("memory://") as after:
            with pytest.raises(Revoked):
                await after.admit(Connection(), Identity(user="ann \u00e9", issued_at=1.0))
            await after.admit(Connection(), Identity(user="bob"))
    finally:
        handover.offer(None)


def test_notes_grow_older_in_the_file_and_a_file_without_any_is_one_that_earlier_versions_read() -> None:
    for notes in ([], [Note("a", 1.5, 100.0), Note("\u00e9" * 300, 1e18, 5000.0), Note("over", 1.0, 50.0)]):
        snapshot = Snapshot("epoch", 7, [Saved("t", 3, [(60.0, b"x")])], notes)
        data = _file(snapshot, now=1000.0)
        assert data[9] == (2 if notes else 1)
        age, found = handover.unpack(data, 1055.0)
        assert age == 55.0
        assert list(found.notes) == [one._replace(ttl=one.ttl - 55.0) for one in notes if one.key != "over"]
        assert found.histories == [Saved("t", 3, [(5.0, b"x")])]
    for place in range(8, len(data)):  # earlier bytes are checked when they are read
        with pytest.raises(handover.Unusable):
            handover.unpack(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], 1055.0)


def _file(snapshot: Snapshot, now: float) -> bytes:
    kept = handover.Handover("", wall=lambda: now)
    with tempfile.TemporaryDirectory() as folder:
        kept.path = os.path.join(folder, "state")
        kept.leave(snapshot)
        return Path(kept.path).read_bytes()


async def test_revocations_get_over_a_clean_restart_of_the_relay(tmp_path: Path) -> None:
    """No process that knew it is there any more."""
    relay = RelayServer("--state", str(tmp_path / "state"))
    with relay:
        async with Hub(relay.url) as hub:
            await hub.revoke(user="ann")
        relay.terminate()
        relay.start()
        async with Hub(relay.url) as hub:
            with pytest.raises(Revoked):
                await hub.admit(Connection(), ANN)


async def test_who_comes_in_from_another_thread_during_a_revoke_is_refused_or_closed() -> None:
    hub, results = Hub(), list[Connection]()
    started, over = threading.Event(), threading.Event()

    def crowd() -> None:
        async def come() -> None:
            while not over.is_set():
                connection = Connection()
                started.set()
                try:
                    await hub.admit(connection, ANN)
                except Revoked:
                    return
                results.append(connection)
                await asyncio.sleep(0)
            raise AssertionError("never refused")

        asyncio.run(come_and_wait(come))

    async def come_and_wait(come: object) -> None:
        await come()  # type: ignore[operator]
        await eventually(lambda: all(one.sink.closed for one in results))

    threads = [threading.Thread(target=crowd) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert await asyncio.to_thread(started.wait, PATIENCE)
    await hub.revoke(user="ann")
    for thread in threads:
        await asyncio.to_thread(thread.join, PATIENCE)
    over.set()
    assert results
    assert all(one.sink.closed == (3000, "revoked") for one in results)


async def test_no_more_are_kept_than_the_bound_and_names_are_short() -> None:
    hub = Hub()
    revocations: Revocations = hub.door._revocations
    await hub.revoke(user="x" * 10_000_000)
    with pytest.raises(Revoked):
        await hub.admit(Connection(), Identity(user="x" * 10_000_000))
    await hub.admit(Connection(), Identity(user="x" * 9_999_999))
    assert all(len(note.key) < 300 for note in revocations._known())
    assert not revocations._untold


async def test_users_and_sessions_are_not_mistaken_for_each_other() -> None:
    hub = Hub()
    await hub.revoke(user="a", session="bc")
    await hub.admit(Connection(), Identity(user="ab", session="c"))
    await hub.admit(Connection(), Identity(user="a", session="c"))
    await hub.admit(Connection(), Identity(user="abc"))
    with pytest.raises(Revoked):
        await hub.admit(Connection(), Identity(user="a", session="bc", issued_at=time.time()))


async def test_a_backend_of_somebody_else_says_what_it_lacks_and_does_all_else() -> None:
    async with Hub(backend=Drawer()) as hub:
        connection = Connection()
        await hub.admit(connection, ANN)
        await hub.send("hi", user="ann")
        assert connection.received == ["hi"]
        with pytest.raises(RuntimeError, match=r"hub.revoke\(\) needs put, take, claim.*Drawer"):
            await hub.revoke(user="ann")
        await hub.admit(Connection(), ANN)
