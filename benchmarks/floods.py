"""Innocents beside sockets that flood: their waits for an echo, for their own publish, and for a new connection.

    python benchmarks/floods.py [--stock] [ATTACK ...] [SOCKETS ...]     every attack, with 1, 10 and 100 sockets

For each row a server in a process of its own: uvloop, the twin that is installed (`ANTIPHON_PURE=1`: the other).
`--stock`: FastAPI on uvicorn's own protocol instead, which has no hub.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import selectors
import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable
from multiprocessing.synchronize import Event
from statistics import median, quantiles
from typing import Final

import uvloop

from beside import Client, Closed, Server, server

SECONDS: Final = 4.5
SOCKETS: Final = (1, 10, 100)
MASK: Final = b"\0\0\0\0"
CHUNK: Final = 1 << 17
PATIENCE: Final = 20.0

ENDPOINTS: Final = """
@app.websocket("/echo")
async def echo(websocket: WebSocket):
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)

@app.websocket("/read")
async def read(websocket: WebSocket):
    await websocket.accept()
    async for text in websocket.iter_text():
        pass

@app.websocket("/json")
async def json(websocket: WebSocket):
    await websocket.accept()
    while True:
        await websocket.receive_json()
"""
ROOM: Final = """
@app.websocket("/room/{name}")
async def room(websocket: WebSocket, hub: Hub, name: str):
    await websocket.accept()
    async with hub.join(name, websocket):
        async for text in websocket.iter_text():
            await hub.publish(name, text)
"""
APP: Final = "from antiphon import App, Hub, WebSocket\nhub = Hub()\napp = App(hub=hub)\n" + ENDPOINTS + ROOM
STOCK: Final = "from fastapi import FastAPI, WebSocket\napp = FastAPI()\n" + ENDPOINTS


def frame(payload: bytes, first: int) -> bytes:
    """Masked with zeros."""
    size = len(payload)
    if size < 126:
        return bytes((first, 0x80 | size)) + MASK + payload
    if size < 1 << 16:
        return bytes((first, 0x80 | 126)) + size.to_bytes(2) + MASK + payload
    return bytes((first, 0x80 | 127)) + size.to_bytes(8) + MASK + payload


def deflated(payload: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return frame((packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4], 0xC1)


def nested() -> bytes:
    return b"[" + b"[]," * 5_000_000 + b"[]]"


ATTACKS: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "bombs of 16 MiB": ("/read", lambda: deflated(b"x" * ((16 << 20) - 1))),
    "bombs of 64 KiB": ("/read", lambda: deflated(b"x" * 65535)),
    "16 MiB of [] as JSON": ("/json", lambda: deflated(nested())),
    "empty pings": ("/read", lambda: frame(b"", 0x89)),
    "one-byte texts": ("/read", lambda: frame(b"a", 0x81)),
    "small JSON": ("/json", lambda: frame(b'{"a":1}', 0x81)),
    "one-byte echoes": ("/echo", lambda: frame(b"a", 0x81)),
    "publishing to 300": ("/room/busy", lambda: frame(b"a", 0x81)),
    "texts, and away again": ("/read", lambda: frame(b"a", 0x81)),
}
RETURNING: Final = {"texts, and away again"}
"""Their sockets reset the connection when they have sent a chunk, and come again."""
RECEIVERS: Final = {"/room/busy": 300}
"""By path: those who are there besides, and only read."""


def flood(port: int, path: str, message: bytes, sockets: int, until: float, begun: Event, returning: bool) -> None:
    """As much as the server takes, from all of them. A closed one comes again. They are all in when it begins."""
    data = message * max(1, CHUNK // len(message))
    chooser = selectors.DefaultSelector()

    def come(events: int = selectors.EVENT_READ | selectors.EVENT_WRITE) -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n".encode()
        )
        if not returning:
            sock.recv(4096)
        sock.setblocking(False)
        chooser.register(sock, events, [0])

    for _ in range(RECEIVERS.get(path, 0)):
        come(selectors.EVENT_READ)
    for _ in range(sockets):
        come()
    begun.set()
    while time.monotonic() < until:
        for key, events in chooser.select(0.1):
            sock, place = key.fileobj, key.data
            assert isinstance(sock, socket.socket)
            try:
                if events & selectors.EVENT_READ and not sock.recv(1 << 16):
                    raise ConnectionResetError
                if events & selectors.EVENT_WRITE:
                    place[0] = (place[0] + sock.send(data[place[0] : place[0] + CHUNK])) % len(data)
                    if returning and not place[0]:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        raise ConnectionResetError
            except BlockingIOError:
                pass
            except OSError:
                chooser.unregister(sock)
                sock.close()
                come(key.events)


async def talk(client: Client, until: float) -> list[float]:
    took = []
    while (began := time.monotonic()) < until:
        client.send("hello")
        await client.receive()
        took.append(time.monotonic() - began)
        await asyncio.sleep(0.005)
    return took


async def connect(port: int, until: float) -> list[float]:
    took = []
    while (began := time.monotonic()) < until:
        client = await Client.open(port, "/echo")
        took.append(time.monotonic() - began)
        client.cut()
        await asyncio.sleep(0.05)
    return took


def shown(took: list[float] | BaseException) -> str:
    if isinstance(took, BaseException):
        return f"none ({type(took).__name__} {took})"
    p99 = quantiles(took, n=100)[98] if len(took) > 1 else took[0]
    return f"p50 {median(took) * 1e3:.1f}, p99 {p99 * 1e3:.1f}, max {max(took) * 1e3:.0f} ms ({len(took)})"


async def innocents(served: Server, stock: bool, ready: float) -> str:
    clients = [await Client.open(served.port, "/echo")]
    if not stock:
        clients.append(await Client.open(served.port, "/room/a"))
    await asyncio.sleep(max(0.0, ready - time.monotonic()))
    before, until = served.resident_bytes(), time.monotonic() + SECONDS
    work = [*(talk(client, until) for client in clients), connect(served.port, until)]
    found = await asyncio.gather(*(asyncio.wait_for(one, PATIENCE) for one in work), return_exceptions=True)
    grown = (served.resident_bytes() - before) >> 20
    names = ("echo", "connect") if stock else ("echo", "hub", "connect")
    return "; ".join(f"{name} {shown(took)}" for name, took in zip(names, found, strict=True)) + f"; +{grown} MiB"


async def answers(served: Server) -> None:
    """It is up: an earlier connection would wait for the start, and not for an attack."""
    (await Client.open(served.port, "/echo")).cut()


def row(attack: str, sockets: int, stock: bool) -> None:
    arguments = ("--ws", "websockets-sansio") if stock else ()
    with server(STOCK if stock else APP, {}, *arguments, quiet=True) as served:
        flooding = None
        uvloop.run(answers(served))
        if sockets:
            path, make = ATTACKS[attack]
            until = time.monotonic() + SECONDS + PATIENCE
            begun = multiprocessing.Event()
            how = (served.port, path, make(), sockets, until, begun, attack in RETURNING)
            flooding = multiprocessing.Process(target=flood, args=how)
            flooding.start()
            begun.wait(PATIENCE)
        try:
            text = uvloop.run(innocents(served, stock, time.monotonic() + 1.0))
        except (Closed, OSError) as error:
            text = f"none: {error!r}"
        finally:
            if flooding is not None:
                flooding.kill()
                flooding.join()
    print(f"{attack}, {sockets} sockets: {text}", flush=True)


def main(words: list[str]) -> None:
    stock = "--stock" in words
    attacks = [word for word in words if word in ATTACKS] or list(ATTACKS)
    sockets = [int(word) for word in words if word.isdigit()] or SOCKETS
    row("nothing", 0, stock)
    for attack in attacks:
        for count in () if stock and ATTACKS[attack][0] in RECEIVERS else sockets:
            row(attack, count, stock)


if __name__ == "__main__":
    main(sys.argv[1:])
