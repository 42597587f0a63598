"""Workers that are forks: their shared state, the state they take over, and the end of all of them after the end of
one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import connect, unix_connect

from antiphon.cli.forks import Fork
from antiphon.cli.serving import WORKER_PATIENCE
from antiphon.cli.workers import WorkerProcess
from tests.commands import ANTIPHON, antiphon, run
from tests.patience import PATIENCE, until
from tests.serving import ServedProcess, serve_process

from .test_restart import is_open

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are not forks")

APP = """\
import json, os, sys, threading
from pathlib import Path
from antiphon import App, WebSocket
from antiphon.server import native

os.environ.setdefault("IMPORTED_FIRST_BY", str(os.getpid()))
app = App()

@app.websocket("/")
async def tell(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json({
        "pid": os.getpid(),
        "parent": os.getppid(),
        "first": int(os.environ["IMPORTED_FIRST_BY"]),
        "command": Path("/proc/self/cmdline").read_text(),
        "memory": {
            line.split(":")[0]: int(line.split()[-2])
            for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
        },
        "folder": os.getcwd(),
        "argv": sys.argv,
        "native": native,
        "threads": [one.name for one in threading.enumerate()],
    })
    await websocket.receive()
"""

SPAWNED = "multiprocessing.spawn"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


@contextlib.asynccontextmanager
async def executed(folder: Path, *args: str, **env: str) -> AsyncGenerator[ServedProcess]:
    """In a process that has really started: `env` may have settings of the interpreter."""
    async with serve_process("main", *args, app_dir=folder, command=(*ANTIPHON, "run"), env=env) as server:
        yield server
    assert "Traceback" not in server.log, server.log


async def all_workers(server: ServedProcess, count: int = 2, but: frozenset[int] = frozenset()) -> dict[int, Any]:
    """The reports of so many workers about themselves, none of them among `but`."""
    told: dict[int, Any] = {}
    async with asyncio.timeout(PATIENCE):
        while len(told) < count:
            for one in await asyncio.gather(*(asked(server.url) for _ in range(4))):
                if one is not None and one["pid"] not in but:
                    told[one["pid"]] = one
    return told


async def asked(url: str) -> Any:
    with contextlib.suppress(OSError, Exception):
        async with connect(url, open_timeout=PATIENCE) as client:
            return json.loads(await client.recv())
    return None


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [
            int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()
        ]
    return []


def family(pid: int) -> Iterator[int]:
    for child in children(pid):
        yield child
        yield from family(child)


def has_ended(pid: int) -> bool:
    """Gone, or nothing but an entry that its parent, which is not ours, has still to read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def is_there(pid: int) -> bool:
    """Zombies are."""
    return Path(f"/proc/{pid}").exists()


def blocks_signals(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return any(line.startswith("SigBlk") and int(line.split()[1], 16) for line in lines)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def test_workers_share_the_memory_of_what_the_command_has_imported(folder: Path) -> None:
    async with run("main", "--workers", "2", app_dir=folder) as server:
        for worker in (await all_workers(server)).values():
            memory = worker["memory"]
            private = memory["Private_Clean"] + memory["Private_Dirty"]
            assert private * 2 < memory["Rss"], memory
            assert SPAWNED not in worker["command"]
            assert worker["parent"] != server.process.pid
            assert worker["parent"] in children(server.process.pid)


async def test_the_fork_server_has_not_imported_the_application(folder: Path) -> None:
    seen = folder / "seen"
    (folder / "main.py").write_text(
        f"import os\nwith open({str(seen)!r}, 'a') as file:\n    print(os.getpid(), file=file)\n{APP}"
    )
    async with run("main", "--workers", "2", app_dir=folder) as server:
        workers = await all_workers(server)
        (parent,) = {worker["parent"] for worker in workers.values()}
        importers = [int(line) for line in seen.read_text().split()]
        assert sorted(importers) == sorted([server.process.pid, *workers])
        assert len(os.listdir(f"/proc/{parent}/task")) == 1


async def test_a_worker_takes_over_what_the_application_has_set_in_the_supervisor(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    only_there = (
        f"if 'IMPORTED_FIRST_BY' not in os.environ:\n    os.chdir({str(elsewhere)!r})\n    sys.argv += ['more']\n"
    )
    (folder / "main.py").write_text(f"import os, sys\n{only_there}{APP}")
    async with run("main", "--workers", "2", app_dir=folder) as server:
        for worker in (await all_workers(server)).values():
            assert worker["first"] == server.process.pid
            assert worker["folder"] == str(elsewhere)
            assert worker["argv"][-1] == "more"


async def test_a_worker_has_no_descriptor_and_no_blocked_signal_but_its_own(folder: Path) -> None:
    reads, writes = os.pipe()
    os.set_inheritable(writes, True)
    process = await asyncio.create_subprocess_exec(
        *(*ANTIPHON, "run", "main", "--workers", "2", "--uds", "socket"),
        cwd=folder,
        pass_fds=[writes],
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        foreign = os.readlink(f"/proc/self/fd/{writes}")
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            for _ in range(2):  # one that starts opens files, and is a fork like any other for a moment
                while b"startup complete" not in await process.stderr.readline():
                    pass
        (fork_server,) = [one for one in children(process.pid) if children(one)]
        for one in (fork_server, *children(fork_server)):
            files = [os.readlink(f"/proc/{one}/fd/{name}") for name in os.listdir(f"/proc/{one}/fd")]
            assert foreign not in files
            assert blocks_signals(one) is (one == fork_server)
    finally:
        process.terminate()
        os.close(reads)
        os.close(writes)
        await process.communicate()


async def test_a_setting_of_the_interpreter_in_an_env_file_is_heeded(folder: Path) -> None:
    (folder / "settings").write_text("ANTIPHON_PURE=1\n")
    args = ("--workers", "2", "--env-file", str(folder / "settings"))
    env = {name: value for name, value in os.environ.items() if name != "ANTIPHON_PURE"}
    process = await asyncio.create_subprocess_exec(
        *(*ANTIPHON, "run", "main", "--uds", "socket", *args),
        cwd=folder,
        env=env,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(lambda: is_open(str(folder / "socket")))
        async with unix_connect(str(folder / "socket"), "ws://host/", open_timeout=PATIENCE) as client:
            told = json.loads(await client.recv())
            assert told["native"] is False
            assert SPAWNED in told["command"]
    finally:
        process.terminate()
        await process.wait()


async def test_a_library_that_was_upgraded_is_loaded_by_the_workers_after_it(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    packages = tmp_path_factory.mktemp("packages")
    library = packages / "sitecustomize.py"  # imported at every start of an interpreter
    library.write_text("version = 1\n")
    (folder / "main.py").write_text(f"import os, sitecustomize\nos.environ['V'] = str(sitecustomize.version)\n{APP}")
    (folder / "main.py").write_text(
        (folder / "main.py").read_text().replace('"pid": os', '"v": os.environ["V"], "pid": os')
    )
    async with executed(folder, "--workers", "2", PYTHONPATH=str(packages)) as server:
        before = await all_workers(server)
        assert {(one["v"], SPAWNED in one["command"]) for one in before.values()} == {("1", False)}
        library.write_text("version = 22\n")
        server.process.send_signal(signal.SIGHUP)
        after = await all_workers(server, but=frozenset(before))
        assert {(one["v"], SPAWNED in one["command"]) for one in after.values()} == {("22", True)}
        await server.wait_for_line("sitecustomize.py has changed")


async def test_where_a_thread_runs_workers_are_no_forks(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    packages = tmp_path_factory.mktemp("packages")
    (packages / "sitecustomize.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, name='watcher', daemon=True).start()\n"
    )
    async with executed(folder, "--workers", "2", PYTHONPATH=str(packages)) as server:
        for worker in (await all_workers(server)).values():
            assert SPAWNED in worker["command"]
            assert "watcher" in worker["threads"]


@pytest.mark.parametrize(
    ("program", "forks"),
    [
        ("from antiphon.cli import main", True),
        ("import sys, re\nfrom antiphon.cli import main", True),
        ("import sqlite3\nfrom antiphon.cli import main", False),
        ("from antiphon.cli import main\ndatabase = open('/dev/null')", False),
    ],
)
def test_only_a_process_that_is_the_command_alone_is_forked(program: str, forks: bool) -> None:
    script = f"{program}\nprint(__import__('antiphon.cli.forks').cli.forks.fork_server([]) is not None, flush=True)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert found.stdout.split() == [str(forks)]


async def test_nothing_is_left_when_the_supervisor_is_killed(folder: Path) -> None:
    async with run("main", "--workers", "2", app_dir=folder) as server:
        await all_workers(server)
        everybody = [*family(server.process.pid)]
        assert len(everybody) == 4  # fork server, two workers, relay
        server.process.kill()
        await until(lambda: all(has_ended(one) for one in everybody))


async def test_workers_serve_on_without_their_fork_server_and_are_replaced_without_it(folder: Path) -> None:
    async with run("main", "--workers", "2", app_dir=folder) as server:
        before = await all_workers(server)
        (fork_server,) = {one["parent"] for one in before.values()}
        async with connect(server.url, open_timeout=PATIENCE) as client:
            os.kill(fork_server, signal.SIGKILL)
            await server.wait_for_line("The process that workers are forked from ended with -9")
            assert not is_there(fork_server), "a zombie is left"
            assert set(await all_workers(server)) == set(before)
            await client.recv()
            for killed in before:
                os.kill(killed, signal.SIGKILL)
                await until(lambda: server.log.count("another takes its place") == 1 + [*before].index(killed))  # noqa: B023
            after = await all_workers(server, but=frozenset(before))
            assert all(SPAWNED in one["command"] for one in after.values())
        everybody = [*family(server.process.pid)]
    await until(lambda: all(has_ended(one) for one in everybody))


async def test_what_an_application_has_forked_does_not_hide_the_end_of_its_worker(folder: Path) -> None:
    os.mkfifo(folder / "until")
    (folder / "main.py").write_text(
        f"{APP}@app.on_event('startup')\ndef fork() -> None:\n"
        "    if os.fork() == 0:\n        with open('until') as file:\n            file.read()\n        os._exit(0)\n"
    )
    async with run("main", "--workers", "2", app_dir=folder) as server:
        try:
            before = await all_workers(server)
            (fork_server,) = {one["parent"] for one in before.values()}
            os.kill(fork_server, signal.SIGKILL)
            await server.wait_for_line("The process that workers are forked from ended with -9")
            killed = next(iter(before))
            os.kill(killed, signal.SIGKILL)
            await server.wait_for_line(f"Worker {killed} ended", timeout=WORKER_PATIENCE / 2)  # not for its answer
            await all_workers(server, but=frozenset([killed]))
        finally:
            server.process.terminate()
            with contextlib.suppress(OSError):
                os.close(os.open(folder / "until", os.O_WRONLY | os.O_NONBLOCK))
            await server.process.wait()


async def test_a_fork_server_that_hangs_is_not_waited_for() -> None:
    script = (
        "def main():\n"
        "    import os, signal\n"
        "    from antiphon.cli import forks\n"
        "    forks.PATIENCE = 0.5\n"
        "    server = forks.fork_server([])\n"
        "    os.kill(server._pid, signal.SIGSTOP)\n"
        "    print(server.fork(print, []), server.fork(print, []))\n"
        "main()\n"
    )
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(PATIENCE):
        out, _ = await program.communicate()
    assert out.decode().split() == ["None", "None"]


async def test_the_end_of_a_fork_is_noticed_while_its_fork_server_is_stopped() -> None:
    script = (
        "def main(*fork):\n"
        "    if fork:\n"
        "        return fork[1]()\n"
        "    import os, signal\n"
        "    from antiphon.cli import forks\n"
        "    server = forks.fork_server([])\n"
        "    first, second = server.fork(main, []), server.fork(main, [])\n"
        "    second.kill()\n"
        "    second.join()\n"
        "    os.kill(server._pid, signal.SIGSTOP)\n"
        "    forks.TOLD = 0.1\n"
        "    first.kill()\n"
        "    first.join()\n"
        "    print(first.exitcode, second.exitcode, flush=True)\n"
        "    os.kill(server._pid, signal.SIGKILL)\n"
        "main()\n"
    )
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(PATIENCE):
            assert program.stdout is not None
            assert (await program.stdout.readline()).split() == [b"255", b"-9"]
            await program.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            for one in [*family(program.pid), program.pid]:
                os.kill(one, signal.SIGKILL)


async def test_a_worker_that_is_killed_is_replaced_and_no_zombie_or_descriptor_stays(folder: Path) -> None:
    async with run("main", "--workers", "2", app_dir=folder) as server:
        workers = await all_workers(server)
        (fork_server,) = {one["parent"] for one in workers.values()}
        await until(lambda: len(children(fork_server)) == 2)
        counts = descriptors(server.process.pid), descriptors(fork_server)
        for _ in range(3):
            killed = next(iter(workers))
            os.kill(killed, signal.SIGKILL)
            workers = await all_workers(server, but=frozenset([killed]))
            assert not is_there(killed)
        assert [one for one in family(server.process.pid) if has_ended(one)] == []
        await until(lambda: (descriptors(server.process.pid), descriptors(fork_server)) == counts)
    assert "ended with -9: another takes its place" in server.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["running on", "startup complete"])
async def test_a_signal_to_the_process_group_ends_all_in_order(folder: Path, number: int, moment: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(*ANTIPHON, "run", "main", "--workers", "2", "--port", "0"),
        cwd=folder,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    log = b""
    try:
        async with asyncio.timeout(PATIENCE):
            while moment.encode() not in log:
                log += await process.stderr.readline()
            everybody = [*family(process.pid)]
            os.killpg(process.pid, number)
            log += await process.stderr.read()  # to the end: nobody has it open any more
            assert await process.wait() == 0, log.decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert b"Traceback" not in log
    assert b"The supervising process is gone" not in log
    await until(lambda: all(has_ended(one) for one in everybody))


def test_a_worker_whose_end_has_not_been_heard_yet_is_terminated() -> None:
    """The fork server has waited for it, so that its number is free, and has not told of it."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    assert ended.wait() == 0
    supervisors, fork_servers = socket.socketpair()
    worker = WorkerProcess(uvicorn.Config("main:app"), [])
    worker.process = Fork(ended.pid, supervisors)  # type: ignore[assignment]
    with fork_servers:
        worker.terminate()
        fork_servers.sendall(struct.pack("q", 0))
        worker.join()
    assert worker.exitcode == 0


async def test_a_signal_in_the_first_moment_of_a_fork_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text("import time\ndef sleep(descriptors, gone):\n    time.sleep(600)\n")
    (tmp_path / "program.py").write_text(
        "def main():\n"
        "    from antiphon.cli.forks import fork_server\n"
        "    server = fork_server(['work'])\n"
        "    import work\n"
        "    for _ in range(50):\n"
        "        fork = server.fork(work.sleep, [])\n"
        "        fork.terminate()\n"
        "        fork.join()\n"
        "        print(fork.exitcode)\n"
        "main()\n"
    )
    program = await asyncio.create_subprocess_exec(
        sys.executable, "program.py", stdout=asyncio.subprocess.PIPE, cwd=tmp_path
    )
    async with asyncio.timeout(PATIENCE):
        out, _ = await program.communicate()
    assert out.split() == [b"-15"] * 50


async def test_a_worker_runs_what_is_registered_for_its_end(folder: Path) -> None:
    (folder / "main.py").write_text(
        f"import atexit\natexit.register(lambda: os.write(1, b'END %d\\n' % os.getpid()))\n{APP}"
        "@app.on_event('startup')\ndef fail() -> None:\n    raise ValueError('broken')\n"
    )
    finished = await antiphon("run", "main", "--port", "0", "--workers", "2", cwd=folder)
    assert finished.code == 3
    assert len({line for line in finished.stdout.splitlines() if line.startswith("END")}) == 3


async def test_reload_starts_a_fork_that_reads_the_source_anew(folder: Path) -> None:
    async with run("main", "--reload", app_dir=folder) as server:
        (first,) = (await all_workers(server, 1)).values()
        assert SPAWNED not in first["command"]
        assert first["parent"] in children(server.process.pid)
        (folder / "main.py").write_text(APP.replace('"pid"', '"new": 1, "pid"'))
        async with asyncio.timeout(PATIENCE):
            while "new" not in (next_one := next(iter((await all_workers(server, 1)).values()))):
                (folder / "main.py").touch()
                await asyncio.sleep(0.5)
        assert SPAWNED not in next_one["command"]
        assert next_one["parent"] == first["parent"]


async def test_a_stop_by_sighup_keeps_the_fork_server(folder: Path) -> None:
    async with run("main", "--workers", "2", app_dir=folder) as server:
        before = await all_workers(server)
        server.process.send_signal(signal.SIGHUP)
        after = await all_workers(server, but=frozenset(before))
        assert {one["parent"] for one in after.values()} == {one["parent"] for one in before.values()}


FULL = """\
import errno, os
calls, fork = 0, os.fork
def full():
    global calls
    calls += 1
    if {refused}:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = full
"""
"""A system without room for processes: a limit would be one for root, too, if it were not root's."""


async def test_a_system_without_room_for_workers_is_told_at_the_start(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    packages = tmp_path_factory.mktemp("packages")
    (packages / "sitecustomize.py").write_text(FULL.format(refused="calls == 3"))  # fork server, worker, worker
    env = {"PYTHONPATH": str(packages)}
    finished = await antiphon("run", "main", "--port", "0", "--workers", "2", cwd=folder, env=env)
    assert finished.code == 1
    assert "error: a worker cannot be started: [Errno 11] Resource temporarily unavailable" in finished.stderr
    assert "Traceback" not in finished.stderr


async def test_a_worker_that_finds_no_room_is_tried_again(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    packages = tmp_path_factory.mktemp("packages")
    (packages / "sitecustomize.py").write_text(FULL.format(refused="calls in (4, 5)"))
    async with executed(folder, "--workers", "2", PYTHONPATH=str(packages)) as server:
        before = await all_workers(server)
        killed = next(iter(before))
        os.kill(killed, signal.SIGKILL)
        await all_workers(server, but=frozenset([killed]))
    assert server.log.count("A worker cannot be started") == 2


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
async def test_an_application_has_processes_of_its_own(folder: Path, method: str) -> None:
    (folder / "main.py").write_text(
        "import multiprocessing, os\nfrom concurrent.futures import ProcessPoolExecutor\n"
        "from antiphon import App, WebSocket\napp = App()\nos.environ['SET_BY_THE_APP'] = '1'\n"
        "@app.websocket('/')\nasync def ask(websocket: WebSocket) -> None:\n"
        "    await websocket.accept()\n"
        f"    with ProcessPoolExecutor(1, multiprocessing.get_context('{method}')) as pool:\n"
        "        await websocket.send_text(pool.submit(os.getenv, 'SET_BY_THE_APP').result())\n"
    )
    async with run("main", "--workers", "2", app_dir=folder) as server:
        async with connect(server.url, open_timeout=PATIENCE) as client:
            assert await client.recv() == "1"
        everybody = [*family(server.process.pid)]
    await until(lambda: all(has_ended(one) for one in everybody))
