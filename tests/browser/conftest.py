"""A real headless Chromium, one for all tests, whose contexts end with each; a test that finds none fails, it is not
skipped. Starting it and its driver takes as long as most tests do, so all share the event loop of the session.
"""

from __future__ import annotations

import runpy
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests.commands import ROOT
from tests.patience import PATIENCE

expect.set_options(timeout=PATIENCE * 1000)

CHROMIUM = runpy.run_path(str(ROOT / "scripts" / "chromium.py"))


@pytest.fixture(scope="session")
def chromium() -> str:
    path = CHROMIUM["find"]()
    assert path, "no Chromium found: `make system` installs one, CHROMIUM=/path names one"
    return str(path)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running(chromium: str) -> AsyncGenerator[Browser]:
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(
            executable_path=chromium, args=CHROMIUM["FLAGS"], timeout=PATIENCE * 1000
        )
        yield running
        await running.close()


@pytest_asyncio.fixture(loop_scope="session")
async def browser(running: Browser) -> AsyncGenerator[Browser]:
    yield running
    for context in running.contexts:
        await context.close()
