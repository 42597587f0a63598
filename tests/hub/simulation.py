"""`python -m tests.hub.simulation --seeds 0 1000`: random lives of three hubs on one store, in virtual time.

Between each hub and the store is a `Line`, which behaves like the worst of networks. Requests and answers take their
time and overtake each other, and deliveries come in batches and late. The line breaks with all that is on it, and the
store takes a process for dead, or loses its data. Receivers join, stall, read on, die and leave meanwhile, members come
and go, and joins are given up half way. In the end every receiver's record must keep the promises of docs/hub.md.

The same seed gives the same life.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import logging
import random
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from antiphon.hub import BackendUnavailable, Framing, Hub, HubNotRunning, Position, TopicOptions
from antiphon.hub.backends.base import Listener
from antiphon.hub.membership import Membership
from antiphon.hub.pages import PART_BYTES
from antiphon.hub.records import Change, Keep, Page, Roster, Track
from antiphon.hub.store import Store
from antiphon.testing import VirtualTimeLoop
from antiphon.testing.hub_sinks import Connection
from antiphon.types import Overflow

T = TypeVar("T")

HUBS: Final = 3
PUBLISHERS: Final = 4
JOINERS: Final = 14
QUIET_SECONDS: Final = 6.0
LIVE: Final = {"message", "resync"}
LAST: Final = -1
"""The number of the message that ends every topic; further attempts count down."""


def _kept(history: int, **options: Any) -> TopicOptions:
    return TopicOptions(history=history, ttl=1000, framing=Framing.EVENT, **options)


TOPICS: Final = {
    "kept": _kept(20, presence=True, presence_grace=0.5),
    "short": _kept(3),
    "parts": _kept(20, outbox_bytes=4000, presence=True),
    "oldest": _kept(20, overflow=Overflow.DROP_OLDEST, outbox_bytes=2000, presence=True, presence_grace=0.5),
    "newest": _kept(20, overflow=Overflow.DROP_NEWEST, outbox_bytes=2000, presence=True, presence_grace=0),
    "conflated": _kept(20, overflow=Overflow.CONFLATE, outbox_bytes=2000, conflate_by="key"),
    "plain": TopicOptions(presence=True, presence_grace=0.5),
}


# ---------------------------------------------------------------- the store, and the lines to it


class Center:
    """The shared state of all processes."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._stores = 0
        self.lose_data()

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def lose_data(self) -> None:
        self._stores += 1
        self.store = Store(epoch=f"e{self._stores}", version=self._stores * 1_000_000)

    def sweep(self) -> None:
        self.tell(self.store.sweep(self.now))

    def drop(self, process: str) -> None:
        self.tell(self.store.drop_process(process))

    def tell(self, changes: list[tuple[str, Change]]) -> None:
        for topic, change in changes:
            self.tell_one(topic, change)

    def tell_one(self, topic: str, change: Change | None) -> None:
        if change is not None:
            for line in self.lines:
                line.carry(topic, lambda listener: listener.presence_changed(topic, change))

    async def sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            self.sweep()


class Line:
    """One process's `Backend`."""

    in_process = False

    def __init__(self, center: Center, process: str, rng: random.Random, *, answers_in_line: bool) -> None:
        """`answers_in_line`: answers come in one order with the deliveries, as on one connection."""
        self.loop: asyncio.AbstractEventLoop | None = None
        self.up = False
        self.refusing = False
        self.listener: Listener
        self._carries = False
        self._started = False
        self._center = center
        self._process = process
        self._rng = rng
        self._answers_in_line = answers_in_line
        self._breaks = 0
        self._wanted: set[str] = set()
        self._subscribed: set[str] = set()
        self._on_the_way: deque[Callable[[Listener], None]] = deque()
        self._arrival = asyncio.Event()
        self._answers: dict[asyncio.Future[Any], None] = {}  # in order: the same seed, the same life

    async def start(self, listener: Listener) -> None:
        self.loop = asyncio.get_running_loop()
        self.listener = listener
        self.up = self._carries = self._started = True
        self._center.lines.append(self)
        self._arriving = self.loop.create_task(self._arrive())

    async def stop(self) -> None:
        if self._started:
            self._started = False
            self._cut()
            self._arriving.cancel()
            self._wanted.clear()
            self._center.lines.remove(self)
            self._center.drop(self._process)

    # Faults

    def lose(self) -> None:
        if self.up:
            self._cut(answers=self._answers_in_line or self._rng.random() < 0.5)
            if self._rng.random() < 0.5:
                self._center.drop(self._process)
            self.listener.lost()
            self.listener.flush()

    async def restore(self) -> None:
        await self._take_time()
        if self._rng.random() < 0.3:
            await self._connect_and_break()
        if self._started and not self.up:
            self._subscribed = set(self._wanted)
            self.up = self._carries = True
            self.listener.restored()
            self.listener.flush()

    async def _connect_and_break(self) -> None:
        """Some new entries come before the line is lost once more, which is no new loss to the hub."""
        if self._started and not self.up:
            self._subscribed = set(self._wanted)
            self._carries = True
            await asyncio.sleep(self._rng.random() * 0.1)
            if not self.up:
                self._cut()
            await self._take_time()

    async def take_for_dead(self) -> None:
        self._center.drop(self._process)
        await self._take_time()
        if self.up:
            self.listener.forgotten()
            self.listener.flush()

    def _cut(self, *, answers: bool = True) -> None:
        """`answers`: those, too, that are under way. They may come by other connections."""
        self.up = self._carries = False
        self._breaks += answers
        self._on_the_way.clear()
        self._subscribed.clear()
        for answer in self._answers:
            if answers and not answer.done():
                answer.set_exception(BackendUnavailable("the line broke", uncertain=True))

    # Carrying

    def carry(self, topic: str | None, what: Callable[[Listener], None]) -> None:
        """To the hub, behind the entries on the way. `topic`: only if the hub has subscribed to it."""
        if self._carries and (topic is None or topic in self._subscribed):
            self._on_the_way.append(what)
            self._arrival.set()

    async def _arrive(self) -> None:
        while True:
            await self._arrival.wait()
            await self._take_time()
            for _ in range(min(self._rng.randint(1, 6), len(self._on_the_way))):
                self._on_the_way.popleft()(self.listener)
            self.listener.flush()
            if not self._on_the_way:
                self._arrival.clear()

    async def _take_time(self) -> None:
        kind = self._rng.random()
        await asyncio.sleep(0 if kind < 0.5 else self._rng.random() * (0.01 if kind < 0.95 else 0.2))

    async def _ask(self, work: Callable[[], T]) -> T:
        if not self.up:
            raise BackendUnavailable("the line is down")
        if self.refusing:
            if self._rng.random() < 0.5:
                work()
            raise BackendUnavailable("the store takes nothing", uncertain=True)
        breaks = self._breaks
        await self._take_time()
        if breaks != self._breaks:
            raise BackendUnavailable("the line broke", uncertain=True)
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        result = work()
        self._answers[answer] = None
        try:
            if self._answers_in_line:
                self.carry(None, lambda _: None if answer.done() else answer.set_result(result))
                return await answer
            await self._take_time()
            return answer.result() if answer.done() else result
        finally:
            del self._answers[answer]

    # Calls from the hub

    async def subscribe(self, topic: str, keep: Keep | None) -> Position | None:
        self._wanted.add(topic)

        def work() -> Position | None:
            self._subscribed.add(topic)
            return None if keep is None else self._center.store.head(topic)

        return await self._ask(work)

    def unsubscribe(self, topic: str) -> None:
        self._wanted.discard(topic)
        self._subscribed.discard(topic)

    async def publish(self, topic: str, data: bytes, keep: Keep | None) -> Position | None:
        def work() -> Position | None:
            entry = self._center.store.publish(topic, data, keep, self._center.now)
            for line in self._center.lines:
                line.carry(topic, lambda listener: listener.deliver(topic, entry))
            return entry.position

        return await self._ask(work)

    async def history(
        self, topic: str, keep: Keep, since: Position | None, limit: int | None, size: int | None = None
    ) -> Page:
        return await self._ask(lambda: self._center.store.page(topic, since, limit, self._center.now, size))

    async def track(self, topic: str, track: Track) -> None:
        def work() -> None:
            self._center.sweep()
            self._center.tell_one(topic, self._center.store.track(topic, track, self._process))

        await self._ask(work)

    async def untrack(self, topic: str, ref: str, grace: float) -> None:
        def work() -> None:
            self._center.tell_one(topic, self._center.store.untrack(topic, ref, grace, self._center.now))

        await self._ask(work)

    async def presence(self, topic: str) -> Roster:
        def work() -> Roster:
            self._center.sweep()
            return self._center.store.roster(topic)

        return await self._ask(work)

    async def presence_count(self, topic: str) -> int:
        def work() -> int:
            self._center.sweep()
            return self._center.store.count(topic)

        return await self._ask(work)

    async def control(self, payload: bytes) -> None:
        def work() -> None:
            for line in self._center.lines:
                line.carry(None, lambda listener: listener.controlled(payload))

        await self._ask(work)


# ---------------------------------------------------------------- the parts of a life


class World(Protocol):
    """The hubs of one life, their backend, and its faults."""

    hubs: list[Hub]

    async def open(self) -> None:
        """Start everything but the hubs."""

    async def close(self) -> None:
        """End everything but the hubs."""

    async def trouble(self, rng: random.Random, over: Callable[[], bool]) -> None:
        """Make trouble until it is over; in the end everything works."""

    async def members(self, topic: str) -> dict[str, list[Any]]:
        """The members."""

    async def settled(self, check: Callable[[], Awaitable[None]]) -> None:
        """Return when `check` passes and everything is quiet. Raises its AssertionError when it does not in time."""


class Simulated:
    """A `World` of lines in virtual time."""

    def __init__(self, rng: random.Random) -> None:
        self._center = Center()
        in_line = rng.random() < 0.5
        self._lines = [Line(self._center, f"p{number}", rng, answers_in_line=in_line) for number in range(HUBS)]
        kinds = [self._break, self._lose_data, self._lease_over, self._restart, self._refuse]
        self._kinds = rng.sample(kinds, rng.choice([0, 1, 2, len(kinds)]))
        self.hubs = [Hub(backend=line, topics=TOPICS) for line in self._lines]
        for hub in self.hubs:
            hub._pages.part_bytes = rng.choice([700, 2000, PART_BYTES])
            hub._access.recovered_bytes = rng.choice([700, PART_BYTES])

    async def open(self) -> None:
        self._sweeping = asyncio.create_task(self._center.sweep_forever())

    async def close(self) -> None:
        self._sweeping.cancel()

    async def trouble(self, rng: random.Random, over: Callable[[], bool]) -> None:
        while self._kinds and not over():
            await asyncio.sleep(rng.random() * 2)
            await rng.choice(self._kinds)(rng)

    async def members(self, topic: str) -> dict[str, list[Any]]:
        self._center.sweep()
        roster = self._center.store.roster(topic).members
        return {user: [json.loads(meta) for meta in metas] for user, metas in roster.items()}

    async def settled(self, check: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(QUIET_SECONDS)
        await check()

    async def _break(self, rng: random.Random) -> None:
        line = rng.choice(self._lines)
        line.lose()
        await asyncio.sleep(rng.random() * rng.choice([0.01, 1]))
        await line.restore()

    async def _lose_data(self, rng: random.Random) -> None:
        for line in self._lines:
            line.lose()
        self._center.lose_data()
        await asyncio.sleep(rng.random())
        for line in self._lines:
            await line.restore()

    async def _refuse(self, rng: random.Random) -> None:
        """The subscribing connection stays up, and requests fail."""
        line = rng.choice(self._lines)
        line.refusing = True
        await asyncio.sleep(rng.random() * rng.choice([0.01, 1]))
        line.refusing = False

    async def _lease_over(self, rng: random.Random) -> None:
        await rng.choice(self._lines).take_for_dead()

    async def _restart(self, rng: random.Random) -> None:
        restarting = asyncio.create_task(restart(rng.choice(self.hubs), rng))
        await asyncio.sleep(rng.random() * 0.4)
        await self._break(rng)
        await restarting


async def restart(hub: Hub, rng: random.Random) -> None:
    """Stop the hub and start it again, however long its backend is away."""
    await hub.stop()
    await asyncio.sleep(rng.random() * 0.3)
    await start(hub)


async def start(hub: Hub) -> None:
    """However long its backend is away, or the machine too busy to answer in time."""
    while True:
        try:
            await hub.start()
        except BackendUnavailable:
            await asyncio.sleep(0.1)
        else:
            return


@dataclass(slots=True)
class Stay:
    """A receiver's time in a topic, and its messages."""

    topic: str
    asked: dict[str, Any]
    connection: Connection
    membership: Membership
    to_the_end: bool = False

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(one) for one in self.connection.received]

    @property
    def reached_the_end(self) -> bool:
        """It was in the topic when the last message came (a policy or trouble may have ended it before)."""
        return self.to_the_end and self.membership.active


# ---------------------------------------------------------------- one life


@dataclass(slots=True)
class Life:
    """The publishers and receivers of a world, and the checks at the end."""

    rng: random.Random
    world: World
    busy_seconds: float = 6.0
    least_messages: int = 0
    published: dict[tuple[str, Position], int] = field(default_factory=dict)
    stays: list[Stay] = field(default_factory=list)
    numbers: int = 0
    over: bool = False
    coming_and_going: int = JOINERS
    """Joiners that have neither gone for good nor settled for the end."""
    checked: asyncio.Event = field(default_factory=asyncio.Event)
    topics: list[str] = field(init=False)
    users: int = field(init=False)

    def __post_init__(self) -> None:
        self.users = self.rng.choice([1, 4])
        self.topics = self.rng.choice([list(TOPICS), self.rng.sample(list(TOPICS), 2)])

    async def live(self) -> None:
        """Raises AssertionError for a promise that was broken."""
        most_moments = self.rng.choice([3, 12])
        await self.world.open()
        for hub in self.world.hubs:
            await start(hub)
        async with asyncio.TaskGroup() as group:
            for number in range(PUBLISHERS):
                hub = self.world.hubs[number % HUBS]
                group.create_task(self._publish(hub, random.Random(self.rng.random())))
            for number in range(JOINERS):
                group.create_task(self._come_and_go(number, most_moments, random.Random(self.rng.random())))
            group.create_task(self._break_off(random.Random(self.rng.random())))
            making_trouble = self.world.trouble(random.Random(self.rng.random()), lambda: self.over)
            group.create_task(self._end(group.create_task(making_trouble)))
        await self.world.settled(self._check_residue)
        for hub in self.world.hubs:
            await hub.stop()
        await self.world.close()
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left: {left}"

    async def _break_off(self, rng: random.Random) -> None:
        """A switch reboots: many connections are gone in the same moment."""
        await asyncio.sleep(rng.random() * self.busy_seconds * 2)
        for stay in () if self.over else tuple(self.stays):
            if stay.membership.active and rng.random() < 0.7:
                stay.connection.sink.die()

    async def _publish(self, hub: Hub, rng: random.Random) -> None:
        while not self.over:
            data = {"n": self._next_number(), "key": rng.randint(0, 3), "pad": "x" * rng.choice([0, 10, 300])}
            with contextlib.suppress(BackendUnavailable, HubNotRunning):
                await self._publish_one(hub, rng.choice(self.topics), data)
            await asyncio.sleep(rng.choice([0, 0, 0.001, 0.05]))

    async def _publish_one(self, hub: Hub, topic: str, data: dict[str, Any]) -> None:
        position = await hub.publish(topic, data)
        if position is not None:
            assert (topic, position) not in self.published, f"two entries of {topic} at {position}"
            self.published[topic, position] = data["n"]

    def _next_number(self) -> int:
        self.numbers += 1
        return self.numbers

    async def _come_and_go(self, number: int, most_moments: int, rng: random.Random) -> None:
        left_at: dict[str, Position] = {}
        while not self.over:
            topic = rng.choice(self.topics)
            stay = self._ask_to_join(topic, number, left_at, rng)
            if stay is not None:
                with contextlib.suppress(BackendUnavailable, HubNotRunning, TimeoutError):
                    await self._stay(stay, most_moments, rng)
                known = [event for event in stay.events if "offset" in event]
                if known:
                    left_at[topic] = Position(known[-1]["offset"], known[-1]["epoch"])
            await asyncio.sleep(rng.choice([0, 0.01]))
        self.coming_and_going -= 1

    def _ask_to_join(self, topic: str, number: int, left_at: dict[str, Position], rng: random.Random) -> Stay | None:
        asked: dict[str, Any] = {}
        if TOPICS[topic].history and rng.random() < 0.5:
            asked["history"] = rng.choice([1, 3, 10, 50])
        if topic in left_at and rng.random() < 0.7:
            asked["since"] = left_at[topic]
        if TOPICS[topic].presence and rng.random() < 0.7:
            asked["presence"] = {"id": f"u{rng.randrange(self.users)}", "tab": number}
        connection = Connection()
        try:
            return Stay(topic, asked, connection, rng.choice(self.world.hubs).join(topic, connection, **asked))
        except HubNotRunning:
            return None

    async def _stay(self, stay: Stay, most_moments: int, rng: random.Random) -> None:
        async with asyncio.timeout(rng.choice([None, None, None, 0.001, 0.02])) as impatience, stay.membership:
            impatience.reschedule(None)
            self.stays.append(stay)
            for _ in range(rng.randrange(most_moments)):
                if self.over or not stay.connection.sink.alive:
                    break
                self._something_happens(stay.connection, rng)
                await asyncio.sleep(rng.choice([0, 0.001, 0.02, 0.3]))
            if self.over and stay.connection.sink.alive and stay.membership.active:
                stay.connection.sink.read_on()
                stay.to_the_end = True
                self.coming_and_going -= 1
                await self.checked.wait()
                self.coming_and_going += 1

    def _something_happens(self, connection: Connection, rng: random.Random) -> None:
        what = rng.random()
        if what < 0.20:
            connection.sink.stall()
        elif what < 0.40:
            connection.sink.read_on()
        elif what < 0.50:
            connection.sink.read(3)
        elif what < 0.53:
            connection.sink.die()

    # The end

    async def _end(self, trouble: asyncio.Task[None]) -> None:
        for _ in range(10):  # a busy machine does little in that time
            await asyncio.sleep(self.busy_seconds)
            if self.numbers >= self.least_messages:
                break
        self.over = True
        await trouble
        await self.world.settled(self._check_quiet)
        for topic in TOPICS:
            await self._publish_last(topic)
        await self.world.settled(self._check_all)
        self.checked.set()

    async def _publish_last(self, topic: str) -> None:
        """However often the hub has not noticed yet that its backend is away. It may be done more than once."""
        for number in itertools.count(LAST, -1):
            try:
                await self._publish_one(self.world.hubs[0], topic, {"n": number, "key": LAST})
            except BackendUnavailable:
                await asyncio.sleep(0.1)
            else:
                return

    async def _check_quiet(self) -> None:
        assert not self.coming_and_going, "somebody still comes and goes"
        for hub in self.world.hubs:
            assert hub.stats().connected, "a hub has not found its backend again"

    async def _check_all(self) -> None:
        members = {topic: await self.world.members(topic) for topic in TOPICS}
        for stay in self.stays:
            try:
                self._check(stay, members[stay.topic])
            except AssertionError as error:
                events = "\n".join(json.dumps(event)[:200] for event in stay.events[-40:])
                raise AssertionError(f"{stay.topic}, asked for {stay.asked}: {error}\n{events}") from None

    def _check(self, stay: Stay, members: dict[str, list[Any]]) -> None:
        self._check_members(stay, members)
        if TOPICS[stay.topic].framing is Framing.EVENT:
            self._check_order(stay)
        numbers = [number for event in stay.events if (number := _number(event)) is not None]
        assert len(set(numbers)) == len(numbers), "a message came twice"
        told_of_a_gap = "resync" in [event["type"] for event in stay.events if event.get("type") in LIVE][-1:]
        if stay.reached_the_end and not told_of_a_gap:
            assert any(number <= LAST for number in numbers), "the last message did not come"

    def _check_members(self, stay: Stay, members: dict[str, list[Any]]) -> None:
        told: dict[str, Any] = {}
        counts: dict[str, int] = {}
        for event in stay.events:
            if event.get("type") == "presence_diff":
                assert not event["joins"].keys() & told.keys(), "somebody joined twice"
                assert (event["leaves"].keys() | event["updates"].keys()) <= told.keys(), "a stranger left or changed"
                for user, metas in event["updates"].items():
                    same = told[user] == metas and counts.get(user) == event.get("counts", {}).get(user)
                    assert not same, "an update of nothing"
                for user in event["leaves"].keys() | event["joins"].keys() | event["updates"].keys():
                    counts.pop(user, None)
                counts |= event.get("counts", {})
                told = {user: metas for user, metas in told.items() if user not in event["leaves"]}
                told |= event["joins"] | event["updates"]
        if stay.reached_the_end and "presence" in stay.asked:
            assert told == members, f"was told {told}, the members are {members}"

    def _check_order(self, stay: Stay) -> None:
        """Positions go up by one. A jump is announced before, or the policy's doing.

        Where data was lost during a join, older entries on their way may come behind new ones: announced right after.
        """
        complete = TOPICS[stay.topic].overflow is Overflow.DISCONNECT
        last: Position | None = None
        first_at_most: Position | None = None
        jump_told = False
        to_be_told = ""
        for kind, place, event in _places(stay):
            if kind == "joined":
                assert place is not None
                assert last is None, "joined twice"
                if event["recovered"]:
                    last = stay.asked["since"]
                elif "history" in stay.asked:
                    first_at_most = place
                else:
                    last = place
            elif kind == "resync":
                jump_told, to_be_told = True, ""
            elif kind == "message":
                assert place is not None
                truth = self.published.get((stay.topic, place))
                assert truth in (None, _number(event)), f"not the message that was published at {place}"
                if last is not None and last.epoch == place.epoch:
                    assert place.offset > last.offset, f"{place} behind {last}"
                if complete and not jump_told and not _continues(place, last, first_at_most):
                    to_be_told = f"{place} follows {last or first_at_most}"
                    assert (last or first_at_most or place).epoch != place.epoch, to_be_told
                last, jump_told = place, False
        assert not (to_be_told and stay.reached_the_end), to_be_told

    async def _check_residue(self) -> None:
        for hub in self.world.hubs:
            stats = hub.stats()
            assert (stats.memberships, stats.topics) == (0, 0), f"left in a hub: {stats}"
        for topic in TOPICS:
            members = await self.world.members(topic)
            assert not members, f"left in {topic}: {members}"


def _places(stay: Stay) -> Iterator[tuple[str, Position | None, dict[str, Any]]]:
    for event in stay.events:
        yield event["type"], Position(event["offset"], event["epoch"]) if "offset" in event else None, event


def _number(event: dict[str, Any]) -> int | None:
    data = event.get("data", event)
    return data.get("n") if isinstance(data, dict) else None


def _continues(place: Position, last: Position | None, first_at_most: Position | None) -> bool:
    if last is not None:
        return place == Position(last.offset + 1, last.epoch)
    return first_at_most is None or place <= Position(first_at_most.offset + 1, first_at_most.epoch)


def run(seed: int) -> Life:
    """One life. Raises AssertionError."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(_run(seed))


async def _run(seed: int) -> Life:
    rng = random.Random(seed)
    return await lived(Life(rng, Simulated(rng)))


async def lived(life: Life) -> Life:
    """Live it. Raises the first thing that went wrong."""
    try:
        await life.live()
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return life


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.hub.simulation", description=__doc__)
    parser.add_argument("--seeds", nargs=2, type=int, default=(0, 1000), metavar=("FIRST", "BEHIND"))
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    for seed in range(*options.seeds):
        try:
            life = run(seed)
        except AssertionError as error:
            sys.stdout.write(f"seed {seed}: {error}\n")
            return 1
        if seed % 50 == 0:
            sys.stdout.write(f"seed {seed}: {len(life.stays)} stays, {life.numbers} messages\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
