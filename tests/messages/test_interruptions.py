"""What interrupts a request, and what no longer does: a commit that has begun, an answer that is owed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from antiphon import (
    App,
    BackgroundTasks,
    ChannelOptions,
    Depends,
    HTTPException,
    InvalidMessage,
    OnError,
    ServerConfig,
    WebSocket,
)
from antiphon.testing import Server, virtual_time
from tests.patience import PATIENCE


@pytest.mark.parametrize("by", ["cancel", "timeout", "close"])
@virtual_time
async def test_a_commit_that_has_begun_is_not_interrupted(by: str) -> None:
    app = App()
    chat = app.add_channel("/")
    committing, go = asyncio.Event(), asyncio.Event()
    committed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def session() -> AsyncIterator[None]:
        yield
        committing.set()
        try:
            await go.wait()
        except asyncio.CancelledError:
            committed.set_result(False)
            raise
        committed.set_result(True)

    @chat.on("save", concurrent=2, timeout=1 if by == "timeout" else None)
    async def save(session: None = Depends(session)) -> int:
        return 7

    @chat.on("ping")
    async def ping() -> None: ...

    async with Server(app) as server:
        async with server.connect("/") as peer:
            await peer.send_json({"type": "save", "ref": 1})
            await asyncio.wait_for(committing.wait(), PATIENCE)
            if by == "cancel":
                await peer.send_json({"type": "cancel", "ref": 1})
                await peer.send_json({"type": "cancel", "ref": 1})
                await peer.send_json({"type": "ping", "ref": 2})
                assert await peer.receive_json() == {"type": "reply", "ref": 2}
            elif by == "timeout":
                await asyncio.sleep(2)
            else:
                await peer.close()
            go.set()
            assert await asyncio.wait_for(committed, PATIENCE)
            if by != "close":
                assert await peer.receive_json() == {"type": "reply", "ref": 1, "data": 7}


async def test_whatever_runs_beside_the_line_ends_before_the_connection_function() -> None:
    ended: list[str] = []
    running, over = asyncio.Event(), asyncio.Event()
    app = App()

    @app.channel("/")
    async def chat(websocket: WebSocket) -> AsyncIterator[None]:
        try:
            yield
        finally:
            ended.append("connection")
            over.set()

    async def listening(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            ended.append(name)

    @chat.on("listen")
    async def listen() -> AsyncIterator[int]:
        yield 1
        await listening("stream")

    @chat.on("late", concurrent=2)
    async def late() -> None:
        running.set()
        await listening("late")

    @chat.on("quit")
    async def leave(websocket: WebSocket) -> None:
        raise InvalidMessage([{"type": "enough", "loc": (), "msg": "enough"}])

    async with Server(app) as server, server.connect("/") as peer:
        await peer.send_json({"type": "listen", "ref": 1})
        await peer.receive_json()
        await peer.send_json({"type": "late", "ref": 2})
        await asyncio.wait_for(running.wait(), PATIENCE)
        await peer.send_json({"type": "quit"})
        await asyncio.wait_for(over.wait(), PATIENCE)
        assert sorted(ended[:2]) == ["late", "stream"]
        assert ended[2:] == ["connection"]


async def test_a_stop_waits_for_answers_beside_the_line_also_behind_one_in_line() -> None:
    app = App()
    chat = app.add_channel("/")
    started, first, second = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @chat.on("late", concurrent=2)
    async def late() -> int:
        await second.wait()
        return 8

    @chat.on("say")
    async def say() -> int:
        started.set()
        await first.wait()
        return 7

    config = ServerConfig(stop_window=0.0, stop_grace=PATIENCE)
    async with Server(app, config=config) as server, server.connect("/") as peer:
        await peer.send_json({"type": "late", "ref": 1})
        await peer.send_json({"type": "late", "ref": 2})
        await peer.send_json({"type": "say", "ref": 3})
        await asyncio.wait_for(started.wait(), PATIENCE)
        await server.stop()
        first.set()
        assert await peer.receive_json() == {"type": "reply", "ref": 3, "data": 7}
        second.set()
        assert [(await peer.receive_json())["ref"] for _ in range(2)] == [1, 2]
        assert await peer.wait_closed() == 1012


async def test_an_idle_line_waits_for_all_answers_beside_it_before_it_stops() -> None:
    app = App()
    chat = app.add_channel("/")
    gates = {1: asyncio.Event(), 2: asyncio.Event()}
    both = asyncio.Semaphore(0)

    def handler(number: int) -> None:
        @chat.on(f"late{number}", concurrent=1 + number)
        async def late() -> int:
            both.release()
            await gates[number].wait()
            return number

    handler(1)
    handler(2)
    config = ServerConfig(stop_window=0.0, stop_grace=PATIENCE)
    async with Server(app, config=config) as server, server.connect("/") as peer:
        for number in gates:
            await peer.send_json({"type": f"late{number}", "ref": number})
            await asyncio.wait_for(both.acquire(), PATIENCE)
        await server.stop()
        for number, gate in gates.items():
            gate.set()
            assert await peer.receive_json() == {"type": "reply", "ref": number, "data": number}
        assert await peer.wait_closed() == 1012


@pytest.mark.parametrize("beside", ["stream", "concurrent"])
async def test_what_would_end_the_line_ends_the_connection_from_beside_it(
    beside: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(channel_options=ChannelOptions(on_error=OnError.CLOSE))
    chat = app.add_channel("/")

    def fail(error: str) -> None:
        if error == "peer":
            raise InvalidMessage([{"type": "enough", "loc": (), "msg": "enough"}])
        raise RuntimeError("nobody expected this")

    for error in ("peer", "bug"):
        if beside == "stream":

            @chat.on(error)
            async def stream(websocket: WebSocket, error: str = error) -> AsyncIterator[int]:
                yield 1
                fail(error)

        else:

            @chat.on(error, concurrent=2)
            async def concurrent(websocket: WebSocket, error: str = error) -> None:
                fail(error)

    async with Server(app) as server:
        for error, code in (("peer", 1007), ("bug", 1011)):
            async with server.connect("/") as peer:
                await peer.send_json({"type": error, "ref": 1})
                assert await peer.wait_closed() == code
    unexpected = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.exc_info is not None for record in unexpected] == [True]
    assert "nobody expected this" in caplog.text


@virtual_time
async def test_each_request_has_its_own_deadline_in_whatever_order_they_come() -> None:
    app = App()
    chat = app.add_channel("/")
    loop = asyncio.get_running_loop()

    def handler(seconds: int) -> None:
        @chat.on(f"wait{seconds}", concurrent=2, timeout=seconds)
        async def wait() -> None:
            await asyncio.Event().wait()

    deadlines = (10, 2, 20, 3)
    for seconds in deadlines:
        handler(seconds)
    async with Server(app) as server, server.connect("/") as peer:
        began = loop.time()
        for seconds in deadlines:
            await peer.send_json({"type": f"wait{seconds}", "ref": seconds})
        for seconds in sorted(deadlines):
            answer = await peer.receive_json(timeout=100)
            assert (answer["ref"], answer["code"]) == (seconds, "timeout")
            assert seconds <= loop.time() - began < seconds + 0.5


async def test_background_tasks_do_not_run_where_the_answer_is_an_error() -> None:
    app = App()
    chat = app.add_channel("/")
    ran: list[str] = []

    @chat.on("save")
    async def save(tasks: BackgroundTasks) -> None:
        tasks.add_task(ran.append, "saved")
        if not ran:
            return
        raise HTTPException(409)

    @chat.on("ping")
    async def ping() -> None: ...

    async with Server(app) as server, server.connect("/") as peer:
        for ref, kind in enumerate(("save", "ping", "save", "ping"), start=1):
            await peer.send_json({"type": kind, "ref": ref})
            assert (await peer.receive_json())["type"] == ("error" if ref == 3 else "reply")
    assert ran == ["saved"]


async def test_what_the_teardown_of_a_cancelled_request_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    chat = app.add_channel("/")

    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            raise RuntimeError("nothing was rolled back")

    @chat.on("listen")
    async def listen(session: None = Depends(session)) -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async with Server(app) as server, server.connect("/") as peer:
        await peer.send_json({"type": "listen", "ref": 1})
        await peer.receive_json()
        await peer.send_json({"type": "cancel", "ref": 1})
        assert await peer.receive_json() == {"type": "end", "ref": 1}
    assert "which was cancelled" in caplog.text
    assert "nothing was rolled back" in caplog.text
