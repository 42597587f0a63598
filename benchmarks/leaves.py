"""How long somebody's join with presence takes while many others are cut at once: a switch reboots. On Redis.

    python benchmarks/leaves.py [MEMBERS] [--told]      2 000 by default; half of them at a round trip of 20 ms

For each round trip to Redis a server in a process of its own (uvloop, the twin that is installed), a redis-server, and
between them a proxy that delays. All members are in one topic; their sockets are reset, one after the other. Innocents
have been connected before, and now join: half of them that topic, the others another. Seconds until they are in, the
slowest of those who asked within three seconds. `--told`: members get joins and leaves. Needs redis-server.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import Final

import uvloop

from beside import Client, drain, redis, server

ROUND_TRIPS: Final = (0.0, 0.001, 0.005, 0.020)
SECONDS: Final = 3.0
"""Somebody asks to be let in every so often, for so long after the cut. Longer than the grace of members."""
EVERY: Final = 0.1
TOGETHER: Final = 50
PATIENCE: Final = 60.0

APP: Final = """
import os
from antiphon import App, Hub, TopicOptions, WebSocket
told = bool(os.environ["TOLD"])
hub = Hub(os.environ["REDIS"], topics={"crowd": TopicOptions(presence=told), "people": TopicOptions(presence=told)})
app = App(hub=hub)

@app.websocket("/{topic}/{user}")
async def member(websocket: WebSocket, hub: Hub, topic: str, user: str) -> None:
    await websocket.accept()
    await websocket.receive_text()
    async with hub.join(topic, websocket, presence=user):
        if not told:
            await websocket.send_text('"in"')
        async for _ in websocket.iter_text():
            pass
"""


class Slow:
    """A line to a server on which everything takes `seconds` more in each direction, however much is under way."""

    def __init__(self, port: int) -> None:
        self.seconds = 0.0
        self._port = port

    async def serve(self) -> int:
        """Until the loop ends. The port."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
            await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer))
        except (OSError, asyncio.CancelledError):  # the row is over
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self.seconds:
                    loop.call_later(self.seconds, writer.write, data)
                else:
                    writer.write(data)
        loop.call_later(self.seconds, writer.close)


async def join(client: Client) -> float:
    """Seconds until the join is confirmed."""
    began = time.perf_counter()
    client.send("join")
    await client.receive()
    return time.perf_counter() - began


async def come(port: int, topic: str, user: str) -> Client:
    client = await Client.open(port, f"/{topic}/{user}")
    await join(client)
    asyncio.get_running_loop().create_task(drain(client))
    return client


async def row(members: int, round_trip: float, told: bool) -> None:
    with redis() as address:
        line = Slow(address)
        url = f"redis://127.0.0.1:{await line.serve() if round_trip else address}/0"
        with server(APP, {"REDIS": url, "TOLD": "yes" if told else ""}) as served:
            crowd: list[Client] = []
            began = time.perf_counter()
            while len(crowd) < members:
                several = range(len(crowd), min(members, len(crowd) + TOGETHER))
                crowd += await asyncio.gather(*(come(served.port, "crowd", f"user{n}") for n in several))
            filled = time.perf_counter() - began
            line.seconds = round_trip / 2
            took: dict[str, list[float]] = {"crowd": [], "people": []}
            waiting = [
                (number * EVERY, topic, await Client.open(served.port, f"/{topic}/innocent{number}"))
                for number in range(int(SECONDS / EVERY))
                for topic in took
            ]

            async def one(when: float, topic: str, client: Client) -> None:
                await asyncio.sleep(when)
                took[topic].append(await join(client))

            spent = served.cpu_seconds()
            for client in crowd:
                client.cut()
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*(one(*innocent) for innocent in waiting))
            spent = served.cpu_seconds() - spent
            line.seconds = 0
    there, elsewhere = (max(took[topic]) for topic in ("crowd", "people"))
    print(
        f"round trip {round_trip * 1e3:4.0f} ms, {members} members (in after {filled:.1f} s): slowest join"
        f" {there:.2f} s in their topic (the first {took['crowd'][0]:.2f}), {elsewhere:.2f} s in another;"
        f" the server's CPU time {spent:.2f} s",
        flush=True,
    )


async def main(members: int, told: bool) -> None:
    for round_trip in ROUND_TRIPS:
        await row(members // 2 if round_trip > 0.01 else members, round_trip, told)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    uvloop.run(main(numbers[0] if numbers else 2000, "--told" in sys.argv))
