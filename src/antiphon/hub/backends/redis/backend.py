"""`redis://`, `rediss://`, `unix://`: many processes on many hosts, joined by one Redis (7.0 or later).

Live messages go by pub/sub. Lua scripts (*.lua), each an atomic step, keep history, offsets, epochs and presence.
Topics are spread over `BUCKETS` hash tags, and a script touches keys of one bucket. docs/backends.md lists the stored
keys and their lifetimes.

Pub/sub may lose messages silently (a failover, a proxy). heads.py detects that for topics with history. The recovery is
the same as after a lost connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ...errors import BackendUnavailable, UnknownBackend
from ...records import ENTRY_COST, Claimed, Entry, Keep, Note, Page, Position, Roster, Track
from ..base import BackendConfig, Listener, redact
from . import scripts
from .dialer import Dialer
from .feed import Feed
from .gatework import GateKeeper
from .heads import Heads
from .members import MemberKeeper, read_change
from .names import BUCKETS, Epochs, Names, bucket_of
from .pipeline import Pipeline
from .wire import Command, page_of

log: Final = logging.getLogger("antiphon.hub.redis")

T = TypeVar("T")

PAGE_BYTES: Final = 1 << 20
"""A longer page of history is answered in parts: everybody waits while Redis makes one answer."""

ALSO_FAILS: Final = 0.5
"""Seconds for the second of two connections to fail, too, before it is given up."""

TICKS: Final = 3
"""Renewals per lease: two may be late before anybody is taken for dead."""

_PLAIN, _ENTRY, _FIRST, _PRESENCE = b"DEFP"


class RedisBackend:
    """One process's connections to Redis: one to hear, a few to speak."""

    in_process = False

    # Of a start, each made anew by the next one.
    _listener: Listener
    _client: Redis
    _publishing: Pipeline
    _presence: Pipeline
    _members: MemberKeeper
    _gate: GateKeeper

    def __init__(self, url: str, config: BackendConfig) -> None:
        self._url = url
        self._config = config
        if "{" in config.prefix or "}" in config.prefix:
            raise UnknownBackend(f"the prefix must not hold braces (they mark hash tags): {config.prefix!r}")
        self._dialer = Dialer(url, config.call_timeout)
        # pub/sub knows no database numbers
        database = self._dialer.database
        self._names = Names(f"{config.prefix}@{database}" if database else config.prefix)
        self._reset()

    def _reset(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._feed: Feed | None = None
        self._connected = False
        self._stopped = False
        self._channels: dict[bytes, str] = {}
        self._heads = Heads()
        self._epochs = Epochs()
        self._refusing = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        return self._loop

    @property
    def refusing(self) -> bool:
        """Redis is there and takes no writes: its memory or disk is full, its replicas are away."""
        return self._refusing

    # Life

    async def start(self, listener: Listener) -> None:
        # anything started before a fork belongs to the parent, its connections included
        self._reset()
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._client = self._dialer.client()
        timeout = self._config.call_timeout
        self._publishing = Pipeline(self._dialer.connection(), timeout, repeatable=False)
        self._presence = Pipeline(self._dialer.connection(), timeout, repeatable=True)
        names, lease = self._names, self._config.presence_lease
        self._members = MemberKeeper(
            self._client, self._presence, names, self._epochs.prefix, lease, self._swept, self._members_forgotten
        )
        lines = self._publishing, self._presence
        self._gate = GateKeeper(self._client, *lines, names, self._epochs.prefix, lease, self._members_forgotten)
        self._pid = os.getpid()
        try:
            async with asyncio.timeout(self._config.start_timeout):
                # a replica, a cluster's node or a user without rights shows here, not at the first publish
                self._feed = await _beside(self._members.prepare(), self._open_feed())
                if self._feed.closed:
                    raise ConnectionError("the subscribing connection was closed at once")
        except BaseException as error:
            await self._disconnect()
            if isinstance(error, (RedisError, OSError, TimeoutError)):
                why = str(error) or f"no answer within {self._config.start_timeout:g} s"
                raise BackendUnavailable(f"cannot use redis at {redact(self._url)}: {why}") from error
            raise
        self._connected = True
        self._spawn(self._tick_forever())

    async def stop(self) -> None:
        if self._stopped or self._pid != os.getpid():
            return
        self._stopped = True
        connected, self._connected = self._connected, False
        self._members.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        try:
            if connected:
                with contextlib.suppress(RedisError, TimeoutError):
                    async with asyncio.timeout(self._config.call_timeout):
                        await self._members.leave()
                        await self._gate.leave()
        finally:
            await self._disconnect()

    async def _disconnect(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None:
            await feed.close()
        await self._publishing.disconnect()
        await self._presence.disconnect()
        await self._client.aclose(close_connection_pool=True)

    async def _open_feed(self, channels: Collection[bytes] = ()) -> Feed:
        """A feed that hears the control channel, and these. Raises RedisError or TimeoutError."""
        feed = Feed(
            self._dialer.connection(),
            received=self._received,
            batch_over=self._listener.flush,
            broken=self._feed_broken,
        )
        try:
            async with asyncio.timeout(self._config.call_timeout):
                await feed.connect()
                await feed.subscribe((self._names.control, *channels))
        except BaseException:
            await feed.close()
            raise
        return feed

    # Calls from the hub

    async def subscribe(self, topic: str, keep: Keep | None) -> Position | None:
        feed = self._ready()
        channel = self._names.channel(topic)
        self._channels[channel] = topic
        if keep is not None:
            self._heads.watch(topic)
        await self._bounded(feed.subscribe((channel,)))
        if feed is self._feed and channel in self._channels:
            self._members.copies.hear(topic)
        if keep is None:
            return None
        epoch, offset = await self._read(scripts.HEADS.command(self._names.key(topic), self._epochs.prefix, topic))
        position = Position(offset, self._epochs.text(epoch))
        self._heads.note(topic, position)
        return position

    def unsubscribe(self, topic: str) -> None:
        channel = self._names.channel(topic)
        self._channels.pop(channel, None)
        self._heads.forget(topic)
        if self._pid:
            self._members.copies.forget(topic)
        if self._feed is not None and self._pid == os.getpid():
            self._feed.unsubscribe(channel)

    async def publish(self, topic: str, data: bytes, keep: Keep | None) -> Position | None:
        self._ready()
        if keep is None:
            await self._bounded(self._publishing.call(("PUBLISH", self._names.channel(topic), b"D" + data)))
            return None
        ttl = max(int(keep.ttl * 1000), 1)
        command = scripts.PUBLISH.command(self._names.key(topic), self._epochs.prefix, topic, data, keep.size, ttl)
        offset, epoch = await self._bounded(self._publishing.call(command))
        return Position(offset, self._epochs.text(epoch))

    async def history(
        self, topic: str, keep: Keep, since: Position | None, limit: int | None, size: int | None = None
    ) -> Page:
        offset, epoch = ("", "") if since is None else since
        most = "" if limit is None else max(limit, 0)
        size = PAGE_BYTES if size is None else min(size, PAGE_BYTES)
        words = (topic, offset, epoch, most, size, ENTRY_COST)
        command = scripts.HISTORY.command(self._names.key(topic), self._epochs.prefix, *words)
        found, last, recovered, entries, rest = await self._read(command)
        return page_of(entries, Position(last, self._epochs.text(found)), bool(recovered), rest)

    async def track(self, topic: str, track: Track) -> None:
        await self._bounded(self._if_ready(self._members).track(topic, track))

    async def untrack(self, topic: str, ref: str, grace: float) -> None:
        await self._bounded(self._if_ready(self._members).untrack(topic, ref, grace))

    async def presence(self, topic: str) -> Roster:
        return await self._bounded(self._if_ready(self._members).roster(topic))

    async def presence_count(self, topic: str) -> int:
        return await self._bounded(self._if_ready(self._members).count(topic))

    async def control(self, payload: bytes) -> None:
        self._ready()
        await self._bounded(self._publishing.call(("PUBLISH", self._names.control, payload)))

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        await self._bounded(self._if_ready(self._gate).put(key, value, ttl))

    async def take(self, key: str) -> bytes | None:
        return await self._bounded(self._if_ready(self._gate).take(key))

    async def claim(self, key: str, ref: str, limit: int | None, evict: bool) -> Claimed:
        return await self._bounded(self._if_ready(self._gate).claim(key, ref, limit, evict))

    async def release(self, key: str, ref: str) -> None:
        await self._bounded(self._if_ready(self._gate).release(key, ref))

    async def note(self, notes: Sequence[Note]) -> None:
        await self._bounded(self._if_ready(self._gate).note(notes))

    async def noted(self) -> Sequence[Note]:
        return await self._bounded(self._if_ready(self._gate).noted())

    # Calling

    def _ready(self) -> Feed:
        if self._connected and self._feed is not None and self._pid == os.getpid():
            return self._feed
        if self._pid not in (0, os.getpid()):
            raise BackendUnavailable("the redis connections belong to the parent process; start the hub in this one")
        raise BackendUnavailable("the redis backend is stopped" if self._stopped else "not connected to redis")

    def _if_ready(self, part: T) -> T:
        self._ready()
        return part

    async def _read(self, command: Command) -> Any:
        self._ready()
        return await self._bounded(scripts.read(self._client, command))

    async def _bounded(self, work: Coroutine[Any, Any, T]) -> T:
        timeout = self._config.call_timeout
        try:
            async with asyncio.timeout(timeout):
                return await work
        except RedisError as error:
            self._judge(error)
            raise scripts.unavailable(error) from error
        except TimeoutError as error:
            raise BackendUnavailable(f"redis did not answer within {timeout:g} s", uncertain=True) from error

    # Hearing

    def _received(self, channel: bytes, data: bytes) -> None:
        if not self._connected:
            return  # not restored yet: topics with history are read from there
        topic = self._channels.get(channel)
        if topic is None:
            if channel == self._names.control:
                self._listener.controlled(data)
            return
        kind = data[0]
        if kind in (_ENTRY, _FIRST):
            head, _, body = data.partition(b"\n")
            offset, _, epoch = head[1:].partition(b"-")
            position = Position(int(offset), self._epochs.text(epoch))
            lost = self._heads.follow(topic, position, first=kind == _FIRST)
            if lost is not None:
                self._missed(lost)
            self._listener.deliver(topic, Entry(body, position))
        elif kind == _PLAIN:
            self._listener.deliver(topic, Entry(data[1:], None))
        elif kind == _PRESENCE:
            change = read_change(data)
            self._members.copies.change(topic, change)
            self._listener.presence_changed(topic, change)

    def _missed(self, what: str) -> None:
        """Something was lost while connected: the same recovery as after a lost connection."""
        log.warning("missed messages from redis (%s): recovering", what)
        self._heads.recovering()
        self._members.copies.restart_all()
        self._listener.lost()
        self._listener.restored()

    # Losing and finding again

    def _feed_broken(self, feed: Feed) -> None:
        if feed is not self._feed or self._stopped:
            return
        log.warning("lost redis at %s", redact(self._url))
        self._connected = False
        self._feed = None
        self._members.copies.clear()
        self._listener.lost()
        self._listener.flush()
        self._spawn(self._reconnect(feed))

    def _judge(self, error: BaseException) -> None:
        """Give the server up if its answer means that asking again is pointless."""
        if scripts.of_no_use(error):
            # The name may resolve to another server by now, as after a failover.
            if self._connected and self._feed is not None:
                log.warning("redis at %s is of no use now: %s", redact(self._url), error)
                self._feed.give_up()
        elif scripts.refused(error) and not self._refusing and not self._stopped:
            log.error("redis at %s takes no writes: %s", redact(self._url), error)
            self._refusing = True
            self._spawn(self._probe_until_taken())

    async def _probe_until_taken(self) -> None:
        pause, longest = self._config.backoff
        while self._refusing:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, longest)
            if not self._connected:
                continue
            try:
                async with asyncio.timeout(self._config.call_timeout):
                    await self._members.probe()
            except (RedisError, OSError, TimeoutError) as error:
                self._judge(error)
            else:
                log.info("redis at %s takes writes again", redact(self._url))
                self._refusing = False

    async def _reconnect(self, broken: Feed) -> None:
        await broken.close()
        await self._publishing.disconnect()
        await self._presence.disconnect()
        pause, longest = self._config.backoff
        told = ""
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, longest)
            try:
                async with asyncio.timeout(self._config.call_timeout):
                    await self._client.connection_pool.disconnect()
                feed = await _beside(self._prepare_again(), self._rejoin())
            except (RedisError, OSError, TimeoutError) as error:
                if (why := str(error)) and why != told:
                    log.warning("redis at %s cannot be joined again yet: %s", redact(self._url), why)
                    told = why
                continue
            if feed.closed:  # broke while the heads were read; no callback, as it was not ours yet
                await feed.close()
                continue
            self._feed = feed
            for topic in self._channels.values():
                self._members.copies.hear(topic)
            self._members.rename()
            self._gate.rename()
            self._connected = True
            log.info("joined redis at %s again", redact(self._url))
            self._listener.restored()
            self._listener.flush()
            return

    async def _prepare_again(self) -> None:
        """One that takes no writes is still there to be heard, and asked."""
        try:
            async with asyncio.timeout(self._config.call_timeout):
                await self._members.prepare()
        except RedisError as error:
            if not scripts.refused(error):
                raise
            self._judge(error)

    async def _rejoin(self) -> Feed:
        """A feed with all subscriptions standing, and the heads to start from."""
        known = set(self._channels)
        feed = await self._open_feed(known)
        try:
            # the hub may subscribe or drop topics meanwhile: go on until nothing is left
            while missing := self._channels.keys() - known:
                async with asyncio.timeout(self._config.call_timeout):
                    await feed.subscribe(missing)
                known |= missing
            for channel in known - self._channels.keys():
                feed.unsubscribe(channel)
            self._heads.restart()
            async with asyncio.timeout(self._config.call_timeout):
                heads = await _read_heads(self._client, self._names, self._epochs, self._heads.topics)
            for topic, head in heads.items():
                self._heads.note(topic, head)
        except BaseException:
            await feed.close()
            raise
        return feed

    # From time to time

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(self._config.presence_lease / TICKS * random.uniform(0.9, 1.0))
            if not self._connected or self._feed is None:
                continue
            self._feed.check(self._config.call_timeout)
            self._spawn(_quietly(self._publishing.check))
            self._spawn(_quietly(self._presence.check))
            try:
                async with asyncio.timeout(self._config.call_timeout):
                    await self._tick(set(range(BUCKETS)))
                    if not await self._gate.tick(self._config.presence_lease / TICKS):
                        self._members_forgotten()
                    heads = await _read_heads(self._client, self._names, self._epochs, self._heads.turn())
            except (RedisError, OSError, TimeoutError, BackendUnavailable) as error:
                self._judge(error)
                log.info("redis: upkeep failed, tried again soon: %s", error or type(error).__name__)
                continue
            lost = self._heads.compare(heads) if self._connected else None
            if lost is not None:
                self._missed(lost)
                self._listener.flush()

    async def _tick(self, buckets: set[int]) -> None:
        if not await self._if_ready(self._members).tick(buckets):
            self._members_forgotten()

    def _members_forgotten(self) -> None:
        if self._connected:
            self._members.rename()
            self._gate.rename()
            self._listener.forgotten()
            self._listener.flush()

    def _swept(self, buckets: set[int]) -> None:
        if self._connected:
            self._spawn(_quietly(lambda: self._tick(buckets), self._config.call_timeout))


async def _read_heads(client: Redis, names: Names, epochs: Epochs, topics: Collection[str]) -> dict[str, Position]:
    """Where these topics stand. Raises RedisError."""
    grouped: dict[int, list[str]] = {}
    for topic in topics:
        grouped.setdefault(bucket_of(topic), []).append(topic)
    key, prefix = names.state_key, epochs.prefix
    commands = [scripts.HEADS.command(key(bucket), prefix, *group) for bucket, group in grouped.items()]
    found: dict[str, Position] = {}
    for group, reply in zip(grouped.values(), await scripts.call_all(client, commands), strict=True):
        if isinstance(reply, RedisError):
            raise reply
        epoch, *offsets = reply
        for topic, offset in zip(group, offsets, strict=True):
            found[topic] = Position(offset, epochs.text(epoch))
    return found


async def _quietly(work: Callable[[], Awaitable[None]], timeout: float | None = None) -> None:
    """Trouble in it shows elsewhere. It is called when it runs: a task that is cancelled before leaves nothing."""
    with contextlib.suppress(RedisError, OSError, TimeoutError, BackendUnavailable):
        async with asyncio.timeout(timeout):
            await work()


async def _beside(work: Coroutine[Any, Any, None], opening: Coroutine[Any, Any, Feed]) -> Feed:
    """Open the feed while `work` runs: round trips may be long. Raises the errors of both."""
    feed = asyncio.create_task(opening)
    try:
        await work
        return await feed
    except BaseException as error:
        if isinstance(error, Exception):
            # It fails in a moment, too. Cancelled on uvloop while a name is resolved, it would leave a traceback.
            await asyncio.wait([feed], timeout=ALSO_FAILS)
        feed.cancel()
        await asyncio.wait([feed])
        if not feed.cancelled() and feed.exception() is None:
            await feed.result().close()
        raise
