"""The pages of docs/howto keep their promises: their programs on a real server, their pages in Chromium."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import httpx2 as httpx
import pytest
from playwright.async_api import Browser, expect
from websockets.asyncio.client import connect

from tests.commands import ROOT, run
from tests.howto.printing import PAGES, printed
from tests.patience import PATIENCE
from tests.redis_server import RedisServer


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    assert {path.name for path in PAGES.glob("*.md")} == set(re.findall(r"\]\(howto/([\w-]+\.md)\)", index))


@pytest.mark.asyncio(loop_scope="session")
async def test_the_stop_button_frees_the_model(tmp_path: Path, browser: Browser) -> None:
    printed("stream-tokens", tmp_path)
    async with run("main:app", app_dir=tmp_path) as server:
        page = await browser.new_page()
        await page.goto(server.http_url)
        await page.get_by_label("Prompt").fill("x")
        await page.get_by_role("button", name="Ask").click()
        await expect(page.locator("#answer")).to_contain_text("x0 x1 x2 ")
        assert "the model is free" not in server.log
        await page.get_by_role("button", name="Stop").click()
        await server.wait_for_line("the model is free")
        await expect(page.get_by_role("button", name="Stop")).to_be_disabled()
        assert "(" not in await page.locator("#answer").inner_text()
        await page.get_by_role("button", name="Ask").click()
        await expect(page.locator("#answer")).to_contain_text("x0 ")
        await page.close()
        async with asyncio.timeout(PATIENCE):
            while server.log.count("the model is free") < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@pytest.mark.asyncio(loop_scope="session")
async def test_a_page_in_two_rooms_comes_back_to_both(tmp_path: Path, browser: Browser) -> None:
    printed("several-rooms", tmp_path)
    async with run("main:app", app_dir=tmp_path) as server:
        ada, bob = await browser.new_page(), await browser.new_page()
        await ada.goto(f"{server.http_url}/?name=ada&room=tea&room=den")
        await bob.goto(f"{server.http_url}/?name=bob&room=den")
        for page in (ada, bob):
            await expect(page.get_by_role("status")).to_have_text("inside")
        refused = await bob.evaluate("house.say({ room: 'tea', text: 'x' }).catch((error) => error.code)")
        assert refused == "not_inside"
        await bob.evaluate("house.say({ room: 'den', text: 'one' })")
        await ada.evaluate("house.say({ room: 'tea', text: 'two' })")
        await expect(ada.get_by_role("listitem")).to_have_text(["room/den: bob: one", "room/tea: ada: two"])
        await expect(bob.get_by_role("listitem")).to_have_text(["room/den: bob: one"])
        await ada.evaluate("house.reconnect()")
        await bob.evaluate("house.say({ room: 'den', text: 'three' })")
        await expect(ada.get_by_role("listitem").last).to_have_text("room/den: bob: three")
        await expect(ada.get_by_role("listitem")).to_have_count(3)
        await ada.evaluate("house.exit({ room: 'den' })")
        await bob.evaluate("house.say({ room: 'den', text: 'four' })")
        await ada.evaluate("house.say({ room: 'tea', text: 'five' })")
        await expect(ada.get_by_role("listitem").last).to_have_text("room/tea: ada: five")
        await expect(ada.get_by_role("listitem")).to_have_count(4)


@pytest.mark.asyncio(loop_scope="session")
async def test_a_board_has_its_state_and_every_change(tmp_path: Path, browser: Browser) -> None:
    printed("state-and-changes", tmp_path)
    async with run("main:app", app_dir=tmp_path) as server:
        ada, bob = await browser.new_page(), await browser.new_page()
        await ada.goto(server.http_url)
        await expect(ada.get_by_role("status")).to_have_text("loaded")
        await ada.evaluate("board.set({ key: 'a', value: '1' })")
        await ada.evaluate("board.set({ key: 'b', value: '1' })")
        await bob.goto(server.http_url)
        await expect(bob.get_by_role("listitem")).to_have_text(["a: 1", "b: 1"])
        await ada.evaluate("board.set({ key: 'a', value: '2' })")
        await ada.evaluate("board.set({ key: 'b', value: null })")
        for page in (ada, bob):
            await expect(page.get_by_role("listitem")).to_have_text(["a: 2"])
        await bob.evaluate("globalThis.states = 0; board.on('state', () => states++); board.reconnect()")
        await ada.evaluate("board.set({ key: 'b', value: '3' })")
        for page in (ada, bob):
            await expect(page.get_by_role("listitem")).to_have_text(["a: 2", "b: 3"])
        assert await bob.evaluate("states") == 0


async def test_sync_endpoints_and_other_processes_publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed("publish-from-elsewhere", tmp_path)
    with RedisServer() as redis:
        monkeypatch.setenv("HUB_URL", redis.url)
        async with run("main:app", app_dir=tmp_path) as server, asyncio.timeout(PATIENCE):
            async with connect(f"{server.url}/notices") as client, httpx.AsyncClient() as http:
                async with asyncio.timeout(PATIENCE):
                    while not redis.channels():  # noqa: ASYNC110  joined
                        await asyncio.sleep(0.02)
                answer = await http.post(f"{server.http_url}/notices", params={"text": "tea"})
                assert answer.status_code == 200
                assert await client.recv() == "tea"
                worker = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-W", "error", "worker.py"), cwd=tmp_path, env=os.environ | {"HUB_URL": redis.url}
                )
                assert await worker.wait() == 0
                assert await client.recv() == "report 7 is ready"


async def test_a_thread_publishes_through_the_loop() -> None:
    text = (PAGES / "publish-from-elsewhere.md").read_text()
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[:2]:
        exec(block, names)
    hub = names["app"].hub  # type: ignore[attr-defined]
    async with hub, hub.subscribe("notices") as messages:
        publish = names["publish_from_thread"]
        await asyncio.to_thread(publish, asyncio.get_running_loop(), "tea")  # type: ignore[arg-type]
        async with asyncio.timeout(PATIENCE):
            assert (await anext(aiter(messages))).data == "tea"
