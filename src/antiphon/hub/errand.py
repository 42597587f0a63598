"""One call in place of many that ask the same at the same time. Knows nothing of the question."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from .errors import BackendUnavailable

T = TypeVar("T")


def _none() -> float:
    return 0.0


class Spawn(Protocol):
    """`BackendAccess.spawn`."""

    def __call__(self, work: Callable[[], Awaitable[None]], /) -> asyncio.Task[None]: ...


class Errand(Generic[T]):
    """One question of several callers, in one event loop. Nobody gets an answer that may be older than the question:

    | there is | a new caller |
    |---|---|
    | no call | makes one, alone and at once; after a pause, with all who ask until then |
    | a call that is still to begin | gets its answer |
    | a call that has begun | waits for the next one, which begins when this one is over |

    A caller that stops waiting takes nothing from the others. A failed call fails for all its waiters.
    """

    __slots__ = ("_alone", "_asked", "_begun", "_task")

    def __init__(self) -> None:
        self._alone = False
        """Somebody makes a call for itself alone, as most do: without a task of its own."""
        self._asked: asyncio.Future[T] | None = None
        """The answer of the call that is still to begin."""
        self._begun: asyncio.Future[T] | None = None
        self._task: asyncio.Task[None] | None = None

    async def answer(self, spawn: Spawn, call: Callable[[], Awaitable[T]], pause: Callable[[], float] = _none) -> T:
        """Of a call that begins from now on; all callers have the same `call`. `pause`: seconds until it may begin.

        Raises `BackendUnavailable`.
        """
        busy = self._alone or self._task is not None
        if not busy and pause() <= 0:
            return await self._ask_alone(spawn, call, pause)
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
        answer = self._asked
        if not busy:
            self._ask_together(spawn, call, pause)
        try:
            return await asyncio.shield(answer)
        except BackendUnavailable as error:
            # One error, raised by many, would collect the traces of all of them.
            raise BackendUnavailable(str(error), uncertain=error.uncertain) from None

    async def _ask_alone(self, spawn: Spawn, call: Callable[[], Awaitable[T]], pause: Callable[[], float]) -> T:
        self._alone = True
        try:
            return await call()
        finally:
            self._alone = False
            if self._asked is not None:
                self._ask_together(spawn, call, pause)

    def _ask_together(self, spawn: Spawn, call: Callable[[], Awaitable[T]], pause: Callable[[], float]) -> None:
        self._task = spawn(lambda: self._run(call, pause))
        self._task.add_done_callback(self._over)

    async def _run(self, call: Callable[[], Awaitable[T]], pause: Callable[[], float]) -> None:
        while self._asked is not None:
            if (seconds := pause()) > 0:
                await asyncio.sleep(seconds)
            answer, self._asked = self._asked, None
            self._begun = answer
            try:
                result = await call()
            except Exception as error:
                _fail(answer, error)
            else:
                answer.set_result(result)
            self._begun = None
        # At once, and not when the task is seen to be over: somebody may ask in between.
        self._task = None

    def _over(self, task: asyncio.Task[None]) -> None:
        """If it has not come to its end: it was cancelled, perhaps before it had begun, when the hub was stopped."""
        if self._task is not task:
            return
        self._task = None
        unanswered, self._asked, self._begun = (self._begun, self._asked), None, None
        for answer in unanswered:
            if answer is not None and not answer.done():
                _fail(answer, BackendUnavailable("the hub was stopped"))


def _fail(answer: asyncio.Future[T], error: Exception) -> None:
    answer.set_exception(error)
    answer.exception()  # an awaiting caller gets it; perhaps none is left
