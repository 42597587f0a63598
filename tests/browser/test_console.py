"""The console in a real browser: under its strict policy, offline, with every message it can send and show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated
from urllib.request import urlopen

import pytest
from playwright.async_api import Browser, Page, ViewportSize, expect
from pydantic import BaseModel, Field

from antiphon import App, Cookie, Depends, Framing, Header, Hub, Topic, Topics, WebSocket
from antiphon.asyncapi.console import FOLDER
from tests.serving import serve

pytestmark = pytest.mark.asyncio(loop_scope="session")

MOST = 60 * 1024
"""Bytes of the page and all it needs."""


class Say(BaseModel):
    """Say something."""

    text: Annotated[str, Field(max_length=20)]
    loud: bool = False
    mood: str | None = None


class Count(BaseModel):
    start: int = 0


class Said(BaseModel):
    text: str


def application() -> App:
    rooms = Topics("room/{room}", Said, history=10, presence=True, framing=Framing.EVENT)
    app = App(hub=Hub("memory://", topics=[rooms]), title="Chat <b>", version="1.0")

    @app.channel("/rooms/{room}")
    async def chat(
        websocket: WebSocket, name: str, limit: int = 5, room: Topic[Said] = Depends(rooms)
    ) -> AsyncIterator[None]:
        """A room of <i>the chat</i>."""
        await websocket.accept()
        async with room.join(websocket, presence=name):
            yield

    @chat.on
    async def say(message: Say, room: Topic[Said] = Depends(rooms)) -> int:
        await room.publish(Said(text=message.text.upper() if message.loud else message.text))
        return len(message.text)

    @chat.on
    async def count(message: Count) -> AsyncIterator[int]:
        number = message.start
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.02)

    return app


async def opened(browser: Browser, url: str, size: ViewportSize | None = None) -> tuple[Page, list[str]]:
    """The console, and its faults: errors, and requests to anywhere else."""
    page = await browser.new_page(viewport=size)
    wrong: list[str] = []
    page.on("console", lambda one: wrong.append(one.text) if one.type in ("error", "warning") else None)
    page.on("pageerror", lambda one: wrong.append(str(one)))
    page.on("request", lambda one: wrong.append(one.url) if not one.url.startswith(url) else None)
    await page.goto(f"{url}/asyncapi")
    await expect(page.get_by_role("heading", name="Chat <b>")).to_be_visible()
    return page, wrong


async def connected(page: Page) -> None:
    await page.get_by_label("room").fill("7")
    await page.get_by_label("name").fill("ann")
    await page.get_by_role("button", name="Connect").click()
    await expect(page.locator("#state")).to_have_text("connected")


async def test_messages_are_sent_answered_streamed_cancelled_and_marked(browser: Browser) -> None:
    async with serve(application()) as server:
        page, wrong = await opened(browser, server.http_url)
        await connected(page)
        log = page.locator("#log li")
        await expect(page.locator("#people")).to_have_text("Here: ann")
        await page.get_by_role("button", name="say", exact=True).click()
        await page.get_by_label("text").fill("x" * 21)
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator("#fields .fault").first).to_contain_text("at most 20 characters")
        await page.get_by_label("text").fill("hello")
        await page.get_by_label("loud").check()
        await page.get_by_label("mood").fill("fine")
        await page.get_by_label("text").press("Control+Enter")
        await expect(log.filter(has_text="to say")).to_have_count(2)
        await expect(log.filter(has_text='"text": "HELLO"')).to_have_count(2)  # the sent message, and the received one
        await expect(log.filter(has_text='"mood": "fine"')).to_have_count(1)
        await expect(page.locator("#fields .fault").first).to_be_empty()
        await expect(page.locator("#position")).to_contain_text("Position in room/7: 1-")
        await page.get_by_role("button", name="count", exact=True).click()
        await page.get_by_role("button", name="Send").click()
        await expect(log.filter(has_text="item to count").nth(2)).to_be_attached()
        await page.get_by_role("button", name="Cancel count").click()
        await expect(log.filter(has_text="end to count")).to_have_count(1)
        await page.get_by_label("Filter").fill("HELLO")
        await expect(log.filter(visible=True)).to_have_count(2)
        await page.get_by_role("button", name="Close").click()
        await expect(page.locator("#state")).to_contain_text("closed: 1000 normal end")
        assert wrong == []


async def test_the_json_editor_sends_what_no_form_would(browser: Browser) -> None:
    async with serve(application()) as server:
        page, wrong = await opened(browser, server.http_url)
        await connected(page)
        await page.get_by_role("button", name="say", exact=True).click()
        await page.get_by_label("as JSON").check()
        await page.get_by_label("message", exact=True).fill('{"type": "nobody", "text": 5}')
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator("#log li").filter(has_text="unknown_type")).to_have_count(1)
        assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_a_phone_in_light_and_dark(browser: Browser, scheme: str, tmp_path: Path) -> None:
    async with serve(application()) as server:
        page, wrong = await opened(browser, server.http_url, {"width": 360, "height": 700})
        await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        await connected(page)
        await page.get_by_role("button", name="say", exact=True).click()
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        dark = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (dark == "rgb(23, 23, 22)") is (scheme == "dark")
        assert (await page.screenshot(path=tmp_path / f"{scheme}.png"))[:4] == b"\x89PNG"
        assert wrong == []


async def test_the_whole_page_is_small_and_served_under_a_strict_policy() -> None:
    size = sum(path.stat().st_size for path in FOLDER.iterdir() if path.suffix in (".html", ".css", ".js", ".svg"))
    assert size <= MOST

    def policy(url: str) -> str | None:
        with urlopen(url) as answer:
            found: str | None = answer.headers["Content-Security-Policy"]
            return found

    async with serve(application()) as server:
        for name in ("", "/console.js", "/console.css", "/console.svg"):
            told = await asyncio.to_thread(policy, f"{server.http_url}/asyncapi{name}")
            assert told is not None
            assert told.startswith("default-src 'self';")
            assert "unsafe" not in told


async def test_the_console_says_of_cookies_that_the_browser_sends_them(browser: Browser) -> None:
    """And of other headers that it cannot."""
    app = App(title="Chat <b>")

    @app.channel("/chat")
    async def chat(
        websocket: WebSocket, session: Annotated[str, Cookie()] = "", x_client: Annotated[str, Header()] = ""
    ) -> None: ...

    async with serve(app) as server:
        page, wrong = await opened(browser, server.http_url)
        notes = page.locator("#credentials")
        await expect(notes).to_contain_text("Reads cookies: the browser sends those of this site.")
        await expect(notes).to_contain_text("Reads the header x-client, which a page cannot set")
        assert wrong == []
