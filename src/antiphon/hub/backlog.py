"""Messages held back for one receiver, and the four overflow policies for too many of them, over a `Sink`.

Knows nothing of topics or sockets; hub/README.md shows the flow. Used only off the fast path: a receiver that takes
every message has no backlog here.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Final

from antiphon.status import WS_1013_TRY_AGAIN_LATER
from antiphon.types import Overflow, Sink

from .message import MessageKind, Parcel
from .records import Position

TOO_SLOW: Final = "too slow: outbox full"

HOLDS_BACK: Final = frozenset({Overflow.DROP_OLDEST, Overflow.CONFLATE})
"""Policies that take back waiting messages. A sink gives nothing back, so half of the bound waits here instead."""


def sink_limit(policy: Overflow, limit: int) -> int:
    """The part of the receiver's bound that its sink may fill."""
    return max(limit // 2, 1) if policy in HOLDS_BACK else limit


class Replay:
    """The rest of a page, which comes part by part: each is asked for when the one before has left."""

    __slots__ = ("_ask", "asked", "position", "rest")

    def __init__(self, position: Position, rest: int, ask: Callable[[Replay], None]) -> None:
        """`rest` entries behind `position`. `ask` leads to `Backlog.supply`, later."""
        self.position: Position = position
        self.rest: int = rest
        self.asked: bool = False
        self._ask = ask

    def ask(self) -> None:
        if not self.asked:
            self.asked = True
            self._ask(self)


class Backlog:
    """The messages one receiver is owed, or may still get.

    The *page* of history comes first, then messages *owed* besides: both are never dropped and wait for room. *Pending*
    messages are live: bounded in bytes, and the policy applies to them. While `waiting`, every message has to come
    through `put`, to keep the order.
    """

    __slots__ = (
        "_armed",
        "_held",
        "_idle",
        "_owed",
        "_page",
        "_pending",
        "_pending_bytes",
        "_serial",
        "disconnected",
        "dropped",
        "limit",
        "policy",
        "replay",
        "sink",
    )

    def __init__(self, sink: Sink, policy: Overflow, limit: int, idle: Callable[[], None]) -> None:
        """`idle` is called when nothing waits any more."""
        self.sink: Sink = sink
        self.policy: Overflow = policy
        self.limit: int = limit
        self.dropped: int = 0
        """Messages the policy lost for this receiver, replaced ones included."""
        self.disconnected: bool = False
        self._idle = idle
        self._held = False
        self._armed = False
        self._page: deque[Parcel] = deque()
        self.replay: Replay | None = None
        """The part of the page that is still to be asked for."""
        self._owed: deque[Parcel] = deque()
        self._pending: OrderedDict[object, Parcel] = OrderedDict()
        self._pending_bytes = 0
        self._serial = 0

    @property
    def waiting(self) -> bool:
        return self._held or bool(self._page or self._owed or self._pending) or self.replay is not None

    @property
    def pending_bytes(self) -> int:
        return self._pending_bytes

    @property
    def pending(self) -> Iterable[Parcel]:
        """Messages held back and not owed."""
        return self._pending.values()

    def hold(self) -> None:
        """Keep everything until `release`: the receiver is catching up."""
        self._held = True

    def release(
        self,
        page: Iterable[Parcel],
        wanted: Callable[[Parcel], bool],
        *,
        rest: Replay | None = None,
        owed: Iterable[Parcel] = (),
    ) -> None:
        """End `hold`: first the page and its rest, then messages owed, then the new ones that are `wanted`."""
        self._page.extend(page)
        self.replay = rest
        self._owed.extendleft(reversed(tuple(owed)))  # a resync that came meanwhile speaks of messages behind it
        for key in [key for key, parcel in self._pending.items() if not wanted(parcel)]:
            self._pending_bytes -= self._pending.pop(key).size
        self._held = False
        self.flush()

    def supply(self, replay: Replay, parcels: Iterable[Parcel], count: int) -> None:
        """The next part of a page: `count` entries of it. Nothing, if the receiver does not wait for it any more."""
        if self.replay is not replay:
            return
        replay.asked = False
        replay.position = Position(replay.position.offset + count, replay.position.epoch)
        replay.rest -= count
        if replay.rest <= 0:
            self.replay = None
        self._page.extend(parcels)
        self.flush()

    def cut(self, replay: Replay, notice: Parcel) -> None:
        """The rest of the page is gone: the receiver gets the notice in its place."""
        if self.replay is replay:
            self.dropped += replay.rest
            self.replay = None
            self._owed.appendleft(notice)
            self.flush()

    def put(self, parcel: Parcel) -> None:
        """One live message, in its turn."""
        if self.waiting:
            self._wait(parcel)
        elif not self.sink.offer(parcel, sink_limit(self.policy, self.limit)):
            self.refused(parcel)

    def refused(self, parcel: Parcel) -> None:
        """The sink did not take this message, and nothing waits."""
        if parcel.kind is MessageKind.RESYNC:
            self._wait(parcel)
        elif self.policy is Overflow.DISCONNECT:
            self._disconnect()
        elif parcel.kind is MessageKind.PRESENCE_DIFF:
            # Never lost, and never more than one: while it waits, the next ones are summed up by `Watchers`.
            self._owed.append(parcel)
            self._arm()
        elif self.policy is Overflow.DROP_NEWEST:
            self.dropped += 1
        else:
            self._wait(parcel)

    def flush(self) -> None:
        """Give the sink as much as it takes."""
        limit = sink_limit(self.policy, self.limit)
        # Half of it for a page, so that page and live messages together are never twice the bound.
        if self._hand_over(self._page, max(limit // 2, 1)):
            if self.replay is not None:
                self.replay.ask()
                return
            if self._hand_over(self._owed, limit):
                self._hand_over_pending(limit)
        if self._page or self._owed or self._pending:
            self._arm()
        else:
            self._idle()

    def _hand_over(self, parcels: deque[Parcel], limit: int) -> bool:
        """True when all of them are gone."""
        while parcels:
            parcel = parcels[0]
            if not self.sink.offer(parcel, limit):
                return False
            # The sink may have died in `offer` and this backlog been cleared with it.
            if parcels and parcels[0] is parcel:
                parcels.popleft()
        return True

    def _hand_over_pending(self, limit: int) -> None:
        while self._pending:
            key, parcel = next(iter(self._pending.items()))
            if not self.sink.offer(parcel, limit):
                break
            if self._pending.pop(key, None) is not None:
                self._pending_bytes -= parcel.size

    def close(self) -> None:
        """The receiver has left. The number of lost messages can still be read."""
        self.clear()
        self._idle = _nothing  # it knows the receiver, which knows us: no garbage for the collector

    def clear(self) -> None:
        """Forget the waiting messages."""
        self._held = False
        self._page.clear()
        self.replay = None
        self._owed.clear()
        self._pending.clear()
        self._pending_bytes = 0

    def _wait(self, parcel: Parcel) -> None:
        if parcel.kind is MessageKind.RESYNC:
            # Never lost, and it makes waiting messages worthless.
            self.dropped += len(self._pending)
            self._pending.clear()
            self._pending_bytes = 0
            self._owed.append(parcel)
            if self.replay is not None:
                self.dropped += self.replay.rest
                self.replay = None
                self.flush()  # the sink may be empty: the messages did not wait for it
        else:
            self._wait_bounded(parcel)
        if not self._held and self.waiting:
            self._arm()

    def _wait_bounded(self, parcel: Parcel) -> None:
        key = self._key(parcel)
        replaced = self._pending.pop(key, None)
        if replaced is not None:
            self._pending_bytes -= replaced.size
            self.dropped += 1
        if not self._make_room(parcel.size):
            return
        self._pending[key] = parcel
        self._pending_bytes += parcel.size

    def _make_room(self, size: int) -> bool:
        """An empty backlog takes any one message."""
        bound = self.limit - sink_limit(self.policy, self.limit) if self.policy in HOLDS_BACK else self.limit
        while self._pending and self._pending_bytes + size > bound:
            if self.policy is Overflow.DISCONNECT:
                self._disconnect()
                return False
            self.dropped += 1
            if self.policy is Overflow.DROP_NEWEST:
                return False
            self._pending_bytes -= self._pending.popitem(last=False)[1].size
        return True

    def _key(self, parcel: Parcel) -> object:
        if self.policy is Overflow.CONFLATE and parcel.key is not None:
            return parcel.key
        self._serial += 1
        return self._serial

    def _arm(self) -> None:
        if not self._armed and (self._page or self.replay is None):
            self._armed = True
            self.sink.on_writable(self._writable)

    def _writable(self) -> None:
        self._armed = False
        if self.waiting:
            self.flush()

    def _disconnect(self) -> None:
        self.disconnected = True
        self.clear()
        self.sink.disconnect(WS_1013_TRY_AGAIN_LATER, TOO_SLOW)


def _nothing() -> None:
    pass
