"""Each step of the tutorial runs as it is printed: its program on a real server, its page in Chromium.

Step 6 has a file of its own, test_live.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect
from websockets.asyncio.client import ClientConnection, connect

from tests.browser.cable import Cable
from tests.commands import antiphon, run
from tests.patience import PATIENCE

from .printed import STEP_4, STEP_5, STEP_6, printed


async def visit(browser: Browser, port: int, name: str) -> Page:
    page = await browser.new_page()
    await page.goto(f"http://127.0.0.1:{port}/?name={name}")
    return page


async def say(page: Page, text: str) -> None:
    await page.get_by_label("Message").fill(text)
    await page.get_by_role("button", name="Send").click()


async def test_step_1_answers_in_the_terminal(tmp_path: Path) -> None:
    printed(tmp_path, "1-echo")
    async with run("main:app", app_dir=tmp_path) as server:
        said = await antiphon("connect", f"{server.url}/echo", stdin="hello\n")
        assert (said.code, said.stdout) == (0, "you said hello\n")


@pytest.mark.asyncio(loop_scope="session")
async def test_step_2_two_windows_talk(tmp_path: Path, browser: Browser) -> None:
    printed(tmp_path, "2-chat")
    async with run("main:app", app_dir=tmp_path) as server:
        async with connect(f"{server.url}/rooms/lobby?name=eve") as eve:
            ada, bob = await visit(browser, server.port, "ada"), await visit(browser, server.port, "bob")
            async with asyncio.timeout(PATIENCE):
                await said_until_heard(ada, eve)
        await expect(ada.get_by_role("listitem").last).to_have_text("ada: <b>hi</b>")
        await say(ada, "there you are")
        await expect(bob.get_by_role("listitem").last).to_have_text("ada: there you are")


async def said_until_heard(page: Page, client: ClientConnection) -> None:
    """A message sent before the page's socket is open goes nowhere."""
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
    printed(tmp_path, "3-reconnect")
    state = ("--state", str(tmp_path / "state"))
    async with Cable(0) as cable:  # its port stays; that of a server that has ended may be somebody else's
        async with run("main:app", *state, app_dir=tmp_path) as server:
            cable.target = server.port
            ada, bob = await visit(browser, cable.port, "ada"), await visit(browser, cable.port, "bob")
            for page in (ada, bob):
                await expect(page.get_by_role("status")).to_have_text("open")
            await say(ada, "before")
            await expect(bob.get_by_role("listitem")).to_have_text(["ada: before"])
        await expect(ada.get_by_role("status")).not_to_have_text("open")
        async with run("main:app", *state, app_dir=tmp_path) as server:
            cable.target = server.port
            for page in (ada, bob):
                await expect(page.get_by_role("status")).to_have_text("open")
            await say(bob, "after")
            for page in (ada, bob):
                await expect(page.get_by_role("listitem")).to_have_text(["ada: before", "bob: after"])


@pytest.mark.asyncio(loop_scope="session")
async def test_step_4_a_page_with_the_generated_client_hears_why_it_is_refused(
    tmp_path: Path, browser: Browser
) -> None:
    printed(tmp_path, STEP_4)
    async with run("main:app", app_dir=tmp_path) as server:
        ada, bob = await visit(browser, server.port, "ada"), await visit(browser, server.port, "bob")
        for page in (ada, bob):
            await expect(page.get_by_role("status")).to_have_text("open")
        await say(ada, "")
        await expect(ada.get_by_role("alert")).to_contain_text("at least 1 character")
        await say(ada, "HELLO")
        await expect(ada.get_by_role("alert")).to_have_text("Please do not shout.")
        await expect(ada.get_by_label("Message")).to_have_value("HELLO")
        await say(ada, "hello")
        await expect(ada.get_by_label("Message")).to_have_value("")
        await expect(ada.get_by_role("alert")).to_have_text("")
        for page in (ada, bob):
            await expect(page.get_by_role("listitem")).to_have_text(["ada: hello"])


async def test_step_4_makes_a_document_and_clients(tmp_path: Path) -> None:
    printed(tmp_path, STEP_4)
    for command in (
        "asyncapi main:app -o asyncapi.json",
        "asyncapi main:app --check asyncapi.json",
        "client main:app --language typescript -o web",
        "client main:app --language python -o chat",
    ):
        ran = await antiphon(*command.split(), cwd=tmp_path)
        assert ran.code == 0, ran.stderr
    assert "/rooms/{room}" in json.dumps(json.loads((tmp_path / "asyncapi.json").read_text()))
    assert "class Chat" in (tmp_path / "web" / "client.ts").read_text()
    assert "class Chat" in (tmp_path / "chat" / "client.py").read_text()


def outcome(folder: Path) -> str:
    """pytest's output there."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = (sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider")
    ran = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return ran.stdout + ran.stderr


@pytest.mark.parametrize(("steps", "tests"), [((STEP_4, STEP_5), 8), ((STEP_4, STEP_5, STEP_6), 9)])
def test_the_tests_of_step_5_pass_and_go_on_in_step_6(tmp_path: Path, steps: tuple[str, ...], tests: int) -> None:
    printed(tmp_path, *steps)
    said = outcome(tmp_path)
    assert re.search(rf"^{tests} passed in", said, re.MULTILINE), said


def test_the_test_of_step_5_turns_red_as_the_page_says(tmp_path: Path) -> None:
    printed(tmp_path, STEP_4, STEP_5)
    program = (tmp_path / "main.py").read_text()
    assert "since=since, " in program
    (tmp_path / "main.py").write_text(program.replace("since=since, ", ""))
    said = outcome(tmp_path)
    assert "FAILED test_main.py::test_who_comes_back_misses_nothing" in said
    assert "1 failed, 7 passed" in said
