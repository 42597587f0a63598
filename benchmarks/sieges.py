"""What an innocent waits for, and what the server holds, beside attacks and in trouble: ours beside stock FastAPI.

    python benchmarks/sieges.py [--server native|pure|stock ...] [--row WORDS ...] [--list]    native, stock; all rows

For each row and server a process of its own, on loopback and a free port. A row takes some 20 s at most, all of them
with native and stock six minutes. `audit` is what a stranger's probes measured before: first ours, then stock, on
another machine, and of other numbers of sockets where it did not say. Stock has no hub: `-`. `ordeals.py` has the rows
about the server's own process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import signal
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import uvloop

import besiegers
from beside import Client, Closed, Server, family, server
from floods import ENDPOINTS, ROOM, talk
from floods import connect as connect_again
from kinds import Kind
from ordeals import ORDEALS

SECONDS: Final = 4.5
PATIENCE: Final = 10.0
"""Seconds that an answer may take before it counts as none."""

LONGEST: Final = 40
"""Seconds that a row may take before it is given up."""

APP: Final = (
    "from antiphon import App, Hub, TopicOptions, WebSocket\n"
    'hub = Hub(topics={"told": TopicOptions(presence=True)})\napp = App(hub=hub)\n'
    + ENDPOINTS
    + ROOM
    + """
@app.websocket("/churn")
async def churn(websocket: WebSocket, hub: Hub):
    await websocket.accept()
    async for text in websocket.iter_text():
        async with hub.join("churn", websocket):
            pass

@app.websocket("/told")
async def told(websocket: WebSocket, hub: Hub):
    await websocket.accept()
    async with hub.join("told", websocket, presence=str(id(websocket))):
        async for text in websocket.iter_text():
            pass
"""
)
STOCK: Final = "from fastapi import FastAPI, WebSocket\napp = FastAPI()\n" + ENDPOINTS


@dataclass(frozen=True, kw_only=True)
class Siege:
    """An attack beside which innocents are asked."""

    attack: besiegers.Attack | None = None
    audit: str
    hub: bool = False
    """Stock has nothing like it."""
    tls: bool = False


SUBPROTOCOLS: Final = "Sec-WebSocket-Protocol: " + ", ".join(f"{number:04}" for number in range(9000))
OFFERS: Final = "Sec-WebSocket-Extensions: " + ", ".join(["permessage-deflate; client_max_window_bits"] * 1300)
HELLO: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32)
"""The beginning of TLS."""

SIEGES: Final[dict[str, Siege]] = {
    "no attack": Siege(audit="echo p99 2.5"),
    "10 000 half-open handshakes": Siege(
        attack=besiegers.hold(10_000, b"GET /echo HTTP/1.1\r\nHost: 127.0.0.1\r\n"),
        audit="echo p99 1.3, +16 MiB; stock p99 2.2, max 122, +55 MiB",
    ),
    "whole handshakes": Siege(attack=besiegers.knock(besiegers.request("/echo")), audit="echo p99 <= 7.5"),
    "refused handshakes": Siege(
        attack=besiegers.knock(besiegers.request("/echo", version=12)), audit="echo p99 <= 7.5"
    ),
    "heads of 60 kB": Siege(
        attack=besiegers.knock(besiegers.request("/echo", "X: " + "x" * 60_000)), audit="echo p99 <= 7.5"
    ),
    "9 000 subprotocols": Siege(
        attack=besiegers.knock(besiegers.request("/echo", SUBPROTOCOLS)), audit="echo p99 <= 7.5"
    ),
    "1 300 offers": Siege(attack=besiegers.knock(besiegers.request("/echo", OFFERS)), audit="echo p99 <= 7.5"),
    "handshakes cut at once": Siege(
        attack=besiegers.knock(besiegers.request("/echo"), cut=True),
        audit="echo p99 8, connect p99 384; stock connect p99 1 080",
    ),
    "16 MiB messages": Siege(
        attack=besiegers.send("/read", lambda: besiegers.frame(b"x" * ((16 << 20) - 1), 0x81), 4),
        audit="echo p99 17; stock 64",
    ),
    "4 MiB echoes": Siege(
        attack=besiegers.send("/echo", lambda: besiegers.frame(b"x" * (4 << 20), 0x81), 4),
        audit="echo p99 14; stock 76",
    ),
    "JSON of depth 4 million": Siege(attack=besiegers.send("/json", besiegers.deep, 4), audit="echo p99 8; stock 3.5"),
    "JSON of 4 299-digit ints": Siege(
        attack=besiegers.send("/json", besiegers.digits, 4), audit="echo p99 350; stock 1 111"
    ),
    "63 final blocks before 15 MiB": Siege(
        attack=besiegers.send("/read", besiegers.final_blocks, 4), audit="echo p50 0.7, p99 313; stock 354, 678"
    ),
    "one byte at a time on 1 000 sockets": Siege(
        attack=besiegers.drip("/read", 1000), audit="echo p99 3.3; stock 5.9, max 127"
    ),
    "200 slow readers of 64 KiB": Siege(attack=besiegers.sip("/echo", 200, 64 << 10), audit="echo p99 9.2; stock 2.3"),
    "joins and leaves, 10 sockets": Siege(
        attack=besiegers.send("/churn", lambda: besiegers.frame(b"a", 0x81), 10), audit="echo p50 6.6", hub=True
    ),
    "presence storm of 400": Siege(attack=besiegers.reconnect("/told", 400), audit="echo p50 1.2", hub=True),
    "300 receivers that read nothing": Siege(
        attack=besiegers.publish_to_the_deaf("/room/deaf", 300, 64 << 10), audit="echo p50 5.5", hub=True
    ),
    "300 unfinished TLS handshakes": Siege(attack=besiegers.hold(300, HELLO), audit="echo 0.6", tls=True),
}


class Resident:
    """The most that a process holds, asked for now and then, and what it held before."""

    def __init__(self, served: Server) -> None:
        self.before = self.most = served.resident_bytes()
        self._served = served
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            try:
                self.most = max(self.most, self._served.resident_bytes())
            except (OSError, IndexError):  # the process is over
                return

    def stop(self) -> str:
        self._over.set()
        self._thread.join()
        return f"+{(self.most - self.before) >> 20} MiB"


def shown(name: str, took: list[float] | BaseException) -> str:
    if isinstance(took, BaseException):
        return f"{name} NONE ({type(took).__name__} {took})"
    p99 = quantiles(took, n=100)[98] if len(took) > 1 else took[0]
    return f"{name} {median(took) * 1e3:.1f}, {min(p99, max(took)) * 1e3:.1f}, {max(took) * 1e3:.0f}"


async def innocents(served: Server, echo: Client, hub: Client | None, tls: ssl.SSLContext | None) -> str:
    until = time.monotonic() + SECONDS
    work = {"echo": talk(echo, until)}
    if hub is not None:
        work["hub"] = talk(hub, until)
    if tls is None:
        work["connect"] = connect_again(served.port, until)
    waiting = (asyncio.wait_for(one, SECONDS + PATIENCE) for one in work.values())
    found = await asyncio.gather(*waiting, return_exceptions=True)
    return "; ".join(shown(name, took) for name, took in zip(work, found, strict=True))


async def besieged(served: Server, siege: Siege, kind: Kind, tls: ssl.SSLContext | None) -> str:
    echo = await Client.open(served.port, "/echo", tls=tls)
    hub = None if kind is Kind.STOCK or tls else await Client.open(served.port, "/room/a")
    memory = Resident(served)
    begun = multiprocessing.Event()
    attacker = None
    if siege.attack is not None:
        attacker = multiprocessing.Process(target=siege.attack, args=(served.port, begun), daemon=True)
        attacker.start()
        await asyncio.to_thread(begun.wait, PATIENCE)
    try:
        return f"{await innocents(served, echo, hub, tls)}; {memory.stop()}"
    finally:
        memory.stop()
        if attacker is not None:
            attacker.kill()
            attacker.join()


def certificate(folder: Path) -> tuple[tuple[str, ...], ssl.SSLContext]:
    """uvicorn's words for a new one, and who trusts it."""
    key, chain = folder / "key.pem", folder / "chain.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(chain)]
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    return ("--ssl-keyfile", str(key), "--ssl-certfile", str(chain)), ssl.create_default_context(cafile=str(chain))


def lay(siege: Siege, kind: Kind) -> str:
    """The row's figures for one kind of server."""
    app = STOCK if kind is Kind.STOCK else APP
    with tempfile.TemporaryDirectory() as folder:
        words, tls = certificate(Path(folder)) if siege.tls else ((), None)
        with server(app, kind.environment, *kind.words, *words, quiet=True) as served:
            try:
                found = uvloop.run(besieged(served, siege, kind, tls))
            except (Closed, OSError, asyncio.IncompleteReadError) as error:
                found = f"NONE: {error!r}"
            if served.process.poll() is not None:
                found += f"; THE SERVER IS OVER ({served.process.returncode})"
            return found + kind.tracebacks(served.log)


def rows() -> dict[str, tuple[Callable[[Kind], str], str, bool]]:
    """By name: what measures it, the audit's figure, and whether stock has it."""
    found = {name: (lambda kind, s=siege: lay(s, kind), siege.audit, not siege.hub) for name, siege in SIEGES.items()}
    return found | {name: (ordeal.measure, ordeal.audit, ordeal.stock) for name, ordeal in ORDEALS.items()}


def answer(measure: Callable[[Kind], str], kind: Kind, pipe: Connection) -> None:
    try:
        pipe.send(measure(kind))
    except Exception as error:
        pipe.send(f"NONE: {error!r}")


def bounded(measure: Callable[[Kind], str], kind: Kind) -> str:
    """A row that hangs or fails is a row without figures; those behind it have theirs."""
    ours, theirs = multiprocessing.Pipe()
    measuring = multiprocessing.Process(target=answer, args=(measure, kind, theirs))
    measuring.start()
    try:
        return str(ours.recv()) if ours.poll(LONGEST) else f"NONE: more than {LONGEST} s"
    finally:
        measuring.join(PATIENCE)
        for one in family(measuring.pid or 0) if measuring.is_alive() else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        measuring.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Kind, action="append", choices=list(Kind))
    parser.add_argument("--row", action="append", help="rows whose names contain this")
    parser.add_argument("--list", action="store_true", help="only tell the names of the rows")
    asked = parser.parse_args()
    kinds = asked.server or [Kind.NATIVE, Kind.STOCK]
    print("Milliseconds: p50, p99, most.")
    print(f"| row | {' | '.join(kinds)} | audit |\n|---|{'---|' * len(kinds)}---|", flush=True)
    for name, (measure, audit, stock) in rows().items():
        if asked.row and not any(words in name for words in asked.row):
            continue
        if asked.list:
            print(name)
            continue
        cells = [bounded(measure, kind) if stock or kind is not Kind.STOCK else "-" for kind in kinds]
        print(f"| {name} | {' | '.join(cells)} | {audit} |", flush=True)


if __name__ == "__main__":
    main()
