"""Apps and routers inside other people's apps, on real servers: their hub runs, though nobody runs their lifespan."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from antiphon import APIRouter, App, Hub, WebSocket
from antiphon.testclient import TestClient
from tests.commands import ANTIPHON
from tests.patience import PATIENCE
from tests.redis_server import RedisServer
from tests.relay_server import RelayServer
from tests.serving import ServedProcess, serve_process, somebody_listens

LIVE = """
import os
from antiphon import APIRouter, App, Hub, WebSocket
from fastapi import FastAPI

live = {live}

@live.websocket("/room")
async def room(websocket: WebSocket, hub: Hub) -> None:
    await websocket.accept()
    async with hub.join("room", websocket, presence=str(os.getpid())):
        await websocket.send_text(str(os.getpid()))
        async for text in websocket.iter_text():
            await hub.publish("room", text)

app = FastAPI()
"""

HOSTS = {
    "mounted app": LIVE.format(live="App({hub})") + 'app.mount("/ws", live)\n',
    "mounted app in an app of ours": LIVE.format(live="App({hub})") + 'app = App()\napp.mount("/ws", live)\n',
    "mounted router": LIVE.format(live="APIRouter()") + 'app.state.hub = Hub({url})\napp.mount("/ws", live)\n',
    "included router": LIVE.format(live="APIRouter()")
    + 'app.state.hub = Hub({url})\napp.include_router(live, prefix="/ws")\n',
}


def program(folder: Path, host: str, url: str | None = None) -> str:
    given = "" if url is None else repr(url)
    text = HOSTS[host].replace("{hub}", f"hub=Hub({given})").replace("{url}", given)
    (folder / "main.py").write_text(text)
    return "main:app"


@contextlib.asynccontextmanager
async def served(
    folder: Path, target: str, *args: str, command: tuple[str, ...], env: Mapping[str, str] | None = None
) -> AsyncGenerator[ServedProcess]:
    async with serve_process(target, *args, app_dir=folder, command=command, env=env) as server:
        await somebody_listens(server)
        yield server
    for noise in ("Traceback", "Task was destroyed", "never awaited", "never retrieved"):
        assert noise not in server.log, server.log


RUN = (*ANTIPHON, "run")
UVICORN = (sys.executable, "-W", "error", "-m", "uvicorn", "--timeout-worker-healthcheck", str(int(PATIENCE)))


async def enter(url: str, stack: contextlib.AsyncExitStack) -> tuple[ClientConnection, str]:
    client = await stack.enter_async_context(connect(f"{url}/ws/room", open_timeout=PATIENCE))
    return client, str(await client.recv())


async def everybody_hears_everybody(server: ServedProcess, *, workers: int) -> None:
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        clients: list[ClientConnection] = []
        seen: set[str] = set()
        while len(seen) < workers or len(clients) < 4:
            # Many at once: of those that come one by one, the quickest worker may take each.
            for client, worker in await asyncio.gather(*(enter(server.url, stack) for _ in range(4))):
                clients.append(client)
                seen.add(worker)
        for number, client in enumerate(clients):
            await client.send(str(number))
        for client in clients:
            assert sorted([int(await client.recv()) for _ in clients]) == list(range(len(clients)))


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("host", HOSTS)
async def test_the_hub_of_a_guest_runs_with_any_number_of_workers(tmp_path: Path, host: str, workers: int) -> None:
    target = program(tmp_path, host)
    async with served(tmp_path, target, "--workers", str(workers), command=RUN) as server:
        await everybody_hears_everybody(server, workers=workers)


@pytest.mark.parametrize("workers", [1, 2])
async def test_so_it_does_over_redis_and_without_our_command(tmp_path: Path, redis: RedisServer, workers: int) -> None:
    target = program(tmp_path, "mounted app", redis.url)
    async with served(tmp_path, target, "--workers", str(workers), command=UVICORN) as server:
        await everybody_hears_everybody(server, workers=workers)
    assert redis.channels() == []


async def test_a_guest_whose_backend_is_away_says_try_again_and_serves_when_it_is_there(tmp_path: Path) -> None:
    relay = RelayServer()
    async with served(tmp_path, program(tmp_path, "mounted app", relay.url), command=UVICORN) as server:
        async with connect(f"{server.url}/ws/room", open_timeout=PATIENCE) as client:
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1013
        with relay:
            await everybody_hears_everybody(server, workers=1)


async def test_a_server_that_stops_lets_go_of_the_guests_hub(tmp_path: Path) -> None:
    with RelayServer() as relay:
        target = program(tmp_path, "mounted app", relay.url)
        async with served(tmp_path, target, command=UVICORN) as server, contextlib.AsyncExitStack() as stack:
            await enter(server.url, stack)
        async with Hub(relay.url) as hub:
            async with asyncio.timeout(PATIENCE):
                while await hub.presence("room"):  # noqa: ASYNC110  the relay tells nobody who asks
                    await asyncio.sleep(0.01)


async def test_a_host_may_run_the_guests_life_itself(tmp_path: Path) -> None:
    target = program(tmp_path, "mounted app", "relay://@nobody-listens-there")
    with (tmp_path / "main.py").open("a") as main:
        main.write("app.router.lifespan_context = live.router.lifespan_context\n")
    finished = await asyncio.create_subprocess_exec(
        *UVICORN, target, "--port", "0", cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    _, told = await finished.communicate()
    assert finished.returncode == 3
    assert b"no relay answers" in told


LIVED = """
import contextlib

@contextlib.asynccontextmanager
async def life(app):
    print("the guest's life began", flush=True)
    yield

"""

GUESTS = {
    "app": ("App(lifespan=life)", "live.router.lifespan_context(live)"),
    "old app": ('App(on_startup=[lambda: print("the guest\'s life began")])', "live.router.lifespan_context(live)"),
    "router": ("APIRouter(lifespan=life)", "live.lifespan_context(app)"),
}


@pytest.mark.parametrize("entered", [False, True])
@pytest.mark.parametrize("guest", GUESTS)
async def test_a_guest_whose_lifespan_nobody_enters_says_so_once(tmp_path: Path, guest: str, entered: bool) -> None:
    live, entering = GUESTS[guest]
    text = LIVED + LIVE.format(live=live) + 'app.state.hub = Hub()\napp.mount("/ws", live)\n'
    if entered:
        text += (
            "@contextlib.asynccontextmanager\nasync def outer(app):\n"
            f"    async with {entering}:\n        yield\n\napp.router.lifespan_context = outer\n"
        )
    (tmp_path / "main.py").write_text(text)
    async with served(tmp_path, "main:app", command=RUN) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            await enter(server.url, stack)
    assert ("the guest's life began" in server.log) is entered
    told = [line for line in server.lines if "the lifespan of the app mounted at '/ws' has not run" in line]
    assert len(told) == (0 if entered else 1), server.log
    assert all("lifespan_context(" in line for line in told)


async def test_the_lifespan_of_an_included_router_runs_in_the_host(tmp_path: Path) -> None:
    text = LIVED + LIVE.format(live="APIRouter(lifespan=life)")
    text += 'app.state.hub = Hub()\napp.include_router(live, prefix="/ws")\n'
    (tmp_path / "main.py").write_text(text)
    async with served(tmp_path, "main:app", command=RUN) as server, contextlib.AsyncExitStack() as stack:
        await enter(server.url, stack)
    assert "the guest's life began" in server.log
    assert "has not run" not in server.log


def chat(live: App | APIRouter) -> None:
    @live.websocket("/room")
    async def room(websocket: WebSocket, hub: Hub) -> None:
        await websocket.accept()
        async with hub.join("room", websocket):
            await hub.publish("room", await websocket.receive_text())
            await websocket.wait_closed()


def test_each_test_of_a_mounted_app_may_have_a_loop_of_its_own() -> None:
    with RelayServer() as relay:
        live = App(hub=Hub(relay.url))
        chat(live)
        app = FastAPI()
        app.mount("/ws", live)
        for _ in range(3):
            with TestClient(app).websocket_connect("/ws/room") as session:
                session.send_text("hello")
                assert session.receive_text() == "hello"


def test_a_router_in_an_app_without_a_hub_says_how_to_give_it_one() -> None:
    live = APIRouter()
    chat(live)
    app = FastAPI()
    app.include_router(cast(Any, live))
    with pytest.raises(Exception, match=r"parameter 'hub' is a Hub, .*`app.state.hub = Hub\(...\)`"):
        with TestClient(app).websocket_connect("/room") as session:
            session.receive_text()
