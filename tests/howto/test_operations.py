"""The pages about running antiphon: over several hosts, and under observation."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import pytest
from websockets.asyncio.client import connect

from tests.commands import run
from tests.howto.printing import printed
from tests.patience import PATIENCE
from tests.redis_server import RedisServer
from tests.serving import serve_process


async def test_a_client_goes_on_at_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed("several-hosts", tmp_path)
    with RedisServer() as redis:
        monkeypatch.setenv("HUB_URL", redis.url)
        async with asyncio.timeout(PATIENCE), run("main:app", app_dir=tmp_path) as first:
            async with run("main:app", app_dir=tmp_path) as second:
                async with connect(f"{second.url}/rooms/tea") as ada:
                    assert json.loads(await ada.recv())["heartbeat"] == 15
                    async with connect(f"{first.url}/rooms/tea") as bob:
                        await bob.recv()
                        await bob.send('{"text": "one"}')
                        event = json.loads(await ada.recv())
                assert event["data"] == {"text": "one"}
            # That host is gone. Messages published meanwhile come from the other one.
            async with connect(f"{first.url}/rooms/tea") as bob:
                await bob.send('{"text": "two"}')
                while json.loads(await bob.recv()).get("data") != {"text": "two"}:
                    pass
            position = f"{event['offset']}-{event['epoch']}"
            async with connect(f"{first.url}/rooms/tea?since={position}") as ada:
                assert json.loads(await ada.recv())["recovered"] is True
                assert json.loads(await ada.recv())["data"] == {"text": "two"}
            async with httpx.AsyncClient() as http:
                assert (await http.get(f"{first.http_url}/healthz")).status_code == 200


def test_a_backend_of_a_readers_own_keeps_the_contract(tmp_path: Path) -> None:
    printed("write-a-backend", tmp_path)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = (sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider")
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=2 * PATIENCE)
    assert re.search(r"^[5-9]\d passed in", ran.stdout, re.MULTILINE), ran.stdout + ran.stderr
    subprocess.run([sys.executable, "-W", "error", "-c", "import main"], cwd=tmp_path, check=True)


async def test_logs_metrics_health_and_events_tell_of_a_connection(tmp_path: Path) -> None:
    printed("observe", tmp_path)
    async with serve_process("main:app", "--ws", "main:Protocol", app_dir=tmp_path) as server:
        async with connect(f"{server.url}/echo") as client, asyncio.timeout(PATIENCE):
            await client.send("hi")
            assert await client.recv() == "hi"
            async with httpx.AsyncClient() as http:
                assert "antiphon_connections_open 1.0" in (await http.get(f"{server.http_url}/metrics")).text
                assert (await http.get(f"{server.http_url}/healthz")).status_code == 200
            await client.close(4001, "enough")
        line = await server.wait_for_line("closed with 4001")
        assert json.loads(line)["logger"] == "chat"
    assert "Traceback" not in server.log
