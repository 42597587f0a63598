"""A clean restart of `antiphon run` loses nothing that was acknowledged. A crash does not pretend to have kept it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import stat
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import WebSocketException

from tests.browser.cable import Cable
from tests.commands import ANTIPHON, antiphon
from tests.patience import PATIENCE, until
from tests.serving import ServedProcess, serve_process

APP = """\
from antiphon import App, Hub, Position, TopicOptions, WebSocket
from antiphon.hub import Framing

app = App(hub=Hub(topics={"*": TopicOptions(history=5000, framing=Framing.EVENT)}))

@app.websocket("/{topic}")
async def talk(websocket: WebSocket, hub: Hub, topic: str, since: Position | None = None) -> None:
    await websocket.accept()
    async with hub.join(topic, websocket, since=since, history=0 if since else 5000):
        async for text in websocket.iter_text():
            position = await hub.publish(topic, text)
            await websocket.send_json({"type": "taken", "text": text})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


@contextlib.asynccontextmanager
async def serving(folder: Path, *args: str, **env: str) -> AsyncGenerator[ServedProcess]:
    """With a place for the histories, which an environment variable names."""
    place = {"ANTIPHON_RUN_STATE": str(folder / "kept.state"), **env}
    async with serve_process("main", *args, app_dir=folder, command=(*ANTIPHON, "run"), env=place) as server:
        yield server
    assert "Traceback" not in server.log, server.log


class Talker:
    """A page: says something all the time, comes back when it is sent away, and notes all messages."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url
        self.since = ""
        self.heard: list[str] = []
        self.taken: list[str] = []
        self.recovered: list[bool] = []
        self.said = 0
        self.stopping = False

    async def live(self) -> None:
        while not self.stopping:
            with contextlib.suppress(OSError, WebSocketException):
                await self._stay()
            await asyncio.sleep(0.05)

    async def _stay(self) -> None:
        query = f"?since={self.since}" if self.since else ""
        async with connect(f"{self.url}/room{query}", open_timeout=None) as socket:
            talking = asyncio.create_task(self._talk(socket))
            try:
                async for message in socket:
                    self._note(json.loads(message))
            finally:
                talking.cancel()

    async def _talk(self, socket: Any) -> None:
        while not self.stopping:
            self.said += 1
            await socket.send(f"{self.name} {self.said}")
            await asyncio.sleep(0.1)

    def _note(self, event: dict[str, Any]) -> None:
        if event["type"] == "joined":
            self.recovered.append(event["recovered"])
        elif event["type"] == "taken":
            self.taken.append(event["text"])
            return
        elif event["type"] == "message":
            self.heard.append(event["data"])
        if event["type"] != "joined" or not self.since:
            self.since = f"{event['offset']}-{event['epoch']}"


@contextlib.asynccontextmanager
async def talkers(count: int, url: str) -> AsyncGenerator[list[Talker]]:
    people = [Talker(f"{number}", url) for number in range(count)]
    tasks = [asyncio.create_task(person.live()) for person in people]
    try:
        yield people
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_after_a_clean_restart_everybody_recovers_and_nothing_acknowledged_is_lost(
    folder: Path, workers: str
) -> None:
    async with Cable(0) as cable:
        async with serving(folder, "--workers", workers) as server:
            cable.target = server.port
            running = talkers(10, f"ws://127.0.0.1:{cable.port}")
            people = await running.__aenter__()
            await until(lambda: all(len(person.taken) > 5 for person in people))
        async with serving(folder, "--workers", workers) as server:  # stopped by SIGTERM in between
            cable.target = server.port
            try:
                marks = {person.name: len(person.taken) for person in people}
                await until(lambda: all(len(person.taken) > marks[person.name] + 5 for person in people))
                for person in people:
                    person.stopping = True
                taken = {text for person in people for text in person.taken}
                await until(lambda: all(taken <= set(person.heard) for person in people))
            finally:
                await running.__aexit__(None, None, None)
    for person in people:
        assert person.recovered[0] is False  # the first time there was nothing to recover
        assert all(person.recovered[1:]), person.recovered
        assert len(person.recovered) > 1
        assert len(set(person.heard)) == len(person.heard), "something came twice"
    longest = max((person.heard for person in people), key=len)
    assert all(person.heard == longest[: len(person.heard)] for person in people), "one order for all"


async def position_in(server: ServedProcess, since: str = "") -> tuple[str, bool]:
    """Say something. Returns its position, and whether the earlier messages were recovered."""
    url = f"{server.url}/room{since and f'?since={since}'}"
    async with asyncio.timeout(PATIENCE), connect(url, open_timeout=None) as socket:
        recovered = json.loads(await socket.recv())["recovered"]
        await socket.send("hello")
        while (event := json.loads(await socket.recv()))["type"] != "message" or event["data"] != "hello":
            pass
        while json.loads(await socket.recv())["type"] != "taken":
            pass
        return f"{event['offset']}-{event['epoch']}", recovered


@pytest.mark.parametrize(("before", "after"), [("1", "2"), ("2", "1")])
async def test_the_number_of_workers_may_change_with_the_restart(folder: Path, before: str, after: str) -> None:
    async with serving(folder, "--workers", before) as server:
        since, _ = await position_in(server)
    async with serving(folder, "--workers", after) as server:
        assert await position_in(server, since) == (since.replace("1-", "2-"), True)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_crash_does_not_pretend_and_neither_does_one_after_a_restart(folder: Path, workers: str) -> None:
    async with serving(folder, "--workers", workers) as server:
        since, _ = await position_in(server)
    async with serving(folder, "--workers", workers) as server:
        since, recovered = await position_in(server, since)
        assert recovered
        server.process.kill()
        await server.process.wait()
    await until(lambda: "kept.state" not in os.listdir(folder))
    async with serving(folder, "--workers", workers) as server:
        _, recovered = await position_in(server, since)
        assert not recovered


async def test_a_start_that_fails_keeps_the_histories_for_the_next_one(folder: Path) -> None:
    async with serving(folder) as server:
        since, _ = await position_in(server)
    (folder / "main.py").write_text(APP + "\n@app.on_event('startup')\ndef fail():\n    raise ValueError('broken')\n")
    for workers in ("1", "2"):
        finished = await antiphon(
            "run", "main", "--port", "0", "--workers", workers, "--state", "kept.state", cwd=folder
        )
        assert finished.code == 3
    (folder / "main.py").write_text(APP)
    async with serving(folder) as server:
        assert (await position_in(server, since))[1]


async def test_a_stop_in_the_middle_of_a_start_keeps_the_histories_for_the_next_one(folder: Path) -> None:
    args = ("--workers", "2", "--metrics")
    async with serving(folder, *args) as server:
        since, _ = await position_in(server)
    for _ in range(3):
        async with serving(folder, *args) as server:
            server.process.terminate()  # it has said where it listens, and nothing more
            await server.process.wait()
        assert server.process.returncode == 0
        assert "took over" in server.log
        assert "kept.state" in os.listdir(folder)
    async with serving(folder, *args) as server:
        assert (await position_in(server, since))[1]


async def test_reload_keeps_the_histories(folder: Path) -> None:
    async with serving(folder, "--reload") as server:
        since, _ = await position_in(server)
        recovered = None
        for _ in range(20):
            (folder / "main.py").touch()
            with contextlib.suppress(TimeoutError):
                await server.wait_for_line("for the next start", timeout=3)
                break
        async with asyncio.timeout(PATIENCE):
            while recovered is None:
                with contextlib.suppress(OSError, WebSocketException):
                    _, recovered = await position_in(server, since)
        assert recovered


async def test_by_default_each_app_and_address_has_a_file_of_its_own_which_only_the_user_reads(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "main.py").write_text(APP)
    address = str(folder / "socket")

    async def served(app_dir: Path, since: str, *args: str) -> tuple[str, bool]:
        async with until_stopped(app_dir, address, {"XDG_STATE_HOME": str(home)}, *args):
            url = f"ws://host/room{since and f'?since={since}'}"
            async with unix_connect(address, url, open_timeout=None) as socket:
                recovered = json.loads(await socket.recv())["recovered"]
                await socket.send("hello")
                event = json.loads(await socket.recv())
                while event["type"] != "message":
                    event = json.loads(await socket.recv())
                return f"{event['offset']}-{event['epoch']}", recovered

    since, _ = await served(folder, "")
    (file,) = (home / "antiphon").iterdir()
    assert file.name.startswith("main-app-")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert not (await served(elsewhere, since))[1]
    assert not (await served(folder, since, "--no-state"))[1]
    assert (await served(folder, since))[1]
    assert len(list((home / "antiphon").iterdir())) == 2


@contextlib.asynccontextmanager
async def until_stopped(app_dir: Path, address: str, env: dict[str, str], *args: str) -> AsyncGenerator[None]:
    process = await asyncio.create_subprocess_exec(
        *(*ANTIPHON, "run", "main", "--uds", address, *args), cwd=app_dir, env={**os.environ, **env}
    )
    try:
        await until(lambda: is_open(address))
        yield
    finally:
        process.terminate()
        async with asyncio.timeout(PATIENCE):
            await process.wait()


def is_open(address: str) -> bool:
    """Somebody listens there, which is a moment after it exists."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(address) == 0


async def test_a_free_port_leaves_nothing_at_home(folder: Path) -> None:
    home = folder / "home"
    async with serve_process(
        "main", app_dir=folder, command=(*ANTIPHON, "run"), env={"XDG_STATE_HOME": str(home)}
    ) as server:
        await position_in(server)
    assert not home.exists()


async def test_a_service_has_its_file_in_the_folder_systemd_made_for_it(folder: Path) -> None:
    service = folder / "service"
    service.mkdir()
    address = str(folder / "socket")
    async with until_stopped(folder, address, {"STATE_DIRECTORY": str(service)}):
        async with unix_connect(address, "ws://host/room") as socket:
            await socket.recv()
            await socket.send("hello")
            await socket.recv()
    assert len(list(service.iterdir())) == 1


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("missing/file", "there is no folder"),
        ("main.py", "is not of antiphon"),
    ],
)
async def test_a_place_that_cannot_be_used_is_told_before_anything_starts(folder: Path, state: str, told: str) -> None:
    finished = await antiphon("run", "main", "--port", "0", "--state", state, cwd=folder)
    assert finished.code == 1
    assert re.search(told, finished.stderr), finished.stderr
    assert (folder / "main.py").read_text() == APP


async def test_keeping_and_not_keeping_exclude_each_other(folder: Path) -> None:
    finished = await antiphon("run", "main", "--port", "0", "--state", "x", "--no-state", cwd=folder)
    assert finished.code == 2
    assert "exclude each other" in finished.stderr
