"""How long a crowd takes to join one topic with presence at once, until all of them know of all.

    python benchmarks/crowds.py [memory | relay | redis ...] [MEMBERS ...] [--servers N]     redis, 2 000, one

Each server is a process of its own (uvloop, the twin that is installed). Several share a relay or a redis-server. The
members are connected before, evenly over the servers. Then each asks to be let in, one after the other and without
waiting. Some of them are witnesses, who add their diffs up, and have to end with all members and nobody else. The
others only read. Needs redis-server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvloop

from beside import Client, Closed, Server, redis, server

WITNESSES: Final = 60
TOGETHER: Final = 50
PATIENCE: Final = 60.0

APP: Final = """
import os
from antiphon import App, Hub, TopicOptions, WebSocket
hub = Hub(os.environ["HUB"], topics={"crowd": TopicOptions(presence=True)})
app = App(hub=hub)

@app.websocket("/{user}")
async def member(websocket: WebSocket, hub: Hub, user: str) -> None:
    await websocket.accept()
    await websocket.receive_text()
    async with hub.join("crowd", websocket, presence=user):
        async for _ in websocket.iter_text():
            pass
"""


@contextlib.contextmanager
def hub(backend: str) -> Iterator[str]:
    """The URL."""
    if backend == "memory":
        yield "memory://"
    elif backend == "redis":
        with redis() as port:
            yield f"redis://127.0.0.1:{port}/0"
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "relay")
            with subprocess.Popen([sys.executable, "-m", "antiphon.hub.backends.relay", str(path)]) as relay:
                while not path.exists():
                    time.sleep(0.01)
                yield f"relay://{path}"
                relay.terminate()


async def first(client: Client) -> float:
    """The time at which it was in. It goes on reading."""
    await client.receive()
    told = time.perf_counter()
    asyncio.get_running_loop().create_task(discard(client))
    return told


async def discard(client: Client) -> None:
    while await client.read(1 << 18):
        pass


async def witness(client: Client, members: int) -> tuple[float, int]:
    """When it knew of all members, and how many events that took."""
    known: set[str] = set()
    events = 0
    while len(known) < members:
        event = json.loads(await client.receive())
        events += event["type"] == "presence_diff"
        known |= event.get("joins", {}).keys()
        known -= event.get("leaves", {}).keys()
    if known != {f"user{number}" for number in range(members)}:
        raise SystemExit("somebody is missing")
    return time.perf_counter(), events


async def crowd(servers: list[Server], members: int) -> str:
    clients: list[Client] = []
    while len(clients) < members:
        several = range(len(clients), min(members, len(clients) + TOGETHER))
        clients += await asyncio.gather(*(Client.open(servers[n % len(servers)].port, f"/user{n}") for n in several))
    spent = [one.cpu_seconds() for one in servers]
    ours = time.process_time()
    began = time.perf_counter()
    for client in clients:
        client.send("join")
    step = max(members // WITNESSES, 1)
    watching = [asyncio.create_task(witness(client, members)) for client in clients[::step]]
    others = [first(client) for number, client in enumerate(clients) if number % step]
    try:
        async with asyncio.timeout(PATIENCE):
            entered, found = await asyncio.gather(asyncio.gather(*others), asyncio.gather(*watching))
    except (TimeoutError, Closed) as error:
        return f"not all: {error!r} after {time.perf_counter() - began:.1f} s"
    ours = time.process_time() - ours
    spent = [one.cpu_seconds() - before for one, before in zip(servers, spent, strict=True)]
    return (
        f"in after {max(entered) - began:.2f} s, all known to all after {max(when for when, _ in found) - began:.2f} s,"
        f" by {max(events for _, events in found)} events; CPU time {', '.join(f'{one:.2f}' for one in spent)} s,"
        f" the clients' {ours:.2f} s"
    )


def row(backend: str, members: int, count: int) -> None:
    with hub(backend) as url, contextlib.ExitStack() as stack:
        servers = [stack.enter_context(server(APP, {"HUB": url})) for _ in range(count)]
        print(f"{backend}, {members} members, {count} servers: {uvloop.run(crowd(servers, members))}", flush=True)


def main(words: list[str]) -> None:
    count = 1
    if "--servers" in words:
        at = words.index("--servers")
        count = int(words.pop(at + 1))
    backends = [word for word in words if word in ("memory", "relay", "redis")] or ["redis"]
    for backend in backends:
        for members in [int(word) for word in words if word.isdigit()] or [2000]:
            row(backend, members, count)


if __name__ == "__main__":
    main(sys.argv[1:])
