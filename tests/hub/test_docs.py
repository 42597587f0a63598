"""The programs in docs/hub.md, and in the page about moving to the hub, run."""

from __future__ import annotations

import asyncio
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import httpx2 as httpx
from websockets.asyncio.client import connect

from antiphon.testing.hub_sinks import eventually
from tests.patience import PATIENCE
from tests.serving import serve

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (DOCS / "hub.md", DOCS / "howto" / "connection-manager.md")


def program(containing: str) -> dict[str, Any]:
    """Run the program of the pages that holds this text. Returns its names."""
    text = "\n".join(page.read_text() for page in PAGES)
    blocks = re.findall(r"^( *)```python\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    (source,) = [textwrap.dedent(body) for _, body in blocks if containing in body]
    defined: dict[str, Any] = {"__name__": "program"}
    exec(compile(source, "docs", "exec"), defined)
    return defined


async def test_the_first_example_is_a_room_with_history() -> None:
    app = program('@app.websocket("/rooms/{room}")')["app"]
    async with serve(app) as server:
        async with connect(f"{server}/rooms/a") as one, connect(f"{server}/rooms/b") as other:
            await one.send("hello")
            assert await asyncio.wait_for(one.recv(), PATIENCE) == "hello"
            async with connect(f"{server}/rooms/a") as late:
                assert await asyncio.wait_for(late.recv(), PATIENCE) == "hello"
            await other.send("else")
            assert await asyncio.wait_for(other.recv(), PATIENCE) == "else"


async def test_the_moved_connection_manager_does_what_the_tutorials_does() -> None:
    app = program("Client #{client_id} says")["app"]
    async with serve(app) as server:
        async with connect(f"{server}/ws/1") as one:
            async with connect(f"{server}/ws/2") as two:
                await eventually(lambda: app.hub.stats().memberships == 2)
                await two.send("hi")
                heard = sorted([await asyncio.wait_for(two.recv(), PATIENCE) for _ in range(2)], key=str)
                assert heard == ["Client #2 says: hi", "You wrote: hi"]
                assert await asyncio.wait_for(one.recv(), PATIENCE) == "Client #2 says: hi"
            assert await asyncio.wait_for(one.recv(), PATIENCE) == "Client #2 left the chat"


async def test_an_app_that_stays_with_fastapi_has_a_hub() -> None:
    defined = program("from fastapi import FastAPI, WebSocket")
    async with serve(defined["app"]) as server, httpx.AsyncClient() as http:
        async with connect(f"{server}/notices") as client:
            await eventually(lambda: defined["hub"].stats().memberships == 1)
            assert (await http.post(f"{server.http_url}/notices", params={"text": "tea"})).status_code == 200
            assert await asyncio.wait_for(client.recv(), PATIENCE) == "tea"
        await eventually(lambda: defined["hub"].stats().memberships == 0)


async def test_a_post_publishes_to_a_typed_topic() -> None:
    defined = program("rooms = Topics(")
    async with serve(defined["app"]) as server, httpx.AsyncClient() as http:
        async with connect(f"{server}/chat/7?name=ann") as ann:
            assert json.loads(await asyncio.wait_for(ann.recv(), PATIENCE))["type"] == "presence_diff"
            sent = {"name": "bob", "text": "tea"}
            assert (await http.post(f"{server.http_url}/chat/7", json=sent)).status_code == 200
            assert json.loads(await asyncio.wait_for(ann.recv(), PATIENCE)) == {"type": "said", **sent}
            assert (await http.post(f"{server.http_url}/chat/7", json={"name": "bob"})).status_code == 422
