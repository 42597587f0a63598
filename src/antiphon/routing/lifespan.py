"""The lifespan of a router and of the routers it includes, as one context.

Order: a router's own lifespan is entered before those of the routers it includes, each of them once, and left after
them. State: all mappings are merged, the outer router's keys win.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeAlias

from antiphon.dependencies.inspection import describe
from antiphon.shown import shown
from antiphon.types import Scope

logger: Final = logging.getLogger("antiphon")

State: TypeAlias = Mapping[str, Any] | None
Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Any]]


@contextlib.asynccontextmanager
async def _any() -> AsyncIterator[None]:
    yield


def _decorated(lifespan: Any) -> Any:
    """The function below `@asynccontextmanager`, which takes one without `yield`, too."""
    if getattr(lifespan, "__code__", None) is _any.__code__:
        return lifespan.__wrapped__
    return lifespan


def normalize(lifespan: Any) -> Lifespan | None:
    """A context manager factory out of a user's argument: one already, or a (deprecated) generator function.

    Raises TypeError for a function without `yield`, and for one that does not take the app.
    """
    if callable(lifespan) and not _takes_app(lifespan):
        raise TypeError(f"lifespan is called with the app, which {describe(lifespan)} does not take: lifespan(app)")
    if inspect.iscoroutinefunction(_decorated(lifespan)):
        raise TypeError(f"lifespan is an async context manager, and {describe(_decorated(lifespan))} has no `yield`")
    if inspect.isasyncgenfunction(lifespan):
        return contextlib.asynccontextmanager(lifespan)
    if inspect.isgeneratorfunction(lifespan):
        return _lifted(contextlib.contextmanager(lifespan))
    own: Lifespan | None = lifespan
    return own


def _takes_app(lifespan: Callable[..., Any]) -> bool:
    """False only where its signature says so."""
    try:
        inspect.signature(lifespan).bind(None)
    except TypeError:
        return False
    except ValueError:  # it has none that can be read
        return True
    return True


@contextlib.asynccontextmanager
async def events(startup: Sequence[Callable[[], Any]], shutdown: Sequence[Callable[[], Any]]) -> AsyncIterator[None]:
    """`on_startup` and `on_shutdown` handlers, sync or async, as a context."""
    for handler in startup:
        await _call(handler)
    yield
    for handler in shutdown:
        await _call(handler)


@contextlib.asynccontextmanager
async def merged(contexts: Iterable[AbstractAsyncContextManager[Any]]) -> AsyncIterator[State]:
    """Enter all, in order. The state is None when none of them has one (servers without lifespan state)."""
    async with contextlib.AsyncExitStack() as stack:
        states = [await stack.enter_async_context(context) for context in contexts]
        found = [state for state in states if state is not None]
        yield {key: value for state in reversed(found) for key, value in state.items()} if found else None


def warn_of_missed(scope: Scope, entering: str) -> None:
    """Log that the app of this scope has a lifespan that was not entered because the app is mounted."""
    if "app" in scope or "app_root_path" in scope:
        logger.warning(
            "the lifespan of the app mounted at '%s' has not run, because a server runs that of the outermost app "
            "alone: enter it in the lifespan of the app around it, with `async with %s: yield`",
            shown(scope.get("root_path", "")),
            entering,
        )


async def _call(handler: Callable[[], Any]) -> None:
    result = handler()
    if inspect.isawaitable(result):
        await result


def _lifted(factory: Callable[[Any], contextlib.AbstractContextManager[Any]]) -> Lifespan:
    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        with factory(app) as state:
            yield state

    return lifespan
