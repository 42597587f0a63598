"""The pages for users of another library: the programs that are to replace theirs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect
from websockets.asyncio.client import connect

from tests.commands import run
from tests.howto.printing import printed
from tests.patience import PATIENCE


@pytest.mark.asyncio(loop_scope="session")
async def test_rooms_and_acknowledgements_of_socket_io(tmp_path: Path, browser: Browser) -> None:
    printed("socket-io", tmp_path)
    async with run("main:app", app_dir=tmp_path) as server:
        page, stranger = await browser.new_page(), await browser.new_page()
        await page.goto(f"{server.http_url}/?token=sesame")
        await expect(page).to_have_title("open")
        assert await page.evaluate("chat.say({ room: 'tea', text: 'hi' })") == 2
        await expect(page.get_by_role("listitem")).to_have_text(["ann: hi"])
        await stranger.goto(server.http_url)
        await expect(stranger).to_have_title("unauthorized")
        await page.evaluate("chat.reconnect()")
        await expect(page).to_have_title("open")
        await page.evaluate("chat.say({ room: 'tea', text: 'again' })")
        await expect(page.get_by_role("listitem")).to_have_text(["ann: hi", "ann: again"])


async def test_a_group_of_channels_is_a_topic(tmp_path: Path) -> None:
    printed("django-channels", tmp_path)
    async with run("main:app", app_dir=tmp_path) as server, asyncio.timeout(PATIENCE):
        async with connect(f"{server.url}/ws/rooms/tea") as ada:
            await ada.send(json.dumps({"text": "hi", "admin": True}))
            assert json.loads(await ada.recv()) == {"text": "hi"}
            async with connect(f"{server.url}/ws/rooms/tea") as bob:
                assert json.loads(await bob.recv()) == {"text": "hi"}
