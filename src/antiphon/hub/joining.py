"""Entering and leaving a topic: the order of steps that leaves no gap, and what is told on the way.

Everything here runs in the loop of the receiver's sink.
"""

from __future__ import annotations

from typing import Final

from .backends.base import Change, Position
from .errors import HubError
from .events import Recovery
from .heartbeat import Hearts
from .link import Link
from .membership import Membership, Request
from .message import Parcel, joined, unwrap
from .rooms import Room, Rooms
from .station import LocalTopic, Receiver
from .subscription import QueueSink
from .topics import Framing

NOTHING: Final[tuple[Parcel, ...]] = ()


class Joining:
    """How receivers come and go."""

    def __init__(self, rooms: Rooms, link: Link, heartbeat: float | None = None) -> None:
        """`heartbeat`: seconds between heartbeats on connections with events; None: none."""
        self._rooms = rooms
        self._link = link
        self._heartbeat = heartbeat
        self._hearts = None if heartbeat is None else Hearts(heartbeat)

    async def enter(self, membership: Membership, receiver: Receiver, request: Request) -> None:
        if not self._link.ready:
            await self._link.wake()
        room, local = self._rooms.enter(membership.topic, membership.options, receiver)
        greeted = room.options.framing is Framing.EVENT and not isinstance(receiver.sink, QueueSink)
        opened = room.opened or (room.keep is None and self._link.always_open)
        if opened and room.settled and not greeted and request.plain:
            membership.position = room.last
        else:
            await self._catch_up(membership, receiver, request, room, local, greeted)
        receiver.sink.on_close(membership.died)

    async def leave(self, membership: Membership, receiver: Receiver, request: Request) -> None:
        if not self._remove(receiver):
            return
        sink = receiver.sink
        sink.off_close(membership.died)
        if request.track is not None:
            # A dead connection may come back; who leaves a living one means it.
            grace = 0.0 if sink.alive else membership.options.presence_grace
            self._link.forget(membership.topic, request.track.ref, grace)
            await self._link.settle_surely(membership.topic)

    def died(self, membership: Membership, receiver: Receiver, request: Request) -> None:
        if self._remove(receiver) and request.track is not None:
            self._link.forget(membership.topic, request.track.ref, membership.options.presence_grace)
            self._link.settle_soon(membership.topic)

    def _remove(self, receiver: Receiver) -> bool:
        if receiver.local is None:
            return False
        closed = self._rooms.leave(receiver)
        if closed is not None:
            self._link.unsubscribe(closed)
        return True

    async def _catch_up(
        self,
        membership: Membership,
        receiver: Receiver,
        request: Request,
        room: Room,
        local: LocalTopic,
        greeted: bool,
    ) -> None:
        """Hold what comes, find out what was missed, hand over both. README: gap-free joining."""
        local.hold(receiver)
        tracked = False
        came: list[Change] = []
        try:
            position = room.position if room.opened else await self._open(room)
            owed: list[Parcel] = []
            if request.wants_page and room.keep is not None:
                position, owed = await self._page(membership, room, request)
            if request.track is not None:
                tracked = True
                await self._link.track(membership.topic, request.track)
            if request.watch:
                local.expect(came)
                roster = await self._link.call("presence", self._link.backend.presence, membership.topic)
            local.station.drain()
            if receiver.local is None:
                # Somebody left meanwhile, perhaps before the backend knew of the presence.
                local.give_up(came)
                self._disown(membership, request, tracked)
                return
            membership.position = position
            if greeted:
                owed.insert(0, joined(membership.topic, position, membership.recovered, self._heartbeat))
            if request.watch:
                owed.append(local.watch(receiver, roster, came))
            local.release(receiver, owed, position)
            if greeted and self._hearts is not None:
                self._hearts.add(receiver.sink)
            if position is None or room.reached(position):
                local.forget_page(receiver)
        except BaseException:
            local.give_up(came)
            self._remove(receiver)
            self._disown(membership, request, tracked)
            raise

    def _disown(self, membership: Membership, request: Request, tracked: bool) -> None:
        if tracked and request.track is not None:
            self._link.forget(membership.topic, request.track.ref, 0.0)
            self._link.settle_soon(membership.topic)

    async def _open(self, room: Room) -> Position | None:
        """Whoever finds the room closed opens it; twice does no harm."""
        position = await self._link.call("subscribe", self._link.backend.subscribe, room.topic, room.keep)
        room.opened = True
        return position if position is None else room.promise(position)

    async def _page(self, membership: Membership, room: Room, request: Request) -> tuple[Position, list[Parcel]]:
        assert room.keep is not None
        since = request.since
        if since is not None:
            page = await self._link.call("history", self._link.backend.history, room.topic, room.keep, since, None)
            membership.recovered = page.recovered
            self._rooms.tell(Recovery(topic=room.topic, recovered=page.recovered, messages=len(page.entries)))
        if since is None or (not page.recovered and request.history):
            limit = request.history
            page = await self._link.call("history", self._link.backend.history, room.topic, room.keep, None, limit)
        owed = []
        for entry in page.entries:
            try:
                owed.append(unwrap(room.topic, entry, room.options.framing))
            except (HubError, UnicodeDecodeError):
                continue
        return page.position, owed
