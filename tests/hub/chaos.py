"""`python -m tests.hub.chaos redis --seeds 0 10`: the random lives of `simulation`, on a real Redis or relay.

Between each hub and the backend is a proxy, which delays data, stalls, cuts connections and refuses new ones. The
backend itself loses its data, the relay by being killed. Redis also closes connections that say nothing, and others
without touching those that hear; is read-only; is full. Real time, so no two lives are the same. Every other one is on
uvloop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import random
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import uvloop

from antiphon.hub import BackendUnavailable, Hub
from antiphon.hub.backends.relay.process import listen
from antiphon.hub.backends.relay.trust import target
from antiphon.hub.backends.relay.wire import native_address
from tests.hub.simulation import HUBS, TOPICS, Life, lived, restart
from tests.patience import PATIENCE
from tests.redis_server import RedisServer
from tests.relay_server import RelayServer

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

LEASE: Final = 10.0
CHUNK: Final = 1 << 16
LOOPS: Final = (asyncio.new_event_loop, uvloop.new_event_loop)


class Proxy:
    """Connections to a backend, in a test's hands."""

    def __init__(self, dial: Callable[[], Awaitable[Streams]], rng: random.Random) -> None:
        self.refusing = False
        self.slow = False
        self.latency = 0.0
        """Seconds that everything takes in each direction, however much is under way."""
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._dial = dial
        self._rng = rng
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    async def listen_tcp(self) -> int:
        """The port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def listen_unix(self) -> str:
        """The abstract address."""
        address = f"@antiphon-proxy-{secrets.token_hex(8)}"
        # The socket is made here: uvloop takes a path up to its first NUL, which an abstract address begins with.
        server = listen(address)
        server.setblocking(False)
        self._server = await asyncio.start_unix_server(self._accept, sock=server)
        return address

    def cut(self, share: float = 1.0) -> None:
        """Abort connections: all, or about this share of them."""
        for writer in tuple(self._writers):
            if self._rng.random() < share:
                writer.transport.abort()

    async def close(self) -> None:
        self._server.close()
        self.cut()
        while self._serving:
            await asyncio.wait(self._serving)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.refusing:
                return
            there_reader, there_writer = await self._dial()
        except OSError:
            return
        else:
            self._writers.add(writer)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(reader, there_writer))
                    group.create_task(self._pump(there_reader, writer))
            except* (OSError, EOFError):
                pass
            finally:
                self._writers.discard(writer)
                there_writer.transport.abort()
        finally:
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            if self.slow and self._rng.random() < 0.3:
                await asyncio.sleep(self._rng.random() * 0.02)
            await self.flowing.wait()
            if self.latency:
                asyncio.get_running_loop().call_later(self.latency, writer.write, data)
                continue
            if writer.transport.is_closing():  # uvloop refuses to write then
                break
            writer.write(data)
            await writer.drain()
        raise EOFError


class Real:
    """A `World` on a real backend."""

    def __init__(self, kind: str, rng: random.Random) -> None:
        self._rng = rng
        self._server: RedisServer | RelayServer = RedisServer() if kind == "redis" else RelayServer()
        self._troubles = [self._cut, self._refuse, self._stall, self._restart, self._lose_data]
        if isinstance(self._server, RedisServer):
            self._troubles += [self._kill_speakers, self._close_idle, self._read_only, self._full]
        self._proxies: list[Proxy] = []
        self.hubs: list[Hub] = []

    async def open(self) -> None:
        await asyncio.to_thread(self._server.start)
        for _ in range(HUBS):
            proxy = Proxy(self._dial, self._rng)
            self._proxies.append(proxy)
            if isinstance(self._server, RedisServer):
                url = f"redis://127.0.0.1:{await proxy.listen_tcp()}"
            else:
                url = f"relay://{target(self._server.key, await proxy.listen_unix())}"
            self.hubs.append(Hub(url, topics=TOPICS, presence_lease=LEASE))

    async def close(self) -> None:
        while self._proxies:
            await self._proxies.pop().close()
        await asyncio.to_thread(self._server.close)

    async def end(self) -> None:
        """Also after a life that failed half way: no process and no task is left."""
        for hub in self.hubs:
            with contextlib.suppress(Exception):
                await hub.stop()
        await self.close()

    async def trouble(self, rng: random.Random, over: Callable[[], bool]) -> None:
        while not over():
            await asyncio.sleep(rng.random())
            rng.choice(self._proxies).slow = rng.random() < 0.5
            await rng.choice(self._troubles)(rng)
        for proxy in self._proxies:
            proxy.slow = False

    async def members(self, topic: str) -> dict[str, list[Any]]:
        return await self.hubs[0].presence(topic)

    async def settled(self, check: Callable[[], Awaitable[None]]) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await check()
                except (AssertionError, BackendUnavailable) as error:
                    last = error
                else:
                    return
                try:
                    await asyncio.sleep(0.1)
                except asyncio.CancelledError:
                    raise last from None

    async def _dial(self) -> Streams:
        if isinstance(self._server, RedisServer):
            return await asyncio.open_connection("127.0.0.1", self._server.port)
        relay = socket.socket(socket.AF_UNIX)
        try:
            relay.setblocking(False)
            relay.connect(native_address(self._server.address))
            return await asyncio.open_unix_connection(sock=relay)
        except BaseException:
            relay.close()
            raise

    async def _cut(self, rng: random.Random) -> None:
        rng.choice(self._proxies).cut(rng.choice([0.5, 1.0]))

    async def _refuse(self, rng: random.Random) -> None:
        proxy = rng.choice(self._proxies)
        proxy.refusing = True
        proxy.cut()
        await asyncio.sleep(rng.random() * 0.7)
        proxy.refusing = False

    async def _stall(self, rng: random.Random) -> None:
        proxy = rng.choice(self._proxies)
        proxy.flowing.clear()
        await asyncio.sleep(rng.random() * 1.5)
        proxy.flowing.set()

    async def _restart(self, rng: random.Random) -> None:
        await restart(rng.choice(self.hubs), rng)

    async def _lose_data(self, rng: random.Random) -> None:
        if isinstance(self._server, RedisServer):
            await asyncio.to_thread(self._server.command, "FLUSHALL")
            return
        await asyncio.to_thread(self._server.kill)
        await asyncio.sleep(rng.random() * 0.5)
        await asyncio.to_thread(self._server.start)

    async def _kill_speakers(self, rng: random.Random) -> None:
        """Subscribing connections stay up, so that no loss is reported."""
        await self._command("CLIENT", "KILL", "TYPE", "normal")

    async def _close_idle(self, rng: random.Random) -> None:
        await self._command("CONFIG", "SET", "timeout", "1")
        await asyncio.sleep(rng.random() * 3)
        await self._command("CONFIG", "SET", "timeout", "0")

    async def _read_only(self, rng: random.Random) -> None:
        """It is a replica for a moment, of a primary that is not there."""
        await self._command("REPLICAOF", "127.0.0.1", "1")
        await asyncio.sleep(rng.random() * 1.5)
        await self._command("REPLICAOF", "NO", "ONE")

    async def _full(self, rng: random.Random) -> None:
        await self._command("CONFIG", "SET", "maxmemory", "1")
        await asyncio.sleep(rng.random() * 1.5)
        await self._command("CONFIG", "SET", "maxmemory", "0")

    async def _command(self, *words: str) -> None:
        assert isinstance(self._server, RedisServer)
        await asyncio.to_thread(self._server.command, *words)


async def run(kind: str, seed: int) -> Life:
    """One life. Raises AssertionError."""
    rng = random.Random(seed)
    world = Real(kind, rng)
    try:
        return await lived(Life(rng, world, busy_seconds=4.0, least_messages=300))
    finally:
        await world.end()


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.hub.chaos", description=__doc__)
    parser.add_argument("backend", choices=["redis", "relay"])
    parser.add_argument("--seeds", nargs=2, type=int, default=(0, 10), metavar=("FIRST", "BEHIND"))
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    failed = 0
    for seed in range(*options.seeds):
        try:
            with asyncio.Runner(loop_factory=LOOPS[seed % len(LOOPS)]) as runner:
                life = runner.run(run(options.backend, seed))
        except Exception as error:
            failed += 1
            sys.stdout.write(f"seed {seed}: failed: {error!r}\n")
        else:
            sys.stdout.write(f"seed {seed}: {len(life.stays)} stays, {life.numbers} messages\n")
        sys.stdout.flush()
    sys.stdout.write(f"{failed} of {len(range(*options.seeds))} lives failed\n")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
