"""Servers that die under traffic: where a client says that it recovered, nothing is missing, doubled or misplaced."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from antiphon.clients.runtime import Client
from tests.browser.cable import Cable
from tests.patience import PATIENCE

from .crashes import KILLS, crashing, serving
from .drivers import Driver

pytestmark = pytest.mark.asyncio(loop_scope="session")

NUMBERS = "driven.events.filter(({ type }) => type === 'message').map(({ data }) => data.n)"


async def test_a_page_misses_nothing_of_a_server_that_is_killed_again_and_again(driver: Driver) -> None:
    async with asyncio.timeout(2 * PATIENCE), crashing() as server:
        await driver.opened(server.url)

        async def received() -> int:
            return int(await driver.run(f"return ({NUMBERS}.at(-1) ?? -1) + 1"))

        total = await server.go_through(received)
        numbers = await driver.run(f"return {NUMBERS}")
        assert numbers == list(range(numbers[0], total))
        assert await driver.run("return driven.recovered.map(({ recovered }) => recovered)") == [True] * KILLS


async def test_a_python_client_misses_nothing_of_a_server_that_is_killed_again_and_again() -> None:
    events: list[dict[str, Any]] = []

    def numbers() -> list[int]:
        return [event["data"]["n"] for event in events if event["type"] == "message"]

    async with asyncio.timeout(2 * PATIENCE), crashing() as server, Client[dict[str, Any]](server.url) as client:

        async def read() -> None:
            async for event in client:
                events.append(event)  # noqa: PERF401  they are looked at meanwhile

        async def received() -> int:
            return max(numbers(), default=-1) + 1

        reading = asyncio.create_task(read())
        total = await server.go_through(received)
        assert numbers() == list(range(numbers()[0], total))
        joins = [event["recovered"] for event in events if event["type"] == "joined"]
        assert joins == [False, *[True] * KILLS]
        await client.close()
        await reading


async def test_a_page_is_told_when_what_it_missed_is_gone(driver: Driver) -> None:
    async with Cable(0) as cable, contextlib.AsyncExitStack() as stack:
        async with serving() as server:
            cable.target = server.port
            await driver.opened(f"ws://127.0.0.1:{cable.port}/rooms/a?history=5")
            await driver.run("client.send({ n: 1 })")
            await driver.until("driven.events.some(({ type }) => type === 'message')")
            server.process.kill()
            await server.process.wait()
        cable.target = (await stack.enter_async_context(serving())).port
        await driver.until("driven.recovered.length")
        assert await driver.run("return driven.recovered") == [{"topic": "room/a", "recovered": False}]
        await driver.run("client.send({ n: 2 })")
        await driver.until("driven.events.filter(({ type }) => type === 'message').length === 2")
