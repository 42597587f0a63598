"""`antiphon publish` is heard by those who are in a topic."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.commands import EXAMPLES, Finished, antiphon, run
from tests.redis_server import RedisServer

APP = """\
from antiphon import App, Hub, TopicOptions, Topics, WebSocket
from pydantic import BaseModel

app = App(hub=Hub("REDIS", topics={"news": TopicOptions(history=10)}))
plain = App()

class Said(BaseModel):
    text: str

typed = App(hub=Hub("REDIS", topics=[Topics("room/{room}", Said, history=10)]))
number = 7

@app.websocket("/{topic}")
async def listen(websocket: WebSocket, hub: Hub, topic: str) -> None:
    await websocket.accept()
    async with hub.join(topic, websocket):
        await websocket.send_text("ready")
        await websocket.wait_closed()
"""


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, redis_server: RedisServer) -> Path:
    (tmp_path / "main.py").write_text(APP.replace("REDIS", redis_server.url))
    return tmp_path


async def test_a_message_from_the_shell_reaches_a_socket(folder: Path, redis_server: RedisServer) -> None:
    async with run("main", app_dir=folder) as server, connect(f"{server.url}/news") as client:
        assert await client.recv() == "ready"
        by_url = await antiphon("publish", redis_server.url, "news", "grüße", "--history", "10")
        assert await client.recv() == "grüße"
        by_app = await antiphon("publish", "main:app", "news", '{"price": 3.5}', "--json", cwd=folder)
        assert json.loads(await client.recv()) == {"price": 3.5}
        piped = await antiphon("publish", "main", "news", "-", cwd=folder, stdin="from a pipe\n")
        assert await client.recv() == "from a pipe"
        binary = await antiphon("publish", redis_server.url, "news", "ab", "--binary")
        assert await client.recv() == b"ab"
    positions = [re.fullmatch(r"(\d+) (\S+)\n", done.stdout) for done in (by_url, by_app, piped)]
    assert [found and int(found[1]) for found in positions] == [1, 2, 3]
    assert binary.code == 0


async def test_a_typed_topic_takes_json_that_fits_and_nothing_else(folder: Path, redis_server: RedisServer) -> None:
    async def publish(data: str, topic: str = "room/7") -> Finished:
        return await antiphon("publish", "main:typed", topic, data, cwd=folder)

    sent = await publish('{"type":"said","text":"hi"}')
    assert (sent.code, sent.stdout[:2]) == (0, "1 ")
    for wrong, told in (
        ('{"type":"said"}', "text: Field required"),
        ('{"type":"typing"}', "expected one of said"),
        ("hello", "DATA does not fit room/7, which carries Said"),
    ):
        done = await publish(wrong)
        assert done.code == 1
        assert told in done.stderr
    assert (await publish("hello", "room/7/log")).code == 0


async def test_the_workers_of_a_running_server_are_reached_through_their_relay() -> None:
    async with run(EXAMPLES / "rooms.py", "--workers", "2") as server:
        line = await server.wait_for_line("Relay of the hub at relay://")
        async with connect(f"{server.url}/rooms/tea?name=ada") as client:
            while json.loads(await client.recv())["type"] != "presence_diff":
                pass
            sent = await antiphon("publish", line.split()[-1], "room/tea", '{"name": "shell"}', "--json")
            assert sent.code == 0, sent.stderr
            assert json.loads(await client.recv())["data"] == {"name": "shell"}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["memory://", "t", "x"], "lives inside its server's process"),
        (["main:plain", "t", "x"], "lives inside its server's process"),
        (["main:number", "t", "x"], "an int, not an ASGI application"),
        (["relay://", "t", "x"], "it belongs to none"),
        (["nowhere://", "t", "x"], "expected a hub URL"),
        (["redis://:secret@127.0.0.1:1", "t", "x"], "127.0.0.1:1"),
        (["redis://127.0.0.1:1", "", "x"], "not a topic name"),
        (["redis://127.0.0.1:1", "t", "{", "--json"], "DATA is not JSON"),
    ],
)
async def test_what_cannot_be_published_is_explained(folder: Path, args: list[str], told: str) -> None:
    finished = await antiphon("publish", *args, cwd=folder)
    assert finished.code == 1
    assert told in finished.stderr
    assert "Traceback" not in finished.stderr
    assert "secret" not in finished.stderr


async def test_an_address_without_a_scheme_is_no_app_and_the_url_is_suggested() -> None:
    finished = await antiphon("publish", "localhost:6379", "t", "x")
    assert finished.code == 2
    assert "neither the URL of a hub nor an app" in finished.stderr
    assert "redis://localhost:6379" in finished.stderr
