"""The work in progress on one connection besides its line: requests in tasks of their own, and their deadlines.

Owns the tasks of streams and of handlers with `concurrent`, the rules for interrupting a request, and the one timer of
a connection. Knows nothing of frames or of a request's work.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Coroutine
from typing import Any, Final

from antiphon.connection import WebSocket

from .frames import Ref
from .shape import AnswerKind, HandlerShape


class Stage(enum.Enum):
    """The progress of a request, and the cause of its interruption: README.md has the table."""

    RUNNING = "running"
    EXPIRED = "expired"
    """Its time was up."""
    CANCELLED = "cancelled"
    """The client wanted no more of it."""
    ABANDONED = "abandoned"
    """The client is gone, or the server stops: nobody waits for an answer."""
    FINISHING = "finishing"
    """Its function is over; dependencies end, and the answer goes out. Nothing of ours interrupts that."""


class Running:
    """One request in progress."""

    __slots__ = ("due", "ref", "shape", "stage", "started", "task")

    def __init__(self, shape: HandlerShape, ref: Ref | None, own_task: asyncio.Task[Any] | None) -> None:
        self.shape: Final = shape
        self.ref: Final = ref
        self.task: asyncio.Task[Any] | None = own_task
        """The task that runs it. That of the connection for one in line. None: one that has not started."""
        self.started: bool = own_task is not None
        self.stage: Stage = Stage.RUNNING
        self.due: float | None = None

    def interrupt(self, stage: Stage) -> None:
        """Cancel the running request, unless it has been cancelled already or is finishing."""
        if self.stage is Stage.RUNNING:
            self.stage = stage
            if self.started and self.task is not None:  # a task cancelled before its start would not even report it
                self.task.cancel()

    def function_over(self) -> bool:
        """The function has returned or raised. Returns whether it was interrupted. The cancellation is taken back
        then."""
        if self.stage is Stage.RUNNING:
            self.stage = Stage.FINISHING
            return False
        if self.task is not None:
            self.task.uncancel()
        return True


class Requests:
    """The requests of one connection that are in progress, apart from quick ones in line."""

    __slots__ = (
        "_at_rest",
        "_changed",
        "_due",
        "_gone",
        "_loop",
        "_requests",
        "_tasks",
        "_timer",
        "_watched",
        "_websocket",
    )

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._loop = asyncio.get_running_loop()
        self._requests: dict[Any, Running] = {}
        """By ref; by itself where it has none."""
        self._tasks: dict[asyncio.Task[None], Running] = {}
        """Of the requests that are not in line."""
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        """The time at which the timer runs. uvloop's handle cannot say once it is almost due."""
        self._changed: asyncio.Future[None] | None = None
        self._at_rest: Callable[[], None] | None = None
        self._watched = False
        self._gone = False

    # Requests in progress

    def has(self, ref: Ref) -> bool:
        """Whether a request with this ref is in progress."""
        return ref in self._requests

    def count(self, shape: HandlerShape) -> int:
        """How many of a handler's there are."""
        return sum(request.shape is shape for request in self._requests.values())

    def streams(self) -> int:
        """How many streams there are."""
        return sum(request.shape.answer is AnswerKind.STREAM for request in self._requests.values())

    async def room(self, shape: HandlerShape) -> bool:
        """Wait until another request of the handler may start. False: the connection is over."""
        while not self._gone and self.count(shape) >= shape.concurrent:
            self._changed = self._loop.create_future()
            await self._changed
        return not self._gone

    def owes_answers(self) -> bool:
        """Whether there is a request beside the line other than a stream."""
        return any(request.shape.answer is not AnswerKind.STREAM for request in self._tasks.values())

    async def at_rest(self) -> None:
        """Wait until there is none."""
        while self.owes_answers():
            self._changed = self._loop.create_future()
            await self._changed

    def stop(self, at_rest: Callable[[], None] | None) -> None:
        """The server stops: streams end now, the others when they are answered. `at_rest` is called then."""
        for request in self._tasks.values():
            if request.shape.answer is AnswerKind.STREAM:
                request.interrupt(Stage.ABANDONED)
        self._at_rest = at_rest

    # Beginning and end

    def in_line(self, shape: HandlerShape, ref: Ref | None) -> Running:
        """A request in the connection's own task. `left` ends it."""
        task = asyncio.current_task()
        assert task is not None
        return self._entered(Running(shape, ref, task))

    def start(self, shape: HandlerShape, ref: Ref | None, work: Callable[[Running], Coroutine[Any, Any, None]]) -> None:
        """Run `work` in a task of its own."""
        self._watch()
        request = self._entered(Running(shape, ref, None))
        request.task = task = self._loop.create_task(self._run(request, work), name=f"antiphon.request {shape.name}")
        self._tasks[task] = request

    def _entered(self, request: Running) -> Running:
        self._requests[request if request.ref is None else request.ref] = request
        if request.shape.timeout is not None:
            request.due = self._loop.time() + request.shape.timeout
            self._arm(request.due)
        return request

    def left(self, request: Running) -> None:
        """The request is over."""
        request.due = None
        self._requests.pop(request if request.ref is None else request.ref, None)
        if self._at_rest is not None and not self.owes_answers():
            self._at_rest()
            self._at_rest = None
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    async def _run(self, request: Running, work: Callable[[Running], Coroutine[Any, Any, None]]) -> None:
        request.started = True
        try:
            await work(request)
        finally:
            if request.task is not None:
                self._tasks.pop(request.task, None)
            self.left(request)

    def cancel(self, ref: Ref) -> None:
        """The client wants no more of a request. One that is not there, or in line, is let be."""
        request = self._requests.get(ref)
        if request is not None:
            request.interrupt(Stage.CANCELLED)

    async def end(self) -> None:
        """The connection is over: cancel the requests in tasks, and wait for the ends of all."""
        self._gone = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._watched:
            self._websocket.sink.off_close(self._on_close)
        interrupted: asyncio.CancelledError | None = None
        while self._tasks:
            for request in self._tasks.values():
                request.interrupt(Stage.ABANDONED)
            try:
                await asyncio.wait(list(self._tasks))
            except asyncio.CancelledError as again:  # the canceller does not want to wait for teardowns
                interrupted = again
                for task in self._tasks:
                    task.cancel()
        if interrupted is not None:
            raise interrupted

    def _watch(self) -> None:
        """Learn of the connection's end also while nothing is received."""
        if not self._watched:
            self._watched = True
            if self._websocket.closed is None:  # asking starts the watch on servers that do not tell
                self._websocket.sink.on_close(self._on_close)

    def _on_close(self) -> None:
        self._gone = True
        for request in self._tasks.values():
            request.interrupt(Stage.ABANDONED)
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    # Deadlines

    def _arm(self, due: float) -> None:
        if self._timer is None or due < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due = due
            self._timer = self._loop.call_at(due, self._expire)

    def _expire(self) -> None:
        """The timer fires for the request that was due first when it was set, which is usually over by now."""
        self._timer = None
        now = self._loop.time()
        due = [request for request in self._requests.values() if request.due is not None]
        for request in due:
            if request.due is not None and request.due <= now:
                request.due = None
                request.interrupt(Stage.EXPIRED)
        if (next_due := min((request.due for request in due if request.due is not None), default=None)) is not None:
            self._arm(next_due)
