"""The rows of `sieges.py` about the server's own process: descriptors, signals, crashes, logs, leaks, and Redis."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import uvloop

from beside import Client, Closed, Server, family, program, redis, resident_bytes
from besiegers import TOGETHER, call, enter, request, reset
from floods import ENDPOINTS, frame, talk
from kinds import Kind
from leaves import Slow

PATIENCE: Final = 15.0
MORE: Final = """
@app.websocket("/flood")
async def flood(websocket: WebSocket):
    await websocket.accept()
    while True:
        await websocket.send_text("x" * 65536)

@app.websocket("/denied")
async def denied(websocket: WebSocket):
    await websocket.close()
"""
STOCK: Final = "from fastapi import FastAPI, WebSocket\napp = FastAPI()\n" + ENDPOINTS + MORE
OURS: Final = (
    "import os\nfrom antiphon import App, Hub, WebSocket\n"
    'hub = Hub(os.environ["REDIS"]) if "REDIS" in os.environ else Hub()\napp = App(hub=hub)\n'
    + ENDPOINTS
    + MORE
    + """
@app.websocket("/room")
async def room(websocket: WebSocket, hub: Hub):
    await websocket.accept()
    async with hub.join("room", websocket):
        async for text in websocket.iter_text():
            await hub.publish("room", text)
"""
)


@dataclass(frozen=True, kw_only=True)
class Ordeal:
    """A row: what measures it, and the audit's figure."""

    measure: Callable[[Kind], str]
    audit: str
    stock: bool = True


@contextlib.contextmanager
def served_by(kind: Kind, workers: int = 1, **environment: str) -> Iterator[Server]:
    """One process of uvicorn; or several, of `antiphon run` where it is ours."""
    app = STOCK if kind is Kind.STOCK else OURS
    words = ("uvicorn", "beside_app:app", "--loop", "uvloop", *kind.words)
    if workers > 1 and kind is not Kind.STOCK:
        words = ("antiphon", "run", "beside_app:app")
    some = ("--workers", str(workers)) if workers > 1 else ()
    options = (*some, "--log-level", "warning", "--no-access-log")
    with program(app, {**kind.environment, **environment}, *words, *options, quiet=True) as served:
        yield served


async def until(true: Callable[[], bool], patience: float = PATIENCE) -> str:
    """How long it took, in words."""
    began = time.monotonic()
    while not true():
        if time.monotonic() > began + patience:
            return f"NOT AFTER {patience:.0f} s"
        await asyncio.sleep(0.01)
    return f"{time.monotonic() - began:.1f} s"


@contextlib.asynccontextmanager
async def crowd(served: Server, count: int, path: str = "/echo") -> AsyncIterator[list[Client]]:
    found: list[Client] = []
    small = 4096 if path == "/flood" else 0
    try:
        while len(found) < count:
            several = range(min(50, count - len(found)))
            found += await asyncio.gather(*(Client.open(served.port, path, receive_buffer=small) for _ in several))
        yield found
    finally:
        for client in found:
            client.cut()


async def code_of(client: Client) -> str:
    """What it is closed with; the same to a Close of ours."""
    try:
        while True:
            await asyncio.wait_for(client.receive(), PATIENCE)
    except Closed as error:
        if error.args[0] != 1006:
            client.close_with(error.args[0])
        return str(error)
    except TimeoutError:
        return "NONE"


def told(codes: list[str]) -> str:
    return "codes " + ", ".join(f"{code} x {count}" for code, count in Counter(codes).most_common())


# ---------------------------------------------------------------- descriptors


def descriptors(workers: int, kind: Kind) -> str:
    with served_by(kind, workers) as served:
        return uvloop.run(_descriptors(served, workers)) + kind.tracebacks(served.log)


async def _descriptors(served: Server, workers: int) -> str:
    """500 come to each process that may have 300; an innocent is there already, and 250 come when they are gone."""
    innocent = await Client.open(served.port, "/echo")
    async with crowd(served, 20 * workers):
        serving = [one for one in served.family() if len(os.listdir(f"/proc/{one}/fd")) > 15 or one == served.pid]
    for one in serving:
        resource.prlimit(one, resource.RLIMIT_NOFILE, (300, 300))
    held = []
    for _ in range(500 * workers):
        with contextlib.suppress(OSError):
            held.append(socket.create_connection(("127.0.0.1", served.port), 1))
    try:
        before = _cpu(serving)
        took = sorted(await asyncio.wait_for(talk(innocent, time.monotonic() + 4.0), PATIENCE))
        spent = (_cpu(serving) - before) / 4.0
        text = f"CPU {spent:.0%}, echo p99 {took[int(len(took) * 0.99)] * 1e3:.1f} ms"
    except (Closed, TimeoutError) as error:
        text = f"THE INNOCENT IS LOST ({error!r})"
    for sock in held:
        reset(sock)
    began = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE), crowd(served, 200):
            return f"{text}, 200 back after {time.monotonic() - began:.1f} s"
    except (Closed, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        return f"{text}, NOT ALL BACK ({error!r})"


def _cpu(processes: list[int]) -> float:
    return sum(Server(0, one, None, None).cpu_seconds() for one in processes)  # type: ignore[arg-type]


# ---------------------------------------------------------------- what stays of connections


def ended(sock: socket.socket) -> None:
    """Read to the end."""
    while sock.recv(1 << 16):
        pass


def _ways(path: str) -> list[tuple[bytes, bytes, bool]]:
    """Requests, what follows their answers, and whether the end is then waited for; else it is a reset."""
    close = frame(struct.pack(">H", 1000), 0x88)
    return [
        (request(path), frame(b"x" * 100, 0x81) + close, True),
        (request(path), frame(b"x" * 1000, 0x81) * 10 + frame(b"x" * 1000, 0x81)[:500], False),
        (request(path), frame(b"\xff", 0x81), True),
        (request(path, version=12), b"", True),
        (request("/denied"), b"", True),
        (request(path)[:50], b"", False),
    ]


def come_and_go(port: int, count: int, way: tuple[bytes, bytes, bool]) -> int:
    """So many connections that end in that way. 1: one did not, and those behind it were reset."""
    data, then, waits = way
    failed = 0
    for _ in range(count // TOGETHER):
        with contextlib.ExitStack() as stack:
            several = [call(port) for _ in range(TOGETHER)]
            for sock in several:
                stack.callback(reset, sock)
                sock.sendall(data)
            for sock in several:
                try:
                    if len(data) > 50:
                        sock.recv(4096)
                        sock.sendall(then)
                    if waits:
                        sock.settimeout(0.5)
                        ended(sock)
                except ConnectionError:
                    pass
                except TimeoutError:
                    failed, waits = 1, False
    return failed


def leaks(path: str, count: int, workers: int, kind: Kind) -> str:
    """Resident memory before and after, when half as many have been before."""
    with served_by(kind, workers) as served:
        enter(served.port, "/echo").close()
        for way in _ways(path):
            come_and_go(served.port, count // 4, way)
        before, sockets = _resident(served), _sockets(served)
        failed = sum(come_and_go(served.port, count, way) for way in _ways(path))
        time.sleep(0.5)
        late = f", {failed} ways NOT ENDED IN 0.5 s" if failed else ""
        return (
            f"{6 * count:,} connections{late}: {before} -> {_resident(served)} MiB,"
            f" {sockets} -> {_sockets(served)} descriptors{kind.tracebacks(served.log)}"
        )


def _resident(served: Server) -> str:
    return "+".join(f"{resident_bytes(one) / (1 << 20):.1f}" for one in served.family())


def _sockets(served: Server) -> int:
    return sum(len(os.listdir(f"/proc/{one}/fd")) for one in served.family())


# ---------------------------------------------------------------- signals


def sigterm(path: str, count: int, workers: int, kind: Kind) -> str:
    with served_by(kind, workers) as served:
        return uvloop.run(_sigterm(served, path, count)) + kind.tracebacks(served.log)


async def _sigterm(served: Server, path: str, count: int) -> str:
    processes = served.family()
    async with crowd(served, count, path) as clients:
        for client in clients if path == "/echo" else ():
            client.send("hello")
        await asyncio.sleep(0.5)
        hearing = [] if path == "/flood" else [asyncio.create_task(code_of(client)) for client in clients]
        served.process.send_signal(signal.SIGTERM)
        took = await until(lambda: served.process.poll() is not None)
        codes = told(await asyncio.gather(*hearing)) if hearing else "read nothing"
    return f"over after {took}, {codes}, {len(_left(processes))} processes left"


def _left(processes: list[int]) -> list[int]:
    return [one for number in processes for one in family(number) if _runs(one)]


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def sigkill(kind: Kind) -> str:
    with served_by(kind, 2) as served:
        processes = served.family()
        try:
            return uvloop.run(_sigkill(served))
        finally:
            for one in {*processes} & {*_left(processes)}:
                os.kill(one, signal.SIGKILL)


async def _sigkill(served: Server) -> str:
    async with crowd(served, 200) as clients:
        processes = served.family()[1:]
        hearing = [asyncio.create_task(code_of(client)) for client in clients]
        served.process.kill()
        took = await until(lambda: not _left(processes))
        codes = told(await asyncio.gather(*hearing))
    with socket.socket() as probe:
        free = probe.connect_ex(("127.0.0.1", served.port)) != 0
    return f"workers gone after {took}, {codes}, port {'free' if free else 'TAKEN'}"


def sighups(kind: Kind) -> str:
    with served_by(kind, 2) as served:
        return uvloop.run(_sighups(served))


async def _sighups(served: Server) -> str:
    """Ten, six of them within a second. What the supervisor holds."""

    def size() -> str:
        held = resident_bytes(served.pid) >> 20
        return f"{len(os.listdir(f'/proc/{served.pid}/fd'))} fds, {held} MiB, {len(served.family())} processes"

    (await Client.open(served.port, "/echo")).cut()
    await asyncio.sleep(1.0)
    before = size()
    for number in range(10):
        served.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(0.15 if number < 6 else 1.5)
    (await asyncio.wait_for(Client.open(served.port, "/echo"), PATIENCE)).cut()
    processes = int(before.split()[-2])
    took = await until(lambda: len(served.family()) == processes)
    return f"{before} -> {size()} after {took}"


# ---------------------------------------------------------------- logs, and Redis


def full_disk(workers: int, kind: Kind) -> str:
    app = STOCK if kind is Kind.STOCK else OURS
    words = ("antiphon", "run", "beside_app:app") if kind is not Kind.STOCK else ("uvicorn", "beside_app:app")
    some = ("--workers", str(workers)) if workers > 1 else ()
    with program(
        app, kind.environment, *words, *some, "--log-level", "trace", quiet=True, output="/dev/full"
    ) as served:
        return uvloop.run(_serves_and_stops(served))


async def _serves_and_stops(served: Server) -> str:
    client = await asyncio.wait_for(Client.open(served.port, "/echo"), PATIENCE)
    client.send("hello")
    assert await client.receive() == b"hello"
    served.process.send_signal(signal.SIGTERM)
    code = await code_of(client)
    return f"serves, and stops after {await until(lambda: served.process.poll() is not None)}, code {code}"


async def _published(port: int, within: float = PATIENCE) -> str:
    """Until somebody who joins hears what he publishes, in words."""
    began = time.monotonic()
    while time.monotonic() < began + within:
        with contextlib.suppress(Closed, OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(within):
                client = await Client.open(port, "/room")
                client.send("hello")
                assert await client.receive() == b"hello"
                client.cut()
                return f"{time.monotonic() - began:.1f} s"
        await asyncio.sleep(0.05)
    return f"NOT AFTER {within:.0f} s"


def distant_redis(kind: Kind) -> str:
    async def measure() -> str:
        with redis() as port:
            line = Slow(port)
            line.seconds = 0.25
            with served_by(kind, REDIS=f"redis://127.0.0.1:{await line.serve()}/0") as served:
                first = await _published(served.port)
                await _cut(port)
                return f"first publish after {first}; after a cut {await _published(served.port)}"

    return uvloop.run(measure())


def password(kind: Kind) -> str:
    async def measure() -> str:
        with redis() as port:
            await _tell(port, "CONFIG SET requirepass first")
            with served_by(kind, REDIS=f"redis://:first@127.0.0.1:{port}/0") as served:
                await _published(served.port)
                await _tell(port, "AUTH first", "CONFIG SET requirepass second", "CLIENT KILL SKIPME yes")
                await asyncio.sleep(2.0)
                await _tell(port, "AUTH second", "CONFIG SET requirepass first")
                back = await _published(served.port)
                shown = "; THE PASSWORD IS IN THE LOG" if "first@" in served.log.read_text() else ""
                await _tell(port, "AUTH first", "SCRIPT FLUSH SYNC")
                flushed = await _published(served.port)
                return f"back after {back}{shown}; scripts flushed: {flushed}{kind.tracebacks(served.log)}"

    return uvloop.run(measure())


async def _cut(port: int) -> None:
    await _tell(port, "CLIENT KILL SKIPME yes")


async def _tell(port: int, *commands: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for command in commands:
        writer.write(f"{command}\r\n".encode())
        answer = await reader.readline()
        if answer.startswith(b"-"):
            raise OSError(f"{command}: {answer!r}")
    writer.close()


ORDEALS: Final[dict[str, Ordeal]] = {
    "descriptors exhausted, 1 worker": Ordeal(
        measure=partial(descriptors, 1), audit="2 % CPU, innocent p99 1.3 ms, all back after"
    ),
    "descriptors exhausted, 2 workers": Ordeal(measure=partial(descriptors, 2), audit="the same"),
    "connections in six ways": Ordeal(
        measure=partial(leaks, "/echo", 3200, 1), audit="100 000: 49.9 -> 53.8 MiB, descriptors as before"
    ),
    "half joins and joins": Ordeal(
        measure=partial(leaks, "/room", 1600, 1), audit="10 000 with those above", stock=False
    ),
    "joins on the relay, 2 workers": Ordeal(
        measure=partial(leaks, "/room", 1600, 2),
        audit="60 000: workers level off at 119 MiB, relay at 35",
        stock=False,
    ),
    "SIGTERM, 2 000 talking": Ordeal(
        measure=partial(sigterm, "/echo", 2000, 1), audit="2.0 to 2.4 s, 1012 for all, no process left"
    ),
    "SIGTERM, 2 000 talking, 2 workers": Ordeal(measure=partial(sigterm, "/echo", 2000, 2), audit="the same"),
    "SIGTERM, 300 that read nothing": Ordeal(measure=partial(sigterm, "/flood", 300, 1), audit="7.2 s"),
    "SIGKILL of the supervisor": Ordeal(
        measure=sigkill, audit="workers and relay gone after 7.1 s, 1012 x 200, port free"
    ),
    "ten SIGHUPs": Ordeal(measure=sighups, audit="15 fds, 45 MiB, 5 processes throughout"),
    "password changed, scripts flushed": Ordeal(measure=password, audit="back after 1.7 s; not noticed", stock=False),
    "500 ms to Redis": Ordeal(measure=distant_redis, audit="starts in 4.0 s, back 3.6 s after a cut", stock=False),
    "logs on /dev/full": Ordeal(measure=partial(full_disk, 1), audit="serves and stops as ever"),
    "logs on /dev/full, 2 workers": Ordeal(measure=partial(full_disk, 2), audit="serves and stops as ever"),
}
