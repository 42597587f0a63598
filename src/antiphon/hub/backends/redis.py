"""`redis://`, `rediss://`: many processes on many hosts, joined by one Redis (7.0 or later).

Live messages go by pub/sub; history, offsets, epochs and presence live in Lua scripts (redis_*.lua), each an atomic
step. Topics are spread over `BUCKETS` hash tags; what a script touches lies in one bucket. docs/backends.md says what
is stored, and for how long.

Pub/sub may lose messages without a word (a failover, a proxy). Two things find that for topics with history: an offset
that does not follow the last one, and comparing heads now and then. Both end in the same recovery as a lost connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import os
import random
import struct
import uuid
import zlib
from collections.abc import Coroutine, Iterable
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ..errors import BackendUnavailable, UnknownBackend
from . import redis_scripts as scripts
from .base import BackendConfig, Change, Entry, Keep, Listener, Page, Position, Roster, Track, redact
from .redis_feed import Feed
from .redis_publisher import Publisher

log = logging.getLogger("antiphon.hub.redis")

T = TypeVar("T")

BUCKETS: Final = 16
"""Hash tags the topics are spread over. Part of the stored format: all processes must agree."""

POOL: Final = 16
"""Connections for requests, at most; hearing and publishing have one each besides."""

TICKS: Final = 3
"""Renewals per lease: two may be late before anybody is taken for dead."""

HEADS: Final = 2000
"""Topics whose heads are compared per tick. More topics than that take turns."""

REFRESHED: Final = 200
"""Topics per bucket whose members' lifetime (an hour) is renewed per tick."""

SLACK: Final = 0.02
"""Seconds a sweep runs behind a deadline: Redis has a clock of its own."""

_ENTRY_HEAD = struct.Struct(">dd")
_LENGTH = struct.Struct(">I")
_PLAIN, _ENTRY, _FIRST, _PRESENCE = b"DEFP"


class RedisBackend:
    """One process's connections to Redis: one to hear, a few to speak."""

    def __init__(self, url: str, config: BackendConfig) -> None:
        self._url = url
        self._config = config
        self._options = _read_url(url)
        if "{" in config.prefix or "}" in config.prefix:
            raise UnknownBackend(f"the prefix must not hold braces (they mark hash tags): {config.prefix!r}")
        # pub/sub knows no database numbers
        database = int(self._options.get("db", 0))
        self._prefix = f"{config.prefix}@{database}" if database else config.prefix
        self._control_channel = f"{self._prefix}:control".encode()
        self._lease = int(config.presence_lease * 1000)
        self._reset()

    def _reset(self) -> None:
        self._listener: Listener | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._client: Redis | None = None
        self._publisher: Publisher | None = None
        self._feed: Feed | None = None
        self._connected = False
        self._stopped = False
        self._word = uuid.uuid4().hex[:6]
        self._process = uuid.uuid4().hex
        self._channels: dict[bytes, str] = {}
        self._seen: dict[str, Position | None] = {}
        self._observed: dict[str, Position] = {}
        self._checked = 0
        self._epochs: dict[bytes, str] = {}
        self._tracked: dict[int, dict[str, set[str]]] = {}
        self._lingering: list[tuple[float, str, str]] = []
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        return self._loop

    # Life

    async def start(self, listener: Listener) -> None:
        # whatever was started before a fork belongs to the parent, its connections included
        self._reset()
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        pool = BlockingConnectionPool(
            max_connections=POOL, timeout=self._config.call_timeout, **self._connection_options()
        )
        self._client = Redis(connection_pool=pool)
        self._publisher = Publisher(self._make_connection(), self._config.call_timeout)
        try:
            async with asyncio.timeout(self._config.start_timeout):
                await scripts.load(self._client)
                self._feed = await self._open_feed()
                # a replica, a cluster's node or a user without rights shows here, not at the first publish
                await self._tick(range(BUCKETS))
                if self._feed.closed:
                    raise ConnectionError("the subscribing connection was closed at once")
        except BaseException as error:
            await self._close_client()
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
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if connected:
            with contextlib.suppress(RedisError, TimeoutError):
                async with asyncio.timeout(self._config.call_timeout):
                    await self._leave()
        if self._feed is not None:
            await self._feed.close()
        await self._close_client()

    async def _leave(self) -> None:
        for bucket in self._tracked:
            while await self._presence_call(bucket, "leave", self._process):
                pass

    async def _close_client(self) -> None:
        if self._publisher is not None:
            await self._publisher.disconnect()
        if self._client is not None:
            await self._client.aclose(close_connection_pool=True)

    def _connection_options(self) -> dict[str, Any]:
        timeout = self._config.call_timeout
        return {
            # every wait in here has a timeout of ours around it; theirs would cost a task per command
            "socket_timeout": None,
            "socket_connect_timeout": timeout,
            **self._options,
            # a publish must not be repeated behind our back, and what push messages look like depends on the protocol
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "decode_responses": False,
        }

    def _make_connection(self) -> AbstractConnection:
        """One outside of the pool; it may be silent for as long as nothing happens."""
        options = self._connection_options() | {"socket_timeout": None}
        connection: AbstractConnection = options.pop("connection_class", Connection)(**options)
        return connection

    async def _open_feed(self) -> Feed:
        """A feed that hears the control channel. Raises RedisError or TimeoutError."""
        assert self._listener is not None
        feed = Feed(
            self._make_connection(),
            received=self._received,
            batch_over=self._listener.flush,
            broken=self._feed_broken,
        )
        try:
            async with asyncio.timeout(self._config.call_timeout):
                await feed.connect()
                await feed.subscribe((self._control_channel,))
        except BaseException:
            await feed.close()
            raise
        return feed

    # What the hub calls

    async def subscribe(self, topic: str, keep: Keep | None) -> Position | None:
        feed = self._ready()
        channel = self._channel(topic)
        self._channels[channel] = topic
        if keep is not None:
            self._seen.setdefault(topic, None)
        await self._bounded(feed.subscribe((channel,)))
        if keep is None:
            return None
        epoch, offset = await self._call(scripts.HEADS.command(self._key(topic), self._word, topic))
        position = Position(offset, self._text(epoch))
        self._note_head(topic, position)
        return position

    def unsubscribe(self, topic: str) -> None:
        channel = self._channel(topic)
        self._channels.pop(channel, None)
        self._seen.pop(topic, None)
        self._observed.pop(topic, None)
        if self._feed is not None and self._pid == os.getpid():
            self._feed.unsubscribe(channel)

    async def publish(self, topic: str, data: bytes, keep: Keep | None) -> Position | None:
        self._ready()
        assert self._publisher is not None
        if keep is None:
            await self._bounded(self._publisher.publish(("PUBLISH", self._channel(topic), b"D" + data)))
            return None
        ttl = max(int(keep.ttl * 1000), 1)
        command = scripts.PUBLISH.command(self._key(topic), self._word, topic, data, keep.size, ttl)
        offset, epoch = await self._bounded(self._publisher.publish(command))
        return Position(offset, self._text(epoch))

    async def history(self, topic: str, keep: Keep, since: Position | None, limit: int | None) -> Page:
        offset, epoch = ("", "") if since is None else since
        most = "" if limit is None else max(limit, 0)
        command = scripts.HISTORY.command(self._key(topic), self._word, topic, offset, epoch, most)
        found, last, recovered, entries = await self._call(command)
        return _page(entries, Position(last, self._text(found)), bool(recovered))

    async def track(self, topic: str, track: Track) -> None:
        self._ready()
        bucket = _bucket(topic)
        # from here on the lease is kept, also when the answer gets lost
        self._tracked.setdefault(bucket, {}).setdefault(topic, set()).add(track.ref)
        await self._bounded(
            self._presence_call(bucket, "track", topic, track.ref, track.user, track.meta, self._process, self._lease)
        )

    async def untrack(self, topic: str, ref: str, grace: float) -> None:
        self._ready()
        found = await self._bounded(
            self._presence_call(_bucket(topic), "untrack", topic, ref, max(int(grace * 1000), 0))
        )
        if found and grace > 0:
            assert self._loop is not None
            heapq.heappush(self._lingering, (self._loop.time() + grace + SLACK, topic, ref))
            self._arm_sweep()
        else:
            self._forget_tracked(topic, ref)

    async def presence(self, topic: str) -> Roster:
        self._ready()
        version, *rest = await self._bounded(self._presence_call(_bucket(topic), "roster", topic))
        users, metas = rest[::2], rest[1::2]
        return Roster(version, {user.decode(): tuple(each) for user, each in zip(users, metas, strict=True)})

    async def control(self, payload: bytes) -> None:
        await self._call(("PUBLISH", self._control_channel, payload))

    # Calling

    def _ready(self) -> Feed:
        if self._connected and self._feed is not None and self._pid == os.getpid():
            return self._feed
        if self._pid not in (0, os.getpid()):
            raise BackendUnavailable("the redis connections belong to the parent process; start the hub in this one")
        raise BackendUnavailable("the redis backend is stopped" if self._stopped else "not connected to redis")

    async def _call(self, command: scripts.Command) -> Any:
        self._ready()
        assert self._client is not None
        return await self._bounded(scripts.call(self._client, command))

    async def _presence_call(self, bucket: int, operation: str, *words: scripts.Word) -> Any:
        assert self._client is not None
        command = scripts.PRESENCE.command(self._state_key(bucket), self._word, operation, *words)
        return await scripts.call(self._client, command)

    async def _bounded(self, work: Coroutine[Any, Any, T]) -> T:
        timeout = self._config.call_timeout
        try:
            async with asyncio.timeout(timeout):
                return await work
        except RedisError as error:
            raise scripts.unavailable(error) from error
        except TimeoutError as error:
            raise BackendUnavailable(f"redis did not answer within {timeout:g} s", uncertain=True) from error

    # Names

    def _root(self, bucket: int) -> str:
        return f"{self._prefix}:{{{bucket:02}}}:"

    def _state_key(self, bucket: int) -> str:
        return f"{self._root(bucket)}state"

    def _key(self, topic: str) -> str:
        return self._state_key(_bucket(topic))

    def _channel(self, topic: str) -> bytes:
        return f"{self._root(_bucket(topic))}t:{topic}".encode()

    def _text(self, epoch: bytes) -> str:
        text = self._epochs.get(epoch)
        if text is None:
            if len(self._epochs) >= BUCKETS * 4:  # only a store that keeps losing its data gets here
                self._epochs.clear()
            text = self._epochs[epoch] = epoch.decode()
        return text

    # Hearing

    def _received(self, channel: bytes, data: bytes) -> None:
        if not self._connected:
            return  # not restored yet: what has a history is read from there
        assert self._listener is not None
        topic = self._channels.get(channel)
        if topic is None:
            if channel == self._control_channel:
                self._listener.controlled(data)
            return
        kind = data[0]
        if kind in (_ENTRY, _FIRST):
            head, _, body = data.partition(b"\n")
            offset, _, epoch = head[1:].partition(b"-")
            position = Position(int(offset), self._text(epoch))
            if topic in self._seen:
                self._follow(topic, position, first=kind == _FIRST)
            self._listener.deliver(topic, Entry(body, position))
        elif kind == _PLAIN:
            self._listener.deliver(topic, Entry(data[1:], None))
        elif kind == _PRESENCE:
            self._listener.presence_changed(topic, _change(data))

    def _follow(self, topic: str, position: Position, *, first: bool) -> None:
        """Find the gap, if there is one, before the entry behind it is delivered."""
        seen = self._seen[topic]
        if seen is not None and seen.epoch == position.epoch:
            if position.offset <= seen.offset:
                return
            if position.offset > seen.offset + 1 and not first:
                self._missed(f"{position.offset - seen.offset - 1} entries of {topic!r}")
        elif seen is not None:
            self._missed(f"the epoch of {topic!r} changed: redis has lost its data")
        self._seen[topic] = position

    def _note_head(self, topic: str, head: Position) -> None:
        if topic in self._seen:
            seen = self._seen[topic]
            if seen is None or seen.epoch != head.epoch or seen.offset < head.offset:
                self._seen[topic] = head

    def _missed(self, what: str) -> None:
        """Something was lost while connected: the same recovery as after a lost connection."""
        log.warning("missed messages from redis (%s): recovering", what)
        assert self._listener is not None
        self._observed.clear()
        self._listener.lost()
        self._listener.restored()

    # Losing and finding again

    def _feed_broken(self, feed: Feed) -> None:
        if feed is not self._feed or self._stopped:
            return
        assert self._listener is not None
        log.warning("lost redis at %s", redact(self._url))
        self._connected = False
        self._feed = None
        self._listener.lost()
        self._listener.flush()
        self._spawn(self._reconnect(feed))

    async def _reconnect(self, broken: Feed) -> None:
        assert self._client is not None
        assert self._publisher is not None
        await broken.close()
        await self._publisher.disconnect()
        assert self._listener is not None
        pause, longest = self._config.backoff
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, longest)
            try:
                async with asyncio.timeout(self._config.call_timeout):
                    await self._client.connection_pool.disconnect()
                    await scripts.load(self._client)
                feed = await self._rejoin()
            except (RedisError, OSError, TimeoutError):
                continue
            if feed.closed:  # broke while the heads were read; nobody was told, it was not ours yet
                await feed.close()
                continue
            self._feed = feed
            # what this process tracked and could not untrack meanwhile ends with the old name's lease
            self._process = uuid.uuid4().hex
            self._connected = True
            log.info("joined redis at %s again", redact(self._url))
            self._listener.restored()
            self._listener.flush()
            return

    async def _rejoin(self) -> Feed:
        """A feed with all subscriptions standing, and the heads to start from."""
        known: set[bytes] = set()
        feed = await self._open_feed()
        try:
            # what is subscribed or dropped by the hub meanwhile is part of it: go on until nothing is left
            while missing := self._channels.keys() - known:
                async with asyncio.timeout(self._config.call_timeout):
                    await feed.subscribe(missing)
                known |= missing
            for channel in known - self._channels.keys():
                feed.unsubscribe(channel)
            self._observed.clear()
            for topic in self._seen:
                self._seen[topic] = None
            async with asyncio.timeout(self._config.call_timeout):
                heads = await self._heads(list(self._seen))
            for topic, head in heads.items():
                self._note_head(topic, head)
        except BaseException:
            await feed.close()
            raise
        return feed

    async def _heads(self, topics: list[str]) -> dict[str, Position]:
        """Where these topics stand. Raises RedisError."""
        assert self._client is not None
        grouped: dict[int, list[str]] = {}
        for topic in topics:
            grouped.setdefault(_bucket(topic), []).append(topic)
        commands = [
            scripts.HEADS.command(self._state_key(bucket), self._word, *group) for bucket, group in grouped.items()
        ]
        found: dict[str, Position] = {}
        for group, reply in zip(grouped.values(), await scripts.call_all(self._client, commands), strict=True):
            if isinstance(reply, RedisError):
                raise reply
            epoch, *offsets = reply
            for topic, offset in zip(group, offsets, strict=True):
                found[topic] = Position(offset, self._text(epoch))
        return found

    # From time to time

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(self._config.presence_lease / TICKS * random.uniform(0.9, 1.0))
            if not self._connected or self._feed is None:
                continue
            self._feed.check(self._config.call_timeout)
            try:
                async with asyncio.timeout(self._config.call_timeout):
                    await self._tick(range(BUCKETS))
                    await self._compare_heads()
            except (RedisError, OSError, TimeoutError) as error:
                log.info("redis: upkeep failed, tried again soon: %s", error or type(error).__name__)

    async def _tick(self, buckets: Iterable[int]) -> None:
        """Renew this process's leases, and let go of what is over, whoever it belonged to. Raises RedisError."""
        assert self._client is not None
        assert self._listener is not None
        process = self._process
        commands = []
        for bucket in buckets:
            tracked = list(self._tracked.get(bucket, ()))
            start = random.randrange(len(tracked)) if len(tracked) > REFRESHED else 0
            name, refreshed = process if tracked else "", tracked[start : start + REFRESHED]
            key = self._state_key(bucket)
            commands.append(scripts.PRESENCE.command(key, self._word, "tick", name, self._lease, *refreshed))
        replies = await scripts.call_all(self._client, commands)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
        if 0 in replies and process == self._process and self._connected:
            self._process = uuid.uuid4().hex
            self._listener.forgotten()
            self._listener.flush()

    async def _compare_heads(self) -> None:
        """An entry that was there a tick ago and has not been heard of since was lost on the way."""
        topics = list(self._seen)
        if len(topics) > HEADS:
            start = self._checked % len(topics)
            self._checked += HEADS
            topics = (topics + topics)[start : start + HEADS]
        observed, feed = await self._heads(topics), self._feed
        for topic, head in observed.items():
            before, seen = self._observed.get(topic), self._seen.get(topic)
            if topic not in self._seen or feed is None:
                continue
            self._observed[topic] = head
            if before is None or seen is None or before.epoch != head.epoch:
                continue
            if seen.epoch != before.epoch or seen.offset < before.offset:
                self._seen[topic] = head
                self._missed(f"the end of {topic!r}")
                self._listener_flush()
                return

    def _listener_flush(self) -> None:
        assert self._listener is not None
        self._listener.flush()

    def _arm_sweep(self) -> None:
        assert self._loop is not None
        if not self._lingering:
            return
        when = self._lingering[0][0]
        if self._sweep_timer is not None:
            if self._sweep_timer.when() <= when:
                return
            self._sweep_timer.cancel()
        self._sweep_timer = self._loop.call_at(when, self._sweep)

    def _sweep(self) -> None:
        """Somebody's grace is over. Should this process die first, another one's tick finds it."""
        assert self._loop is not None
        self._sweep_timer = None
        now, buckets = self._loop.time(), set()
        while self._lingering and self._lingering[0][0] <= now:
            _, topic, ref = heapq.heappop(self._lingering)
            buckets.add(_bucket(topic))
            self._forget_tracked(topic, ref)
        self._arm_sweep()
        if self._connected:
            self._spawn(self._quiet_tick(buckets))

    async def _quiet_tick(self, buckets: set[int]) -> None:
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(self._config.call_timeout):
                await self._tick(buckets)

    def _forget_tracked(self, topic: str, ref: str) -> None:
        bucket = _bucket(topic)
        topics = self._tracked.get(bucket, {})
        refs = topics.get(topic)
        if refs is None:
            return
        refs.discard(ref)
        if not refs:
            del topics[topic]
        if not topics:
            self._tracked.pop(bucket, None)


def _bucket(topic: str) -> int:
    return zlib.crc32(topic.encode()) % BUCKETS


def _read_url(url: str) -> dict[str, Any]:
    try:
        return dict(parse_url(url))
    except ValueError as error:
        raise UnknownBackend(
            f"expected redis://[user:password@]host[:port][/db]; got {redact(url)!r}: {error}"
        ) from None


def _page(raw: list[bytes], position: Position, recovered: bool) -> Page:
    entries = []
    for each in raw:
        offset, _ = _ENTRY_HEAD.unpack_from(each)
        entries.append(Entry(each[_ENTRY_HEAD.size :], Position(int(offset), position.epoch)))
    return Page(tuple(entries), position, recovered)


def _change(data: bytes) -> Change:
    head, _, rest = data.partition(b"\n")
    words, start = [], 0
    while start < len(rest):
        length = _LENGTH.unpack_from(rest, start)[0]
        start += _LENGTH.size
        words.append(rest[start : start + length])
        start += length
    user, *metas = words
    return Change(int(head[1:]), user.decode(), tuple(metas))
