"""The dashboard example in a real browser."""

from __future__ import annotations

import asyncio
import json
import urllib.request

import pytest
from playwright.async_api import Browser, expect

from tests.commands import EXAMPLES, run
from tests.patience import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="session")


def post(url: str, value: float) -> None:
    body = json.dumps({"value": value}).encode()
    urllib.request.urlopen(
        urllib.request.Request(url, body, {"Content-Type": "application/json"}), timeout=PATIENCE
    ).close()


async def test_a_posted_measurement_appears_in_every_open_page(browser: Browser) -> None:
    async with run(EXAMPLES / "dashboard.py") as server:
        pages = [await browser.new_page() for _ in range(2)]
        for page in pages:
            await page.goto(server.http_url)
            await expect(page.get_by_role("status")).to_have_text("live")
        for value in (1.5, 2.5):
            await asyncio.to_thread(post, f"{server.http_url}/measurements/boiler", value)
            for page in pages:
                await expect(page.locator("[data-sensor=boiler] output")).to_have_text(str(value))
        late = await browser.new_page()
        complaints: list[str] = []
        late.on("console", lambda message: complaints.append(message.text))
        await late.goto(server.http_url)
        await expect(late.locator("[data-sensor=boiler] output")).to_have_text("2.5")
        assert complaints == []
