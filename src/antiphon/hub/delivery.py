"""Local delivery in one event loop: the receivers of each topic here, and the hot loop over them.

Only the loop's thread touches a station. Other threads append to its mailbox. Knows nothing of backends: the hub
decides which messages are delivered, and when.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias, TypeVar

from antiphon.events import Observer
from antiphon.status import WS_1013_TRY_AGAIN_LATER
from antiphon.types import PreparedMessage, Sink, SupportsSink

from .arguments import refuse_second
from .audience import Audience
from .backlog import TOO_SLOW, Backlog, Replay, sink_limit
from .counters import Counters
from .direct import UserMessage
from .events import Delivered, Dropped, OutboxHighWater, ReceiverTooSlow
from .guests import Guest, Guests, short
from .message import MessageKind, Parcel, resync
from .records import Change, Position, Roster
from .topics import DEFAULT_OPTIONS, TopicOptions

logger: Final = logging.getLogger("antiphon.hub")

A = TypeVar("A")
B = TypeVar("B")

Offer: TypeAlias = Callable[[PreparedMessage, int], bool]


class LocalReceiver:
    """One membership: a sink in a topic."""

    __slots__ = (
        "backlog",
        "behind",
        "local",
        "mixed",
        "offer",
        "serial",
        "sink",
        "user",
        "websocket",
    )

    def __init__(self, sink: Sink, serial: int, user: str | None, websocket: SupportsSink | None = None) -> None:
        self.sink: Sink = sink
        self.offer: Offer = sink.offer
        self.serial: int = serial
        """Grows with every membership of the hub."""
        self.user: str | None = user
        self.websocket: SupportsSink | None = websocket
        """None: code that subscribed."""
        self.local: LocalTopic | None = None
        """None: left, or not yet joined."""
        self.backlog: Backlog | None = None
        self.behind: Position | None = None
        """Entries up to here are known to the receiver already: drop them when they come."""
        self.mixed: str = ""
        """The epoch of entries that came behind a page of another epoch: the receiver already knows of the gap."""

    @property
    def off_the_fast_path(self) -> bool:
        return self.behind is not None or (self.backlog is not None and self.backlog.waiting)

    @property
    def dropped(self) -> int:
        return 0 if self.backlog is None else self.backlog.dropped

    def knows(self, parcel: Parcel) -> bool:
        """The entry was in the page this receiver got. The first one of its epoch behind it ends the question."""
        behind, position = self.behind, parcel.position
        if behind is None or position is None:
            return False
        return position.epoch == behind.epoch and position.offset <= behind.offset


class LocalTopic:
    """The receivers of one topic in one loop."""

    __slots__ = (
        "audience",
        "fast",
        "limit",
        "name",
        "options",
        "receivers",
        "sinks",
        "slow",
        "station",
    )

    def __init__(self, station: Station, name: str, options: TopicOptions) -> None:
        self.station: Station = station
        self.name: str = name
        self.options: TopicOptions = options
        self.limit: int = sink_limit(options.overflow, options.outbox_bytes)
        self.receivers: dict[LocalReceiver, None] = {}
        self.sinks: set[int] = set()
        """Their identities: a sink is in a topic once."""
        self.fast: list[tuple[Offer, LocalReceiver]] | None = None
        """Receivers that take messages straight into their sink. None: to be built again."""
        self.slow: list[LocalReceiver] = []
        self.audience: Audience[LocalReceiver] | None = None
        """The receivers that watch the members, once there are any."""

    def backlog(self, receiver: LocalReceiver) -> Backlog:
        if receiver.backlog is None:
            receiver.backlog = Backlog(
                receiver.sink, self.options.overflow, self.options.outbox_bytes, lambda: self._caught_up(receiver)
            )
        return receiver.backlog

    def deliver(self, parcel: Parcel) -> int:
        """Hand one message to all receivers. Returns how many. No call but `offer` (benchmarks: fanout-64)."""
        fast = self.fast
        if fast is None:
            fast = self._sort()
        slow = self.slow
        if parcel.excluded:
            fast, slow = self._without(parcel, fast, slow)
        limit = self.limit
        refused: list[LocalReceiver] = []
        receivers = iter(fast)
        while True:
            try:
                for offer, receiver in receivers:
                    if not offer(parcel, limit):
                        refused.append(receiver)
                break
            except Exception:
                # A sink that raises breaks its contract; the receivers behind it still get their message.
                logger.exception("a receiver of topic %r failed to take a message", self.name)
        delivered = len(fast)
        for receiver in refused:
            delivered -= self._apply(receiver, parcel, fresh=True)
        if slow:
            for receiver in tuple(slow):
                delivered += 1 - self._deliver_slowly(receiver, parcel)
        return delivered

    def _without(
        self, parcel: Parcel, fast: list[tuple[Offer, LocalReceiver]], slow: list[LocalReceiver]
    ) -> tuple[list[tuple[Offer, LocalReceiver]], list[LocalReceiver]]:
        """All but the connection the publisher excluded."""
        excluded = self.station.excluded(parcel)
        if excluded is None:
            return fast, slow
        identity, serial = excluded
        # The identity of a sink may be used again once it is gone, but only by a later membership.
        return (
            [pair for pair in fast if id(pair[1].sink) != identity or pair[1].serial > serial],
            [receiver for receiver in slow if id(receiver.sink) != identity or receiver.serial > serial],
        )

    def _deliver_slowly(self, receiver: LocalReceiver, parcel: Parcel) -> int:
        """1 when the receiver did not get the message."""
        if receiver.local is not self or receiver.knows(parcel):
            return 1
        behind, position = receiver.behind, parcel.position
        # Messages on their way when the data was lost are of the old epoch. They say nothing about a new page.
        if behind is not None and position is not None:
            if behind.epoch == position.epoch:
                receiver.behind = None
                self.fast = None
            elif receiver.mixed != position.epoch:
                receiver.mixed = position.epoch
                self._apply(receiver, resync(self.name), fresh=False)
        return self._apply(receiver, parcel, fresh=False)

    def _apply(self, receiver: LocalReceiver, parcel: Parcel, *, fresh: bool) -> int:
        """Let the receiver's policy decide. `fresh`: its sink has just refused. 1 when it did not get the message."""
        if receiver.local is not self:
            return 1
        backlog = self.backlog(receiver)
        lost, fast_before = backlog.dropped, not receiver.off_the_fast_path
        if fresh and not backlog.waiting:
            backlog.refused(parcel)
        else:
            backlog.put(parcel)
        if fast_before is receiver.off_the_fast_path:
            self.fast = None
        self.station.account(self, backlog, backlog.dropped - lost)
        return 1 if backlog.disconnected or backlog.dropped > lost else 0

    def tell(self, receiver: LocalReceiver, parcel: Parcel) -> None:
        """One message for this receiver alone, behind those it is owed."""
        if not receiver.off_the_fast_path and receiver.offer(parcel, self.limit):
            return
        self._apply(receiver, parcel, fresh=False)

    def _sort(self) -> list[tuple[Offer, LocalReceiver]]:
        self.fast = fast = []
        self.slow = []
        for receiver in self.receivers:
            if receiver.off_the_fast_path:
                self.slow.append(receiver)
            else:
                fast.append((receiver.offer, receiver))
        return fast

    # Joining

    def hold(self, receiver: LocalReceiver) -> None:
        """The receiver catches up: keep live messages for later."""
        self.backlog(receiver).hold()
        self.fast = None

    def release(
        self,
        receiver: LocalReceiver,
        page: Iterable[Parcel],
        behind: Position | None,
        *,
        rest: Replay | None = None,
        owed: Iterable[Parcel] = (),
    ) -> None:
        """The receiver gets the page, which reaches to `behind`, then the `owed` parcels, then the live messages that
        are not in the page."""
        receiver.behind = behind
        self.fast = None
        backlog = self.backlog(receiver)
        if behind is not None and any(one.position and one.position.epoch != behind.epoch for one in backlog.pending):
            # The data was lost on the way. Nothing here says which epoch is the new one.
            owed = [*owed, resync(self.name)]
        backlog.release(page, lambda parcel: not receiver.knows(parcel), rest=rest, owed=owed)

    def forget_page(self, receiver: LocalReceiver) -> None:
        """Nothing that was in the receiver's page can come any more."""
        receiver.behind = None
        self.fast = None

    # Presence

    def watch(self, receiver: LocalReceiver) -> Parcel:
        """From now on the receiver gets changes. Returns its first parcel: all members."""
        assert self.audience is not None, "the members are asked for before they are shown"
        return self.audience.watch(receiver)

    def see(self) -> Audience[LocalReceiver]:
        """The receivers that watch the members, made on first use."""
        if self.audience is None:
            self.audience = Audience(self.name, self.station.loop, self.tell, _has_more_to_take)
        return self.audience

    def _caught_up(self, receiver: LocalReceiver) -> None:
        self.fast = None
        missed = None if self.audience is None else self.audience.caught_up(receiver)
        if missed is not None:
            self.tell(receiver, missed)


def _has_more_to_take(receiver: LocalReceiver) -> bool:
    """Then its backlog says when that is over. A diff that its sink refuses is owed to it."""
    return receiver.backlog is not None and receiver.backlog.waiting


class Station:
    """All receivers of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, process: str, counters: Counters) -> None:
        self.loop = loop
        self.observer: Observer | None = None
        self.topics: dict[str, LocalTopic] = {}
        self.memberships: int = 0
        self.sinks: dict[int, int] = {}
        """Memberships by the identity of their sink."""
        self.lost: dict[str, int] = {}
        """By topic: messages lost for the receivers that are in it now; topics without losses are not in here."""
        self.guests: Guests = Guests()
        self._joined_users: dict[str, dict[LocalReceiver, None]] | None = None
        """Receivers by their user, once somebody has sent to one."""
        self.counters = counters
        self.process = process
        self._mailbox: deque[tuple[Callable[[Any, Any], None], Any, Any]] = deque()
        self._draining = False
        self._scheduled = False

    def put(self, handler: Callable[[A, B], None], first: A, second: B) -> bool:
        """Call one of the handlers below in the loop's thread, behind earlier calls. From any thread.

        In the loop's own thread it waits for `drain`. False: the loop was closed.
        """
        self._mailbox.append((handler, first, second))
        if asyncio._get_running_loop() is self.loop:
            return True
        if self._scheduled and not self.loop.is_closed():
            return True
        self._scheduled = True
        try:
            self.loop.call_soon_threadsafe(self.drain)
        except RuntimeError:
            self._mailbox.clear()
            return False
        return True

    def drain(self) -> None:
        """Handle the mailbox. A call from within is handled behind the current one."""
        self._scheduled = False
        if self._draining:
            return
        self._draining = True
        try:
            while self._mailbox:
                handler, first, second = self._mailbox.popleft()
                try:
                    handler(first, second)
                except Exception:
                    # A sink or an observer that breaks its contract; the calls behind it concern others.
                    logger.exception("a delivery failed")
        finally:
            self._draining = False

    def add(self, topic: str, options: TopicOptions, receiver: LocalReceiver) -> LocalTopic:
        local = self.topics.get(topic)
        if local is None:
            local = self.topics[topic] = LocalTopic(self, topic, options)
        refuse_second(topic, receiver.sink, local.sinks)
        local.receivers[receiver] = None
        local.fast = None
        receiver.local = local
        if self._joined_users is not None:
            self._note_user(receiver)
        self.memberships += 1
        sink = id(receiver.sink)
        self.sinks[sink] = self.sinks.get(sink, 0) + 1
        self._lose(topic, receiver.dropped)
        return local

    def remove(self, receiver: LocalReceiver) -> None:
        local = receiver.local
        if local is None:
            return
        receiver.local = None
        if self._joined_users is not None:
            self._forget_user(receiver)
        if local.audience is not None:
            local.audience.remove(receiver)
        self.memberships -= 1
        sink = id(receiver.sink)
        self.sinks[sink] -= 1
        if not self.sinks[sink]:
            del self.sinks[sink]
        self._lose(local.name, -receiver.dropped)
        if receiver.backlog is not None:
            receiver.backlog.close()
        del local.receivers[receiver]
        local.sinks.discard(id(receiver.sink))
        local.fast = None
        if not local.receivers:
            del self.topics[local.name]
            if local.audience is not None:
                local.audience.close()

    def _lose(self, topic: str, count: int) -> None:
        if count:
            self.lost[topic] = self.lost.get(topic, 0) + count
            if not self.lost[topic]:
                del self.lost[topic]

    def excluded(self, parcel: Parcel | UserMessage) -> tuple[int, int] | None:
        """The sink that does not get it, by identity, and the newest membership that can be meant."""
        process, _, which = parcel.excluded.partition(":")
        if process != self.process:
            return None
        identity, _, serial = which.partition(":")
        return int(identity), int(serial)

    def account(self, local: LocalTopic, backlog: Backlog, lost: int) -> None:
        """Count the messages that a policy dropped, or the receiver that it closed."""
        fullness = backlog.sink.buffered + backlog.pending_bytes
        if self.counters.fill(fullness) and self.observer is not None:
            self.observer(OutboxHighWater(topic=local.name, bytes=fullness))
        if backlog.disconnected:
            self.counters.add(disconnected=1)
            if self.observer is not None:
                self.observer(ReceiverTooSlow(topic=local.name))
        if lost:
            self._lose(local.name, lost)
            self.counters.add(dropped=lost)
            if self.observer is not None:
                self.observer(Dropped(topic=local.name, policy=backlog.policy, count=lost))

    # Handlers for the mailbox

    def deliver(self, topic: str, parcel: Parcel) -> None:
        local = self.topics.get(topic)
        if local is None:
            return
        count = local.deliver(parcel)
        if parcel.kind is MessageKind.MESSAGE:
            self.counters.add(delivered=count)
            if self.observer is not None:
                self.observer(Delivered(topic=topic, receivers=count))

    def presence_changed(self, topic: str, change: Change) -> None:
        local = self.topics.get(topic)
        if local is not None and local.audience is not None:
            local.audience.change(change)

    def presence_asked(self, topic: str, came: list[Change]) -> None:
        local = self.topics.get(topic)
        if local is not None:
            local.see().expect(came)

    def presence_answered(self, topic: str, answer: tuple[Roster | None, list[Change]]) -> None:
        """None: it did not come."""
        local = self.topics.get(topic)
        roster, came = answer
        if local is None or local.audience is None:
            return
        if roster is None:
            local.audience.give_up(came)
        else:
            local.audience.refresh(roster, came)

    def close(self, concerned: Callable[[LocalReceiver], bool], code_and_reason: tuple[int, str]) -> None:
        """Disconnect the sinks of the receivers that are `concerned`, each sink once."""
        sinks = {id(r.sink): r.sink for local in self.topics.values() for r in local.receivers if concerned(r)}
        for sink in sinks.values():
            sink.disconnect(*code_and_reason)

    def close_guests(self, user: str, code_and_reason: tuple[int, str]) -> None:
        """Those of a user. One that is in topics, too, may be closed already: once is all it is."""
        for guest in tuple(self.guests.of_user(short(user))):
            guest.disconnect(*code_and_reason)

    def revoke(self, whose: tuple[str, str, float], code_and_reason: tuple[int, str]) -> None:
        """Disconnect the guests of a user and a session ("": any) whose token was issued before that time. Disconnect
        the user's receivers without a known token, too."""
        user, session, before = whose
        for guest in tuple(self.guests.concerned(user, session)):
            if guest.older_than(before):
                guest.revoke(*code_and_reason)
        if user and not session:
            for receiver in self._receivers_of(user):
                if self.guests.with_sink(receiver.sink) is None:
                    receiver.sink.disconnect(*code_and_reason)

    def send(self, direct: UserMessage, _: object) -> None:
        """To all connections of a user, each once: guests and receivers."""
        excluded = self.excluded(direct) if direct.excluded else None
        known: dict[int, Guest | LocalReceiver] = {id(one.sink): one for one in self._receivers_of(direct.user)}
        known |= {id(one.sink): one for one in self.guests.of_user(direct.user) if one.accepted}
        sent = 0
        for identity, one in known.items():
            if excluded is not None and identity == excluded[0] and one.serial <= excluded[1]:
                continue
            message = direct.for_connection(getattr(one.websocket, "scope", None))
            if message is None:
                logger.warning(
                    "hub.send(): %r is nothing that the channel of a connection declares, and is not sent to it",
                    direct.tag or "data without a tag",
                )
            elif one.sink.offer(message, DEFAULT_OPTIONS.outbox_bytes):
                sent += 1
            else:
                self.counters.add(disconnected=1)
                one.sink.disconnect(WS_1013_TRY_AGAIN_LATER, TOO_SLOW)
        self.counters.add(delivered=sent)

    def _receivers_of(self, user: str) -> tuple[LocalReceiver, ...]:
        """`user` as `short` has it."""
        if self._joined_users is None:
            self._joined_users = {}
            for local in self.topics.values():
                for receiver in local.receivers:
                    self._note_user(receiver)
        return tuple(self._joined_users.get(user, ()))

    def _note_user(self, receiver: LocalReceiver) -> None:
        if self._joined_users is not None and receiver.user is not None:
            self._joined_users.setdefault(short(receiver.user), {})[receiver] = None

    def _forget_user(self, receiver: LocalReceiver) -> None:
        if self._joined_users is None or receiver.user is None:
            return
        name = short(receiver.user)
        found = self._joined_users.get(name, {})
        found.pop(receiver, None)
        if not found:
            self._joined_users.pop(name, None)
