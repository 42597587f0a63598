"""The page of docs/messages.md without a library: it sends, asks, hears events and errors, streams and cancels."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

from tests.commands import ROOT, run
from tests.node import tools
from tests.patience import PATIENCE

MORE = """

@chat.on("count")
async def count() -> AsyncIterator[int]:
    try:
        for number in range(10**6):
            yield number
    finally:
        print("the counter has ended", flush=True)
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


async def test_what_a_page_writes_itself_does_all_that_a_channel_can(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "messages.md").read_text()
    first = re.search(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    printed = re.search(r"^## Without a library\n+```js\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert first is not None
    assert printed is not None
    assert ADDRESS in printed[1]
    (tmp_path / "main.py").write_text(first[1] + MORE)
    async with run("main:app", app_dir=tmp_path) as server, asyncio.timeout(PATIENCE):
        library = (tools() / "ws" / "wrapper.mjs").as_uri()
        page = printed[1].replace(ADDRESS, f"{server.url}/rooms/7?name=ann")
        script = f"globalThis.WebSocket ??= (await import({json.dumps(library)})).default\n{page}{USE}"
        node = await asyncio.create_subprocess_exec(
            *("node", "--input-type=module", "-e", script), stdout=asyncio.subprocess.PIPE
        )
        told, _ = await node.communicate()
        await server.wait_for_line("the counter has ended")
    (said, reply, error, end, again), items = json.loads(told)
    assert said == {"type": "said", "name": "ann", "text": "hello"}
    assert reply == {"type": "reply", "ref": 1, "data": 2}
    assert (error["type"], error["ref"], error["code"], error["detail"][0]["loc"]) == ("error", 2, "invalid", ["text"])
    assert end == {"type": "end", "ref": 3}
    assert again == {"type": "reply", "ref": 4, "data": 5}
    assert items == [0, 1, 2, 3, 4]
