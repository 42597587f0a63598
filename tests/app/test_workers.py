"""The workers of other people's supervisors: a hub in memory warns of the others, and a relay joins them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.commands import ANTIPHON, antiphon
from tests.patience import PATIENCE, until
from tests.serving import HOST, serve_process, somebody_listens

from .test_mounted import UVICORN, everybody_hears_everybody, program, served

PYTHON = (sys.executable, "-W", "error", "-m")
SERVERS = {
    "uvicorn": (UVICORN, ("--host", HOST, "--port", "0"), "--workers"),
    "gunicorn": (
        (*PYTHON, "gunicorn", "-k", "uvicorn_worker.UvicornWorker", "--graceful-timeout", "5", "--no-control-socket"),
        ("--bind", f"{HOST}:0"),
        "-w",
    ),
    "hypercorn": ((sys.executable, "-m", "hypercorn"), ("--bind", f"{HOST}:0"), "-w"),
}
WARNING = "does not reach the other workers of this server"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", SERVERS)
async def test_a_hub_in_memory_says_once_per_worker_that_it_misses_the_others(
    tmp_path: Path, name: str, workers: int
) -> None:
    command, listen, option = SERVERS[name]
    target = program(tmp_path, "mounted app")
    async with serve_process(target, option, str(workers), app_dir=tmp_path, command=command, listen=listen) as server:
        await somebody_listens(server)
        seen: set[str] = set()
        async with asyncio.timeout(PATIENCE):
            while len(seen) < workers:
                for _ in range(3):
                    async with connect(f"{server.url}/ws/room", open_timeout=PATIENCE) as client:
                        seen.add(str(await client.recv()))
    assert server.log.count(WARNING) == (0 if workers == 1 else 2), server.log
    if workers == 2:
        assert "antiphon run --workers 2" in server.log
        assert "antiphon relay" in server.log


@pytest.mark.parametrize("args", [("--reload",), ("--workers", "1")], ids=str)
async def test_one_process_that_serves_is_nothing_to_warn_of(tmp_path: Path, args: tuple[str, ...]) -> None:
    target = program(tmp_path, "mounted app")
    async with served(tmp_path, target, *args, command=(*PYTHON, "uvicorn"), env={"WEB_CONCURRENCY": "4"}) as server:
        async with connect(f"{server.url}/ws/room", open_timeout=PATIENCE) as client:
            await client.recv()
    assert WARNING not in server.log


@pytest.mark.parametrize("name", SERVERS)
async def test_a_relay_joins_the_workers_of_any_server(tmp_path: Path, name: str) -> None:
    command, listen, option = SERVERS[name]
    target = program(tmp_path, "mounted app")
    async with serve_process(
        target, option, "2", app_dir=tmp_path, command=(*ANTIPHON, "relay", *command), listen=listen
    ) as server:
        await somebody_listens(server)
        relays = relays_below(server.process.pid)
        assert len(relays) == 1
        await everybody_hears_everybody(server, workers=2)
    assert WARNING not in server.log
    await until(lambda: not any(map(alive, relays)))


async def test_the_relay_ends_though_the_server_was_killed(tmp_path: Path) -> None:
    server = await asyncio.create_subprocess_exec(
        *(
            *ANTIPHON,
            "relay",
            sys.executable,
            "-c",
            "import os, time; print(os.getpid(), flush=True); time.sleep(1000)",
        ),
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdout is not None
    assert int(await server.stdout.readline()) == server.pid  # the command is this very process
    relays = relays_below(server.pid)
    assert len(relays) == 1
    server.kill()
    await server.wait()
    await until(lambda: not any(map(alive, relays)))


async def test_a_relay_that_was_killed_is_started_again(tmp_path: Path) -> None:
    command, listen, option = SERVERS["uvicorn"]
    target = program(tmp_path, "mounted app")
    async with serve_process(
        target, option, "2", app_dir=tmp_path, command=(*ANTIPHON, "relay", *command), listen=listen
    ) as server:
        await somebody_listens(server)
        (relay,) = relays_below(server.process.pid)
        os.kill(relay, signal.SIGKILL)
        await until(lambda: relays_below(server.process.pid) not in ([], [relay]))
        await everybody_hears_everybody(server, workers=2)


async def test_the_exit_code_is_the_servers_and_a_command_that_is_not_there_is_explained() -> None:
    assert (await antiphon("relay", sys.executable, "-c", "raise SystemExit(7)")).code == 7
    finished = await antiphon("relay", "surely-not-there", "--workers", "2")
    assert finished.code == 1
    assert "there is no command 'surely-not-there'" in finished.stderr
    assert (await antiphon("relay")).code == 2


def relays_below(pid: int) -> list[int]:
    """The relay processes among the descendants of a process."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # one that ends while we look
        tasks = Path(f"/proc/{pid}/task").glob("*/children")  # a thread's children are its own
        for child in (int(number) for task in tasks for number in task.read_text().split()):
            if b"relay.process" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
            found += relays_below(child)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter when it ends in between
        return False
