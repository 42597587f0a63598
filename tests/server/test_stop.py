"""A stop in bounded time, with all kinds of clients and endpoints."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from typing import Any

import pytest

from antiphon.server import ServerConfig
from antiphon.server.stop import staggered, stop_times
from antiphon.testing import Server, VirtualTimeLoop
from antiphon.types import CARRIER_EXTENSION
from tests.patience import PATIENCE

from .raw import CLOSE, TEXT, connect, frame, opened, request, serving, until


def waiting(endings: list[Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
            await send({"type": "websocket.accept"})
            message = await receive()
            endings.append((message["code"], message["reason"]))
        except asyncio.CancelledError:
            endings.append("cancelled")
            raise

    return app


async def test_open_connections_hear_1012_spread_over_the_window() -> None:
    endings: list[Any] = []
    times: list[float] = []
    loop = asyncio.get_running_loop()
    limits = ServerConfig(stop_window=0.5)
    async with asyncio.timeout(PATIENCE), contextlib.AsyncExitStack() as stack:
        async with serving(waiting(endings), limits, lifespan="off", timeout_graceful_shutdown=None) as served:
            raws = [await stack.enter_async_context(opened(served.port)) for _ in range(20)]

            async def listen(raw: Any) -> None:
                end = await raw.frame()
                times.append(loop.time())
                assert end.code == 1012
                await raw.send(frame(CLOSE, end.payload))
                await raw.ended()

            listening = [asyncio.create_task(listen(raw)) for raw in raws]
            started = loop.time()
        await asyncio.gather(*listening)
    assert [ending[0] for ending in endings] == [1012] * 20
    assert max(times) - started >= 0.475  # the last of twenty has its moment in the window's last twentieth


async def test_clients_that_do_not_answer_and_endpoints_that_do_not_end_do_not_hold_up_a_stop() -> None:
    endings: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            endings.append("cancelled")
            raise

    limits = ServerConfig(stop_window=0.1, stop_grace=0.3, close_timeout=0.2)
    async with contextlib.AsyncExitStack() as stack:
        started = 0.0
        async with serving(app, limits, lifespan="off", timeout_graceful_shutdown=None) as served:
            for _ in range(5):
                raw = await stack.enter_async_context(opened(served.port))
                raw.stop_reading()
            started = asyncio.get_running_loop().time()
        took = asyncio.get_running_loop().time() - started
    assert endings == ["cancelled"] * 5
    assert took > 0.3


async def test_a_machine_without_time_for_a_stop_tells_everybody_before_it_aborts_anybody() -> None:
    endings: list[Any] = []
    limits = ServerConfig(stop_window=0.4, stop_grace=0.1, close_timeout=0.1)
    async with asyncio.timeout(PATIENCE), contextlib.AsyncExitStack() as stack:
        async with serving(waiting(endings), limits, lifespan="off", timeout_graceful_shutdown=None) as served:
            raws = [await stack.enter_async_context(opened(served.port)) for _ in range(20)]
            assert served.server is not None
            served.server.should_exit = True
            first = asyncio.create_task(raws[0].frame())
            while not endings:  # noqa: ASYNC110  at once, not a moment later
                await asyncio.sleep(0)
            time.sleep(1)  # noqa: ASYNC251  nothing of this process runs, and the window and the grace period are over
        ends = [await first, *[await raw.frame() for raw in raws[1:]]]
    assert [end.code for end in ends] == [1012] * 20


async def test_an_endpoint_that_has_not_noticed_its_client_leaving_does_not_hold_up_a_stop() -> None:
    endings: list[Any] = []
    carriers: list[Any] = []

    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        carriers.append(scope["extensions"][CARRIER_EXTENSION])
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await asyncio.Event().wait()
        finally:
            endings.append("cancelled")

    limits = ServerConfig(stop_window=0.0, stop_grace=0.01)
    async with asyncio.timeout(PATIENCE):
        async with serving(deaf, limits, lifespan="off", timeout_graceful_shutdown=None) as served:
            async with opened(served.port):
                pass
            await until(lambda: carriers[0].transport is None)
            assert endings == []
    assert endings == ["cancelled"]


def test_the_bound_of_a_stop_is_its_window_its_grace_and_the_time_for_the_last_close() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await asyncio.Event().wait()

    async def main() -> float:
        async with contextlib.AsyncExitStack() as stack:
            async with Server(app, config=ServerConfig(stop_window=2, stop_grace=5, close_timeout=3)) as server:
                for _ in range(5):
                    (await stack.enter_async_context(server.connect("/"))).pause_reading()
                started = asyncio.get_running_loop().time()
            return asyncio.get_running_loop().time() - started

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert 7 <= runner.run(main()) <= 2 + 5 + 3


async def test_uvicorns_own_timeout_bounds_the_stop() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.Event().wait()

    limits = ServerConfig(stop_window=10 * PATIENCE, stop_grace=10 * PATIENCE)
    async with contextlib.AsyncExitStack() as stack:
        async with serving(app, limits, lifespan="off", timeout_graceful_shutdown=1) as served:
            await stack.enter_async_context(opened(served.port))


async def test_a_handshake_that_waits_for_the_app_gets_503_with_retry_after() -> None:
    endings: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        endings.append(await receive())

    limits = ServerConfig(retry_after=7)
    async with contextlib.AsyncExitStack() as stack:
        async with serving(app, limits, lifespan="off") as served:
            raw = await stack.enter_async_context(connect(served.port))
            await raw.send(request())
            await until(lambda: served.server is not None and served.server.server_state.tasks)
        head, _, _ = (await raw.read_all()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 7" in head
    assert endings[0]["type"] == "websocket.disconnect"


async def test_a_request_that_comes_while_the_server_stops_gets_503() -> None:
    release = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})
            return
        await receive()
        await send({"type": "websocket.accept"})
        await release.wait()

    async with serving(app, ServerConfig(stop_window=0, stop_grace=2), lifespan="off") as served:
        async with connect(served.port) as second:
            async with opened(served.port) as first:
                await second.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await second.read_head()
                assert served.server is not None
                websocket = next(c for c in served.server.server_state.connections if hasattr(c, "engine"))
                websocket.shutdown()
                await second.send(request())
                assert (await second.read_head()).startswith(b"HTTP/1.1 503 ")
                assert (await first.frame()).code == 1012
                release.set()


async def test_what_was_sent_before_the_stop_arrives_before_the_1012() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.send", "text": "answer"})
        assert (await receive())["code"] == 1012

    async with contextlib.AsyncExitStack() as stack:
        async with serving(app, ServerConfig(stop_window=0), lifespan="off") as served:
            raw = await stack.enter_async_context(opened(served.port))
            await raw.send(frame(TEXT, b"question"))
            assert await raw.frame() == (TEXT, b"answer")
            closing = asyncio.create_task(raw.frame())
        assert (await closing).code == 1012


@pytest.mark.parametrize("bound", [None, 1.0, 30.0])
def test_the_times_of_a_stop_fit_its_bound(bound: float | None) -> None:
    times = stop_times(2.0, 5.0, 5.0, bound)
    assert times.window < times.cancel
    if bound == 1.0:
        assert times.cancel <= 0.9
    else:
        assert (times.window, times.cancel) == (2.0, 7.0)


def test_every_connection_has_its_moment_in_the_window_in_an_order_that_is_random() -> None:
    plan = staggered(range(100), 2.0, random.Random(1))
    assert sorted(entry for _, entry in plan) == list(range(100))
    assert [entry for _, entry in plan] != list(range(100))
    offsets = [offset for offset, _ in plan]
    assert offsets == sorted(offsets)
    assert offsets[0] >= 0
    assert offsets[-1] <= 2.0
    assert max(b - a for a, b in itertools.pairwise(offsets)) <= 0.04
    assert staggered([], 2.0, random.Random(1)) == []
