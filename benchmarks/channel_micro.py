"""What a channel costs beside a plain endpoint, without the server: CPU microseconds per message, best of several runs.

    python benchmarks/channel_micro.py

A carrier that hands out the same message again and again takes the server's place, so that only the framework is
measured. `by hand` is a loop that validates with pydantic and calls a function. The last row is memory: what an idle
connection of a channel holds more than one of a plain endpoint.
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Annotated, Any

from pydantic import BaseModel

from antiphon import App, Depends, WebSocket, WebSocketDisconnect
from antiphon.messages import Wire
from antiphon.messages.frames import Frames

MESSAGES = 5000
RUNS = 25
IDLE = 2000

FIELDS = '"text":"hi hi hi hi hi hi hi hi hi","number":12345,"name":"ann the great of the north"}'
EVENT = '{"type":"say",' + FIELDS
REQUEST = '{"type":"say","ref":1,' + FIELDS


class Say(BaseModel):
    text: str
    number: int
    name: str


async def session() -> AsyncIterator[int]:
    yield 1


app = App()
echo = app.add_channel("/echo")
noop = app.add_channel("/noop")
generator = app.add_channel("/generator")


@echo.on("say")
async def say(message: Say) -> Say:
    return message


@noop.on("say")
async def do_nothing(message: Say) -> None: ...


@generator.on("say")
async def with_session(message: Say, session: Annotated[int, Depends(session)]) -> None: ...


@app.websocket("/json")
async def json_echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_json(await websocket.receive_json())
    except WebSocketDisconnect:
        pass


@app.websocket("/hand")
async def by_hand(websocket: WebSocket) -> None:
    await websocket.accept()
    envelope, validate = Frames(Wire()).read, Say.__pydantic_validator__.validate_json
    try:
        while True:
            text = await websocket.receive_text()
            envelope(text)
            await do_nothing(validate(text))
    except WebSocketDisconnect:
        pass


@app.channel("/idle")
async def idle(websocket: WebSocket) -> AsyncIterator[None]:
    yield


@app.websocket("/plain")
async def plain(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.receive_json()
    except WebSocketDisconnect:
        pass


class Endless:
    """A carrier with one message, `count` times; then the end, or silence for ever."""

    alive = True
    buffered = 0
    at_stop = close_code = closed_by = None
    close_reason = ""

    def __init__(self, text: str, count: int, silence: asyncio.Future[None] | None = None) -> None:
        self.left = count
        self.text = text
        self.silence = silence

    async def read(self) -> str | None:
        self.left -= 1
        if self.left < 0:
            if self.silence is not None:
                await self.silence
            return None
        return self.text

    def write(self, payload: str | bytes) -> bool:
        return True

    async def asgi_receive(self) -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def asgi_send(self, message: Any) -> None: ...


def scope_of(path: str, carrier: Endless) -> dict[str, Any]:
    extensions = {"antiphon.carrier": carrier}
    return {"type": "websocket", "path": path, "headers": [], "query_string": b"", "extensions": extensions}


async def cost(path: str, text: str) -> float:
    best = float("inf")
    for _ in range(RUNS):
        carrier = Endless(text, MESSAGES)
        started = time.process_time()
        await app(scope_of(path, carrier), carrier.asgi_receive, carrier.asgi_send)
        best = min(best, time.process_time() - started)
    return best / MESSAGES * 1e6


async def memory(path: str) -> float:
    silence = asyncio.get_running_loop().create_future()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tasks = []
    for _ in range(IDLE):
        carrier = Endless("", 0, silence)
        tasks.append(
            asyncio.create_task(app(scope_of(path, carrier), carrier.asgi_receive, carrier.asgi_send))  # type: ignore[arg-type]
        )
    await asyncio.sleep(0.1)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    silence.set_result(None)
    await asyncio.gather(*tasks)
    return held / IDLE


async def main() -> None:
    json_us, echo_us, asked_us = await cost("/json", EVENT), await cost("/echo", EVENT), await cost("/echo", REQUEST)
    hand_us, noop_us, generator_us = [await cost(path, EVENT) for path in ("/hand", "/noop", "/generator")]
    print(f"receive_json / send_json   {json_us:6.2f} µs")
    print(f"typed echo, an event       {echo_us:6.2f} µs   x {echo_us / json_us:.2f}")
    print(f"typed echo, a request      {asked_us:6.2f} µs   x {asked_us / json_us:.2f}")
    print(f"validate and call, by hand {hand_us:6.2f} µs")
    print(f"a handler                  {noop_us:6.2f} µs   + {noop_us - hand_us:.2f} µs")
    print(f"one async generator each   {generator_us:6.2f} µs   + {generator_us - noop_us:.2f} µs")
    plain_bytes, idle_bytes = await memory("/plain"), await memory("/idle")
    print(f"idle: plain {plain_bytes:.0f} B, channel {idle_bytes:.0f} B, + {idle_bytes - plain_bytes:.0f} B")


asyncio.run(main())
