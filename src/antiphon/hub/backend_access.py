"""The hub's end of the way to the backend: the right loop, the policy in trouble, and the repairs after it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from enum import Enum
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from antiphon.shown import shown

from .attendance import Attendance
from .backends.base import Backend, is_in_process
from .delivery import LocalTopic, Station
from .errors import BackendUnavailable
from .events import BackendCalled, Recovery
from .loops import LoopEnded, in_mortal_loop
from .message import resync
from .records import Change, Entry, Keep, Page, Position, Roster, Track
from .rooms import Room, Rooms
from .telling import PAUSES

logger: Final = logging.getLogger("antiphon.hub")

T = TypeVar("T")
P = ParamSpec("P")


RECOVERED_BYTES: Final = 256 << 10
"""Of messages that a room missed, passed on at a time."""


class _Moved(BackendUnavailable):
    """Nothing was done: the hub's loop has ended, or is another one now."""


class OnOutage(Enum):
    """The policy of a call on the hub while the backend cannot be reached.

    For example:

        hub = Hub("redis://localhost", on_outage=OnOutage.WAIT, outage_timeout=10)
    """

    RAISE = "raise"
    """`BackendUnavailable`, at once."""
    WAIT = "wait"
    """It waits for the backend, up to `outage_timeout`. A publish that may have been done already is not repeated:
    that one raises (`error.uncertain`)."""


class BackendAccess:
    """Calls to the backend, from any loop, and this process's state there."""

    def __init__(self, backend: Backend, rooms: Rooms, on_outage: OnOutage, outage_timeout: float) -> None:
        self.backend = backend
        self.in_process: Final = is_in_process(backend)
        """Nothing has to be subscribed, started or waited for."""
        self.connected: bool = self.in_process
        """The backend is there."""
        self.running: bool = False
        """Between `start` and `stop`."""
        self.on_outage: Final = on_outage
        self.outage_timeout: Final = outage_timeout
        self.wake: Callable[[], Awaitable[None]] = self.start
        """Be started for a call that needs it. `lifecycle.Lifecycle` has it."""
        self.learn: Callable[[], Awaitable[None]] = _nothing
        """The backend is there, perhaps again: take the notes that were missed. Raises `BackendUnavailable`."""
        self.claim_anew: Callable[[], Awaitable[None]] = _nothing
        """It may have released all shares of this process. Raises `BackendUnavailable`."""
        self._rooms = rooms
        self.recovered_bytes = RECOVERED_BYTES
        self._up = asyncio.Event()
        self._up_in: asyncio.AbstractEventLoop | None = None
        """The loop of the callers that wait for `_up`."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._attendance = Attendance(backend, self.once, self)
        rooms.on_lost = self._lost
        rooms.on_restored = self._restored
        rooms.on_forgotten = self._forgotten

    @property
    def accepting(self) -> bool:
        """The backend is there, and takes writes."""
        return self.connected and not self.backend.refusing

    @property
    def ready(self) -> bool:
        """It runs, in a loop that is still there; or it need not."""
        if self.in_process:
            return True
        return self.running and ((home := self.backend.loop) is None or not home.is_closed())

    async def start(self) -> None:
        """Raises `BackendUnavailable`. Then nothing is running, and it may be tried again."""
        self._wait_here()
        await self.backend.start(self._rooms)
        try:
            await self.learn()
            self.running = True
            self.connected = True
            self._up.set()
            if self._rooms.rooms and not self.in_process:
                await self._resume()
            else:
                await self.claim_anew()
        except BaseException:
            await self.stop()
            raise

    def _wait_here(self) -> None:
        """Callers that wait since before the stop in this loop wait on. In another loop, nobody waits any more."""
        loop, before, up = asyncio.get_running_loop(), self._up_in, self._up
        if before is not loop:
            self._up, self._up_in = asyncio.Event(), loop
            if before is not None:
                with contextlib.suppress(RuntimeError):  # it was closed
                    before.call_soon_threadsafe(up.set)

    async def stop(self) -> None:
        self.abandon()
        tasks = [task for task in self._tasks if task.get_loop() is asyncio.get_running_loop()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.backend.stop()
        if self.in_process:
            self._rooms.begin_anew()
        self._attendance.clear()

    def abandon(self) -> None:
        """It does not run any more, even if its loop is gone."""
        if self.running and not self.in_process:
            self._rooms.lost()
        self.running = False
        self.connected = self.in_process

    def spawn(self, work: Callable[P, Awaitable[None]], *args: P.args, **kwargs: P.kwargs) -> asyncio.Task[None]:
        """Do it beside the running calls. Backend trouble in it is not an error: it is put right later."""
        task = asyncio.get_running_loop().create_task(_quietly(work, *args, **kwargs))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # The hub's calls to the backend: in the backend's loop, and in trouble as the option says. All of them raise
    # `BackendUnavailable`. They are plain functions, so that the way there is one coroutine shorter.

    def publish(self, topic: str, data: bytes, keep: Keep | None) -> Coroutine[Any, Any, Position | None]:
        if self.in_process and self._rooms.observer is None:
            return self.backend.publish(topic, data, keep)
        return self.call("publish", self.backend.publish, topic, data, keep)

    def subscribe(self, topic: str, keep: Keep | None) -> Coroutine[Any, Any, Position | None]:
        return self.call("subscribe", self.backend.subscribe, topic, keep)

    def history(
        self, topic: str, keep: Keep, since: Position | None, limit: int | None, size: int | None
    ) -> Coroutine[Any, Any, Page]:
        return self.call("history", self.backend.history, topic, keep, since, limit, size)

    def presence(self, topic: str) -> Coroutine[Any, Any, Roster]:
        return self.call("presence", self.backend.presence, topic)

    def presence_count(self, topic: str) -> Coroutine[Any, Any, int]:
        return self.call("presence", self.backend.presence_count, topic)

    def control(self, payload: bytes) -> Coroutine[Any, Any, None]:
        return self.call("control", self.backend.control, payload)

    def call(
        self, name: str, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """`name`: of the operation, for the observer. A publish is not repeated where it may have been done."""
        return self._lasting(name, partial(self._attempt, name, method, *args, **kwargs))

    def at_once(
        self, name: str, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """The same for callers that have another way while the backend is away, and do not wait for it."""
        return self._lasting(name, partial(self.once, name, method, *args, **kwargs))

    async def _lasting(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do it in the backend's loop, and in the next one where that ends before it was done."""
        while True:
            if not self.ready:
                await self.wake()
            try:
                return await self._at_home(work)
            except BackendUnavailable as error:
                if not _moves(self, error, name):
                    raise

    def at_home_soon(self, work: Callable[[], None]) -> None:
        """Call it in the backend's loop. Where any thread may call that, in this one."""
        home = self.backend.loop
        if home is None or home is asyncio._get_running_loop():
            work()
        else:
            with contextlib.suppress(RuntimeError):  # the loop was closed, and the connection to the backend with it
                home.call_soon_threadsafe(work)

    def unsubscribe(self, topic: str) -> None:
        """The topic's room was closed."""
        home = self.backend.loop
        if home is None:
            self.backend.unsubscribe(topic)
        elif home is asyncio._get_running_loop():
            self._unsubscribe(topic)
        elif not home.is_closed():
            home.call_soon_threadsafe(self._unsubscribe, topic)

    async def track(self, topic: str, track: Track) -> None:
        """The caller calls `forget` in the end, also when this fails."""
        await self.flush_departures(topic)
        self._attendance.join(topic, track)
        await self.call("track", self.backend.track, topic, track)

    def forget(self, topic: str, ref: str, grace: float) -> None:
        """The connection is not present any more. `flush_departures`, or `flush_departures_soon`, tells the backend."""
        # A stopped backend has removed all of them.
        self._attendance.forget(topic, ref, grace if self.running or self.in_process else None)

    async def flush_departures(self, topic: str) -> None:
        """Tell the backend which members left, before any later report or question about the topic's members.

        An outage is no error here: the report is repeated until it succeeds.
        """
        if not self._attendance.untold(topic) or not self.ready:
            return
        if self.in_process:
            await self._attendance.tell_here(topic)
        elif await self._at_home(partial(self._attendance.tell, topic)) is not None:
            self.flush_departures_soon(topic)

    async def flush_departures_surely(self, topic: str) -> None:
        """Goes on when the caller is cancelled: an endpoint that is torn down must not stay among the members."""
        if self.in_process:
            await self.flush_departures(topic)
        elif self._attendance.untold(topic):
            # Not shield: a hub that is stopped meanwhile cancels the work, not its callers.
            await asyncio.wait([self.spawn(self.flush_departures, topic)])

    def flush_departures_soon(self, topic: str) -> None:
        """Nobody waits for it. However many leave a topic: one task tells of them all."""
        if self.in_process:
            self.spawn(self.flush_departures, topic)
        else:
            self.at_home_soon(lambda: self._attendance.tell_soon(topic) if self.running else None)

    async def back(self) -> None:
        """A call has failed: wait until another may succeed."""
        await asyncio.sleep(PAUSES[0])
        await self._at_home(self._up_again)

    async def _up_again(self) -> None:
        await self._up.wait()

    async def _at_home(self, work: Callable[[], Awaitable[T]]) -> T:
        home = self.backend.loop
        if home is None or home is asyncio._get_running_loop():
            return await work()
        try:
            return await in_mortal_loop(home, partial(_still_at, self.backend, home, work))
        except LoopEnded as ended:
            kind = BackendUnavailable if ended.begun or ended.idle else _Moved
            raise kind("the event loop that the hub ran in has ended", uncertain=ended.begun) from None

    async def _attempt(self, name: str, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        if self.on_outage is OnOutage.RAISE:
            return await self.once(name, method, *args, **kwargs)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.outage_timeout
        while True:
            try:
                return await self.once(name, method, *args, **kwargs)
            except BackendUnavailable as error:
                if (error.uncertain and name == "publish") or not await self._back_before(deadline):
                    raise

    async def _back_before(self, deadline: float) -> bool:
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.sleep(PAUSES[0])
                await self._up.wait()
        except TimeoutError:
            return False
        return self._up_in is asyncio.get_running_loop()  # else the hub has been started in another one

    async def once(self, name: str, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """One attempt, in the backend's loop."""
        if self._rooms.observer is None:
            return await method(*args, **kwargs)
        start = time.perf_counter()
        failed = True
        try:
            result = await method(*args, **kwargs)
            failed = False
        finally:
            self._rooms.tell(BackendCalled(operation=name, seconds=time.perf_counter() - start, failed=failed))
        return result

    # After trouble

    async def _resume(self) -> None:
        """Sockets stayed up while the hub was stopped: for them that was a loss like any other."""
        for room in tuple(self._rooms.rooms.values()):
            await self.once("subscribe", self.backend.subscribe, room.topic, room.keep)
        self._rooms.restored()

    def _unsubscribe(self, topic: str) -> None:
        if topic not in self._rooms.rooms:
            self.backend.unsubscribe(topic)

    def _lost(self) -> None:
        self.connected = False
        self._up.clear()

    def _restored(self) -> None:
        self.connected = True
        self._up.set()
        self.spawn(self._recover, self._rooms.generation)

    def _forgotten(self) -> None:
        self.spawn(self._recover, self._rooms.generation)

    async def _recover(self, generation: int) -> None:
        pause, longest = PAUSES
        while self._rooms.generation == generation:
            try:
                await self.learn()
                for room in tuple(self._rooms.rooms.values()):
                    if room.held is not None and self._rooms.rooms.get(room.topic) is room:
                        await self._recover_room(room, generation)
                await self._track_again()
            except BackendUnavailable as error:
                # Without a new loss nobody else would try again.
                logger.info("recovery goes on: %s", shown(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
            else:
                return

    async def _recover_room(self, room: Room, generation: int) -> None:
        """Deliver the missed messages, part by part, then those that came meanwhile; or tell of a gap."""
        assert room.keep is not None
        page, reported = Page((), Position(0, ""), False, 1), False
        while page.rest:
            page = await self.once(
                "history", self.backend.history, room.topic, room.keep, room.last, None, self.recovered_bytes
            )
            if self._rooms.generation != generation or room.held is None:
                return
            if not reported:
                self._rooms.tell(
                    Recovery(topic=room.topic, recovered=page.recovered, messages=len(page.entries) + page.rest)
                )
                reported = True
            for entry in page.entries if page.recovered else ():
                self._rooms.pass_on(room, entry)
            if page.recovered and page.rest:
                self._rooms.flush()
                await asyncio.sleep(0)
        held = tuple(one for one in room.held or () if one.position is not None and not room.reached(one.position))
        if not page.recovered or (held and not _follows(held[0], room)):
            self._rooms.spread(room, resync(room.topic))
            room.last = None  # the gap is announced: the next message starts no second one
        self._release_held(room, held)
        if not page.recovered and not held:
            room.last = page.position
        self._rooms.flush()

    def _release_held(self, room: Room, held: Iterable[Entry]) -> None:
        room.held = None
        for entry in tuple(held):
            self._rooms.pass_on(room, entry)

    async def _track_again(self) -> None:
        await self.claim_anew()
        await self._attendance.tell_all_anew()
        for room in tuple(self._rooms.rooms.values()):
            if any(_watched(room.topic, station.topics) for station in room.stations):
                await self._refresh_members(room)
        self._rooms.flush()

    async def _refresh_members(self, room: Room) -> None:
        asking: list[tuple[Station, list[Change]]] = [(station, []) for station in room.stations]
        for station, came in asking:
            station.put(station.presence_asked, room.topic, came)
        self._rooms.flush()
        roster = None
        try:
            roster = await self.once("presence", self.backend.presence, room.topic)
        finally:
            for station, came in asking:
                station.put(station.presence_answered, room.topic, (roster, came))


async def _nothing() -> None: ...


def _follows(entry: Entry, room: Room) -> bool:
    position, last = entry.position, room.last
    if position is None or last is None:
        return True
    return position.epoch != last.epoch or position.offset == last.offset + 1


def _watched(topic: str, topics: Mapping[str, LocalTopic]) -> bool:
    local = topics.get(topic)
    return local is not None and local.audience is not None and local.audience.watching


async def _quietly(work: Callable[P, Awaitable[None]], *args: P.args, **kwargs: P.kwargs) -> None:
    try:
        await work(*args, **kwargs)
    except BackendUnavailable as error:
        logger.info("the backend is in trouble again: %s", shown(error))
    except Exception:
        logger.exception("work beside the hub's calls failed")


def _moves(access: BackendAccess, error: BackendUnavailable, name: str) -> bool:
    """The failed call may be done in another loop: the one it was done in has ended, or ends."""
    if isinstance(error, _Moved):
        return True
    return not access.ready and access.backend.loop is not None and not (error.uncertain and name == "publish")


async def _still_at(backend: Backend, home: asyncio.AbstractEventLoop, work: Callable[[], Awaitable[T]]) -> T:
    if backend.loop is not home:
        raise _Moved("the hub runs in another event loop now")
    return await work()
