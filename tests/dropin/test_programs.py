"""Programs written for FastAPI keep their word with only the import changed, with all kinds of clients.

They run as processes of their own; clients close, reset, vanish in the middle of a broadcast, burst, and stop reading.
The log must hold the promised lines, and no traceback at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
import urllib.request
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import websockets
from websockets.asyncio.client import ClientConnection, connect

from tests.patience import PATIENCE, until
from tests.serving import ServedProcess, serve_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROGRAMS = Path(__file__).parent / "programs"

ENGINES = ["antiphon.server:WebSocketProtocol", "websockets-sansio", "wsproto"]
engines = pytest.mark.parametrize("engine", ENGINES)


@dataclass(frozen=True, slots=True)
class Program:
    """A running program, and its output since a test began."""

    process: ServedProcess
    begins: int

    @property
    def url(self) -> str:
        return self.process.url

    @property
    def http_url(self) -> str:
        return self.process.http_url

    async def wait_for_line(self, pattern: str) -> None:
        await until(lambda: any(re.search(pattern, line) for line in self.process.lines[self.begins :]))


@contextlib.asynccontextmanager
async def served(program: str, engine: str, folder: Path) -> AsyncGenerator[ServedProcess]:
    """The program with `from fastapi` turned into `from antiphon.fastapi`. The log is checked at the end."""
    text = (PROGRAMS / f"{program}.py").read_text()
    (folder / f"{program}.py").write_text(re.sub(r"^from fastapi", "from antiphon.fastapi", text, flags=re.MULTILINE))
    async with serve_process(f"{program}:app", "--ws", engine, app_dir=folder) as server:
        yield server
    _check(server)


def _check(server: ServedProcess) -> None:
    assert "Traceback" not in server.log, server.log
    assert not re.search(r"ERROR|CRITICAL|was never", server.log), server.log


Ported = Callable[[str, str], AbstractAsyncContextManager[Program]]


async def nobody_is_left(chat: ServedProcess) -> None:
    async with asyncio.timeout(PATIENCE):
        while await get(f"{chat.http_url}/count") != b'{"connections":0}':  # noqa: ASYNC110  it is another process
            await asyncio.sleep(0.01)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ported(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Ported]:
    """Programs that stay for all tests, as they would for all clients: their logs are checked after each, and once
    more when they have stopped."""
    async with contextlib.AsyncExitStack() as stack:
        running: dict[tuple[str, str], ServedProcess] = {}

        @contextlib.asynccontextmanager
        async def one(program: str, engine: str) -> AsyncGenerator[Program]:
            if (program, engine) not in running:
                folder = tmp_path_factory.mktemp(program)
                running[program, engine] = await stack.enter_async_context(served(program, engine, folder))
            server = running[program, engine]
            yield Program(server, len(server.lines))
            if program == "chat":
                await nobody_is_left(server)
            _check(server)

        yield one


def reset(client: ClientConnection) -> None:
    """Leave with a TCP reset."""
    raw: socket.socket = client.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.transport.abort()


async def get(url: str, method: str = "GET") -> bytes:
    """The body of an HTTP response."""

    def fetch() -> bytes:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=PATIENCE) as response:
            body: bytes = response.read()
            return body

    return await asyncio.to_thread(fetch)


async def received(client: ClientConnection, text: str) -> None:
    """Read until `text` has come."""
    async with asyncio.timeout(PATIENCE):
        while await client.recv() != text:
            pass


async def until_closed(client: ClientConnection) -> int | None:
    """Read to the end. The close code."""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(websockets.ConnectionClosed):
            async for _ in client:
                pass
    return client.close_code


@engines
async def test_the_chat_tells_everybody_who_speaks_and_who_leaves(engine: str, ported: Ported) -> None:
    async with ported("chat", engine) as server:
        assert b"Chat" in await get(server.http_url)
        async with connect(f"{server.url}/ws/ada") as ada, connect(f"{server.url}/ws/bob") as bob:
            await ada.send("hello")
            assert await ada.recv() == "You wrote: hello"
            assert await ada.recv() == await bob.recv() == "ada says: hello"
            await bob.close(4001)
            assert await ada.recv() == "bob left"
        await server.wait_for_line("bob left with 4001")
        await server.wait_for_line("ada left with 1000")
        assert json.loads(await get(f"{server.http_url}/count")) == {"connections": 0}


@engines
async def test_the_chat_survives_peers_that_vanish_in_the_middle_of_a_broadcast(engine: str, ported: Ported) -> None:
    async with ported("chat", engine) as server, connect(f"{server.url}/ws/ada") as ada:
        async with asyncio.TaskGroup() as group:
            urls = [f"{server.url}/ws/peer{number}" for number in range(12)]
            joining = [group.create_task(connect(url, close_timeout=1).__aenter__()) for url in urls]
        peers = [task.result() for task in joining]
        for number, peer in enumerate(peers):
            await ada.send(f"{number}")
            if number % 3 == 0:
                reset(peer)
            elif number % 3 == 1:
                peer.transport.abort()
            else:
                await peer.close()
        for number in range(len(peers)):
            await server.wait_for_line(f"peer{number} left with (1006|1000)")
        await ada.send("still here")
        await received(ada, "ada says: still here")
        assert json.loads(await get(f"{server.http_url}/count")) == {"connections": 1}


@engines
async def test_the_chat_survives_bursts_from_many(engine: str, ported: Ported) -> None:
    async with ported("chat", engine) as server:

        async def burst(number: int) -> None:
            # Unread messages in a bounded queue would keep it from seeing the answer to its Close.
            async with connect(f"{server.url}/ws/b{number}", max_queue=None) as client:
                for line in range(50):
                    await client.send(f"{line}")
                await received(client, f"b{number} says: 49")

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(burst(number))
        for number in range(6):
            await server.wait_for_line(f"b{number} left with 1000")


@engines
async def test_one_who_stops_reading_does_not_hold_up_the_others(engine: str, ported: Ported) -> None:
    async with ported("chat", engine) as server:
        # max_queue and the small buffer make the client stop taking anything from the wire.
        async with connect(f"{server.url}/ws/deaf", max_queue=1) as deaf, connect(f"{server.url}/ws/ada") as ada:
            deaf.transport.pause_reading()
            line = "x" * 200_000
            for _ in range(60):
                await ada.send(line)
                await received(ada, f"ada says: {line}")
            reset(deaf)
        await server.wait_for_line("deaf left")
        await server.wait_for_line("ada left with 1000")


@engines
async def test_an_announcement_over_http_reaches_all_but_those_who_are_gone(engine: str, ported: Ported) -> None:
    async with ported("chat", engine) as server, connect(f"{server.url}/ws/ada") as ada:
        lost = await connect(f"{server.url}/ws/lost")
        reset(lost)
        await get(f"{server.http_url}/announce?text=news", "POST")
        await received(ada, "news")
        await server.wait_for_line("lost left with 1006")


@engines
async def test_credentials_are_checked_before_accept(engine: str, ported: Ported) -> None:
    async with ported("guarded", engine) as server:
        with pytest.raises(websockets.InvalidStatus) as nobody:
            await connect(f"{server.url}/items/foo/ws")
        assert nobody.value.response.status_code == 403
        assert json.loads(nobody.value.response.body or b"") == {"code": 1008, "reason": "no credentials"}
        with pytest.raises(websockets.InvalidStatus) as wrong:
            await connect(f"{server.url}/items/foo/ws?token=t&q=many")
        assert json.loads(wrong.value.response.body or b"")["detail"][0]["loc"] == ["query", "q"]
        async with connect(f"{server.url}/items/foo/ws?token=t&q=3") as client:
            await client.send("hi")
            assert await client.recv() == "t: hi for foo (q=3)"
        headers = {"Cookie": "session=crumbs"}
        async with connect(f"{server.url}/items/foo/ws", additional_headers=headers) as client:
            await client.send("hi")
            assert await client.recv() == "crumbs: hi for foo (q=None)"
            reset(client)
        with pytest.raises(websockets.InvalidStatus) as missing:
            await connect(f"{server.url}/bearer")
        assert missing.value.response.status_code == 401
        assert missing.value.response.headers["www-authenticate"] == "Bearer"
        async with connect(f"{server.url}/bearer", additional_headers={"Authorization": "Bearer b"}) as client:
            assert json.loads(await client.recv()) == {"token": "b"}


@engines
@pytest.mark.parametrize("path", ["ticks", "flood", "both"])
@pytest.mark.parametrize("way", ["close", "reset", "vanish"])
async def test_endpoints_that_only_send_end_when_the_peer_does(
    engine: str, path: str, way: str, ported: Ported
) -> None:
    async with ported("telemetry", engine) as server:
        client = await connect(f"{server.url}/live/{path}")
        await client.recv()
        if way == "close":
            client.close_timeout = 1
            await client.close()
        elif way == "reset":
            reset(client)
        else:
            client.transport.pause_reading()
            client.transport.abort()
        await server.wait_for_line("session closed")
        if path == "flood":
            await server.wait_for_line("flood ended")


@engines
async def test_commands_are_validated_and_answered(engine: str, tmp_path: Path) -> None:
    async with served("telemetry", engine, tmp_path) as server:
        async with connect(f"{server.url}/live/commands") as client:
            await client.send('{"action": "open", "amount": 3}')
            assert json.loads(await client.recv()) == {"done": "open", "amount": 6}
            await client.send('{"amount": "x"}')
            assert {error["loc"][0] for error in json.loads(await client.recv())["errors"]} == {"action", "amount"}
        await server.wait_for_line("commands over True")
        async with connect(f"{server.url}/live/commands") as client:
            await client.send("{not json")
            await client.wait_closed()
        assert (client.close_code, client.close_reason) == (1007, "invalid JSON")
    assert server.log.index("up") < server.log.index("down")


@engines
async def test_a_program_stops_while_its_clients_are_connected(engine: str, tmp_path: Path) -> None:
    async with served("telemetry", engine, tmp_path) as server:
        clients = [await connect(f"{server.url}/live/{path}") for path in ("ticks", "both", "commands")]
        async with asyncio.TaskGroup() as group:
            reading = [group.create_task(until_closed(client)) for client in clients]
            server.process.terminate()
    assert [task.result() for task in reading] == [1012, 1012, 1012]
    assert server.log.count("session closed") == 3
    assert "down" in server.log
