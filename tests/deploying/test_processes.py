"""A server under systemd, Docker and Kubernetes: signals, process 1, nobody's rights, a socket handed over."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.commands import ANTIPHON, run
from tests.patience import PATIENCE, until
from tests.redis_server import RedisServer
from tests.serving import ServedProcess, serve_process

from .proxies import FILES
from .test_pages import instructions

UNSHARE = shutil.which("unshare")
SETPRIV = shutil.which("setpriv")


def namespaces() -> bool:
    if UNSHARE is None or SETPRIV is None or os.geteuid() != 0:
        return False
    as_nobody = [SETPRIV, "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", "import antiphon"]
    return subprocess.run([UNSHARE, "--pid", "--fork", *as_nobody], capture_output=True, check=False).returncode == 0


@contextlib.asynccontextmanager
async def contained() -> AsyncGenerator[tuple[ServedProcess, int]]:
    """The command of the Dockerfile as process 1, as its user, on a free port. With that process's id out here."""
    last = dict(instructions())
    user, group = last["USER"].split(":")
    words = json.loads(last["ENTRYPOINT"])
    assert words[-5:] == ["--host", "0.0.0.0", "--port", "8000", "--no-state"]
    assert UNSHARE is not None
    assert SETPRIV is not None
    around = (
        UNSHARE,
        "--pid",
        "--fork",
        "--kill-child",
        SETPRIV,
        f"--reuid={user}",
        f"--regid={group}",
        "--clear-groups",
    )
    environment = {"HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    command = (*around, *ANTIPHON, "run")
    with tempfile.TemporaryDirectory() as folder:  # not pytest's, which nobody else can read
        os.chmod(folder, 0o755)
        shutil.copy(FILES / "main.py", folder)
        async with serve_process("main:app", "--no-state", app_dir=folder, command=command, env=environment) as server:
            children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
            yield server, int(children.read_text())  # noqa: ASYNC240  the kernel's, not a disk's
    assert "Traceback" not in server.log, server.log


@pytest.mark.skipif(not namespaces(), reason="needs root, process namespaces, and a Python that nobody can read")
async def test_process_1_of_a_container_runs_as_nobody_and_ends_in_order() -> None:
    async with asyncio.timeout(PATIENCE), contained() as (server, inside):
        status = Path(f"/proc/{inside}/status").read_text()  # noqa: ASYNC240
        assert re.search(r"^NSpid:\t\d+\t1$", status, re.M)
        assert re.search(r"^Uid:\t65534\t65534\t65534\t65534$", status, re.M)
        async with connect(f"{server.url}/rooms/tea") as client:
            await client.send("hi")
            assert await client.recv() == "hi"
            os.kill(inside, signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        assert await server.process.wait() == 0


async def test_the_health_check_of_the_container_asks_and_is_answered() -> None:
    check = json.loads(dict(instructions())["HEALTHCHECK"].partition("CMD ")[2])
    async with run(FILES / "main.py") as server:
        words = [sys.executable, *(word.replace(":8000", f":{server.port}") for word in check[1:])]
        healthy = await asyncio.create_subprocess_exec(*words)
        assert await healthy.wait() == 0
        wrong = [word.replace("/livez", "/nothing") for word in words]
        sick = await asyncio.create_subprocess_exec(*wrong, stderr=asyncio.subprocess.DEVNULL)
        assert await sick.wait() == 1


async def test_a_reload_replaces_the_workers_and_keeps_the_port_and_the_histories(tmp_path: Path) -> None:
    """SIGHUP, as from `systemctl reload`."""
    program = (FILES / "main.py").read_text()
    (tmp_path / "main.py").write_text(program)
    async with asyncio.timeout(PATIENCE), run("main:app", "--workers", "2", app_dir=tmp_path) as server:
        async with connect(f"{server.url}/rooms/tea") as client:
            await client.send("said before")
            assert await client.recv() == "said before"
            (tmp_path / "main.py").write_text(program.replace('"/whoami"', '"/after"'))
            server.process.send_signal(signal.SIGHUP)
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        # An old worker answers until the new one in its place has begun.
        await until(lambda: len(re.findall(r"Finished server process", server.log)) >= 2)
        async with connect(f"{server.url}/rooms/tea") as back:
            assert await back.recv() == "said before"
        async with connect(f"{server.url}/after") as newer:
            assert "address" in json.loads(await newer.recv())


async def test_without_workers_sighup_ends_the_server() -> None:
    """Why the unit file has workers."""
    async with run(FILES / "main.py") as server:
        server.process.send_signal(signal.SIGHUP)
        assert await server.process.wait() == -signal.SIGHUP


async def test_connections_wait_in_a_socket_that_systemd_holds_while_the_server_restarts(tmp_path: Path) -> None:
    """`--fd 3`, as chat.socket hands it over: between two servers nobody is refused."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        first = await start_with(listener)
        assert await exchanged(port) == "hi"
        first.terminate()
        assert await first.wait() == -signal.SIGTERM  # in order, and then as it was asked to
        waiting = asyncio.create_task(exchanged(port))
        await asyncio.sleep(0)
        second = await start_with(listener)
        assert await waiting == "hi"
        second.terminate()
        assert await second.wait() == -signal.SIGTERM


async def start_with(listener: socket.socket) -> asyncio.subprocess.Process:
    code = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True); os.execv(sys.argv[2], sys.argv[2:])"
    )
    command = [*ANTIPHON, "run", str(FILES / "main.py"), "--fd", "3", "--no-state"]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, str(listener.fileno()), *command), pass_fds=[listener.fileno()]
    )


async def exchanged(port: int) -> str:
    async with asyncio.timeout(PATIENCE), connect(f"ws://127.0.0.1:{port}/rooms/tea", open_timeout=PATIENCE) as client:
        await client.send("hi")
        return str(await client.recv())


async def test_readiness_follows_the_backend_and_liveness_does_not(tmp_path: Path) -> None:
    with RedisServer() as redis:
        async with (
            asyncio.timeout(PATIENCE),
            serve_process(str(FILES / "main.py"), command=(*ANTIPHON, "run"), env={"HUB_URL": redis.url}) as server,
        ):
            assert await status(server.port, "/healthz") == 200
            redis.kill()
            await becomes(503, server.port, "/healthz")
            assert await status(server.port, "/livez") == 200
            redis.start()
            await becomes(200, server.port, "/healthz")


async def becomes(wanted: int, port: int, path: str) -> None:
    while await status(port, path) != wanted:  # noqa: ASYNC110  Redis comes and goes outside of this loop
        await asyncio.sleep(0.02)


async def status(port: int, path: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
    head = await reader.readline()
    writer.close()
    return int(head.split()[1])


def test_redis_takes_its_file() -> None:
    pairs: dict[str, Any] = {}
    for line in (FILES / "redis.conf").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition(" ")
            pairs[name] = value
    options = [word for name, value in pairs.items() for word in (f"--{name}", *value.split())]
    with RedisServer(options=tuple(options)) as server:
        told = server.lines("CONFIG", "GET", "maxmemory-policy")
    assert told == ["maxmemory-policy", "noeviction"]
