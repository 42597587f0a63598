"""Tokens as a page in Chromium can send them: it ends a connection whose subprotocols are not answered."""

import asyncio
import base64
import json
import re
from typing import Annotated, Any

import pytest
from playwright.async_api import Browser

from antiphon import App, Depends, WebSocket
from antiphon.gate import COOKIE, FIRST_MESSAGE, JWT, QUERY, SUBPROTOCOL, Identity
from antiphon.responses import HTMLResponse
from tests.commands import ROOT
from tests.gate.tokens import SECRET, signed
from tests.matrix.servers import SERVERS, ServerUnderTest
from tests.patience import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="session")

OPEN = """([query, protocols, first]) => new Promise((resolve) => {
  const socket = new WebSocket(`ws://${location.host}/ws${query}`, protocols);
  socket.onopen = () => first !== null && socket.send(first);
  socket.onmessage = (event) => { resolve([socket.protocol, event.data]); socket.close(); };
  socket.onclose = (event) => resolve([event.code, event.reason]);
})"""


def app_of() -> App:
    app = App()
    sources = [SUBPROTOCOL, COOKIE("session"), QUERY("token"), FIRST_MESSAGE(PATIENCE)]
    jwt = JWT(SECRET, algorithms=["HS256"], sources=sources)

    @app.get("/")
    async def page() -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>tokens</title>")

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket, who: Annotated[Identity, Depends(jwt)]) -> None:
        await websocket.accept()
        await websocket.send_text(who.user)

    return app


@pytest.mark.parametrize("server", SERVERS, ids=lambda one: one.name)
async def test_a_page_brings_its_token_in_every_way_it_can(browser: Browser, server: ServerUnderTest) -> None:
    token, expired = signed(), signed(exp=1000)
    kubernetes = "base64url.bearer.authorization.k8s.io." + base64.urlsafe_b64encode(token.encode()).decode().rstrip(
        "="
    )
    auth = json.dumps({"type": "auth", "token": token})
    ways: list[tuple[list[Any], list[Any]]] = [
        (["", ["bearer", token], None], ["bearer", "ada"]),
        (["", ["chat", "bearer", token], None], ["bearer", "ada"]),
        (["", [kubernetes, "chat"], None], ["chat", "ada"]),
        ([f"?token={token}", [], None], ["", "ada"]),
        (["", [], token], ["", "ada"]),
        (["", ["chat"], auth], ["chat", "ada"]),
        (["", [], expired], [3000, "Invalid token"]),
        (["", ["bearer", expired], None], [1006, ""]),  # a page never learns why a handshake was refused
        # No subprotocol is left for the answer, and Chromium ends it: docs/security.md warns of that.
        (["", [kubernetes], None], [1006, ""]),
    ]
    async with server.run(app_of()) as served, asyncio.timeout(PATIENCE):
        page = await browser.new_page()
        await page.goto(served.http_url)
        for handshake, expected in ways:
            assert await page.evaluate(OPEN, handshake) == expected, handshake
        await page.evaluate("(token) => { document.cookie = `session=${token}`; }", token)
        assert await page.evaluate(OPEN, ["", [], None]) == ["", "ada"]


def blocks(language: str) -> list[str]:
    page = (ROOT / "docs" / "security.md").read_text()
    section = page[page.index("\n## Authentication") :].split("\n## ")[1]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


async def test_the_pages_sides_of_the_security_page_do_what_they_say(browser: Browser) -> None:
    names: dict[str, Any] = {}
    exec(compile(blocks("python")[0], "security.md", "exec", dont_inherit=True), names)
    app: App = names["app"]

    @app.get("/")
    async def index() -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>live</title>")

    tried = blocks("js")
    assert len(tried) == 5
    async with SERVERS[0].run(app) as served, asyncio.timeout(PATIENCE):
        for code in tried:
            page = await browser.new_page()
            await page.goto(served.http_url.replace("127.0.0.1", "localhost"))
            token = await page.evaluate("async () => (await fetch('/login', { method: 'POST' })).json()")
            if "COOKIE" not in code:
                await page.context.clear_cookies()
            told = "socket.onmessage = (e) => done(e.data); socket.onclose = (e) => done(e.code);"
            program = f"async (token) => {{ {code}\n return new Promise((done) => {{ {told} }}); }}"
            assert await page.evaluate(program, token) == "hello ada", code
