"""The examples on the hub do what their first lines say, in one process and in several."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.commands import EXAMPLES, run


async def event(client: ClientConnection, kind: str) -> dict[str, Any]:
    """The next event of a kind; others in between are passed over."""
    async with asyncio.timeout(15):
        while True:
            found: dict[str, Any] = json.loads(await client.recv())
            if found["type"] == kind:
                return found


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def post(url: str, body: object) -> int:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return int(answer.status)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_room_has_history_members_and_recovery(workers: str) -> None:
    async with run(EXAMPLES / "rooms.py", "--workers", workers) as server:
        room = f"{server.url}/rooms/tea"
        async with connect(f"{room}?name=ada") as ada:
            assert (await event(ada, "presence_diff"))["joins"].keys() == {"ada"}
            await ada.send("one")
            first = await event(ada, "message")
            assert first["data"] == {"name": "ada", "text": "one"}
            async with connect(f"{room}?name=bob") as bob:
                assert (await event(bob, "message"))["data"]["text"] == "one"
                assert (await event(bob, "presence_diff"))["joins"].keys() == {"ada", "bob"}
                assert (await event(ada, "presence_diff"))["joins"].keys() == {"bob"}
                assert await asyncio.to_thread(get, f"{server.http_url}/rooms/tea") == ["ada", "bob"]
            await ada.send("two")
            await event(ada, "message")
            async with connect(f"{room}?name=bob&since={first['offset']}-{first['epoch']}") as bob:
                assert (await event(bob, "joined"))["recovered"] is True
                assert (await event(bob, "message"))["data"]["text"] == "two"


async def test_many_connections_spread_over_workers_hear_each_other() -> None:
    async with run(EXAMPLES / "rooms.py", "--workers", "2") as server:
        clients = [await connect(f"{server.url}/rooms/tea?name=n{number}") for number in range(12)]
        try:
            for client in clients:
                await event(client, "presence_diff")
            await asyncio.gather(*(client.send(f"from {number}") for number, client in enumerate(clients)))
            orders = [[(await event(client, "message"))["offset"] for _ in clients] for client in clients]
            assert orders == [list(range(1, 13))] * 12
        finally:
            await asyncio.gather(*(client.close() for client in clients))


async def test_a_measurement_posted_is_live_and_known_to_who_comes_later() -> None:
    async with run(EXAMPLES / "dashboard.py") as server, connect(f"{server.url}/live") as page:
        assert await asyncio.to_thread(post, f"{server.http_url}/measurements/boiler", {"value": 81.5}) == 202
        assert json.loads(await page.recv()) == {"sensor": "boiler", "value": 81.5}
        async with connect(f"{server.url}/live") as late:
            assert json.loads(await late.recv()) == {"sensor": "boiler", "value": 81.5}
