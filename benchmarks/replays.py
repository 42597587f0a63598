"""Innocents beside clients that ask for a long history, read nothing, close, and come again.

    python benchmarks/replays.py [BACKEND ...]      memory, relay, redis; all three by default

For each backend a server in a process of its own (uvloop, the twin that is installed). `long` keeps 1 000 messages of
10 kB. Meanwhile somebody joins `short` again and again, with its one message of history; somebody else in `room` waits
for what they publish. Then once more with the greedy ones staying, for the server's memory for each.
Needs redis-server for redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from statistics import median, quantiles
from typing import Final

import uvloop

from beside import Client, Closed, Server, drain, redis, server

GREEDY: Final = 20
SECONDS: Final = 7.0
STAY: Final = 0.05
"""Seconds until a greedy one closes and comes again."""
STAYING: Final = 60
OUTBOX: Final = 1 << 20

APP: Final = f"""
import os
from antiphon import App, Hub, TopicOptions, WebSocket
topics = {{"long": TopicOptions(history=1000, outbox_bytes={OUTBOX}), "short": TopicOptions(history=1)}}
hub = Hub(os.environ["BACKEND"], topics=topics)
app = App(hub=hub)

@app.websocket("/fill")
async def fill(websocket: WebSocket, hub: Hub) -> None:
    await websocket.accept()
    for number in range(1000):
        await hub.publish("long", f"{{number:08}}" + "x" * 9992)
    await hub.publish("short", "here")
    await websocket.send_text("filled")

@app.websocket("/room")
async def room(websocket: WebSocket, hub: Hub) -> None:
    await websocket.accept()
    async with hub.join("room", websocket):
        async for text in websocket.iter_text():
            await hub.publish("room", text)

@app.websocket("/{{topic}}/{{count}}")
async def replay(websocket: WebSocket, hub: Hub, topic: str, count: int) -> None:
    await websocket.accept()
    await websocket.receive_text()
    async with hub.join(topic, websocket, history=count):
        async for _ in websocket.iter_text():
            pass
"""


async def greedy(port: int, until: float, came: list[int]) -> None:
    while time.monotonic() < until:
        client = await Client.open(port, "/long/1000", receive_buffer=4096)
        client.stop_reading()
        client.send("join")
        came.append(1)
        await asyncio.sleep(STAY)
        client.cut()


async def joining(port: int, until: float, took: list[float], closed: list[object]) -> None:
    while time.monotonic() < until:
        try:
            client = await Client.open(port, "/short/1")
            began = time.perf_counter()
            client.send("join")
            await client.receive()
            took.append(time.perf_counter() - began)
            await client.close()
        except Closed as error:
            closed.append(error.args[0])
        await asyncio.sleep(0.005)


async def talking(client: Client, until: float, took: list[float], closed: list[object]) -> None:
    try:
        while time.monotonic() < until:
            began = time.perf_counter()
            client.send("hello")
            await client.receive()
            took.append(time.perf_counter() - began)
            await asyncio.sleep(0.005)
    except Closed as error:
        closed.append(error.args[0])


async def beside(served: Server, attacked: bool) -> str:
    joins: list[float] = []
    talks: list[float] = []
    closed: list[object] = []
    came: list[int] = []
    talker = await Client.open(served.port, "/room")
    until = time.monotonic() + SECONDS
    tasks = [greedy(served.port, until, came) for _ in range(GREEDY if attacked else 0)]
    tasks += [joining(served.port, until, joins, closed), talking(talker, until, talks, closed)]
    await asyncio.gather(*tasks)
    await talker.close()
    return (
        f"{len(came):5} greedy joins: {len(joins)} innocent joins, p50 {median(joins) * 1e3:.1f} and"
        f" p99 {quantiles(joins, n=100)[98] * 1e3:.1f} ms; room p50 {median(talks) * 1e3:.1f} and"
        f" p99 {quantiles(talks, n=100)[98] * 1e3:.1f} ms; closed: {closed or 'nobody'}"
    )


async def holding(served: Server) -> str:
    """The memory of one that stays and reads nothing."""
    before = served.resident_bytes()
    crowd = [await Client.open(served.port, "/long/1000", receive_buffer=4096) for _ in range(STAYING)]
    for client in crowd:
        client.stop_reading()
        client.send("join")
    most, until = 0, time.monotonic() + 4
    while time.monotonic() < until:
        await asyncio.sleep(0.1)
        most = max(most, served.resident_bytes() - before)
    for client in crowd:
        client.cut()
    return (
        f"{STAYING} who read nothing: {most / STAYING / OUTBOX:.2f} times outbox_bytes each ({most >> 20} MiB in all)"
    )


async def row(backend: str) -> None:
    with contextlib.ExitStack() as stack:
        url = f"redis://127.0.0.1:{stack.enter_context(redis())}/0" if backend == "redis" else f"{backend}://"
        served = stack.enter_context(server(APP, {"BACKEND": url}))
        filler = await Client.open(served.port, "/fill")
        await filler.receive()
        await drain(filler)
        for attacked in (False, True):
            print(f"{backend:6} {await beside(served, attacked)}", flush=True)
        print(f"{backend:6} {await holding(served)}", flush=True)


async def main(backends: list[str]) -> None:
    for backend in backends:
        await row(backend)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1:] or ["memory", "relay", "redis"]))
