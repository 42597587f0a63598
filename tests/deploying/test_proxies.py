"""nginx, Caddy and HAProxy with the files of examples/deploy, TLS included, in front of the app there."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from antiphon.cli.client import Address, Refused, TerminalClient
from antiphon.wire import Ping
from tests.commands import run
from tests.patience import PATIENCE
from tests.serving import ServedProcess

from .proxies import FILES, KINDS, NGINX, Kind, Proxy, proxy, trusting

CHANGE = {
    "nginx": ("return 404;", "return 410;"),
    "caddy": ("/metrics 404", "/metrics 410"),
    "haproxy": (" 404 ", " 410 "),
}

LIMITS = (1, 6, 30)
"""Seconds of silence that a proxy bears: where the machine was too slow for that, the next is tried."""

ELSEWHERE = "127.0.0.2"
"""Where the client is, so that its address is not the proxy's."""


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    if found.binary is None:
        pytest.skip(f"{found.name} is not installed: make system")
    return found


@contextlib.asynccontextmanager
async def served(
    kind: Kind, folder: Path, *changes: tuple[str, str], options: tuple[str, ...] = ()
) -> AsyncGenerator[tuple[ServedProcess, Proxy]]:
    async with asyncio.timeout(PATIENCE), run(FILES / "main.py", *options) as server:
        async with proxy(kind, folder, server.port, *changes) as front:
            yield server, front


def visit(front: Proxy, path: str, **headers: str) -> contextlib.AbstractAsyncContextManager[ClientConnection]:
    address = (ELSEWHERE, 0)
    return connect(
        f"{front.url}{path}", ssl=trusting(), additional_headers=headers, local_addr=address, host="127.0.0.1"
    )


async def status(site: str, path: str) -> int:
    def ask() -> int:
        try:
            with urllib.request.urlopen(f"{site}{path}", context=trusting(), timeout=PATIENCE) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    return await asyncio.to_thread(ask)


async def echoed(client: ClientConnection, text: str) -> None:
    await client.send(text)
    assert await client.recv() == text


async def test_a_websocket_comes_through_with_the_clients_own_address(kind: Kind, tmp_path: Path) -> None:
    async with served(kind, tmp_path) as (_, front):
        claims = {"X-Forwarded-For": "9.9.9.9", "X-Forwarded-Proto": "http"}
        async with visit(front, "/whoami", **claims) as client:
            assert json.loads(await client.recv()) == {"address": ELSEWHERE, "scheme": "wss"}
        async with visit(front, "/rooms/tea") as client:
            await echoed(client, "x" * 100_000)


async def test_probes_come_through_and_metrics_do_not(kind: Kind, tmp_path: Path) -> None:
    async with served(kind, tmp_path, options=("--metrics",)) as (server, front):
        assert await status(front.site, "/healthz") == 200
        assert await status(front.site, "/metrics") == 404
        assert await status(server.http_url, "/metrics") == 200


async def test_a_reload_of_the_proxy_keeps_what_its_page_says(kind: Kind, tmp_path: Path) -> None:
    async with served(kind, tmp_path) as (_, front), visit(front, "/rooms/tea") as client:
        await echoed(client, "before")
        await front.reload(CHANGE[kind.name])
        while await status(front.site, "/metrics") != 410:  # noqa: ASYNC110  the proxy tells nobody when it has
            await asyncio.sleep(0.02)
        if kind.closes_at_reload:
            with pytest.raises(ConnectionClosed):
                await client.recv()
        else:
            await echoed(client, "after")
        async with visit(front, "/rooms/milk") as newcomer:
            await echoed(newcomer, "new")


async def test_a_stop_of_the_server_reaches_the_client_as_1012(kind: Kind, tmp_path: Path) -> None:
    async with served(kind, tmp_path) as (server, front), visit(front, "/rooms/tea") as client:
        await echoed(client, "before")
        server.process.terminate()
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert await server.process.wait() == -signal.SIGTERM


async def test_pings_keep_a_quiet_connection_open_through_the_proxy(kind: Kind, tmp_path: Path) -> None:
    """The client hears nothing but pings, for twice the limit of the proxy."""
    for limit in LIMITS:
        pings, longest_silence = await hear_pings(kind, tmp_path, limit)
        if longest_silence < limit / 2:
            break
    assert pings >= 10


async def hear_pings(kind: Kind, folder: Path, limit: int) -> tuple[int, float]:
    """How many came, ten if the connection has stayed, and how long the longest time was in which nothing did."""
    limits = {
        "nginx": [("proxy_read_timeout 60s", f"proxy_read_timeout {limit}s")],
        "caddy": [],
        "haproxy": [("timeout tunnel 60s", f"timeout tunnel {limit}s")],
    }
    options = ("--ws-ping-interval", f"{limit / 5}")
    pings, clock = 0, asyncio.get_running_loop().time
    async with served(kind, folder, *limits[kind.name], options=options) as (_, front):
        times = [clock()]
        with contextlib.suppress(Refused):  # the proxy did not wait for the server's answer
            client = await TerminalClient.open(Address.parse(f"{front.url}/rooms/tea"), insecure=True)
            async for event in client.events():
                times.append(clock())
                if isinstance(event, Ping):
                    pings += 1
                    if pings == 10:
                        await client.send("still here")
                if event == "still here":
                    await client.close()
        times.append(clock())
    return pings, max(later - before for before, later in itertools.pairwise(times))


async def test_without_pings_nginx_ends_a_quiet_connection(tmp_path: Path) -> None:
    """The reason for the line about timeouts in each file."""
    if NGINX.binary is None:
        pytest.skip("nginx is not installed: make system")
    for limit in LIMITS:
        change = ("proxy_read_timeout 60s", f"proxy_read_timeout {limit}s")
        async with served(NGINX, tmp_path, change, options=("--ws-ping-interval", "0")) as (_, front):
            try:
                client = await visit(front, "/rooms/tea").__aenter__()
            except InvalidStatus:  # it did not wait for the server's answer
                continue
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is None  # 1006: the proxy says nothing
            return
    pytest.fail("the server never answered in time")
