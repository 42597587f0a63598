"""Many connections to one WebSocket, and their measurements. Knows nothing of the command line's words.

Bounded by its arguments: so many connections, so many seconds, a fixed number of handshakes at a time. Times go into
a histogram of fixed resolution, reasons into a table of fixed size.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from .client import Refused, TerminalClient, Unreachable
from .terminal import name_of_close, visible

AT_ONCE: Final = 64
"""Handshakes under way at a time: more would measure the backlog of the listening socket."""

FINENESS: Final = 1.01
"""Neighbouring buckets of a histogram differ by a hundredth."""

MOST_REASONS: Final = 20
LONGEST_REASON: Final = 120

Opener = Callable[[], Coroutine[Any, Any, TerminalClient]]


class Durations:
    """How long things took, in seconds, each to within a hundredth; bounded however many there were."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count: int = 0
        self.longest: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.longest = max(self.longest, seconds)
        self._buckets[round(math.log(max(seconds, 1e-7), FINENESS))] += 1

    def quantile(self, share: float) -> float:
        """The time that `share` of all were not above. ValueError where there were none."""
        if not self.count:
            raise ValueError("nothing was measured")
        wanted = math.ceil(self.count * share)
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return float(min(FINENESS**bucket, self.longest))
        return self.longest


@dataclass(slots=True)
class Tally:
    """The measurements of a load so far."""

    wanted: int
    connected: int = 0
    connecting: Durations = field(default_factory=Durations)
    connected_after: float = 0.0
    """Seconds from the first handshake to the end of the last."""
    answers: Durations = field(default_factory=Durations)
    received: int = 0
    received_bytes: int = 0
    measured: float = 0.0
    """Seconds in which messages were counted."""
    errors: Counter[str] = field(default_factory=Counter)

    def failed(self, reason: str) -> None:
        shown = visible(reason)[:LONGEST_REASON]
        known = shown in self.errors or len(self.errors) < MOST_REASONS
        self.errors[shown if known else "another reason"] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """A load: the connections, and their behaviour."""

    connections: int
    ramp: float
    """Seconds over which the handshakes are spread."""
    duration: float
    """Seconds of measuring, once all are connected."""
    message: str | bytes | None
    """The message that each connection sends, before it waits for an answer. None only listens."""
    rate: float | None
    """Messages a second of all connections. None sends the next as soon as the last is answered."""
    patience: float
    """Seconds after which an answer counts as missing."""


async def load(plan: LoadPlan, opener: Opener, stop: asyncio.Event, tally: Tally) -> None:
    """Carry out `plan`, into `tally`. Setting `stop` ends it early. Every connection is closed at the end."""
    visitors = [_Visitor(plan, opener, tally, number) for number in range(plan.connections)]
    tasks = await _connect(plan, visitors, stop, tally)
    began = time.monotonic()
    if not stop.is_set() and any(visitor.is_open for visitor in visitors):
        for visitor in visitors:
            visitor.begin(began)
        stopped = asyncio.create_task(_first(stop.wait(), asyncio.wait(tasks)))
        await asyncio.wait({stopped}, timeout=plan.duration)
        stopped.cancel()
    tally.measured = time.monotonic() - began
    await asyncio.gather(*(visitor.leave() for visitor in visitors))
    await asyncio.gather(*tasks)


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Until one of them has ended. The others are cancelled."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _connect(
    plan: LoadPlan, visitors: list[_Visitor], stop: asyncio.Event, tally: Tally
) -> list[asyncio.Task[None]]:
    tasks: list[asyncio.Task[None]] = []
    room = asyncio.Semaphore(AT_ONCE)
    began = time.monotonic()
    handshakes = []
    for number, visitor in enumerate(visitors):
        due = began + plan.ramp * number / len(visitors)
        if (early := due - time.monotonic()) > 0:
            try:
                await asyncio.wait_for(stop.wait(), early)
            except TimeoutError:
                pass
        await room.acquire()
        if stop.is_set():
            break
        handshake = asyncio.create_task(visitor.open())
        handshake.add_done_callback(lambda _: room.release())
        handshakes.append(handshake)
    await asyncio.gather(*handshakes)
    tally.connected_after = time.monotonic() - began
    tasks += [visitor.reading for visitor in visitors if visitor.reading is not None]
    return tasks


class _Visitor:
    """One connection: a task that reads, which also answers pings, and while it is measured one that sends."""

    def __init__(self, plan: LoadPlan, opener: Opener, tally: Tally, number: int) -> None:
        self._plan = plan
        self._opener = opener
        self._tally = tally
        self._number = number
        self._client: TerminalClient | None = None
        self._sending: asyncio.Task[None] | None = None
        self._counts = False
        self._leaving = False
        self._answered = asyncio.Event()
        self.reading: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        return self._client is not None and self._client.is_open

    async def open(self) -> None:
        began = time.monotonic()
        try:
            self._client = await self._opener()
        except Refused as error:
            self._tally.failed(f"refused: {error}")
        except Unreachable as error:
            self._tally.failed(f"no connection: {error}")
        else:
            self._tally.connecting.add(time.monotonic() - began)
            self._tally.connected += 1
            self.reading = asyncio.create_task(self._read(self._client))

    def begin(self, began: float) -> None:
        """From here on it counts."""
        self._counts = True
        if self._client is not None and self._plan.message is not None:
            self._sending = asyncio.create_task(self._send(self._client, self._plan.message, began))

    async def leave(self) -> None:
        self._counts = False
        self._leaving = True
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait({self._sending})
        if self._client is not None:
            await self._client.close()

    async def _read(self, client: TerminalClient) -> None:
        async for event in client.events():
            if isinstance(event, str | bytes):
                self._answered.set()
                if self._counts:
                    self._tally.received += 1
                    self._tally.received_bytes += len(event)
        if not self._leaving:
            reason = f": {client.close_reason}" if client.close_reason else ""
            self._tally.failed(f"closed with {client.close_code} ({name_of_close(client.close_code)}){reason}")
            self._answered.set()

    async def _send(self, client: TerminalClient, message: str | bytes, began: float) -> None:
        """Send and wait, again and again. At a rate, the clock starts when the message was due: messages delayed by a
        slow answer count as slow, too."""
        every = self._plan.connections / self._plan.rate if self._plan.rate else 0.0
        due = began + every * self._number / self._plan.connections
        while client.is_open:
            now = time.monotonic()
            if due > now:
                await asyncio.sleep(due - now)
            sent = due if every else time.monotonic()
            self._answered.clear()
            await client.send(message)
            try:
                async with asyncio.timeout(self._plan.patience):
                    await self._answered.wait()
            except TimeoutError:
                self._tally.failed(f"no answer within {self._plan.patience:g} s")
            else:
                if client.is_open:
                    self._tally.answers.add(time.monotonic() - sent)
            due += every
