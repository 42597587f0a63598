"""The page of docs/messages.md without a library: it sends, asks, hears events and errors, streams and cancels."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.commands import ROOT, run
from tests.node import tools
from tests.patience import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="session")

MORE = """

@chat.on("count")
async def count() -> AsyncIterator[int]:
    try:
        for number in range(10**6):
            yield number
    finally:
        print("the counter has ended", flush=True)

from pathlib import Path
from antiphon.responses import HTMLResponse

@app.get("/page")
async def page() -> HTMLResponse:
    return HTMLResponse(Path(__file__).with_name("page.html").read_text())
"""
ADDRESS = "wss://example.org/rooms/7?name=ann"
USE = """
await new Promise(open => { ws.onopen = open })
const seen = [], said = new Promise(heard => { on.said = heard })
ws.send(JSON.stringify({ type: "say", text: "hello" }))                     // an event: nobody answers
seen.push(await said)
seen.push(await ask(1, { type: "say", text: "hi" }), await ask(2, { type: "say", text: "" }))
const items = [], ended = new Promise(end => {
  pending[3] = frame => {
    if (frame.type !== "item") end(frame)
    else if (items.push(frame.data) === 5) ws.send(JSON.stringify({ type: "cancel", ref: 3 }))
  }
})
ws.send(JSON.stringify({ type: "count", ref: 3 }))
seen.push(await ended, await ask(4, { type: "say", text: "again" }))
console.log(JSON.stringify([seen, items.slice(0, 5)]))
ws.close()
"""


async def does_all(folder: Path, use: Callable[[str, str], Awaitable[str]]) -> None:
    """`use` runs the page's script against the program of the page, and returns the line that the script writes."""
    text = (ROOT / "docs" / "messages.md").read_text()
    first = re.search(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    printed = re.search(r"^## Without a library\n+```js\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert first is not None
    assert printed is not None
    assert ADDRESS in printed[1]
    (folder / "main.py").write_text(first[1] + MORE)
    async with run("main:app", app_dir=folder) as server, asyncio.timeout(PATIENCE):
        script = printed[1].replace(ADDRESS, f"{server.url}/rooms/7?name=ann") + USE
        told = await use(server.http_url, script)
        await server.wait_for_line("the counter has ended")
    (said, reply, error, end, again), items = json.loads(told)
    assert said == {"type": "said", "name": "ann", "text": "hello"}
    assert reply == {"type": "reply", "ref": 1, "data": 2}
    assert (error["type"], error["ref"], error["code"], error["detail"][0]["loc"]) == ("error", 2, "invalid", ["text"])
    assert end == {"type": "end", "ref": 3}
    assert again == {"type": "reply", "ref": 4, "data": 5}
    assert items == [0, 1, 2, 3, 4]


async def test_what_a_page_writes_itself_does_all_that_a_channel_can(tmp_path: Path) -> None:
    async def in_node(http_url: str, script: str) -> str:
        library = (tools() / "ws" / "wrapper.mjs").as_uri()
        script = f"globalThis.WebSocket ??= (await import({json.dumps(library)})).default\n{script}"
        node = await asyncio.create_subprocess_exec(
            *("node", "--input-type=module", "-e", script), stdout=asyncio.subprocess.PIPE
        )
        return (await node.communicate())[0].decode()

    await does_all(tmp_path, in_node)


async def test_it_does_so_in_a_browser(tmp_path: Path, browser: Browser) -> None:
    async def in_chromium(http_url: str, script: str) -> str:
        (tmp_path / "page.html").write_text(f'<!doctype html><script type="module">{script}</script>')
        page = await browser.new_page()
        async with page.expect_console_message(lambda one: one.type == "log") as message:
            await page.goto(f"{http_url}/page")
        return (await message.value).text

    await does_all(tmp_path, in_chromium)
