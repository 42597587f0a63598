"""The cost of a rate, and its protection.

    python benchmarks/rates.py cost [--check]    CPU microseconds per received message, best of several runs
    python benchmarks/rates.py abuser [PAIRS]    p99 of 100 innocents beside one at 100 times its rate : without
    python benchmarks/rates.py memory            the memory that 1 000 000 addresses leave behind

`cost` takes a carrier that hands out the same message again and again for the server, so that the receiving alone is
measured: the plain endpoint's and, in the same run, that of one with rates. `abuser` runs a real server in a process of
its own on CPU 0 (native twin, uvloop), clients and the abuser on CPU 1. The pairs are taken in turns.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import uvloop
from websockets.asyncio.client import connect

from antiphon import App, WebSocket
from antiphon.gate import ADDRESS, USER, Identity, Rate
from antiphon.identity import IDENTITY_KEY
from limits import verdict

MESSAGES: Final = 500
RUNS: Final = 500
MANY: Final = "1000000000/second"

RATES: Final[dict[str, list[Rate] | None]] = {
    "no rate": None,
    "per connection": [Rate(MANY)],
    "per connection, bytes": [Rate("1000000 MB/second")],
    "per user": [Rate(MANY, per=USER)],
    "per address": [Rate(MANY, per=ADDRESS)],
    "two: messages and bytes": [Rate(MANY), Rate("1000000 MB/second")],
}

MOST: Final = 0.15
"""Microseconds that a rate may add to a message (the limit of `cost --check`)."""

INNOCENTS: Final = 100
PER_SECOND: Final = 20
SECONDS: Final = 6.0
TIMES: Final = 100


class Endless:
    """A carrier with one message, `count` times. Then the end."""

    alive = True
    buffered = 0
    at_stop = close_code = closed_by = None
    close_reason = ""

    def __init__(self, count: int) -> None:
        self.left = count

    async def read(self) -> str | None:
        self.left -= 1
        return "hi hi hi hi hi hi hi hi hi hi hi" if self.left >= 0 else None

    async def asgi_receive(self) -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def asgi_send(self, message: Any) -> None: ...

    def on_close(self, callback: Any) -> None: ...

    def off_close(self, callback: Any) -> None: ...


def app_with(rates: list[Rate] | None) -> App:
    app = App()

    @app.websocket("/ws", rates=rates)
    async def take(websocket: WebSocket) -> None:
        await websocket.accept()
        async for _ in websocket.iter_text():
            pass

    return app


async def seconds_of(app: App) -> float:
    carrier = Endless(MESSAGES)
    scope: dict[str, Any] = {
        "type": "websocket", "path": "/ws", "raw_path": b"/ws", "query_string": b"", "headers": [], "subprotocols": [],
        "client": ("192.0.2.1", 1), "asgi": {"version": "3.0", "spec_version": "2.4"}, "root_path": "",
        "extensions": {"antiphon.carrier": carrier}, IDENTITY_KEY: Identity(user="ann"),
    }  # fmt: skip
    began = time.process_time()
    await app(scope, carrier.asgi_receive, carrier.asgi_send)
    return (time.process_time() - began) / MESSAGES


async def cost() -> int:
    apps = {name: app_with(rates) for name, rates in RATES.items()}
    best = dict.fromkeys(apps, float("inf"))
    gc.disable()
    for _ in range(RUNS):
        for name, app in apps.items():
            best[name] = min(best[name], await seconds_of(app))
    base = best["no rate"]
    for name, seconds in best.items():
        print(f"{name:24} {seconds * 1e6:6.3f} us  {(seconds - base) * 1e6:+6.3f} us")
    return verdict({name: ((best[name] - base) * 1e6, MOST) for name in RATES if name != "no rate"})


def memory() -> None:
    rate = Rate("10/second", per=ADDRESS)
    scopes = ({"client": (f"{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}.{n >> 24}", 1)} for n in range(2_000_000))
    now = 1.0
    for number, scope in enumerate(scopes):
        now += 1e-6
        rate.share(scope).spend(now, 1)
        if number % 250_000 == 249_999:
            assert rate._buckets is not None
            kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(
                f"{number + 1:9} addresses: {len(rate._buckets):7} buckets, {kilobytes / 1024:.1f} MB resident at most"
            )


# One beside a hundred

APP: Final = f'''
from antiphon import App, WebSocket
from antiphon.gate import Rate
app = App()

@app.websocket("/ws", rates=[Rate("{PER_SECOND}/second", burst={2 * PER_SECOND})])
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)
'''


async def innocent(url: str, until: float, latencies: list[float]) -> None:
    async with connect(url, compression=None, ping_interval=None) as client:
        await asyncio.sleep(random.random() / PER_SECOND)
        while (began := time.perf_counter()) < until:
            await client.send("hi hi hi hi hi hi hi hi")
            await client.recv()
            latencies.append(time.perf_counter() - began)
            await asyncio.sleep(max(0.0, 1.1 / PER_SECOND - (time.perf_counter() - began)))


def abuse(port: int, seconds: float) -> None:
    """Sends 100 times the rate, or as much of that as the server takes: a plain socket, and no thinking."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        client.recv(4096)
        client.settimeout(seconds)
        frame = b"\x81\x97\x00\x00\x00\x00" + b"hi " * 7 + b"hi"
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                client.sendall(frame * (PER_SECOND * TIMES // 100))
                time.sleep(0.01)
        except TimeoutError:
            pass


async def innocents(url: str) -> float:
    """The 99th percentile of their round trips, in seconds."""
    latencies: list[float] = []
    until = time.perf_counter() + SECONDS
    await asyncio.gather(*(innocent(url, until, latencies) for _ in range(INNOCENTS)))
    return quantiles(latencies, n=100)[98]


def p99(port: int, *, abused: bool) -> float:
    abuser = multiprocessing.Process(target=abuse, args=(port, SECONDS + 2), daemon=True) if abused else None
    if abuser is not None:
        abuser.start()
    time.sleep(1.0)
    found = uvloop.run(innocents(f"ws://127.0.0.1:{port}/ws"))
    if abuser is not None:
        abuser.kill()
        abuser.join()
    return found


def compare(pairs: int) -> None:
    found = []
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        Path(folder, "rated.py").write_text(APP)
        command = [sys.executable, "-m", "uvicorn", "rated:app", "--ws", "antiphon.server:WebSocketProtocol"]
        command += ["--loop", "uvloop", "--fd", str(listener.fileno()), "--log-level", "warning"]
        port = listener.getsockname()[1]
        with subprocess.Popen(command, cwd=folder, pass_fds=[listener.fileno()]) as process:
            os.sched_setaffinity(process.pid, {0})
            os.sched_setaffinity(0, {1})
            try:
                p99(port, abused=False)  # warm
                for number in range(pairs):  # each goes first as often as the other
                    turns = (True, False) if number % 2 else (False, True)
                    times = {abused: p99(port, abused=abused) for abused in turns}
                    found.append((times[False], times[True]))
                    print(f"  alone {times[False] * 1e3:6.2f} ms, beside one {times[True] * 1e3:6.2f} ms", flush=True)
            finally:
                process.terminate()
    alone, beside = median(one for one, _ in found), median(other for _, other in found)
    ratio = median(other / one for one, other in found)
    print(f"p99 of {INNOCENTS}: alone {alone * 1e3:.2f} ms, beside one at {TIMES} times its rate {beside * 1e3:.2f} ms")
    print(f"median of {pairs} ratios {ratio:.2f}, of medians {beside / alone:.2f}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["cost", *_]:
            sys.exit(uvloop.run(cost()))
        case ["abuser", *more]:
            compare(int(more[0]) if more else 10)
        case ["memory"]:
            memory()
        case _:
            sys.exit(__doc__)
