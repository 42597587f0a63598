"""Pages of two sites in Chromium, with and without cookies, over HTTP and behind nginx with TLS, and the answers that
they can read."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, async_playwright

from antiphon import App, Denials, Depends, HTTPException, Response, WebSocket
from antiphon.responses import HTMLResponse
from tests.examples.test_behind_nginx import NGINX, nginx
from tests.patience import PATIENCE
from tests.serving import serve

from .fixtures import FLAGS

pytestmark = pytest.mark.asyncio(loop_scope="session")

A, B = "a.localhost", "b.localhost"

KNOCK = """async ([url, protocols]) => {
    const socket = protocols ? new WebSocket(url, protocols) : new WebSocket(url)
    const seen = []
    socket.onopen = () => seen.push("open")
    socket.onmessage = (event) => { seen.push(event.data); socket.close(1000, "enough") }
    const closed = await new Promise((resolve) => { socket.onclose = resolve })
    return [seen, closed.code, closed.reason, socket.protocol]
}"""


def forbid() -> None:
    raise HTTPException(401, "log in", headers={"WWW-Authenticate": "Bearer"})


def wait() -> None:
    raise HTTPException(429, "one at a time", headers={"Retry-After": "7"})


def application(listed: list[str]) -> App:
    app = App()

    @app.get("/")
    async def page() -> HTMLResponse:
        return HTMLResponse("<!doctype html><link rel=icon href=data:,><title>a site</title>")

    @app.get("/login")
    async def login() -> Response:
        response = HTMLResponse("<!doctype html><link rel=icon href=data:,>welcome")
        # As a site does that is embedded by others; `Lax` is already kept back from the pages of another site.
        response.set_cookie("session", "ann", samesite="none", secure=True)
        return response

    async def greet(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(f"hello {websocket.cookies.get('session', 'nobody')}")
        async for _ in websocket.iter_text():
            pass

    app.add_api_websocket_route("/default", greet)
    app.add_api_websocket_route("/listed", greet, origins=listed)
    app.add_api_websocket_route("/readable", greet, denials=Denials.CLOSE)
    app.add_api_websocket_route("/forbidden", greet, dependencies=[Depends(forbid)], denials=Denials.CLOSE)
    app.add_api_websocket_route("/busy", greet, dependencies=[Depends(wait)], denials=Denials.CLOSE)
    app.add_api_websocket_route("/http", greet, dependencies=[Depends(forbid)])

    @app.channel("/channel", dependencies=[Depends(forbid)])
    async def channel() -> AsyncIterator[None]:
        yield

    return app


@pytest_asyncio.fixture(loop_scope="session")
async def context(chromium: str, tmp_path: Path) -> AsyncGenerator[BrowserContext]:
    """A profile of its own that sends cookies across sites, as browsers do for users who allow it and for sibling
    domains. It also trusts certificates made on the spot."""
    profile = tmp_path / "profile"
    (profile / "Default").mkdir(parents=True)
    (profile / "Default" / "Preferences").write_text(json.dumps({"profile": {"cookie_controls_mode": 0}}))
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            profile,
            executable_path=chromium,
            args=FLAGS,
            ignore_https_errors=True,
            timeout=PATIENCE * 1000,
        )
        yield context
        await context.close()


async def opened(context: BrowserContext, url: str) -> Page:
    page = await context.new_page()
    await page.goto(url)
    return page


async def knock(page: Page, url: str, *protocols: str) -> Any:
    return await page.evaluate(KNOCK, [url, list(protocols)])


HELLO_ANN = [["open", "hello ann"], 1000, "enough", ""]
HELLO_NOBODY = [["open", "hello nobody"], 1000, "enough", ""]
REFUSED = [[], 1006, "", ""]
READ = [["open"], 3003, "this origin may not connect", ""]


async def look_around(context: BrowserContext, a: str, b: str, caplog: pytest.LogCaptureFixture) -> None:
    """Pages of the site `a`, which is ours, and of `b`, which is not, connect to `a`."""
    socket = a.replace("http", "ws", 1)
    theirs = await opened(context, f"{b}/")
    assert await knock(theirs, f"{socket}/default") == HELLO_NOBODY  # without cookies
    ours = await opened(context, f"{a}/login")
    assert await knock(ours, f"{socket}/default") == HELLO_ANN
    assert await knock(theirs, f"{socket}/default") == REFUSED  # with the cookies of our visitor
    assert await knock(theirs, f"{socket}/readable") == READ
    assert await knock(theirs, f"{socket}/listed") == HELLO_ANN
    lines = [one.getMessage() for one in caplog.records if one.name == "antiphon" and one.levelno == logging.WARNING]
    assert lines == [
        f"/default refused: a page of {b} came with cookies, which only these may use: ours, {a}. If that page may "
        f'connect: origins= of the App, router, route or OriginMiddleware, origins=["{b}"]'
    ]


async def test_two_sites_over_http(context: BrowserContext, caplog: pytest.LogCaptureFixture) -> None:
    listed: list[str] = [f"http://{B}:*"]
    async with (
        serve(application(listed), ws="antiphon.server:WebSocketProtocol") as first,
        serve(application([])) as second,
    ):
        await look_around(context, f"http://{A}:{first.port}", f"http://{B}:{second.port}", caplog)


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt-get install nginx")
async def test_two_sites_behind_nginx_with_tls(
    context: BrowserContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listed: list[str] = [f"https://{B}:*"]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with (
        serve(application(listed), ws="antiphon.server:WebSocketProtocol") as first,
        serve(application([])) as second,
        nginx(tmp_path / "a", first.port) as a,
        nginx(tmp_path / "b", second.port) as b,
    ):
        await look_around(context, f"https://{A}:{a}", f"https://{B}:{b}", caplog)


@pytest.mark.parametrize("ws", ["antiphon.server:WebSocketProtocol", "websockets-sansio", "wsproto"])
async def test_a_page_reads_the_code_and_the_reason_of_its_refusal(context: BrowserContext, ws: str) -> None:
    async with serve(application([]), ws=ws) as server:
        page = await opened(context, f"http://{A}:{server.port}/")
        socket = f"ws://{A}:{server.port}"
        log_in = [["open"], 3000, "log in", ""]
        assert await knock(page, f"{socket}/forbidden") == log_in
        assert await knock(page, f"{socket}/channel") == log_in
        assert await knock(page, f"{socket}/busy") == [["open"], 1013, "one at a time; retry-after=7", ""]
        assert await knock(page, f"{socket}/forbidden", "bearer", "s3cret") == [["open"], 3000, "log in", "bearer"]
        kubernetes = "base64url.bearer.authorization.k8s.io.czNjcmV0"
        assert await knock(page, f"{socket}/forbidden", kubernetes, "chat") == [["open"], 3000, "log in", "chat"]
        assert await knock(page, f"{socket}/http") == REFUSED
