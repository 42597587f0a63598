"""Takes the pictures in docs/images: the chat room on a phone and a desktop, light and dark, with people in it; and the
example that has a page.

Serves the demo itself. `--url` takes one that runs already.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from urllib.parse import quote

from playwright.async_api import Browser, Page, async_playwright

sys.path.insert(0, str(Path(__file__).parent))

from chromium import FLAGS, find

IMAGES = Path(__file__).parent.parent / "docs" / "images"
SIZES = {"desktop": (1180, 760, 1), "phone": (390, 844, 2)}
CONVERSATION = (
    ("Grace", "Is the choir rehearsal still at seven?"),
    ("Ada", "Yes, in the small hall. The big one is being painted."),
    ("Tomás", "I will bring the new arrangement 🎶"),
    ("Tomás", "Two halves of the choir, one answering the other. It is called an antiphon, what a coincidence"),
    ("Grace", "Score: https://example.org/scores/antiphon.pdf"),
    ("Ada", "Wonderful. Does the second half come in at bar nine or at ten?"),
    ("Grace", "Nine, but quietly."),
    ("Ada", "👍"),
)
COOKIES = {"Ada": "Ada 22", "Grace": "Grace 3", "Tomás": "Tomás 44"}  # chosen for colours that go together
LOOKS_AT_IT = "Ada"


MEASUREMENTS = {"boiler": 81.5, "cellar": 12.25, "greenhouse": 23.75, "roof": 4.5, "workshop": 18.0}


async def told(output: asyncio.StreamReader) -> str | None:
    """The address that a server prints."""
    async for line in output:
        if match := re.search(rb"running on (\S+)", line):
            return match[1].decode()
    return None


@contextlib.asynccontextmanager
async def served(*command: str) -> AsyncGenerator[str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "antiphon", *command, "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):  # of the start alone: the pictures take as long as they take
            address = await told(process.stdout)
        if address is None:
            raise RuntimeError(f"antiphon {' '.join(command)} did not start")
        yield address
    finally:
        process.terminate()
        await process.wait()


async def new_page(browser: Browser, url: str, name: str, *, size: str = "desktop", theme: str = "light") -> Page:
    """A tab of the person with this name. Several of them are one person."""
    width, height, scale = SIZES[size]
    context = await browser.new_context(
        viewport={"width": width, "height": height},
        device_scale_factor=scale,
        has_touch=size == "phone",
        is_mobile=size == "phone",
        color_scheme="dark" if theme == "dark" else "light",
        locale="en-GB",
    )
    await context.add_cookies([{"name": "antiphon-demo", "value": quote(COOKIES[name]), "url": url}])
    await context.add_init_script(f"localStorage.setItem('antiphon.name', '{name}')")
    return await context.new_page()


async def enter(page: Page, url: str) -> None:
    await page.goto(url)
    await page.locator("#state[data-state=open]").wait_for()


async def say(page: Page, text: str) -> None:
    box = page.get_by_role("textbox", name="Message", exact=True)
    await box.fill(text)
    await box.press("Enter")
    await page.locator(".message:not(.pending)", has_text=text).last.wait_for()


async def take(page: Page, name: str) -> None:
    await page.evaluate("document.activeElement?.blur()")
    await page.wait_for_timeout(400)  # let animations end
    await page.screenshot(path=IMAGES / f"{name}.png")


async def pictures(url: str) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find(), args=FLAGS)
        people = {name: await new_page(browser, url, name) for name in COOKIES}
        for page in people.values():
            await enter(page, url)
        for name, text in CONVERSATION:
            await say(people[name], text)
        for size in SIZES:
            for theme in ("light", "dark"):
                page = await new_page(browser, url, LOOKS_AT_IT, size=size, theme=theme)
                await enter(page, url)
                await take(page, f"{size}-{theme}")
                await page.context.close()
        await browser.close()


async def dashboard(url: str) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find(), args=FLAGS)
        page = await browser.new_page(viewport={"width": 820, "height": 420})
        await page.goto(url)
        for sensor, value in MEASUREMENTS.items():
            await page.request.post(f"{url}/measurements/{sensor}", data={"value": value})
            await page.locator(f"[data-sensor={sensor}]").wait_for()
        await take(page, "dashboard")
        await browser.close()


def emoji() -> bool:
    """Whether a font here has them: pictures show a box for each otherwise."""
    tool = shutil.which("fc-list")
    return tool is not None and subprocess.run([tool, ":lang=und-zsye"], capture_output=True, check=True).stdout != b""


async def main() -> None:
    if not emoji():
        sys.exit("error: no font with emoji here: apt-get install fontconfig fonts-noto-color-emoji fonts-inter")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url")
    url = parser.parse_args().url
    if url is not None:
        await pictures(url)
        return
    async with served("run", str(IMAGES.parent.parent / "examples" / "dashboard.py")) as address:
        await dashboard(address)
    async with served("demo") as address:
        await pictures(address)


if __name__ == "__main__":
    asyncio.run(main())
