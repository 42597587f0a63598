"""The lifespan of a router and of those it includes: one context, entered in order, left in the other order."""

from __future__ import annotations

import contextlib
import functools
import logging
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from antiphon import APIRouter, App, WebSocket
from antiphon.routing.lifespan import events, merged, normalize, warn_of_missed
from antiphon.testclient import TestClient

Lifespan = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]


def noting(notes: list[str], name: str, state: Mapping[str, Any] | None = None) -> Lifespan:
    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Mapping[str, Any] | None]:
        notes.append(f"{name} begins")
        yield state
        notes.append(f"{name} ends")

    return lifespan


def test_a_routers_own_lifespan_is_around_those_of_the_routers_it_includes() -> None:
    notes: list[str] = []
    inner, outer = APIRouter(lifespan=noting(notes, "inner")), APIRouter(lifespan=noting(notes, "outer"))
    outer.include_router(inner)
    app = App(lifespan=noting(notes, "app"))
    app.include_router(outer)
    with TestClient(app):
        assert notes == ["app begins", "outer begins", "inner begins"]
    assert notes[3:] == ["inner ends", "outer ends", "app ends"]


def test_a_router_that_is_included_twice_lives_once() -> None:
    notes: list[str] = []
    router = APIRouter(lifespan=noting(notes, "it"))
    app = App()
    app.include_router(router, prefix="/a")
    app.include_router(router, prefix="/b")
    with TestClient(app):
        assert notes == ["it begins"]


def test_all_states_are_one_and_the_outer_routers_keys_win() -> None:
    router = APIRouter(lifespan=noting([], "inner", {"who": "inner", "deep": 1}))
    app = App(lifespan=noting([], "outer", {"who": "outer"}))
    app.include_router(router)

    @app.websocket("/ws")
    async def tell(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json([websocket.state.who, websocket.state.deep])

    with TestClient(app) as client, client.websocket_connect("/ws") as session:
        assert session.receive_json() == ["outer", 1]


async def test_without_any_state_there_is_none() -> None:
    async with merged([noting([], "a")(None), noting([], "b")(None)]) as state:
        assert state is None


async def test_an_error_in_the_middle_leaves_what_was_entered() -> None:
    notes: list[str] = []

    @contextlib.asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise LookupError("no database")
        yield

    async def enter() -> None:
        async with merged([noting(notes, "first")(None), broken()]):
            notes.append("never")

    with pytest.raises(LookupError):
        await enter()
    assert notes == ["first begins"]  # its `yield` raised, as it does in any context manager


async def test_handlers_of_both_colours_run_in_order() -> None:
    notes: list[str] = []

    async def waits() -> None:
        notes.append("async")

    async with events([functools.partial(notes.append, "sync"), waits], [waits, lambda: notes.append("last")]):
        assert notes == ["sync", "async"]
    assert notes[2:] == ["async", "last"]


async def test_a_generator_function_is_as_good_as_a_context_manager() -> None:
    def plain(app: Any) -> Iterator[dict[str, Any]]:
        yield {"app": app}

    async def asynchronous(app: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"app": app}

    for function in (plain, asynchronous):
        lifespan = normalize(function)
        assert lifespan is not None
        async with lifespan("the app") as state:
            assert state == {"app": "the app"}


def test_a_function_that_cannot_end_is_refused_by_name() -> None:
    async def connect(app: Any) -> None: ...

    with pytest.raises(TypeError, match="connect has no `yield`"):
        normalize(connect)


@pytest.mark.parametrize(
    ("scope", "lines"),
    [
        ({"root_path": "/api", "app": object()}, 1),
        ({"root_path": "/api", "app_root_path": ""}, 1),
        ({"root_path": ""}, 0),
    ],
)
def test_a_lifespan_nobody_runs_is_told_of_where_the_cause_is_the_mount(
    scope: dict[str, Any], lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "antiphon"):
        warn_of_missed(scope, "guest.router.lifespan_context(guest)")
    assert len(caplog.records) == lines
    if lines:
        assert "mounted at '/api'" in caplog.text
        assert "async with guest.router.lifespan_context(guest): yield" in caplog.text


def test_a_decorated_lifespan_without_yield_is_refused() -> None:
    @contextlib.asynccontextmanager  # type: ignore[arg-type]
    async def connect(app: App) -> None: ...

    with pytest.raises(TypeError, match="connect has no `yield`"):
        App(lifespan=connect)
