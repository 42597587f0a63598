"""A server in a process of its own, and a client in Node.js and in the one Chromium, which has the session's loop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.browser.conftest import CHROMIUM
from tests.browser.conftest import browser as browser
from tests.browser.conftest import chromium as chromium
from tests.browser.conftest import running as running
from tests.commands import ROOT, run
from tests.patience import PATIENCE
from tests.serving import ServedProcess

from .drivers import Driver, in_page, node

APP = ROOT / "tests" / "clients" / "app.py"


@pytest_asyncio.fixture(loop_scope="session")
async def server() -> AsyncGenerator[ServedProcess]:
    async with run(APP) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="session", params=["node", "chromium"])
async def driver(request: pytest.FixtureRequest, server: ServedProcess, browser: Browser) -> AsyncGenerator[Driver]:
    if request.param == "node":
        async with node() as driver:
            yield driver
        return
    page = await browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield await in_page(page, server.http_url)
    assert complaints == []


@contextlib.asynccontextmanager
async def launched(path: str, **options: object) -> AsyncGenerator[Browser]:
    async with async_playwright() as playwright:
        launch = playwright.chromium.launch
        browser = await launch(executable_path=path, args=CHROMIUM["FLAGS"], timeout=PATIENCE * 1000, **options)  # type: ignore[arg-type]
        yield browser
        await browser.close()
