"""One dependency with `yield`: entered before the endpoint, left after it.

Owns the exact meaning of leaving: the exception that ended the endpoint is raised at the `yield`. Swallowing it,
raising it again, raising another and yielding a second time are distinct cases. Knows nothing of plans or cancellation.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final, NoReturn

import anyio.to_thread
from starlette.concurrency import run_in_threadpool

from antiphon.exceptions import GeneratorError

from .limits import SupportsSemaphore

ENDED: Final = object()


class AsyncLife:
    """An async generator, run in the endpoint's own task and context.

    `calls.py` does the work of `enter` and `leave` by itself where there is no error: each saves it a coroutine.
    """

    __slots__ = ("entered", "generator", "label")

    def __init__(self, label: str, call: Callable[..., Any], values: dict[str, Any]) -> None:
        self.label: Final = label
        self.generator: Final[AsyncGenerator[Any, None]] = call(**values)
        self.entered: bool = False
        """It has yielded, and is to be left."""

    async def enter(self) -> Any:
        """The yielded value. Raises GeneratorError when there is none."""
        if (value := await self.begin()) is ENDED:
            raise GeneratorError(f"{self.label} did not yield")
        return value

    async def begin(self) -> Any:
        """The yielded value, or `ENDED` when there is none."""
        value = await anext(self.generator, ENDED)
        self.entered = value is not ENDED
        return value

    async def leave(self, error: BaseException | None) -> bool:
        """Run the code behind the `yield`. True when it swallowed `error`. Raises its exceptions."""
        if not self.entered:
            return False
        self.entered = False
        try:
            if error is None:
                await anext(self.generator)
            else:
                await self.generator.athrow(error)
        except StopAsyncIteration as stop:
            return error is not None and stop is not error
        except BaseException as raised:
            if _is_same(raised, error):
                return False
            raise
        await self.yielded_twice()
        return False

    async def yielded_twice(self) -> NoReturn:
        """Close it, and raise GeneratorError."""
        await self.generator.aclose()
        raise GeneratorError(f"{self.label} yielded twice")


class SyncLife:
    """A generator, run in the thread pool. Both halves see the context in which it was entered.

    Leaving does not wait for a free thread of the pool: if all its threads wait for a resource of this generator, none
    ever becomes free. A lock makes leaving wait for an entry whose awaiting task was cancelled.
    """

    __slots__ = ("_call", "_context", "_entered", "_generator", "_lock", "_values", "label")

    def __init__(self, label: str, call: Callable[..., Any], values: dict[str, Any]) -> None:
        self.label: Final = label
        self._call: Final = call
        self._values: Final = values
        self._context: Final = contextvars.copy_context()
        self._lock: Final = threading.Lock()
        self._generator: Generator[Any, None, None] | None = None
        self._entered = False

    async def enter(self) -> Any:
        """The yielded value. Raises GeneratorError when there is none."""
        value = await run_in_threadpool(self._alone, self._start)
        if value is ENDED:
            raise GeneratorError(f"{self.label} did not yield")
        return value

    async def leave(self, error: BaseException | None) -> bool:
        """Run the code behind the `yield`. True when it swallowed `error`. Raises its exceptions."""
        limiter = anyio.CapacityLimiter(1)
        # The canceller has waited long enough already. The thread goes on alone.
        outcome: bool | BaseException = await anyio.to_thread.run_sync(
            self._alone, self._finish, error, limiter=limiter, abandon_on_cancel=True
        )
        if isinstance(outcome, BaseException):
            raise_as_is(outcome)
        return outcome

    def _alone(self, half: Callable[..., Any], *arguments: Any) -> Any:
        # The lock outside: a context can be entered only once at a time.
        with self._lock:
            return self._context.run(half, *arguments)

    def _start(self) -> Any:
        self._generator = self._call(**self._values)
        value = next(self._generator, ENDED)
        self._entered = value is not ENDED
        return value

    def _finish(self, error: BaseException | None) -> bool | BaseException:
        """Whether `error` was swallowed, or the exception raised instead: raised here it would lose its context."""
        if not self._entered or self._generator is None:
            return False
        self._entered = False
        try:
            if error is None:
                next(self._generator)
            else:
                self._generator.throw(error)
        except StopIteration as stop:
            return error is not None and stop is not error
        except BaseException as raised:
            return False if _is_same(raised, error) else raised
        self._generator.close()
        return GeneratorError(f"{self.label} yielded twice")


def raise_as_is(error: BaseException) -> NoReturn:
    """Raise without losing the error's own context, which `raise` would replace by the exception being handled."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context


def _is_same(raised: BaseException, thrown: BaseException | None) -> bool:
    """True when a generator let the exception through that was thrown into it.

    Generators turn a StopIteration that passes through them into a RuntimeError (PEP 479).
    """
    if raised is thrown:
        return True
    return isinstance(thrown, (StopIteration, StopAsyncIteration)) and raised.__cause__ is thrown


class LimitLife:
    """A place among the concurrent runs of a dependency with `yield`, held until it has ended."""

    __slots__ = ("_held", "_semaphore")

    def __init__(self, limit: SupportsSemaphore) -> None:
        self._semaphore: Final = limit.get_semaphore()
        self._held = False

    async def enter(self) -> None:
        await self._semaphore.acquire()
        self._held = True

    async def leave(self, error: BaseException | None) -> bool:
        if self._held:
            self._held = False
            self._semaphore.release()
        return False


Life = AsyncLife | SyncLife | LimitLife
