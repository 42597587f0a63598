"""The health endpoint, as probes ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from antiphon import APIRouter, App
from antiphon.hub import Hub
from antiphon.observability.healthz import healthz_app
from antiphon.observability.prometheus import metrics_app
from antiphon.testing.hub_sinks import Connection
from antiphon.types import ASGIApp
from tests.commands import ANTIPHON
from tests.patience import PATIENCE
from tests.redis_server import RedisServer
from tests.relay_server import RelayServer
from tests.serving import serve_process


async def ask(app: ASGIApp, method: str = "GET", path: str = "/healthz", root_path: str = "") -> httpx.Response:
    transport = httpx.ASGITransport(app=app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path)


async def test_a_process_whose_hubs_have_their_backends_is_healthy() -> None:
    response = await ask(healthz_app(Hub()))
    assert response.status_code == 200
    assert response.json() == {"status": "ok", "hubs": [{"backend": "memory://", "connected": True}]}


async def test_a_process_whose_backend_is_away_is_not_and_shows_no_password() -> None:
    response = await ask(healthz_app(Hub(), Hub("redis://user:secret@127.0.0.1:1/0")))
    assert response.status_code == 503
    assert response.json()["hubs"][1] == {"backend": "redis://***@127.0.0.1:1/0", "connected": False}
    assert "secret" not in response.text


async def test_only_reading_is_allowed() -> None:
    app = healthz_app()
    assert (await ask(app, "HEAD")).status_code == 200
    assert (await ask(app, "DELETE")).status_code == 405


async def test_a_probe_starts_a_hub_that_nobody_has_used_yet() -> None:
    with RelayServer() as relay:
        hub = Hub(relay.url)
        app = healthz_app(hub)
        async with asyncio.timeout(PATIENCE):
            while (await ask(app)).status_code != 200:  # noqa: ASYNC110  it does not wait for long
                await asyncio.sleep(0.01)
        await hub.stop()
        assert (await ask(app)).status_code == 503


async def test_a_probe_does_not_wait_for_a_backend_that_hangs() -> None:
    with RelayServer() as relay:
        relay.stop_answering()
        hub = Hub(relay.url)
        probing = asyncio.create_task(ask(healthz_app(hub)))
        response = await asyncio.wait_for(probing, PATIENCE)
        assert response.status_code == 503
        relay.answer_again()
        await hub.start()  # the one that was under way
        assert (await ask(healthz_app(hub))).status_code == 200
        await hub.stop()


def mount(app: Any) -> Any:
    app.mount("/healthz", healthz_app(Hub()))
    app.mount("/metrics", metrics_app(Hub()))
    return app


def add(app: Any) -> Any:
    app.add_route("/healthz", healthz_app(Hub()))
    app.add_route("/metrics", metrics_app(Hub()))
    return app


def below_a_prefix() -> Any:
    app = App()
    app.include_router(mount(APIRouter()), prefix="/live")
    return app


def mounted_in_fastapi() -> Any:
    app = FastAPI()
    app.mount("/live", add(App()))
    return app


def included_in_fastapi() -> Any:
    app = FastAPI()
    app.include_router(add(APIRouter()), prefix="/live")
    return app


HOSTS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "mounted in ours": (lambda: mount(App()), "", ""),
    "added to ours": (lambda: add(App()), "", ""),
    "added to ours, whose prefix a proxy strips": (lambda: add(App(root_path="/api")), "", ""),
    "added to ours, whose prefix a proxy keeps": (lambda: add(App(root_path="/api")), "/api", ""),
    "added to ours, on a server with a root path": (lambda: add(App()), "/api", "/api"),
    "included with a prefix": (below_a_prefix, "/live", ""),
    "below a mount in FastAPI": (mounted_in_fastapi, "/live", ""),
    "included by FastAPI": (included_in_fastapi, "/live", ""),
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("slash", ["", "/", "//"])
@pytest.mark.parametrize("name", ["/healthz", "/metrics"])
@pytest.mark.parametrize("host", HOSTS)
async def test_a_probe_is_answered_and_not_redirected(host: str, name: str, slash: str, method: str) -> None:
    make, prefix, root_path = HOSTS[host]
    assert (await ask(make(), method, prefix + name + slash, root_path)).status_code == 200


@pytest.mark.parametrize("host", [FastAPI, Starlette])
@pytest.mark.parametrize("name", ["/healthz", "/metrics"])
async def test_an_app_of_another_framework_answers_a_probe_at_the_path_it_was_added(host: Any, name: str) -> None:
    app = add(host())
    assert (await ask(app, "GET", name)).status_code == 200
    assert (await ask(app, "HEAD", name)).status_code == 200
    assert (await ask(app, "POST", name)).status_code == 405


@pytest.mark.parametrize("host", [FastAPI, Starlette])
async def test_mounted_in_an_app_of_another_framework_it_says_once_that_its_path_is_a_redirect(
    host: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = mount(host())
    assert (await ask(app, "GET", "/healthz")).status_code == 307
    for _ in range(2):
        assert (await ask(app, "GET", "/healthz/")).status_code == 200
    (record,) = caplog.records
    assert record.getMessage().startswith("/healthz is redirected to /healthz/")
    assert "add_route" in record.getMessage()


async def test_nothing_is_served_below_it() -> None:
    for app in (mount(App()), add(App())):
        assert (await ask(app, "GET", "/healthz/more")).status_code == 404


async def test_neither_of_them_walks_over_the_memberships() -> None:
    hub = Hub()
    app = add(App(hub=hub))
    async with hub.join("a", Connection()), hub.join("b", Connection()):
        for room in hub._rooms.stations.values():
            for local in room.topics.values():
                local.receivers = NotToBeWalked(local.receivers)
        assert (await ask(app, "GET", "/healthz")).status_code == 200
        assert (await ask(app, "GET", "/metrics")).status_code == 200
        assert hub.stats().memberships == 2
        with pytest.raises(AssertionError):
            list(local.receivers)


class NotToBeWalked(dict[Any, None]):
    def __iter__(self) -> Any:
        raise AssertionError("walked")


PROGRAM = """
from antiphon import App, Hub, WebSocket
from antiphon.observability.healthz import healthz_app
from fastapi import FastAPI

live = App(hub=Hub("{url}"))
app = {app}
app.{how}("/healthz", healthz_app(live.hub))
"""


@pytest.mark.parametrize(
    ("app", "how"), [("live", "mount"), ("live", "add_route"), ("FastAPI()", "add_route")], ids=str
)
async def test_a_probe_sees_that_redis_was_killed_and_that_it_is_back(tmp_path: Path, app: str, how: str) -> None:
    with RedisServer() as redis:
        (tmp_path / "main.py").write_text(PROGRAM.format(url=redis.url, app=app, how=how))
        async with serve_process("main:app", app_dir=tmp_path, command=(*ANTIPHON, "run")) as server:
            async with httpx.AsyncClient(base_url=server.http_url, follow_redirects=False, timeout=PATIENCE) as probe:
                assert await becomes(probe, 200)
                redis.kill()
                assert await becomes(probe, 503)
                redis.start()
                assert await becomes(probe, 200)


async def becomes(probe: httpx.AsyncClient, status: int) -> bool:
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await probe.get("/healthz")
            assert answer.status_code in (200, 503)
            if answer.status_code == status:
                return True
            await asyncio.sleep(0.05)
