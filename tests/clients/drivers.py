"""One way to drive the JavaScript runtime in Node.js and in Chromium."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from playwright.async_api import Page

from tests.node import tools
from tests.node.compile import CLIENTS
from tests.patience import PATIENCE

HERE = Path(__file__).parent


class ScriptError(Exception):
    """An error thrown in JavaScript."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error.get("message"))
        self.name = error.get("name")
        self.code = error.get("code")
        self.detail = error.get("detail")


class Evaluate(Protocol):
    def __call__(self, code: str, /) -> Awaitable[dict[str, Any]]: ...


class Driver:
    """A client in JavaScript. `run(code)` runs an async function's body with `client` and `driven`."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate

    async def run(self, code: str) -> Any:
        async with asyncio.timeout(PATIENCE):
            result = await self._evaluate(code)
        if "error" in result:
            raise ScriptError(result["error"])
        return result.get("value")

    async def open(self, url: str, options: str = "{}") -> None:
        await self.run(f"driven.open({json.dumps(url)}, {options})")

    async def opened(self, url: str, options: str = "{}") -> None:
        await self.open(url, options)
        await self.run("await client.opened()")

    async def state(self) -> dict[str, Any]:
        return dict(await self.run("return client.state"))

    async def events(self, kind: str | None = None) -> list[Any]:
        found = await self.run("return driven.events")
        return [event for event in found if kind is None or (isinstance(event, dict) and event.get("type") == kind)]

    async def until(self, code: str) -> None:
        """Wait until an expression is true."""
        await self.until_true(lambda: self.run(f"return Boolean({code})"))

    async def until_true(self, ask: Callable[[], Awaitable[object]]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not await ask():  # noqa: ASYNC110  what is asked knows nothing of events here
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def node(runtime: Path = CLIENTS / "runtime.js") -> AsyncGenerator[Driver]:
    process = await asyncio.create_subprocess_exec(
        *("node", HERE / "node.mjs", runtime, tools() / "ws" / "wrapper.mjs"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 26,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    numbers = itertools.count()
    waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def evaluate(code: str) -> dict[str, Any]:
        assert process.stdin is not None
        number = next(numbers)
        waiting[number] = asyncio.get_running_loop().create_future()
        process.stdin.write(json.dumps({"id": number, "code": code}).encode() + b"\n")
        return await waiting[number]

    async def listen(stdout: asyncio.StreamReader) -> None:
        async for line in stdout:
            answer = json.loads(line)
            waiting.pop(answer.pop("id")).set_result(answer)
        for future in waiting.values():
            future.set_exception(RuntimeError("node has ended"))

    listening = asyncio.create_task(listen(process.stdout))
    errors = asyncio.create_task(process.stderr.read())
    try:
        yield Driver(evaluate)
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            process.kill()
        await listening
        said = await errors
    assert process.returncode == 0, said.decode()
    assert said == b"", said.decode()


async def in_page(page: Page, http_url: str) -> Driver:
    """A page that a server sent, with the runtime that the server sends."""
    await page.goto(http_url)
    harness = (HERE / "harness.mjs").read_text().replace("export class", "globalThis.Driven = class")
    await page.evaluate(f"{harness}\n0")
    await page.evaluate(
        "async () => { const { Client } = await import('/antiphon.js'); globalThis.driven = new Driven(Client, {}); }"
    )

    async def evaluate(code: str) -> dict[str, Any]:
        return dict(await page.evaluate("code => driven.run(code)", code))

    return Driver(evaluate)
