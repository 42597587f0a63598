"""When a hub runs: from somebody's `start`, or from its first use, to `stop` or the end of its event loop.

One change at a time, for all callers and loops: `_Transition` is a start or an end under way, and all who need its
outcome wait for the same one. A start belongs to none of its waiters: it runs in a task and in a context of its own,
bounded by the backend's `start_timeout`.

| | `start()` | is used | `stop()` | its loop ends |
|---|---|---|---|---|
| idle | runs | starts by itself | stopped | |
| runs | | | stopped | idle |
| stopped | runs | `HubNotRunning` | | |
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable

from .backend_access import BackendAccess, OnOutage
from .errors import BackendUnavailable, HubError, HubNotRunning
from .loops import LoopEnded, in_mortal_loop
from .rooms import Rooms
from .telling import PAUSES
from .workers import warn_of_others


class _Transition:
    """A start or an end that is under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.task: asyncio.Task[None] | None = None
        """Of a start."""
        self.outcome: concurrent.futures.Future[BaseException | None] = concurrent.futures.Future()
        """A start's error. None: look again how things stand."""

    async def over(self) -> BaseException | None:
        """Wait for it, in any loop. A waiter that is cancelled does not end it."""
        return await asyncio.shield(asyncio.wrap_future(self.outcome))

    def cancel(self) -> None:
        if self.task is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.task.cancel)


class Lifecycle:
    """Starts and ends a hub's access to its backend."""

    def __init__(self, access: BackendAccess, rooms: Rooms, url: str, before: Callable[[], None]) -> None:
        self._access = access
        self._rooms = rooms
        self._url = url
        self._unseen = access.in_process
        """It was not looked yet whether a hub in one process is enough here."""
        self._before = before
        """Called before each start."""
        self._stopped = False
        self._lock = threading.Lock()
        self._change: _Transition | None = None
        self._keeper: AsyncGenerator[None] | None = None
        access.wake = self.wake

    @property
    def startable(self) -> bool:
        """It does not run, and its next use starts it."""
        return not self._stopped and not self._access.ready

    def check(self) -> None:
        """Before each use. Raises `HubNotRunning` once it was stopped."""
        if self._unseen:
            self._unseen = False
            warn_of_others(self._url)
        if self._stopped and not self._access.in_process:
            raise HubNotRunning(
                f"the hub at {self._url} was stopped (its `async with` or its app's lifespan is over): start it again "
                "to use it (in tests: `with TestClient(app) as client:`)"
            )

    async def start(self) -> None:
        """Raises `BackendUnavailable`, HubError. A caller who is cancelled takes the start back that it began."""
        loop = _running_loop()
        self._stopped = False
        if self._access.in_process:
            self.check()
            await self._access.start()
        while not self._access.ready:
            change, mine = self._begin(loop)
            try:
                self._raise(await change.over())
            except asyncio.CancelledError:
                if mine and change.task is not None:
                    change.task.cancel()
                    await asyncio.wait([change.task])
                raise
            self.check()

    async def wake(self) -> None:
        """Be started for a call that is under way.

        Raises `BackendUnavailable`, as the hub's `on_outage` says, and where the hub was stopped meanwhile.
        """
        loop = _running_loop()
        deadline = loop.time() + (self._access.outage_timeout if self._access.on_outage is OnOutage.WAIT else 0.0)
        while not self._access.ready:
            if self._stopped:
                raise BackendUnavailable(f"the hub at {self._url} was stopped")
            change, _ = self._begin(loop)
            error = await change.over()
            if isinstance(error, BackendUnavailable) and loop.time() + PAUSES[0] < deadline:
                await asyncio.sleep(PAUSES[0])
            else:
                self._raise(error)

    async def stop(self) -> None:
        """Ends a start that is under way, too."""
        self._stopped = True
        ending = _Transition(_running_loop())
        while (change := self._claim(ending)) is not ending:
            change.cancel()
            await change.over()
        keeper, self._keeper = self._keeper, None
        try:
            home = self._access.backend.loop
            if home is None or home is ending.loop or not home.is_running():
                await self._access.stop()
            else:
                with contextlib.suppress(LoopEnded):  # it ends the access by itself, and nobody else can
                    await in_mortal_loop(home, self._access.stop)
        finally:
            self._done(ending, None)
        if keeper is not None:
            await keeper.aclose()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> tuple[_Transition, bool]:
        """The transition under way, else a start in this loop. True when this call began it."""
        start = _Transition(loop)
        change = self._claim(start)
        if change is start:
            start.task = loop.create_task(self._start(start), context=contextvars.Context())
        return change, change is start

    def _claim(self, change: _Transition) -> _Transition:
        with self._lock:
            if self._change is None or self._change.loop.is_closed():
                self._change = change
            return self._change

    def _done(self, change: _Transition, error: BaseException | None) -> None:
        with self._lock:
            if self._change is change:
                self._change = None
        change.outcome.set_result(error)

    async def _start(self, change: _Transition) -> None:
        error: BaseException | None = None
        try:
            if self._access.ready:
                return
            if self._access.running:
                self._access.abandon()
            self._before()
            await self._access.start()
            self._keeper = self._keep()
            await anext(self._keeper)
        except asyncio.CancelledError:
            raise
        except BaseException as raised:
            error = raised
        finally:
            self._done(change, error)
            del error

    async def _keep(self) -> AsyncGenerator[None]:
        """The event loop ends its async generators when all of its tasks have ended: that is how it tells us."""
        try:
            yield
        finally:
            if self._keeper is not None:
                self._keeper = None
                await self._loop_ends()

    async def _loop_ends(self) -> None:
        """Nobody has stopped the hub. It releases its resources in this loop, and starts again where it is needed."""
        loop = asyncio.get_running_loop()
        ending = _Transition(loop)
        while (change := self._claim(ending)) is not ending:
            await change.over()
        try:
            await self._access.stop()
        finally:
            self._done(ending, None)
        for station in tuple(self._rooms.stations.values()):
            if station.loop is not loop and station.loop.is_running():
                station.loop.call_soon_threadsafe(self._access.spawn, self.wake)
                return

    def _raise(self, error: BaseException | None) -> None:
        if isinstance(error, BackendUnavailable):
            raise BackendUnavailable(str(error)) from error  # each who waited gets one of its own
        if error is not None:
            raise error


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise HubError("a hub runs on asyncio, and this is another event loop (hypercorn's trio worker?)") from None
