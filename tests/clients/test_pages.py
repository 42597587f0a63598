"""Events that only pages meet: the network that comes back, tabs that are hidden, the back/forward cache."""

from __future__ import annotations

import pytest

from tests.browser.cable import Cable
from tests.serving import ServedProcess

from .conftest import launched
from .drivers import Driver, in_page

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def waiting_for_long(driver: Driver, cable: Cable) -> None:
    """Several attempts have failed. The next is minutes away."""
    await driver.run("let waits = 0; Math.random = () => ++waits < 3 ? 0 : 1000")
    await driver.opened(f"ws://127.0.0.1:{cable.port}/talk")
    await cable.cut()
    await driver.until("client.state.attempt >= 3 && client.state.name === 'waiting'")
    await cable.mend()


@pytest.mark.parametrize(
    "event", ["window.dispatchEvent(new Event('online'))", "document.dispatchEvent(new Event('visibilitychange'))"]
)
async def test_a_page_tries_again_at_once_when_it_or_its_network_comes_back(
    chromium: str, server: ServedProcess, event: str
) -> None:
    async with Cable(server.port) as cable, launched(chromium) as browser:
        driver = await in_page(await browser.new_page(), server.http_url)
        await waiting_for_long(driver, cable)
        before = await driver.run("return driven.log.length")
        await driver.run(event)
        await driver.run("await client.opened()")
        assert (await driver.run("return driven.log"))[before:] == ["connecting", "open"]


async def test_a_page_out_of_the_back_forward_cache_is_connected_again_and_misses_nothing(
    chromium: str, server: ServedProcess
) -> None:
    async with launched(chromium, ignore_default_args=["--disable-back-forward-cache"]) as browser:
        page = await browser.new_page()
        driver = await in_page(page, server.http_url)
        await driver.opened(f"{server.url}/rooms/a")
        await driver.run("client.send({ n: 1 })")
        await driver.until("driven.events.some(({ type }) => type === 'message')")
        other = await in_page(page, f"{server.http_url}/?elsewhere")
        await other.opened(f"{server.url}/rooms/a")
        await other.run("client.send({ n: 2 }); await new Promise((done) => client.on('message', done))")
        await page.evaluate("void setTimeout(() => history.back())")
        await page.wait_for_url(f"{server.http_url}/", wait_until="commit")
        assert await page.evaluate("Boolean(globalThis.driven)"), "the page was not kept, so nothing was tested"
        await driver.until("driven.recovered.length")
        assert await driver.run("return driven.recovered[0].recovered")
        await driver.until("driven.events.filter(({ type }) => type === 'message').length === 2")
        numbers = await driver.run("return driven.events.filter(({ type }) => type === 'message').map((e) => e.data.n)")
        assert numbers == [1, 2]
