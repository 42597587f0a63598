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
    """The whole browser, for what its headless shell has not: pages that are kept, certificates, several sites."""
    return _found("find")


def _found(which: str) -> str:
    path = CHROMIUM[which]()
    assert path, "no Chromium found: `make system` installs one, CHROMIUM=/path names one"
    return str(path)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running() -> AsyncGenerator[Browser]:
    async with async_playwright() as playwright:
        path = _found("find_headless")
        running = await playwright.chromium.launch(
            executable_path=path, args=CHROMIUM["FLAGS"], timeout=PATIENCE * 1000
        )
        yield running
        await running.close()


@pytest_asyncio.fixture(loop_scope="session")
async def browser(running: Browser) -> AsyncGenerator[Browser]:
    yield running
    for context in running.contexts:
        await context.close()
