"""The examples on the hub do as their first lines say, in one process and in several."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import urllib.request
from typing import Any
from urllib.parse import quote

import pytest
from websockets import InvalidStatus
from websockets.asyncio.client import ClientConnection, connect

from tests.commands import EXAMPLES, run
from tests.patience import PATIENCE


async def event(client: ClientConnection, kind: str) -> dict[str, Any]:
    """The next event of a kind. Others in between are passed over."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found: dict[str, Any] = json.loads(await client.recv())
            if found["type"] == kind:
                return found


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return json.load(answer)


def post(url: str, body: object) -> int:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
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
            with pytest.raises(InvalidStatus, match="403"):
                await connect(f"{room}?name=bob&since=yesterday")


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


async def test_a_viewer_that_does_not_read_gets_the_newest_of_each_sensor_and_delays_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTIPHON_WS_SEND_TIMEOUT", "1000")  # neither side gives up, however long the measuring takes
    sensors, rounds = [f"{number} {'x' * 3000}" for number in range(5)], 500

    def measure(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        for value in range(rounds):
            for sensor in sensors:
                body = json.dumps({"value": value})
                connection.request("POST", "/measurements/" + quote(sensor), body, {"Content-Type": "application/json"})
                connection.getresponse().read()
        connection.close()

    async with run(EXAMPLES / "dashboard.py", "--no-access-log") as server:
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.connect(("127.0.0.1", server.port))
        async with (
            connect(f"{server.url}/live", sock=narrow, max_queue=1, compression=None, ping_interval=None) as slow,
            connect(f"{server.url}/live", compression=None) as quick,
        ):
            slow.transport.pause_reading()
            measuring = asyncio.create_task(asyncio.to_thread(measure, server.port))
            async with asyncio.timeout(PATIENCE):
                seen = [json.loads(await quick.recv())["value"] for _ in range(rounds * len(sensors))]
            await measuring
            assert seen == [float(value) for value in range(rounds) for _ in sensors]
            slow.transport.resume_reading()
            newest: dict[str, float] = {}
            heard = 0
            async with asyncio.timeout(PATIENCE):
                while list(newest.values()) != [float(rounds - 1)] * len(sensors):
                    message = json.loads(await slow.recv())
                    newest[message["sensor"]] = message["value"]
                    heard += 1
            assert heard < len(seen)
