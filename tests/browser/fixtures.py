"""A real headless Chromium, one for all tests, whose contexts end with each. A test that finds none fails: it is not
skipped. Starting it and its driver takes as long as most tests do, so all share the event loop of the session.
"""

from __future__ import annotations

import runpy
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.commands import ROOT
from tests.patience import PATIENCE

if TYPE_CHECKING:
    from playwright.async_api import Browser

CHROMIUM = runpy.run_path(str(ROOT / "scripts" / "chromium.py"))
FLAGS = [*CHROMIUM["FLAGS"], "--force-device-scale-factor=0.25"]
"""With a small surface to paint: without a GPU, a blinking caret alone takes a tenth of a core at full size. Pages
see a ratio of 1 and the size that they are given."""


@pytest.fixture(scope="session")
def chromium() -> str:
    """The whole browser, for features that its headless shell lacks: pages that are kept, certificates, several
    sites."""
    return _found("find")


def _found(which: str) -> str:
    path = CHROMIUM[which]()
    assert path, "no Chromium found: `make system` installs one, CHROMIUM=/path names one"
    return str(path)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running() -> AsyncGenerator[Browser]:
    from playwright.async_api import async_playwright, expect  # not with each run of a few tests: it takes a while

    expect.set_options(timeout=PATIENCE * 1000)
    async with async_playwright() as playwright:
        path = _found("find_headless")
        running = await playwright.chromium.launch(executable_path=path, args=FLAGS, timeout=PATIENCE * 1000)
        yield running
        await running.close()


@pytest_asyncio.fixture(loop_scope="session")
async def browser(running: Browser) -> AsyncGenerator[Browser]:
    yield running
    for context in running.contexts:
        await context.close()
