"""The cost of a channel beside a plain endpoint, without the server: CPU microseconds per message, best of several
runs.

    python benchmarks/channel_micro.py [--check]

A carrier that hands out the same message again and again takes the server's place, so that only the framework is
measured. `by hand` is a loop that validates with pydantic and calls a function. Behind the figures stand the promises
and their limits. `--check` fails where a figure is over its limit by more than `limits.py` allows.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Annotated, Any

from pydantic import BaseModel, create_model

from antiphon import App, Depends, Hub, Topics, WebSocket, WebSocketDisconnect
from antiphon.messages import Wire
from antiphon.messages.frames import Frames
from limits import verdict

MESSAGES = 500
RUNS = 250
IDLE = 2000
TYPES = 500
BROADCASTS = 200

FIELDS = '"text":"hi hi hi hi hi hi hi hi hi","number":12345,"name":"ann the great of the north"}'
EVENT = '{"type":"say",' + FIELDS
REQUEST = '{"type":"say","ref":1,' + FIELDS


class Say(BaseModel):
    text: str
    number: int
    name: str


async def session() -> AsyncIterator[int]:
    yield 1


MEASURED = {
    "receive_json / send_json": ("/json", EVENT),
    "typed echo, an event": ("/echo", EVENT),
    "typed echo, a request": ("/echo", REQUEST),
    "validate and call, by hand": ("/hand", EVENT),
    "a handler": ("/noop", EVENT),
    "one async generator each": ("/generator", EVENT),
}

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
    """A carrier with one message, `count` times. Then the end, or silence for ever."""

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


async def costs() -> dict[str, float]:
    """CPU microseconds per message of each, in turns: other load on the machine slows all of them."""
    best = dict.fromkeys(MEASURED, float("inf"))
    gc.disable()
    for _ in range(RUNS):
        for name, (path, text) in MEASURED.items():
            carrier = Endless(text, MESSAGES)
            started = time.process_time()
            await app(scope_of(path, carrier), carrier.asgi_receive, carrier.asgi_send)
            best[name] = min(best[name], (time.process_time() - started) / MESSAGES * 1e6)
    gc.enable()
    return best


async def memory(path: str) -> float:
    silence = asyncio.get_running_loop().create_future()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tasks = []
    for _ in range(IDLE):
        carrier = Endless("", 0, silence)
        tasks.append(asyncio.create_task(app(scope_of(path, carrier), carrier.asgi_receive, carrier.asgi_send)))
    await asyncio.sleep(0.1)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    silence.set_result(None)
    await asyncio.gather(*tasks)
    return held / IDLE


def start() -> float:
    """Milliseconds that the start of a channel with many types of messages takes."""
    many = App()
    room = many.add_channel("/many")
    kinds = [create_model(f"Kind{number}", text=(str, ...), number=(int, 0)) for number in range(TYPES)]
    started = time.process_time()
    for kind in kinds:

        async def handle(message: Any) -> None: ...

        handle.__annotations__["message"] = kind
        room.on(kind.__name__.lower())(handle)
    carrier = Endless('{"type":"kind7","text":"hi"}', 1)
    asyncio.run(many(scope_of("/many", carrier), carrier.asgi_receive, carrier.asgi_send))
    return (time.process_time() - started) * 1e3


async def broadcasts() -> tuple[float, float]:
    """CPU microseconds of a typed topic's publish to nobody, and of `hub.publish` of the same text, in turns."""
    rooms = Topics("room/{room}", Say)
    hub = Hub(topics=[rooms])
    said = Say(text="hi hi hi hi hi hi hi hi hi", number=12345, name="ann the great of the north")
    async with hub:
        topic = rooms(hub=hub, room="7")
        found: dict[str, float] = {}
        for _ in range(RUNS):
            for name in ("typed", "hub"):
                started = time.process_time()
                for _ in range(BROADCASTS):
                    await (topic.publish(said) if name == "typed" else hub.publish("room/7", said))
                found[name] = min(found.get(name, float("inf")), (time.process_time() - started) / BROADCASTS * 1e6)
    return found["typed"], found["hub"]


async def main() -> dict[str, tuple[float, float]]:
    cost = await costs()
    echo, noop = cost["receive_json / send_json"], cost["a handler"]
    for name, microseconds in cost.items():
        print(f"{name:28}{microseconds:8.2f} µs")
    typed, untyped = await broadcasts()
    print(f"{'publish to a typed topic':28}{typed:8.2f} µs")
    print(f"{'hub.publish':28}{untyped:8.2f} µs")
    plain_bytes, idle_bytes = await memory("/plain"), await memory("/idle")
    print(f"{'an idle plain connection':28}{plain_bytes:8.0f} B")
    print(f"{'an idle channel':28}{idle_bytes:8.0f} B")
    return {
        "typed echo, an event : by hand": (cost["typed echo, an event"] / echo, 1.1),
        "typed echo, a request : by hand": (cost["typed echo, a request"] / echo, 1.1),
        "dispatch, µs": (noop - cost["validate and call, by hand"], 0.5),
        "one async generator, µs": (cost["one async generator each"] - noop, 6.0),
        "typed topic : hub.publish": (typed / untyped, 1.1),
        "idle, bytes over plain": (idle_bytes - plain_bytes, 512),
    }


if __name__ == "__main__":
    results = asyncio.run(main())
    results[f"start of {TYPES} types, ms"] = (start(), 1000)
    sys.exit(verdict(results))
