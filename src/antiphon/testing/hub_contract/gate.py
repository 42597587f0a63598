"""The state that a `GateBackend` keeps for the gate: values taken once, shares of limits, revocations. And the
guests."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from functools import partial

import pytest

from antiphon.hub import BackendUnavailable, Hub, Revoked
from antiphon.hub.backends.base import GateBackend, keeps_gate
from antiphon.hub.records import Claimed, Note
from antiphon.identity import Identity
from antiphon.testing.hub_sinks import PATIENCE, Connection, eventually
from antiphon.testing.hub_worker import workers

from .base import STEADY_LEASE, TOPICS, Contract, until
from .broker import Broker

LONG = 100.0

LIFETIMES = (0.2, 4.0, 40.0)
"""Of revocations. Where a machine was too slow to see one hold, the next shows it."""


def kept_by(hub: Hub) -> GateBackend:
    assert keeps_gate(hub.backend), "the backend has not all of GateBackend"
    return hub.backend


def ann(**fields: object) -> Identity:
    return Identity(user="ann", **fields)  # type: ignore[arg-type]


class GateContract(Contract):
    """One process. For a backend that says it is a `GateBackend`."""

    # Once

    async def test_what_is_put_is_taken_once(self, hub: Hub) -> None:
        backend = kept_by(hub)
        await backend.put("a", b"\x00value", LONG)
        await backend.put("b", b"", LONG)
        taken = await asyncio.gather(*(backend.take("a") for _ in range(20)))
        assert sorted(one is None for one in taken) == [False] + [True] * 19
        assert b"\x00value" in taken
        assert await backend.take("b") == b""
        assert await backend.take("never put") is None

    async def test_what_is_put_again_is_the_newer_one(self, hub: Hub) -> None:
        backend = kept_by(hub)
        await backend.put("a", b"old", LONG)
        await backend.put("a", b"new", LONG)
        assert await backend.take("a") == b"new"
        assert await backend.take("a") is None

    async def test_nobody_takes_what_is_over(self, hub: Hub) -> None:
        backend = kept_by(hub)
        await backend.put("a", b"x", 0.05)
        await asyncio.sleep(0.1)  # the backend's own clock decides
        assert await backend.take("a") is None

    # Shares

    async def test_a_limit_holds_whoever_asks_at_once(self, hub: Hub) -> None:
        backend = kept_by(hub)
        claims = await asyncio.gather(*(backend.claim("k", f"r{n}", 5, False) for n in range(20)))
        assert sum(one.granted for one in claims) == 5
        assert (await backend.claim("another", "r", 5, False)).granted

    async def test_a_share_that_is_released_is_free(self, hub: Hub) -> None:
        backend = kept_by(hub)
        assert (await backend.claim("k", "a", 1, False)).granted
        refused = await backend.claim("k", "b", 1, False)
        assert not refused.granted
        assert refused.wait >= 0
        await backend.release("k", "unknown")
        await backend.release("k", "a")
        await backend.release("k", "a")
        assert (await backend.claim("k", "b", 1, False)).granted

    async def test_a_share_is_claimed_again_without_a_second_one(self, hub: Hub) -> None:
        backend = kept_by(hub)
        for _ in range(3):
            assert await backend.claim("k", "a", 2, False) == Claimed(True)
        assert (await backend.claim("k", "b", 2, False)).granted
        assert not (await backend.claim("k", "c", 2, False)).granted
        assert await backend.claim("k", "c", None, False) == Claimed(True)

    async def test_the_oldest_make_room_where_that_is_asked_for(self, hub: Hub) -> None:
        backend = kept_by(hub)
        for ref in "abc":
            assert await backend.claim("k", ref, 3, True) == Claimed(True)
        assert await backend.claim("k", "d", 3, True) == Claimed(True, 0.0, ("a",))
        assert await backend.claim("k", "b", 3, True) == Claimed(True)
        assert await backend.claim("k", "e", 2, True) == Claimed(True, 0.0, ("b", "c"))
        assert not (await backend.claim("k", "f", 2, False)).granted

    # Notes

    async def test_a_note_never_gets_weaker(self, hub: Hub) -> None:
        backend = kept_by(hub)
        await backend.note([Note("a", 1.5, LONG), Note("b \u00e9\n:", 2.0, LONG)])
        await backend.note([Note("a", 3.25, 1.0), Note("b \u00e9\n:", 1.0, LONG), Note("c", 1e18, LONG)])
        found = {note.key: note for note in await backend.noted()}
        assert {key: note.value for key, note in found.items()} == {"a": 3.25, "b \u00e9\n:": 2.0, "c": 1e18}
        assert found["a"].ttl == pytest.approx(LONG, abs=PATIENCE / 4)

    async def test_many_notes_come_back_all(self, hub: Hub) -> None:
        backend = kept_by(hub)
        notes = [Note(f"n{number}", float(number), LONG) for number in range(3000)]
        await backend.note(notes)
        assert sorted(note[:2] for note in await backend.noted()) == sorted(note[:2] for note in notes)

    async def test_a_note_that_is_over_is_gone(self, hub: Hub) -> None:
        backend = kept_by(hub)
        await backend.note([Note("brief", 9.0, 0.05), Note("long", 1.0, LONG)])
        await asyncio.sleep(0.1)
        assert [note.key for note in await backend.noted()] == ["long"]
        await backend.note([Note("brief", 1.0, LONG)])
        assert {note.key: note.value for note in await backend.noted()} == {"long": 1.0, "brief": 1.0}

    # Guests

    async def test_a_guest_is_found_in_no_topic(self, hub: Hub) -> None:
        guest, other, both = Connection(), Connection(), Connection()
        await hub.admit(guest, ann())
        await hub.admit(both, ann())
        await hub.admit(other, Identity(user="bob"))
        async with hub.join("t", both, user="ann"):
            await hub.send("hi", user="ann")
            await hub.send({"n": 1}, user="ann", exclude=guest)
            await eventually(lambda: len(both.received) == 2)
            assert both.received == ["hi", '{"n":1}']
            assert guest.received == ["hi"]
            assert other.received == []
            await hub.close_connections(user="ann", code=4001, reason="out")
            await eventually(lambda: guest.sink.closed and both.sink.closed)
        assert guest.sink.closed == both.sink.closed == (4001, "out")
        assert other.sink.closed is None

    async def test_what_joined_as_a_user_is_sent_to_without_being_a_guest(self, hub: Hub) -> None:
        early, late = Connection(), Connection()
        async with hub.join("t", early, user="ann"):
            await hub.send(b"1", user="ann")
            await eventually(lambda: early.received)
            async with hub.join("t", late, user="ann"), hub.join("u", late, user="ann"):
                await hub.send(b"2", user="ann")
                await eventually(lambda: late.received)
        await hub.send(b"3", user="ann")
        await self.settle(hub)
        assert early.received == [b"1", b"2"]
        assert late.received == [b"2"]

    async def test_nobody_is_a_guest_behind_the_end(self, hub: Hub) -> None:
        gone, twice = Connection(), Connection()
        await hub.admit(gone, ann())
        for _ in range(3):
            await hub.admit(twice, ann())
        assert twice.sink.callbacks == 1
        gone.sink.die()
        twice.sink.die()
        await hub.admit(gone, ann())
        await hub.send("x", user="ann")
        await self.settle(hub)
        assert gone.received == twice.received == []
        assert hub.stats().connections == 0

    async def test_who_is_revoked_is_out_and_stays_out(self, hub: Hub) -> None:
        now = time.time()
        old, unknown, new, joined = (Connection() for _ in range(4))
        await hub.admit(old, ann(issued_at=now - 60))
        await hub.admit(unknown, ann())
        await hub.admit(new, ann(issued_at=now + 60))
        async with hub.join("t", joined, user="ann"), hub.join("u", new, user="ann"):
            await hub.revoke(user="ann")
            await eventually(lambda: old.sink.closed and unknown.sink.closed and joined.sink.closed)
        assert old.sink.closed == unknown.sink.closed == joined.sink.closed == (3000, "revoked")
        assert new.sink.closed is None
        for identity in (ann(issued_at=now - 60), ann()):
            with pytest.raises(Revoked):
                await hub.admit(Connection(), identity)
            with pytest.raises(Revoked):
                await hub.admit(object(), identity)
        await hub.admit(Connection(), ann(issued_at=now + 60))
        await hub.admit(Connection(), Identity(user="bob"))

    async def test_one_session_is_revoked_and_the_others_stay(self, hub: Hub) -> None:
        phone, tab = Connection(), Connection()
        await hub.admit(phone, ann(session="phone", issued_at=time.time() + 60))
        await hub.admit(tab, ann(session="tab"))
        await hub.revoke(session="phone")
        await hub.revoke(user="bob", session="tab")
        await eventually(lambda: phone.sink.closed)
        await self.settle(hub)
        assert tab.sink.closed is None
        with pytest.raises(Revoked):
            await hub.admit(Connection(), ann(session="phone", issued_at=time.time() + 1e6))

    async def test_all_tokens_of_a_time_are_revoked_for_a_while(self, hub: Hub) -> None:
        loop, now = asyncio.get_running_loop(), time.time()

        async def is_revoked() -> bool:
            try:
                await hub.admit(Connection(), ann(issued_at=now - 1))
            except Revoked:
                return True
            return False

        for lifetime in LIFETIMES:
            began = loop.time()
            await hub.revoke(issued_before=now, lifetime=lifetime)
            if not await is_revoked():
                assert loop.time() - began >= lifetime
                continue
            await hub.admit(Connection(), ann(issued_at=now))
            await until(is_revoked, False)
            return
        pytest.fail("the machine is too slow to look within the longest lifetime")

    async def test_an_earlier_revocation_does_not_weaken_a_later_one(self, hub: Hub) -> None:
        now = time.time()
        await hub.revoke(user="ann", issued_before=now)
        await hub.revoke(user="ann", issued_before=now - 3600, lifetime=1)
        with pytest.raises(Revoked):
            await hub.admit(Connection(), ann(issued_at=now - 1))

    async def test_no_one_slips_in_during_a_revoke(self, hub: Hub) -> None:
        """A connection that is admitted while `revoke` runs is refused, or closed."""
        let_in: list[Connection] = []

        async def come_in() -> None:
            for _ in range(50):
                connection = Connection()
                with contextlib.suppress(Revoked):
                    await hub.admit(connection, ann(issued_at=1.0))
                    let_in.append(connection)
                await asyncio.sleep(0)

        await asyncio.gather(come_in(), come_in(), hub.revoke(user="ann"), come_in())
        await eventually(lambda: all(one.sink.closed for one in let_in))

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({}, ValueError),
            ({"user": ""}, ValueError),
            ({"session": ""}, ValueError),
            ({"session": 7}, TypeError),
            ({"user": "a", "issued_before": "now"}, TypeError),
            ({"user": "a", "lifetime": 0}, ValueError),
            ({"user": "a", "lifetime": float("inf")}, ValueError),
        ],
    )
    async def test_what_cannot_be_revoked_is_said(
        self, hub: Hub, arguments: dict[str, object], error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            await hub.revoke(**arguments)  # type: ignore[arg-type]


class GateProcessContract(Contract):
    """Several processes."""

    async def test_a_thousand_are_taken_once_each_over_four_processes(self, hub: Hub, url: str) -> None:
        names = [f"ticket {number}" for number in range(1000)]
        await asyncio.gather(*(kept_by(hub).put(name, name.encode(), LONG) for name in names))
        async with workers(4, url, TOPICS) as group:
            taken = await asyncio.gather(
                *(worker.ask("take", keys=names[start::2]) for start in (0, 1) for worker in group[start::2])
            )
        found = [one for some in taken for one in some if one is not None]
        assert sorted(found) == sorted(names)

    async def test_a_user_is_reached_and_revoked_in_every_process(self, hub: Hub, url: str) -> None:
        async with workers(2, url, TOPICS, presence_lease=3 * PATIENCE) as group:
            for worker in group:
                await worker.ask("admit", name="a", user="ann")
                await worker.ask("admit", name="b", user="bob")
            await hub.send("hi", user="ann")
            for worker in group:
                await until(partial(worker.ask, "received", name="a"), ["hi"])
            loop = asyncio.get_running_loop()
            began = loop.time()
            await group[0].ask("revoke", user="ann")
            for worker in group:
                await until(partial(worker.ask, "closed", name="a"), 3000)
                assert await worker.ask("closed", name="b") is None
                assert await worker.received("b") == []
            assert loop.time() - began < PATIENCE / 4, "it was told with a lease and not at once"
            with pytest.raises(RuntimeError, match="Revoked"):
                await group[1].ask("admit", name="c", user="ann")
            with pytest.raises(Revoked):
                await hub.admit(Connection(), ann())

    async def test_a_process_that_starts_later_knows_who_was_revoked(self, hub: Hub, url: str) -> None:
        await hub.revoke(user="ann")
        async with workers(1, url, TOPICS) as [worker]:
            with pytest.raises(RuntimeError, match="Revoked"):
                await worker.ask("admit", name="a", user="ann")
            await worker.ask("admit", name="b", user="bob")

    async def test_a_limit_holds_over_processes_and_the_killed_hold_nothing(self, hub: Hub, url: str) -> None:
        async with workers(4, url, TOPICS, presence_lease=STEADY_LEASE) as group:
            asked = [worker.ask("claim", key="k", limit=5) for worker in group for _ in range(5)]
            granted = [one["granted"] for one in await asyncio.gather(*asked)]
            assert sum(granted) == 5
            assert not (await group[0].ask("claim", key="k", limit=5))["granted"]
            held = [sum(granted[start : start + 5]) for start in range(0, 20, 5)]
            victim = max(range(4), key=held.__getitem__)
            await group[victim].kill()
            alive = group[victim - 1]

            async def free() -> bool:
                return bool((await alive.ask("claim", key="k", limit=5))["granted"])

            await until(free, True)
            await asyncio.sleep(STEADY_LEASE / 2)  # live processes keep their shares
            more = [await alive.ask("claim", key="k", limit=5) for _ in range(10)]
            assert sum(one["granted"] for one in more) == held[victim] - 1

    async def test_the_oldest_is_replaced_wherever_it_is(self, hub: Hub, url: str) -> None:
        async with workers(2, url, TOPICS) as [one, two]:
            await one.ask("claim", key="k", limit=1, evict=True, name="first")
            await two.ask("claim", key="k", limit=1, evict=True, name="second")
            await until(partial(one.ask, "closed", name="first"), 1008)
            assert await two.ask("closed", name="second") is None

    async def test_a_share_ends_with_its_connection(self, hub: Hub, url: str) -> None:
        async with workers(2, url, TOPICS) as [one, two]:
            await one.ask("claim", key="k", limit=1, name="first")
            assert not (await two.ask("claim", key="k", limit=1))["granted"]
            await one.ask("die", name="first")

            async def free() -> bool:
                return bool((await two.ask("claim", key="k", limit=1))["granted"])

            await until(free, True)


class GateBrokerContract(Contract):
    """The thing in the middle dies."""

    async def test_a_revocation_gets_over_the_death_of_the_broker(self, hub: Hub, url: str, broker: Broker) -> None:
        """A revocation from before it, and one that could not be sent: both hold everywhere when it is back."""
        async with workers(1, url, TOPICS) as [worker]:
            for user in ("ann", "bob", "cid"):
                await worker.ask("admit", name=user, user=user)
            await hub.revoke(user="ann")
            await until(partial(worker.ask, "closed", name="ann"), 3000)
            broker.kill()
            await eventually(lambda: not hub.connected)
            with pytest.raises(BackendUnavailable):
                await hub.revoke(user="bob")
            with pytest.raises(Revoked):
                await hub.admit(Connection(), Identity(user="bob"))
            await until(partial(worker.ask, "connected"), False)
            await worker.ask("admit", name="bob again", user="bob")
            broker.start()
            for name in ("bob", "bob again"):
                await until(partial(worker.ask, "closed", name=name), 3000)
            assert await worker.ask("closed", name="cid") is None
            async with workers(1, url, TOPICS) as [late]:
                for user in ("ann", "bob"):
                    with pytest.raises(RuntimeError, match="Revoked"):
                        await late.ask("admit", name=user, user=user)

    async def test_shares_are_held_on_over_the_death_of_the_broker(self, hub: Hub, url: str, broker: Broker) -> None:
        async with workers(2, url, TOPICS, presence_lease=STEADY_LEASE) as [one, two]:
            for name in ("a", "b"):
                assert (await one.ask("claim", key="k", limit=3, name=name))["granted"]
            broker.kill()
            for worker in (one, two):
                await until(partial(worker.ask, "connected"), False)
            assert "BackendUnavailable" in (await two.ask("claim", key="k", limit=3))["error"]
            assert (await two.ask("claim", key="k", limit=3, alone=True, name="c"))["granted"]
            await one.ask("die", name="a")
            broker.start()
            for worker in (one, two):
                await until(partial(worker.ask, "connected"), True)

            looks = itertools.count()

            async def full() -> bool:  # a look that is granted takes a place, and gives it back
                name = f"look {next(looks)}"
                claimed = await two.ask("claim", key="k", limit=2, name=name)
                await two.ask("die", name=name)
                await until(partial(two.ask, "told"), True)
                return not claimed["granted"]

            await until(full, True)  # b and c are there, each in the backend again
            assert (await one.ask("claim", key="k", limit=3, name="d"))["granted"]
            assert not (await one.ask("claim", key="k", limit=3))["granted"]
