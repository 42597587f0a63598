"""Entering and leaving a topic: the order of steps that leaves no gap, and the notices on the way.

Everything here runs in the loop of the receiver's sink.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from antiphon.heartbeat import Hearts

from .audience import Audience
from .backend_access import BackendAccess
from .backlog import Backlog, Replay
from .delivery import LocalReceiver, LocalTopic
from .errors import BackendUnavailable
from .events import Recovery
from .membership import JoinRequest, Membership
from .message import Parcel, joined, resync
from .pages import Pages
from .passage import Held, Passage, weight_of
from .records import Change, Page, Position
from .rooms import Room, Rooms
from .subscription import QueueSink
from .topics import Framing


class Joining:
    """How receivers come and go."""

    def __init__(self, rooms: Rooms, access: BackendAccess, pages: Pages, heartbeat: float | None = None) -> None:
        """`heartbeat`: seconds between heartbeats on connections with events. None: none."""
        self._rooms = rooms
        self._access = access
        self._pages = pages
        self._heartbeat = heartbeat
        self._hearts = None if heartbeat is None else Hearts(heartbeat)

    async def enter(self, membership: Membership, receiver: LocalReceiver, request: JoinRequest) -> None:
        if not self._access.ready:
            await self._access.wake()
        room, local = self._rooms.enter(membership.topic, membership.options, receiver)
        greeted = room.options.framing is Framing.EVENT and not isinstance(receiver.sink, QueueSink)
        opened = room.opened or (room.keep is None and self._access.in_process)
        if opened and room.settled and not greeted and request.plain:
            membership.position = room.last
        else:
            await self._catch_up(_Joiner(membership, receiver, request, room, local, greeted))
        receiver.sink.on_close(membership.died)

    async def leave(self, membership: Membership, receiver: LocalReceiver, request: JoinRequest) -> None:
        if not self._remove(receiver):
            return
        sink = receiver.sink
        sink.off_close(membership.died)
        if request.track is not None:
            # A dead connection may come back. Leaving on a live one is final.
            grace = 0.0 if sink.alive else membership.options.presence_grace
            self._access.forget(membership.topic, request.track.ref, grace)
            await self._access.flush_departures_surely(membership.topic)

    def died(self, membership: Membership, receiver: LocalReceiver, request: JoinRequest) -> None:
        if self._remove(receiver) and request.track is not None:
            self._access.forget(membership.topic, request.track.ref, membership.options.presence_grace)
            self._access.flush_departures_soon(membership.topic)

    def _remove(self, receiver: LocalReceiver) -> bool:
        if receiver.local is None:
            return False
        closed = self._rooms.leave(receiver)
        if closed is not None:
            self._access.unsubscribe(closed)
        return True

    async def _catch_up(self, joiner: _Joiner) -> None:
        """Hold new messages, find out the missed ones, hand over both. README: gap-free joining."""
        membership, receiver, request = joiner.membership, joiner.receiver, joiner.request
        room, local = joiner.room, joiner.local
        local.hold(receiver)
        try:
            joiner.heard = room.position if room.opened else await self._open(room)
            page = None
            if request.wants_page and room.keep is not None:
                page = await self._page(joiner)
            if request.track is not None:
                joiner.tracked = True
                await self._access.track(membership.topic, request.track)
            if request.watch:
                await self._show_members(local)
            if page is None:
                self._settle(joiner, page)
            elif (passage := self._pages.passage).admits(weight := weight_of(page)):
                try:
                    self._settle(joiner, page)
                finally:
                    passage.leave(weight)
            else:
                held, page = passage.hold(page), None
                await self._settle_in_turn(joiner, passage, held, weight)
        except BaseException:
            self._remove(receiver)
            self._disown(joiner)
            raise

    async def _settle_in_turn(self, joiner: _Joiner, passage: Passage, held: Held, weight: int) -> None:
        """Of a thousand who have waited for the same answer, not all take it in one turn of the loop."""
        try:
            await passage.enter(joiner.room.topic, weight)
            try:
                self._settle(joiner, held.page or await self._page(joiner))
            finally:
                passage.leave(weight)
        finally:
            held.drop()

    def _settle(self, joiner: _Joiner, page: Page | None) -> None:
        """Hand over the page, and the messages that came meanwhile."""
        membership, receiver, local = joiner.membership, joiner.receiver, joiner.local
        local.station.drain()
        if receiver.local is None:
            # The receiver left meanwhile, perhaps before the backend knew of its presence.
            self._disown(joiner)
            return
        if page is not None and joiner.request.since is not None:
            messages = len(page.entries) + page.rest if membership.recovered else 0
            self._rooms.tell(Recovery(topic=local.name, recovered=membership.recovered, messages=messages))
        position = joiner.heard if page is None else page.end
        membership.position = position
        first = []
        if joiner.greeted:
            first.append(joined(membership.topic, position, membership.recovered, self._heartbeat))
        owed = [local.watch(receiver)] if joiner.request.watch else []
        self._release(receiver, joiner.room, first, page, owed, position)
        if joiner.greeted and self._hearts is not None:
            self._hearts.add(receiver.sink)

    def _release(
        self,
        receiver: LocalReceiver,
        room: Room,
        first: list[Parcel],
        page: Page | None,
        owed: list[Parcel],
        position: Position | None,
    ) -> None:
        assert receiver.local is not None
        rest = None
        if page is not None:
            first += self._rooms.shelf.take(room.topic, page.entries, room.options.framing)
            if page.rest:
                rest = Replay(page.position, page.rest, functools.partial(self._ask_on, room, receiver))
        receiver.local.release(receiver, first, position, rest=rest, owed=owed)
        if receiver.local is not None and (position is None or room.reached(position)):
            receiver.local.forget_page(receiver)

    def _ask_on(self, room: Room, receiver: LocalReceiver, replay: Replay) -> None:
        behind = replay.position

        def done(_: object) -> None:
            """Also when it was cancelled before it had begun."""
            if replay.position is behind:
                self._cut(receiver, replay)

        self._access.spawn(self._go_on, room, receiver, replay).add_done_callback(done)

    async def _go_on(self, room: Room, receiver: LocalReceiver, replay: Replay) -> None:
        """Hand over the next part of a long page. README: long pages."""
        backlog, passage = receiver.backlog, self._pages.passage
        while backlog is not None and backlog.replay is replay:
            await passage.enter(room.topic)
            try:
                if backlog.replay is replay:
                    await self._supply(room, backlog, replay)
                return
            except BackendUnavailable:
                pass
            finally:
                passage.leave()
            await self._access.back()

    async def _supply(self, room: Room, backlog: Backlog, replay: Replay) -> None:
        """Nothing, if the rest is not there any more. Raises `BackendUnavailable`."""
        size, shelf = self._pages.size(room.options), self._rooms.shelf
        found = shelf.run(room.topic, replay.position, replay.rest, size)
        if not found:
            assert room.keep is not None
            behind = replay.position
            needed = Position(behind.offset + 1, behind.epoch)
            page = await self._pages.first(room.topic, room.keep, behind, None, size, needed)
            if page.recovered and page.entries:
                entries = page.entries[: replay.rest]
                backlog.supply(replay, shelf.take(room.topic, entries, room.options.framing), len(entries))
        else:
            backlog.supply(replay, [parcel for parcel in found if parcel is not None], len(found))

    def _cut(self, receiver: LocalReceiver, replay: Replay) -> None:
        """The last answer did not come, and will not."""
        local, backlog = receiver.local, receiver.backlog
        if local is not None and backlog is not None and backlog.replay is replay:
            backlog.cut(replay, resync(local.name))
            local.station.account(local, backlog, replay.rest)

    def _disown(self, joiner: _Joiner) -> None:
        if joiner.tracked and joiner.request.track is not None:
            self._access.forget(joiner.membership.topic, joiner.request.track.ref, 0.0)
            self._access.flush_departures_soon(joiner.membership.topic)

    async def _show_members(self, local: LocalTopic) -> None:
        """Watchers know the members, as they are now or later. Raises `BackendUnavailable`."""
        audience = local.see()
        read = functools.partial(self._read_members, local, audience)
        await audience.showing.answer(self._access.spawn, read, audience.rest)

    async def _read_members(self, local: LocalTopic, audience: Audience[LocalReceiver]) -> None:
        if self._access.in_process and audience.watching:
            await self._access.presence_count(local.name)  # reports members whose grace has expired
            local.station.drain()
            audience.read()
            return
        came: list[Change] = []
        audience.expect(came)
        try:
            roster = await self._access.presence(local.name)
        except BaseException:
            audience.give_up(came)
            raise
        local.station.drain()
        audience.refresh(roster, came, first=True)

    async def _open(self, room: Room) -> Position | None:
        """A joiner that finds the room closed opens it; twice does no harm."""
        generation = -1
        while generation != self._rooms.generation:
            # An answer from before a loss lacks the missed messages; it may come by another connection than that.
            generation = self._rooms.generation
            position = await self._access.subscribe(room.topic, room.keep)
        room.opened = True
        return position if position is None else room.promise(position)

    async def _page(self, joiner: _Joiner) -> Page:
        """The first part of the joiner's page."""
        room, request = joiner.room, joiner.request
        assert room.keep is not None
        since, size = request.since, self._pages.size(room.options)
        if since is not None:
            page = await self._pages.first(room.topic, room.keep, since, None, size, joiner.heard)
            joiner.membership.recovered = page.recovered
        if since is None or (not page.recovered and request.history):
            page = await self._pages.first(room.topic, room.keep, None, request.history, size, joiner.heard)
        return page


@dataclass(slots=True)
class _Joiner:
    """A receiver on its way into a topic, and its state so far."""

    membership: Membership
    receiver: LocalReceiver
    request: JoinRequest
    room: Room
    local: LocalTopic
    greeted: bool
    heard: Position | None = None
    """From behind here, everything comes by itself."""
    tracked: bool = False
