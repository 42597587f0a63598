"""The topics in use in this process, and the backend's view of the hub: incoming entries go to the stations concerned.

Knows which loops have receivers of a topic, not who they are. Nothing here waits. The lock guards the two dictionaries
against event loops in other threads. `deliver` works without it, on tuples that are replaced as a whole.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from pydantic_core import from_json

from antiphon.events import Event, Observer
from antiphon.shown import shown

from .counters import Counters
from .delivery import LocalReceiver, LocalTopic, Station
from .envelope import BadEnvelope
from .events import BackendLost, BackendRestored
from .guests import Guest
from .message import Parcel, resync, unwrap
from .records import Change, Entry, Keep, Position
from .shelf import Shelf
from .topics import TopicOptions

logger: Final = logging.getLogger("antiphon.hub")

MOST_HELD: Final = 1024
"""Entries a room holds back during recovery, at least: a short history must not make a burst into a gap."""


class Room:
    """A topic with receivers in this process."""

    __slots__ = ("held", "keep", "last", "opened", "options", "promised", "stations", "topic")

    def __init__(self, topic: str, options: TopicOptions) -> None:
        self.topic: str = topic
        self.options: TopicOptions = options
        self.keep: Keep | None = options.keep
        self.stations: tuple[Station, ...] = ()
        self.opened: bool = False
        """The backend has confirmed the subscription."""
        self.last: Position | None = None
        """Of the newest entry passed on, or where the subscription started."""
        self.promised: Position | None = None
        """The start of the newest subscription: every later entry will come. Earlier entries may or may not."""
        self.held: deque[Entry] | None = None
        """Entries that wait for the missed ones before them. Too many of them are treated as a gap."""

    @property
    def position(self) -> Position | None:
        """The position of a receiver that enters now: every later entry will come."""
        return self.last if self.settled else self.promised

    @property
    def settled(self) -> bool:
        """Nothing will come that one who enters now is not to get."""
        return self.promised is None or self.reached(self.promised)

    def promise(self, position: Position) -> Position:
        """A subscription was confirmed, with this place. An older answer may come last. Returns the newest place."""
        if self.last is None:
            self.last = position
        if self.promised is None or self.promised.epoch != position.epoch or self.promised < position:
            self.promised = position
        return self.promised

    def reached(self, position: Position) -> bool:
        """Everything up to this position has been passed on."""
        return self.last is not None and self.last.epoch == position.epoch and self.last.offset >= position.offset


class Rooms:
    """All rooms of a process. The `Listener` of its backend."""

    def __init__(self, process: str) -> None:
        self.process = process
        self.rooms: dict[str, Room] = {}
        self.stations: dict[asyncio.AbstractEventLoop, Station] = {}
        self.generation: int = 0
        """Grows with every loss of the backend."""
        self.commands: dict[bytes, Callable[[bytes], None]] = {}
        """Handlers of control messages, by a first byte that begins no JSON object. For an invalid message they raise
        ValueError, KeyError, TypeError or struct.error."""
        self.on_restored: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self.on_forgotten: Callable[[], None] = lambda: None
        self.entered: bool = False
        """Somebody has been here."""
        self.counters: Counters = Counters()
        self.shelf: Shelf = Shelf()
        self._told_of_options: bool = False
        self._observer: Observer | None = None
        self._lock = threading.Lock()

    @property
    def observer(self) -> Observer | None:
        return self._observer

    @observer.setter
    def observer(self, observer: Observer | None) -> None:
        self._observer = observer
        for station in tuple(self.stations.values()):
            station.observer = observer

    def tell(self, event: Event) -> None:
        if self._observer is not None:
            try:
                self._observer(event)
            except Exception:
                # An observer must not raise. The event has happened regardless.
                logger.exception("the hub's observer failed")

    # Receivers come and go: in the thread of their loop

    def enter(self, topic: str, options: TopicOptions, receiver: LocalReceiver) -> tuple[Room, LocalTopic]:
        loop = receiver.sink.loop
        station = self.stations.get(loop)
        if station is not None and topic in station.topics:
            return self.rooms[topic], station.add(topic, options, receiver)
        with self._lock:
            # Asked again under the lock, which guards both dictionaries.
            station = self._station(loop)
            room = self.rooms.get(topic)
            if room is None:
                room = self.rooms[topic] = Room(topic, options)
                self.entered = True
            local = station.add(topic, options, receiver)
            room.stations = (*room.stations, station)
        return room, local

    def _station(self, loop: asyncio.AbstractEventLoop) -> Station:
        station = self.stations.get(loop)
        if station is None:
            station = self.stations[loop] = Station(loop, self.process, self.counters)
            station.observer = self._observer
        return station

    def let_in(self, guest: Guest) -> None:
        """From now on the connection is known by its user, in topics or not. It replaces the guest known before."""
        with self._lock:
            station = self._station(guest.sink.loop)
            known = station.guests.with_sink(guest.sink)
            if known is not None:
                station.guests.remove(known)
            station.guests.add(guest)

    def let_go(self, guest: Guest) -> None:
        """Unknown ones are ignored."""
        with self._lock:
            station = self.stations.get(guest.sink.loop)
            if station is not None:
                station.guests.remove(guest)
                self._drop_if_empty(station)

    def _drop_if_empty(self, station: Station) -> None:
        if not station.topics and not station.guests:
            self.stations.pop(station.loop, None)

    def leave(self, receiver: LocalReceiver) -> str | None:
        """The topic, when its room is closed with this."""
        local = receiver.local
        if local is None:
            return None
        station = local.station
        station.remove(receiver)
        if local.receivers:
            return None
        with self._lock:
            room = self.rooms[local.name]
            room.stations = tuple(one for one in room.stations if one is not station)
            self._drop_if_empty(station)
            if room.stations:
                return None
            del self.rooms[local.name]
        return local.name

    def _drop_station(self, station: Station) -> None:
        """Its loop was closed with receivers in it (an event loop that was cut short): nobody is there to be told."""
        with self._lock:
            self.stations.pop(station.loop, None)
            for topic in station.topics:
                room = self.rooms.get(topic)
                if room is not None:
                    room.stations = tuple(one for one in room.stations if one is not station)
                    if not room.stations:
                        del self.rooms[topic]

    # Calls from the backend

    def deliver(self, topic: str, entry: Entry) -> None:
        room = self.rooms.get(topic)
        if room is None:
            return
        if entry.position is not None:
            if room.held is not None:
                room.held.append(entry)
                return
            if room.reached(entry.position):
                return
        elif room.keep is not None and not self._told_of_options:
            self._told_of_options = True
            logger.warning(
                "topic %r keeps a history here, and another process publishes to it without: its messages reach those "
                "who listen, and nobody who comes back; give all processes the same Hub(topics=)",
                topic,
            )
        self.pass_on(room, entry)

    def pass_on(self, room: Room, entry: Entry) -> None:
        """To all stations of the room, in any state of it. A change of the epoch is a gap, whatever its cause."""
        if entry.position is not None:
            if room.last is not None and room.last.epoch != entry.position.epoch:
                self.spread(room, resync(room.topic))
            room.last = entry.position
        try:
            parcel = unwrap(room.topic, entry, room.options.framing)
        except (BadEnvelope, UnicodeDecodeError) as error:
            logger.warning("topic %r: a malformed message came from the backend: %s", room.topic, shown(error))
            return
        self.spread(room, parcel)

    def spread(self, room: Room, parcel: Parcel) -> None:
        for station in room.stations:
            if not station.put(station.deliver, room.topic, parcel):
                self._drop_station(station)

    def presence_changed(self, topic: str, change: Change) -> None:
        room = self.rooms.get(topic)
        if room is not None:
            for station in room.stations:
                if not station.put(station.presence_changed, topic, change):
                    self._drop_station(station)

    def controlled(self, payload: bytes) -> None:
        try:
            self.commands.get(payload[:1], self._close)(payload)
        except (ValueError, KeyError, TypeError, struct.error) as error:
            logger.warning("a malformed control message came from the backend: %s", shown(error))

    def _close(self, payload: bytes) -> None:
        command = from_json(payload)
        user, topic = command["user"], command["topic"]
        which, how = _selector(user, topic), (int(command["code"]), str(command["reason"]))
        for station in tuple(self.stations.values()):
            station.put(station.close, which, how)
            if user is not None and topic is None:
                station.put(station.close_guests, user, how)

    def flush(self) -> None:
        loop = asyncio._get_running_loop()
        station = None if loop is None else self.stations.get(loop)
        if station is not None:
            station.drain()

    def lost(self) -> None:
        self.generation += 1
        self.shelf.clear()
        for room in tuple(self.rooms.values()):
            room.promised = None
            if room.keep is not None and room.last is not None:
                room.held = deque(maxlen=max(room.keep.size, MOST_HELD))
        self.tell(BackendLost())
        self.on_lost()

    def begin_anew(self) -> None:
        """The backend has lost all histories, and starts again empty. Receivers that stay will get the new messages."""
        for room in tuple(self.rooms.values()):
            room.opened, room.last, room.promised = False, None, None

    def restored(self) -> None:
        for room in tuple(self.rooms.values()):
            if room.held is not None:
                room.held.clear()  # of failed attempts: the entries in between never came
            elif room.opened:
                self.spread(room, resync(room.topic))
        self.flush()
        self.tell(BackendRestored())
        self.on_restored()

    def forgotten(self) -> None:
        self.on_forgotten()


def _selector(user: str | None, topic: str | None) -> Callable[[LocalReceiver], bool]:
    def which(receiver: LocalReceiver) -> bool:
        local = receiver.local
        at_topic = topic is None or (local is not None and local.name == topic)
        return at_topic and (user is None or receiver.user == user)

    return which
