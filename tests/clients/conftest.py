"""A server in a process of its own, and a client in Node.js and in the one Chromium, which has the session's loop."""

from __future__ import annotations

import contextlib
import re
import venv
from collections.abc import AsyncGenerator, Iterator
from importlib import metadata
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.browser.fixtures import FLAGS
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
        browser = await launch(executable_path=path, args=FLAGS, timeout=PATIENCE * 1000, **options)  # type: ignore[arg-type]
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a virtual environment that has websockets and pydantic, with all that they need, and nothing else.

    They are linked to ours, so that no test needs a package index.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    for distribution in needed("websockets", "pydantic"):
        for name in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            (packages / name).symlink_to(str(distribution.locate_file(name)))
    return folder / "bin" / "python"


def needed(*names: str) -> Iterator[metadata.Distribution]:
    """These distributions and those that they require."""
    left, seen = list(names), set[str]()
    while left:
        name = left.pop().lower().replace("_", "-")
        if name not in seen:
            seen.add(name)
            found = metadata.distribution(name)
            left += [re.split(r"[^\w.-]", one)[0] for one in found.requires or () if "extra ==" not in one]
            yield found
