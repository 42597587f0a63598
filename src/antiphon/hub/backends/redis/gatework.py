"""The gate's state in Redis: values that are taken once, shares of limits under leases, notes.

Knows the script (gate.lua) and the renewal of leases, but nothing of tickets, users or sockets. All methods in one
loop.
"""

from __future__ import annotations

import itertools
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ...expiring import MOST
from ...records import Claimed, Note
from . import scripts
from .names import Names, bucket_of
from .pipeline import Pipeline
from .wire import Command

log: Final = logging.getLogger("antiphon.hub.redis")

LIFE: Final = 3600.0
"""Seconds that the shares of a name live without upkeep; in common.lua, too."""

AT_ONCE: Final = 500
"""Notes in one script call: nobody waits for more."""

NOTES_BUCKET: Final = 0
"""All notes lie together, because all are read together."""


class GateKeeper:
    """This process's part of the gate in Redis. Its calls raise RedisError."""

    def __init__(
        self,
        client: Redis,
        once: Pipeline,
        line: Pipeline,
        names: Names,
        prefix: str,
        lease: float,
        forgotten: Callable[[], None],
    ) -> None:
        """`once` repeats no command. `line` repeats those during which the connection broke. `lease`: seconds.

        `forgotten` is called after this process's lease ran out: claim all shares again.
        """
        self._client = client
        self._once = once
        self._line = line
        self._names = names
        self._prefix = prefix
        self._lease = int(lease * 1000)
        self._forgotten = forgotten
        self._process = uuid.uuid4().hex
        self._claimed: dict[tuple[str, str], None] = {}
        """Name and ref, those first whose name's life was renewed longest ago."""
        self._leased: set[int] = set()
        """Buckets that know a lease of this name."""
        self._warned = False

    def rename(self) -> None:
        """Shares claimed and not yet released end with the old name's lease."""
        self._process = uuid.uuid4().hex
        self._claimed.clear()
        self._leased.clear()

    # Once

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        await self._line.call(("SET", self._names.voucher(key), value, "PX", max(int(ttl * 1000), 1)))

    async def take(self, key: str) -> bytes | None:
        taken: bytes | None = await self._once.call(("GETDEL", self._names.voucher(key)))
        return taken

    # Shares

    async def claim(self, key: str, ref: str, limit: int | None, evict: bool) -> Claimed:
        bucket, process = bucket_of(key), self._process
        words = (process, self._lease, "" if limit is None else limit, int(evict))
        granted, *rest = await self._once.call(self._command(bucket, "claim", key, ref, *words))
        if not granted:
            return Claimed(False, max(rest[0], 0) / 1000)
        leased, *evicted = rest
        if process == self._process:
            self._claimed[key, ref] = None
            if not leased and bucket in self._leased:
                self._forgotten()
            self._leased.add(bucket)
        return Claimed(True, 0.0, tuple(one.decode() for one in evicted))

    async def release(self, key: str, ref: str) -> None:
        self._claimed.pop((key, ref), None)
        await self._line.call(("HDEL", self._names.claims(key), ref))

    async def tick(self, share: float) -> bool:
        """Renew leases, and the life of claimed shares: all of them in LIFE / 4. `share`: seconds since the last tick.

        False: a lease had run out.
        """
        if not self._claimed:
            self._leased.clear()
            return True
        buckets = tuple(self._leased)
        commands: list[Command] = [
            ("SET", self._names.lease(bucket, self._process), "", "PX", self._lease, "XX") for bucket in buckets
        ]
        count = int(len(self._claimed) * share / (LIFE / 4)) + 1
        for pair in tuple(itertools.islice(self._claimed, count)):
            del self._claimed[pair]
            self._claimed[pair] = None
            commands.append(("PEXPIRE", self._names.claims(pair[0]), int(LIFE * 1000)))
        replies = await scripts.call_all(self._client, commands)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
        return None not in replies[: len(buckets)]

    async def leave(self) -> None:
        """All shares of this process are free."""
        if self._leased:
            commands = [("DEL", self._names.lease(bucket, self._process)) for bucket in self._leased]
            await scripts.call_all(self._client, commands)

    # Notes

    async def note(self, notes: Sequence[Note]) -> None:
        for start in range(0, len(notes), AT_ONCE):
            words: list[str | int] = [MOST]
            for key, value, ttl in notes[start : start + AT_ONCE]:
                words += key, repr(float(value)), max(int(ttl * 1000), 1)
            if await self._line.call(self._command(NOTES_BUCKET, "note", *words)) and not self._warned:
                self._warned = True
                log.warning("more than %d notes (revocations): those that end first are forgotten", MOST)

    async def noted(self) -> Sequence[Note]:
        seconds, micros = await scripts.read(self._client, ("TIME",))
        now = int(seconds) + int(micros) / 1e6
        found: dict[str, Note] = {}
        cursor: Any = 0
        while True:
            cursor, fields = await scripts.read(self._client, ("HSCAN", self._names.notes, cursor, "COUNT", AT_ONCE))
            for name, text in fields.items():
                until, _, value = text.partition(b":")
                left = int(until) / 1000 - now
                if left > 0:
                    found[name.decode()] = Note(name.decode(), float(value), left)
            if not int(cursor):
                return list(found.values())

    def _command(self, bucket: int, operation: str, *words: str | int) -> Command:
        return scripts.GATE.command(self._names.state_key(bucket), self._prefix, operation, *words)
