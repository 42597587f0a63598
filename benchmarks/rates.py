"""What a rate costs, and what it protects.

    python benchmarks/rates.py cost              CPU microseconds per received message, best of several runs
    python benchmarks/rates.py abuser [PAIRS]    p99 of 100 innocents beside one at 100 times its rate : without
    python benchmarks/rates.py memory            what 1 000 000 addresses leave behind

`cost` takes a carrier that hands out the same message again and again for the server, so that the receiving alone is
measured: the plain endpoint's and, in the same run, that of one with rates. `abuser` runs a real server in a process of its
own (native twin, uvloop), clients in this one and the abuser in a third; the pairs are taken in turns.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import uvloop
from websockets.asyncio.client import connect

from antiphon import App, WebSocket
from antiphon.gate import ADDRESS, USER, Identity, Rate
from antiphon.identity import IDENTITY_KEY

MESSAGES: Final = 20_000
RUNS: Final = 40
MANY: Final = "1000000000/second"

RATES: Final[dict[str, list[Rate] | None]] = {
    "no rate": None,
    "per connection": [Rate(MANY)],
    "per connection, bytes": [Rate("1000000 MB/second")],
    "per user": [Rate(MANY, per=USER)],
    "per address": [Rate(MANY, per=ADDRESS)],
    "two: messages and bytes": [Rate(MANY), Rate("1000000 MB/second")],
}

INNOCENTS: Final = 100
PER_SECOND: Final = 20
SECONDS: Final = 6.0
TOO_FAST: Final = 100


class Endless:
    """A carrier with one message, `count` times; then the end."""

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


async def cost() -> None:
    apps = {name: app_with(rates) for name, rates in RATES.items()}
    best = dict.fromkeys(apps, float("inf"))
    gc.disable()
    for _ in range(RUNS):
        for name, app in apps.items():
            best[name] = min(best[name], await seconds_of(app))
    base = best["no rate"]
    for name, seconds in best.items():
        print(f"{name:24} {seconds * 1e6:6.3f} us  {(seconds - base) * 1e6:+6.3f} us")


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
            print(f"{number + 1:9} addresses: {len(rate._buckets):7} buckets, {kilobytes / 1024:.1f} MB resident at most")


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


def abuse(url: str, seconds: float) -> None:
    """Sends 100 times what is let through, or as much of that as the server takes."""

    async def main() -> None:
        async with connect(url, compression=None, ping_interval=None, write_limit=1 << 16) as client:
            until = time.perf_counter() + seconds
            reading = asyncio.create_task(_read(client))
            while time.perf_counter() < until:
                try:
                    async with asyncio.timeout(max(0.01, until - time.perf_counter())):
                        for _ in range(PER_SECOND * TOO_FAST // 100):
                            await client.send("hi hi hi hi hi hi hi hi")
                except TimeoutError:
                    break
                await asyncio.sleep(0.01)
            reading.cancel()
            client.transport.abort()

    uvloop.run(main())


async def _read(client: Any) -> None:
    async for _ in client:
        pass


async def p99(url: str, *, abused: bool) -> float:
    abuser = multiprocessing.Process(target=abuse, args=(url, SECONDS + 2), daemon=True) if abused else None
    if abuser is not None:
        abuser.start()
        await asyncio.sleep(1.0)
    latencies: list[float] = []
    until = time.perf_counter() + SECONDS
    await asyncio.gather(*(innocent(url, until, latencies) for _ in range(INNOCENTS)))
    if abuser is not None:
        abuser.kill()
        abuser.join()
    return quantiles(latencies, n=100)[98]


async def abuser(pairs: int) -> None:
    folder = Path(sys.prefix).parent / ".cache"
    folder.mkdir(exist_ok=True)
    (folder / "rates_bench_app.py").write_text(APP)
    command = [sys.executable, "-m", "antiphon", "run", "rates_bench_app:app", "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = next(line.split()[-1] for line in process.stderr if "ws://" in line or "http://" in line)
