"""Each step of the tutorial runs as it is printed: its program on a real server, its page in Chromium."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect
from websockets.asyncio.client import ClientConnection, connect

from tests.browser.conftest import browser, chromium, running
from tests.commands import ROOT, antiphon, run
from tests.patience import PATIENCE

__all__ = ["browser", "chromium", "running"]

TUTORIAL = ROOT / "docs" / "tutorial"


def printed(step: str, folder: Path) -> None:
    """Put the files of a step into `folder`."""
    text = (TUTORIAL / f"{step}.md").read_text()
    for language, name in (("python", "main.py"), ("html", "page.html")):
        found = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        assert len(found) <= 1
        for block in found:
            (folder / name).write_text(block)


async def visit(browser: Browser, port: int, name: str) -> Page:
    page = await browser.new_page()
    await page.goto(f"http://127.0.0.1:{port}/?name={name}")
    return page


async def say(page: Page, text: str) -> None:
    await page.get_by_label("Message").fill(text)
    await page.get_by_role("button", name="Send").click()


async def test_step_1_answers_in_the_terminal(tmp_path: Path) -> None:
    printed("1-echo", tmp_path)
    async with run("main:app", app_dir=tmp_path) as server:
        said = await antiphon("connect", f"{server.url}/echo", stdin="hello\n")
        assert (said.code, said.stdout) == (0, "you said hello\n")


@pytest.mark.asyncio(loop_scope="session")
async def test_step_2_two_windows_talk(tmp_path: Path, browser: Browser) -> None:
    printed("2-chat", tmp_path)
    async with run("main:app", app_dir=tmp_path) as server:
        async with connect(f"{server.url}/rooms/lobby?name=eve") as eve:
            ada, bob = await visit(browser, server.port, "ada"), await visit(browser, server.port, "bob")
            async with asyncio.timeout(PATIENCE):
                await said_until_heard(ada, eve)
        await expect(ada.get_by_role("listitem").last).to_have_text("ada: <b>hi</b>")
        await say(ada, "there you are")
        await expect(bob.get_by_role("listitem").last).to_have_text("ada: there you are")


async def said_until_heard(page: Page, client: ClientConnection) -> None:
    """What is said before the page's socket is open goes nowhere."""
    while True:
        await say(page, "<b>hi</b>")
        try:
            async with asyncio.timeout(1):
                assert "<b>hi</b>" in str(await client.recv())
                return
        except TimeoutError:
            pass


@pytest.mark.asyncio(loop_scope="session")
async def test_step_3_windows_come_back_and_miss_nothing(tmp_path: Path, browser: Browser) -> None:
    printed("3-reconnect", tmp_path)
    state = ("--state", str(tmp_path / "state"))
    async with run("main:app", *state, app_dir=tmp_path) as server:
        port = server.port
        ada, bob = await visit(browser, port, "ada"), await visit(browser, port, "bob")
        for page in (ada, bob):
            await expect(page.get_by_role("status")).to_have_text("open")
        await say(ada, "before")
        await expect(bob.get_by_role("listitem")).to_have_text(["ada: before"])
    await expect(ada.get_by_role("status")).not_to_have_text("open")
    async with run("main:app", *state, "--port", str(port), app_dir=tmp_path):
        for page in (ada, bob):
            await expect(page.get_by_role("status")).to_have_text("open")
        await say(bob, "after")
        for page in (ada, bob):
            await expect(page.get_by_role("listitem")).to_have_text(["ada: before", "bob: after"])
