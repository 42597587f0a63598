"""This process's members in Redis: announced, kept alive by leases, removed when their grace is over.

Knows the presence script (presence.lua) and when to call it, and nothing of messages. All methods in one loop.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import struct
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ...records import Change, Roster, Track
from . import scripts
from .copies import Copies
from .names import BUCKETS, Names, bucket_of
from .pipeline import Pipeline
from .wire import Command, Word

log: Final = logging.getLogger("antiphon.hub.redis")

REFRESHED: Final = 200
"""Topics per bucket whose members' lifetime (an hour) is renewed per tick."""

SLACK: Final = 0.02
"""Seconds a sweep runs behind a deadline: Redis has a clock of its own."""

ON_THE_WAY: Final = 1.0
"""Seconds to wait for announced changes, before all members are read: pub/sub may lose them."""

_LENGTH = struct.Struct(">I")


class MemberKeeper:
    """The connections of this process that are present somewhere. Its calls raise RedisError."""

    def __init__(
        self,
        client: Redis,
        line: Pipeline,
        names: Names,
        prefix: str,
        lease: float,
        sweep: Callable[[set[int]], None],
        forgotten: Callable[[], None],
    ) -> None:
        """`prefix`: of epochs that begin here. `lease`: seconds. `sweep(buckets)` is called when a grace is
        over: `tick` them, if Redis is there.

        `forgotten` is called when others turn out to be removed: `rename`, and track all of them again.
        """
        self._client = client
        self._line = line
        self.copies: Final = Copies()
        self._names = names
        self._epoch_prefix = prefix
        self._lease = int(lease * 1000)
        self._sweep = sweep
        self._forgotten = forgotten
        self._loop = asyncio.get_running_loop()
        self._process = uuid.uuid4().hex
        self._tracked: dict[int, dict[str, set[str]]] = {}
        self._leased: set[int] = set()
        """Buckets that know a lease of this name, as far as this process knows."""
        self._lingering: list[tuple[float, str, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        """The time at which the timer runs. The timer itself cannot say: uvloop's handle does not know once it is
        almost due."""

    def rename(self) -> None:
        """Connections tracked and not yet untracked end with the old name's lease."""
        self._process = uuid.uuid4().hex
        self._leased.clear()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def track(self, topic: str, track: Track) -> None:
        bucket = bucket_of(topic)
        # from here on the lease is kept, also when the answer gets lost
        self._tracked.setdefault(bucket, {}).setdefault(topic, set()).add(track.ref)
        process = self._process
        lease = await self._call(bucket, "track", topic, track.ref, track.user, track.meta, process, self._lease)
        if process != self._process:
            return
        if lease < 0 or (lease == 0 and bucket in self._leased):
            # This has given it one anew: a tick would find that all is well.
            self._forgotten()
        else:
            self._leased.add(bucket)

    async def untrack(self, topic: str, ref: str, grace: float) -> None:
        found = await self._call(bucket_of(topic), "untrack", topic, ref, max(int(grace * 1000), 0))
        if found and grace > 0:
            heapq.heappush(self._lingering, (self._loop.time() + grace + SLACK, topic, ref))
            self._arm()
        else:
            self._forget(topic, ref)

    async def roster(self, topic: str) -> Roster:
        known = self.copies.version(topic)
        if known is not None:
            version, *rest = await self._call(bucket_of(topic), "roster", topic, known)
            if rest == [b"known"] and (roster := await self._heard(topic, version)) is not None:
                return roster
            self.copies.restart(topic)
        with self.copies.asking(topic) as came:
            version, *rest = await self._call(bucket_of(topic), "roster", topic, "")
            roster = _read_roster(version, rest)
            self.copies.keep(topic, roster, came)
        return roster

    async def _heard(self, topic: str, version: int) -> Roster | None:
        """Redis sent the changes to this process before the answer. None: they have been lost."""
        try:
            async with asyncio.timeout(ON_THE_WAY):
                return await self.copies.reached(topic, version)
        except TimeoutError:
            log.info("redis: changes of the members of %r were lost", topic)
            return None

    async def count(self, topic: str) -> int:
        """The number of members, counted in Redis: after all earlier `track` calls, and without expired members."""
        bucket = bucket_of(topic)
        count = self._line.call(scripts.COUNT.command(self._names.state_key(bucket), self._epoch_prefix, topic))
        _, found = await asyncio.gather(self._call(bucket, "tick", "", self._lease), count)
        return int(found)

    async def leave(self) -> None:
        """All of them, now."""
        # Those who leave meanwhile are forgotten one by one.
        await asyncio.gather(*(self._leave(bucket) for bucket in tuple(self._tracked)))

    async def _leave(self, bucket: int) -> None:
        while await self._call(bucket, "leave", self._process):
            pass

    async def tick(self, buckets: Iterable[int]) -> bool:
        """Renew the leases, and drop expired state of all processes. False: a lease had run out.

        This also detects a server that refuses writes, even if there is nothing to renew.
        """
        process = self._process
        replies = await scripts.call_all(self._client, self._upkeep(buckets))
        _raise_first(replies)
        return 0 not in replies or process != self._process

    async def prepare(self) -> None:
        """The first request to a server: it loads the scripts, and checks that every bucket takes writes."""
        _raise_first(await scripts.load(self._client, self._upkeep(range(BUCKETS))))

    async def probe(self) -> None:
        """Write something."""
        _raise_first(await scripts.call_all(self._client, [self._probe()]))

    def _probe(self) -> Command:
        return scripts.PRESENCE.command(self._names.state_key(0), self._epoch_prefix, "probe")

    def _upkeep(self, buckets: Iterable[int]) -> list[Command]:
        process = self._process
        commands = [self._probe()]
        for bucket in buckets:
            tracked = list(self._tracked.get(bucket, ()))
            start = random.randrange(len(tracked)) if len(tracked) > REFRESHED else 0
            name, refreshed = process if tracked else "", tracked[start : start + REFRESHED]
            key = self._names.state_key(bucket)
            commands.append(scripts.PRESENCE.command(key, self._epoch_prefix, "tick", name, self._lease, *refreshed))
        return commands

    async def _call(self, bucket: int, operation: str, *words: Word) -> Any:
        command = scripts.PRESENCE.command(self._names.state_key(bucket), self._epoch_prefix, operation, *words)
        return await self._line.call(command)

    def _arm(self) -> None:
        if not self._lingering:
            return
        when = self._lingering[0][0]
        if self._timer is not None:
            if self._due <= when:
                return
            self._timer.cancel()
        self._due = when
        self._timer = self._loop.call_at(when, self._grace_over)

    def _grace_over(self) -> None:
        """Should this process die before it sweeps, another one's tick finds it."""
        self._timer = None
        now, buckets = self._loop.time(), set()
        while self._lingering and self._lingering[0][0] <= now:
            _, topic, ref = heapq.heappop(self._lingering)
            buckets.add(bucket_of(topic))
            self._forget(topic, ref)
        self._arm()
        self._sweep(buckets)

    def _forget(self, topic: str, ref: str) -> None:
        bucket = bucket_of(topic)
        topics = self._tracked.get(bucket, {})
        refs = topics.get(topic)
        if refs is None:
            return
        refs.discard(ref)
        if not refs:
            del topics[topic]
        if not topics:
            self._tracked.pop(bucket, None)
            self._leased.discard(bucket)


def _raise_first(replies: list[Any]) -> None:
    for reply in replies:
        if isinstance(reply, RedisError):
            raise reply


def _read_roster(version: int, rest: list[Any]) -> Roster:
    """Parse an answer of presence.lua."""
    members, more = {}, {}
    for user, metas, others in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        members[user.decode()] = tuple(metas)
        if others:
            more[user.decode()] = others
    return Roster(version, members, more)


def read_change(data: bytes) -> Change:
    """Parse an announcement of presence.lua. Raises ValueError, struct.error."""
    head, _, rest = data.partition(b"\n")
    words, start = [], 0
    while start < len(rest):
        length = _LENGTH.unpack_from(rest, start)[0]
        start += _LENGTH.size
        words.append(rest[start : start + length])
        start += length
    user, *metas = words
    version, _, more = head[1:].partition(b"+")
    return Change(int(version), user.decode(), tuple(metas), int(more))
