"""Innocents beside clients that all come back at once and ask for the history that they missed.

    python benchmarks/returning.py [BACKEND ...] [CLIENTS] [--servers N]     memory, relay and redis, 1 000, one

`long` keeps 100 messages of 2 kB, which each of the clients reads. Meanwhile others connect and then join `short` with
its one message of history, and somebody waits for an echo. The clients are a process of their own. Needs redis-server
for redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import sys
import time
from typing import Final

import uvloop

from beside import Client, Closed
from beside import server as serving
from crowds import hub
from floods import shown

MESSAGES: Final = 100
SIZE: Final = 2000
JOINERS: Final = 4

APP: Final = f"""
import os
from antiphon import App, Hub, TopicOptions, WebSocket
hub = Hub(os.environ["HUB"], topics={{"long": TopicOptions(history={MESSAGES}), "short": TopicOptions(history=1)}})
app = App(hub=hub)

@app.websocket("/fill")
async def fill(websocket: WebSocket, hub: Hub) -> None:
    await websocket.accept()
    for number in range({MESSAGES}):
        await hub.publish("long", f"{{number:0{SIZE}}}")
    await hub.publish("short", "here")
    await websocket.send_text("filled")

@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)

@app.websocket("/{{topic}}/{{count}}")
async def join(websocket: WebSocket, hub: Hub, topic: str, count: int) -> None:
    await websocket.accept()
    await websocket.receive_text()
    async with hub.join(topic, websocket, history=count):
        async for _ in websocket.iter_text():
            pass
"""


async def come_back(port: int, closed: list[object]) -> None:
    try:
        client = await Client.open(port, f"/long/{MESSAGES}")
        client.send("join")
        left = MESSAGES * (SIZE + 4)
        while left > 0:
            data = await client.read(1 << 18)
            if not data:
                raise Closed(1006)
            left -= len(data)
    except (Closed, OSError) as error:
        closed.append(error.args[0])


async def crowd(ports: list[int], clients: int) -> tuple[float, list[object]]:
    """Seconds until all are back, and the closed ones."""
    closed: list[object] = []
    began = time.monotonic()
    await asyncio.gather(*(come_back(ports[number % len(ports)], closed) for number in range(clients)))
    return time.monotonic() - began, closed


async def joining(port: int, over: asyncio.Future[object], took: list[float], closed: list[object]) -> None:
    while not over.done():
        try:
            client = await Client.open(port, "/short/1")
            began = time.monotonic()
            client.send("join")
            await client.receive()
            took.append(time.monotonic() - began)
            client.cut()
        except (Closed, OSError) as error:
            closed.append(error.args[0])
        await asyncio.sleep(0.01)


async def talking(port: int, over: asyncio.Future[object], took: list[float]) -> None:
    client = await Client.open(port, "/echo")
    while not over.done():
        began = time.monotonic()
        client.send("hello")
        await client.receive()
        took.append(time.monotonic() - began)
        await asyncio.sleep(0.005)


async def row(ports: list[int], clients: int) -> str:
    filler = await Client.open(ports[0], "/fill")
    await filler.receive()
    joins: list[float] = []
    talks: list[float] = []
    closed: list[object] = []
    loop = asyncio.get_running_loop()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        over = loop.run_in_executor(None, pool.apply, away, (ports, clients))
        beside = [joining(port, over, joins, closed) for port in ports for _ in range(JOINERS)]
        await asyncio.gather(*beside, talking(ports[0], over, talks))
        seconds, lost = await over
    return (
        f"all back after {seconds:.2f} s; joins {shown(joins)}; echo {shown(talks)};"
        f" closed: {[*closed, *lost] or 'nobody'}"
    )


def away(ports: list[int], clients: int) -> tuple[float, list[object]]:
    return uvloop.run(crowd(ports, clients))


def main(words: list[str]) -> None:
    servers = int(words.pop(words.index("--servers") + 1)) if "--servers" in words else 1
    clients = [int(word) for word in words if word.isdigit()] or [1000]
    for backend in [word for word in words if word in ("memory", "relay", "redis")] or ["memory", "relay", "redis"]:
        with hub(backend) as url, contextlib.ExitStack() as stack:
            ports = [stack.enter_context(serving(APP, {"HUB": url}, quiet=True)).port for _ in range(servers)]
            text = uvloop.run(row(ports, clients[0]))
            print(f"{backend}, {clients[0]} clients, {servers} servers: {text}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
