"""The readable twin of the turns of connections: `Turns` for received bytes, `Flusher` for sent ones.

Knows only that a connection has work, and how much of it fits into a turn. `_turns.pxi` is the native twin.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from .bounds import (
    ARRIVALS,
    BEHIND,
    CROWD,
    LITTLE,
    NEWS,
    READING,
    RELIEF,
    SAMPLED,
    SETTLED,
    SHARE,
    SMALL,
    STEPS,
    THRONG,
    WRITES,
    WRITTEN,
)


class Turning(Protocol):
    """An object that has turns. `pipe.Pipe` implements it."""

    dirty: bool
    answers: bool
    """Its outbox has messages of its own, not only broadcast ones."""
    out_bytes: int
    """In its outbox."""

    @property
    def swollen(self) -> bool:
        """Its work is to inflate more of a message that is `LARGE` already."""

    def take_turn(self) -> None:
        """Do one turn's work."""

    def flush(self) -> None:
        """Write out the buffered bytes."""


class Turns:
    """The turns: connections with more work than fits into one turn go one after the other.

    A connection that inflates a large message has all of its turns in a row. The message is whole before the next one
    grows, so that there is one such message at a time, not one for each connection.

    Each turn of the loop has a bounded time for them (`SHARE`), and one for new work (`NEWS`). `clock` tells
    how long things take, in seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._late: deque[Turning] = deque()  # with news for which this turn of the loop had no time
        self._waiting: deque[Turning] = deque()  # with more than one turn's work
        self._swollen: deque[Turning] = deque()  # the same, and large messages that are inflated
        self._first: Turning | None = None  # of these, the one whose turn it is
        self._scheduled = False
        self._small = 0
        self._spent = 0.0  # on news, since the loop turned, or somewhat longer
        self._until = 0.0  # when the time is over for waiting connections
        self._arrived = False  # somebody new has connected, since the loop turned
        self._shared = 0.0  # when waiting connections had their share last

    @property
    def spent(self) -> bool:
        """The time for news is over, in this turn of the loop."""
        return self._spent >= NEWS

    def begin(self, size: int) -> float:
        """A chunk of so many bytes is about to be worked at; pass the answer to `end`."""
        if size <= SMALL:
            self._small += 1
            if self._small % SAMPLED:
                return -1.0
        return self._clock()

    def end(self, began: float, size: int) -> None:
        """It has been."""
        if began >= 0.0:
            took = self._clock() - began
            self._spent += took * SAMPLED if size <= SMALL else took
            if self._spent >= SETTLED:
                self._schedule()

    def owe(self) -> None:
        """A reader has been woken that has much to read, in a turn of its own."""
        self._spent += READING
        self._until -= READING

    def now(self) -> float:
        """The clock's time."""
        return self._clock()

    def is_over(self, since: float) -> bool:
        """A reader that has read without waiting since then lets others read."""
        return self._clock() - since > READING

    def enter(self, pipe: Turning, *, late: bool = False) -> None:
        """Let `pipe` have a turn, behind those that wait already."""
        if late or not pipe.swollen:
            (self._late if late else self._waiting).append(pipe)
        elif pipe is self._first:
            self._swollen.appendleft(pipe)
        else:
            self._swollen.append(pipe)
        self._schedule()

    @property
    def crowded(self) -> bool:
        """So many wait that a peer that is gone loses its turn."""
        return len(self._waiting) > CROWD

    @property
    def thronged(self) -> bool:
        """So many wait that one that has closed does, too."""
        return len(self._waiting) > THRONG

    def arrival(self) -> None:
        """A client has connected. More may follow: the loop takes in one in each of its turns."""
        self._arrived = True

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        now = self._clock()
        self._until = now + SHARE
        late = self._late
        left = STEPS
        while late and left and (left == STEPS or self._clock() < self._until):
            left -= 1
            self._give_turn(late.popleft())
        if self._arrived and now < self._shared + ARRIVALS:
            self._arrived = False
        else:
            self._share(left)
        self._scheduled = False
        self._spent = 0.0
        if late or self._waiting or self._swollen:
            self._schedule()

    def _share(self, left: int) -> None:
        waiting = self._waiting
        if waiting:
            self._give_turn(waiting.popleft())
        if self._swollen:
            self._inflate()
        while (waiting or self._swollen) and left and self._clock() < self._until:
            left -= 1
            if waiting:
                self._give_turn(waiting.popleft())
            else:
                self._inflate()
        self._arrived = False
        self._shared = self._clock()

    def _inflate(self) -> None:
        self._first = self._swollen.popleft()
        self._give_turn(self._first)
        self._first = None

    def _give_turn(self, pipe: Turning) -> None:
        try:
            pipe.take_turn()
        except Exception as error:  # a transport's bug stays with its own connection
            self._loop.call_exception_handler({"message": "reading a WebSocket failed", "exception": error})


class Flusher:
    """Writes out every pipe that has put something into its outbox: `WRITES` of them, or `WRITTEN` bytes, per turn of
    the loop.

    Between two turns the loop reads: messages for a pipe that come before its write leave in the same write. Answers
    come first: they must not wait for a thousand receivers of somebody else's message. Large outboxes come last, so
    that a small message does not wait for the large ones of another room.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._answers: deque[Turning] = deque()
        self._marked: deque[Turning] = deque()
        self._large: deque[Turning] = deque()
        self._scheduled = False
        self._turns = 0
        self._relief = False
        self.owed: int = 0
        """Bytes in all outboxes. The pipes count them."""

    def mark(self, pipe: Turning) -> None:
        """Flush `pipe` behind those of its kind that were marked before it, in this turn of the loop or later."""
        if pipe.answers:
            self._answers.append(pipe)
        else:
            (self._marked if pipe.out_bytes < LITTLE else self._large).append(pipe)
        self._schedule()

    @property
    def idle(self) -> bool:
        """Nobody else waits to be written out."""
        return not self._scheduled

    @property
    def behind(self) -> bool:
        """So much is to be written that what may become more lets others have their turn."""
        return self._scheduled and self.owed > BEHIND

    def holds_up(self) -> bool:
        """And that it waits on, now that it is its turn."""
        if not self.behind:
            return False
        relief, self._relief = self._relief, False
        return not relief

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._turns += 1
        if self._turns % RELIEF == 0:
            self._relief = True
        count, size = self._write_out(self._answers, WRITES, WRITTEN)
        most, most_bytes = max(WRITES - count, WRITES // 2), max(WRITTEN - size, WRITTEN // 2)
        count, size = self._write_out(self._marked, most, most_bytes)
        self._write_out(self._large, max(most - count, WRITES // 4), max(most_bytes - size, WRITTEN // 4))
        self._scheduled = False
        if self._answers or self._marked or self._large:
            self._schedule()

    def _write_out(self, pipes: deque[Turning], most: int, most_bytes: int) -> tuple[int, int]:
        count = size = 0
        while pipes and count < most and size < most_bytes:
            pipe = pipes.popleft()
            count += 1
            size += pipe.out_bytes
            pipe.dirty = False
            try:
                pipe.flush()
            except Exception as error:  # a transport's bug stays with its own connection
                self._loop.call_exception_handler({"message": "flushing a WebSocket failed", "exception": error})
        return count, size
