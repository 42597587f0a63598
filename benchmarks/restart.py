"""A clean restart of `antiphon run` under talking sockets: the time until everybody is back, and the lost messages.

    python benchmarks/restart.py [SOCKETS] [--workers N] [--rooms N] [--every SECONDS]     1 000, two, fifty, one

Each socket says something every second to its room, and notes the acknowledged messages. SIGTERM ends the server, and
the same command starts it again. A socket that was sent away comes back as the generated clients do: after a random
part of their delays, with the position of the last message that it has seen. The figures count from SIGTERM.
Everything that was acknowledged, before and after, has to reach everybody in the room once and in one order, and each
return has to be told `recovered: true`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import uvloop

from antiphon.clients.attempts import DELAYS
from beside import Client, Closed

APP: Final = """
from antiphon import App, Hub, Position, TopicOptions, WebSocket
from antiphon.hub import Framing

app = App(hub=Hub(topics={"*": TopicOptions(history=1000, framing=Framing.EVENT)}))

@app.websocket("/{room}")
async def talk(websocket: WebSocket, hub: Hub, room: str, since: Position | None = None) -> None:
    await websocket.accept()
    async with hub.join(room, websocket, since=since):
        async for text in websocket.iter_text():
            await hub.publish(room, text)
            await websocket.send_json({"type": "taken", "text": text})
"""
PATIENCE: Final = 60.0


class Member:
    """One page: talks, listens, and comes back."""

    def __init__(self, name: str, room: str, port: int, every: float) -> None:
        self.name, self.room, self.port, self.every = name, room, port, every
        self.position = ""
        self.heard: list[str] = []
        self.taken: list[str] = []
        self.recovered: list[bool] = []
        self.returned = 0.0
        self.talking = asyncio.Event()
        self._said = 0

    async def live(self) -> None:
        failures = 0
        while True:
            with contextlib.suppress(OSError, Closed, asyncio.IncompleteReadError):
                query = f"?since={self.position}" if self.position else ""
                client = await Client.open(self.port, f"/{self.room}{query}")
                failures = 0
                await self._stay(client)
            await asyncio.sleep(random.random() * DELAYS[min(failures, len(DELAYS) - 1)])
            failures += 1

    async def _stay(self, client: Client) -> None:
        talking = asyncio.create_task(self._talk(client))
        try:
            while True:
                self._note(json.loads(await client.receive()))
        finally:
            talking.cancel()
            await client.close()

    async def _talk(self, client: Client) -> None:
        await self.talking.wait()
        await asyncio.sleep(random.random() * self.every)
        while self.talking.is_set():
            self._said += 1
            client.send(f"{self.name} {self._said}")
            await asyncio.sleep(self.every)

    def _note(self, event: dict[str, object]) -> None:
        if event["type"] == "taken":
            self.taken.append(str(event["text"]))
            return
        if event["type"] == "joined":
            self.recovered.append(event["recovered"] is True)
            self.returned = time.perf_counter()
        elif event["type"] == "message":
            self.heard.append(str(event["data"]))
        if event["type"] == "message" or not self.position:
            self.position = f"{event['offset']}-{event['epoch']}"


@contextlib.asynccontextmanager
async def served(folder: str, port: int, workers: int) -> AsyncIterator[None]:
    command = [sys.executable, "-m", "antiphon", "run", "main:app", "--port", str(port), "--workers", str(workers)]
    env = {**os.environ, "ANTIPHON_RUN_STATE": str(Path(folder, "kept.state"))}
    process = await asyncio.create_subprocess_exec(*command, "--log-level", "warning", cwd=folder, env=env)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def until(true: Callable[[], bool], what: str) -> None:
    end = time.perf_counter() + PATIENCE
    while not true():
        if time.perf_counter() > end:
            raise SystemExit(f"not after {PATIENCE:.0f} s: {what}")
        await asyncio.sleep(0.02)


async def measure(folder: str, sockets: int, workers: int, rooms: int, every: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    people = [Member(f"m{number}", f"room{number % rooms}", port, every) for number in range(sockets)]
    tasks: list[asyncio.Task[None]] = []
    try:
        async with served(folder, port, workers):
            tasks = [asyncio.create_task(person.live()) for person in people]
            await until(lambda: all(person.recovered for person in people), "everybody is in")
            for person in people:
                person.talking.set()
            await until(lambda: all(len(person.taken) >= 3 for person in people), "everybody talks")
            before = sum(len(person.taken) for person in people)
            asked = time.perf_counter()
        stopped = time.perf_counter() - asked
        async with served(folder, port, workers):
            await until(lambda: all(person.returned > asked for person in people), "everybody is back")
            marks = [len(person.taken) for person in people]
            await until(
                lambda: all(len(person.taken) > mark for person, mark in zip(people, marks, strict=True)),
                "everybody talks again",
            )
            for person in people:
                person.talking.clear()
            await until(lambda: not lost(people), "everything acknowledged has come")
        back = sorted(person.returned - asked for person in people)
        print(f"{sockets:,} sockets in {rooms} rooms, {workers} workers, {before:,} acknowledged before SIGTERM")
        half, last = back[len(back) // 2], back[-1]
        print(f"stopped after {stopped:.1f} s; back: half after {half:.1f} s, all after {last:.1f} s")
        told = [word for person in people for word in person.recovered[1:]]
        print(f"recovered {sum(told):,} of {len(told):,}; acknowledged and lost {len(lost(people))}; {order(people)}")
    finally:
        for task in tasks:
            task.cancel()


def lost(people: list[Member]) -> set[str]:
    """Acknowledged messages that have not reached everybody of their room."""
    heard: dict[str, list[set[str]]] = {}
    for person in people:
        heard.setdefault(person.room, []).append(set(person.heard))
    return {text for person in people for text in person.taken if not all(text in one for one in heard[person.room])}


def order(people: list[Member]) -> str:
    wrong = 0
    for room in {person.room for person in people}:
        all_heard = [person.heard for person in people if person.room == room]
        longest = max(all_heard, key=len)
        places = {text: place for place, text in enumerate(longest)}
        for heard in all_heard:
            here = [places.get(text, -1) for text in heard]
            wrong += here != sorted(set(here)) or -1 in here
    return "one order for all" if not wrong else f"{wrong} SOCKETS WITH GAPS, REPEATS OR ANOTHER ORDER"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sockets", type=int, nargs="?", default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rooms", type=int, default=50)
    parser.add_argument("--every", type=float, default=1.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        Path(place, "main.py").write_text(APP)
        uvloop.run(measure(place, asked.sockets, asked.workers, asked.rooms, asked.every))
