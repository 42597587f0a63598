"""The metrics of a real server: of connections and of hubs, of all workers, through one port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import ClientConnection, connect

from tests.commands import ANTIPHON, antiphon
from tests.patience import PATIENCE
from tests.serving import ServedProcess, serve_process, somebody_listens

APP = """
import os
from antiphon import App, Hub, WebSocket

app = App()

@app.websocket("/room")
async def room(websocket: WebSocket, hub: Hub) -> None:
    await websocket.accept()
    async with hub.join("room", websocket):
        await websocket.send_text(str(os.getpid()))
        async for text in websocket.iter_text():
            await hub.publish("room", text)
"""

OWN_WAY = """
from antiphon.observability.prometheus import Metrics
from antiphon.server import ServerConfig, WebSocketProtocol

metrics = Metrics(folder="numbers")
metrics.watch(app.hub)
app.add_route("/metrics", metrics.app)
Protocol = WebSocketProtocol.with_config(ServerConfig(observers=(metrics,)))
"""

Numbers = dict[str, float]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    (tmp_path / "own.py").write_text(APP + OWN_WAY)
    (tmp_path / "numbers").mkdir()
    return tmp_path


async def scrape(server: ServedProcess, path: str = "/metrics") -> Numbers:
    async with httpx.AsyncClient(base_url=server.http_url, timeout=PATIENCE) as client:
        response = await client.get(path)
    assert response.status_code == 200
    return {
        " ".join([sample.name.removeprefix("antiphon_"), *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def comes(
    server: ServedProcess, condition: Callable[..., bool], path: str = "/metrics", **expected: float
) -> Numbers:
    """The numbers as soon as they are so, three times in a row: whichever worker is asked says the same."""
    times, numbers = 0, Numbers()
    try:
        async with asyncio.timeout(PATIENCE / 2):
            while times < 3:
                numbers = await scrape(server, path)
                times = times + 1 if condition(numbers, **expected) else 0
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"the numbers stayed {numbers}")
    return numbers


async def enter(server: ServedProcess, workers: int, stack: contextlib.AsyncExitStack) -> dict[ClientConnection, int]:
    """Clients of all workers, with their workers."""
    clients: dict[ClientConnection, int] = {}
    async with asyncio.timeout(PATIENCE):
        while len(clients) < 4 or len({*clients.values()}) < workers:
            # Many at once: of those that come one by one, the quickest worker may take each.
            urls = [f"{server.url}/room"] * 8
            # Nobody reads them: with the usual bound of 16 messages they would stop answering pings when they are many.
            settings: Any = {"open_timeout": PATIENCE, "max_queue": None}
            for client in await asyncio.gather(*(connect(url, **settings) for url in urls)):
                await stack.enter_async_context(client)
                clients[client] = int(await client.recv())
    return clients


@pytest.mark.parametrize("workers", [1, 2])
async def test_one_switch_shows_connections_and_hubs_of_all_workers(folder: Path, workers: int) -> None:
    args = ("--metrics", "--workers", str(workers))
    async with serve_process("main:app", *args, app_dir=folder, command=(*ANTIPHON, "run")) as server:
        backend = "relay://" if workers == 2 else "memory://"
        async with contextlib.AsyncExitStack() as stack:
            clients = await enter(server, workers, stack)
            for client in clients:
                await client.send("hello")
            n = len(clients)
            numbers = await comes(
                server,
                lambda now: (
                    now["connections_open"] == n
                    and now["connections_opened_total"] == n
                    and now[f"hub_connections {backend}"] == n
                    and now[f"hub_published_total {backend}"] == n
                    and now[f"hub_delivered_total {backend}"] == n * n
                ),
            )
            assert numbers[f"hub_connected {backend}"] == 1
            assert numbers["hub_published_bytes_total"] == n * len("hello")
            with contextlib.suppress(Exception):
                async with connect(f"{server.url}/nowhere"):
                    pass
        await comes(
            server,
            lambda now: (
                now["connections_open"] == 0
                and now.get("connections_closed_total peer 1000") == n
                and now["connection_seconds_count"] == n
                and now[f"hub_memberships {backend}"] == 0
                and now.get("handshakes_refused_total 403", 0) + now.get("handshakes_refused_total 404", 0) == 1
            ),
        )


async def test_a_worker_that_was_killed_keeps_what_it_counted_and_loses_what_it_had(folder: Path) -> None:
    args = ("--metrics", "--workers", "2")
    async with serve_process("main:app", *args, app_dir=folder, command=(*ANTIPHON, "run")) as server:
        for _ in range(2):
            async with contextlib.AsyncExitStack() as stack:
                before = await scrape(server)
                clients = await enter(server, 2, stack)
                opened = before["connections_opened_total"] + len(clients)
                await comes(server, lambda now, opened: now["connections_opened_total"] == opened, opened=opened)
                killed = next(iter(clients.values()))
                left = sum(worker != killed for worker in clients.values())
                os.kill(killed, signal.SIGKILL)
                numbers = await comes(
                    server,
                    lambda now, left: now["connections_open"] == now["hub_connections relay://"] == left,
                    left=left,
                )
                assert numbers["connections_opened_total"] == opened
                assert numbers["hub_published_total relay://"] >= before.get("hub_published_total relay://", 0)


async def test_the_numbers_go_on_when_workers_are_replaced_and_leave_nothing_behind(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    temporary = tmp_path_factory.mktemp("temporary")
    args = ("--metrics", "--metrics-path", "/internal/numbers", "--workers", "2", "--root-path", "/api")
    async with serve_process(
        "main:app", *args, app_dir=folder, command=(*ANTIPHON, "run"), env={"TMPDIR": str(temporary)}
    ) as server:
        path = "/internal/numbers"
        for count in (1, 2, 3):
            async with connect(f"{server.url}/room", open_timeout=PATIENCE) as client:
                old = int(await client.recv())
            server.process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(PATIENCE):
                while Path(f"/proc/{old}").exists():  # noqa: ASYNC110, ASYNC240  nobody tells us
                    await asyncio.sleep(0.05)
            await comes(server, lambda now, count: now["connections_opened_total"] == count, path, count=count)
        (shared,) = temporary.glob("antiphon-metrics-*")
        assert len([*shared.iterdir()]) <= 4
        async with httpx.AsyncClient(base_url=server.http_url, timeout=PATIENCE) as client:
            assert (await client.get("/metrics")).status_code == 404
    assert [*temporary.glob("antiphon-metrics-*")] == []


async def test_a_start_removes_what_a_killed_server_has_left_and_nothing_of_one_that_lives(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    temporary = tmp_path_factory.mktemp("temporary")

    def folders() -> set[Path]:
        return {*temporary.glob("antiphon-metrics-*")}

    def started() -> contextlib.AbstractAsyncContextManager[ServedProcess]:
        args = ("--metrics", "--workers", "2")
        env = {"TMPDIR": str(temporary)}
        return serve_process("main:app", *args, app_dir=folder, command=(*ANTIPHON, "run"), env=env)

    async with started():
        (living,) = folders()
        async with started() as server:
            (killed,) = folders() - {living}
            server.process.kill()
            await server.process.wait()
        assert killed in folders()
        async with started():
            assert living in folders()
            assert killed not in folders()
            assert len(folders()) == 2
    assert folders() == set()


async def test_the_servers_own_way_shows_the_same(folder: Path) -> None:
    command = (*ANTIPHON, "relay", sys.executable, "-m", "uvicorn")
    args = ("--ws", "own:Protocol", "--workers", "2")
    async with serve_process("own:app", *args, app_dir=folder, command=command) as server:
        await somebody_listens(server)
        async with contextlib.AsyncExitStack() as stack:
            n = len(await enter(server, 2, stack))
            await comes(server, lambda now: now["connections_open"] == now["hub_connections relay://"] == n)


@pytest.mark.parametrize("path", ["metrics", "/", "metrics/"])
async def test_a_path_that_is_none_is_explained(folder: Path, path: str) -> None:
    finished = await antiphon("run", "main:app", "--port", "0", "--metrics", "--metrics-path", path, cwd=folder)
    assert finished.code == 2
    assert "--metrics-path is a slash and a name" in finished.stderr
