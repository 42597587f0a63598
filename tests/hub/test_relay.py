"""The relay's own parts: its process, its supervisor, its limits."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from antiphon.events import Event
from antiphon.hub import BackendUnavailable, Hub, TopicOptions, UnknownBackend
from antiphon.hub.backends.relay import RelayBackend, Supervisor
from antiphon.hub.backends.relay import process as relay_process
from antiphon.hub.backends.relay.trust import ANSWER, WorkerHandshake, key_file, new_key, target
from antiphon.hub.backends.relay.wire import Op, Splitter, frame, native_address
from antiphon.hub.environment import ENVIRONMENT
from antiphon.hub.events import BackendLost, BackendRestored
from antiphon.testing.hub_sinks import Connection, eventually
from tests.patience import PATIENCE
from tests.relay_server import RelayServer

KEPT = {"kept": TopicOptions(history=10)}


@pytest.fixture
def relay() -> Iterator[RelayServer]:
    with RelayServer() as running:
        yield running


async def connected_to(relay: RelayServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that says nothing by itself; uvloop takes no abstract address, but a socket."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    sock.connect(native_address(relay.address))
    return await asyncio.open_unix_connection(sock=sock)


def answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(native_address(address)) == 0


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_the_relay_process_loads_only_what_it_needs() -> None:
    with Supervisor() as relay:
        async with Hub(f"relay://{relay.address}") as hub:
            await hub.publish("t", "the relay has answered, so it is fully up")
        libraries = await asyncio.to_thread(Path(f"/proc/{relay.pid}/maps").read_text)
    assert "pydantic" not in libraries
    assert "antiphon/server" not in libraries


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while not gone(pid):
        assert time.monotonic() < deadline, "the relay outlived the one it belongs to"
        time.sleep(0.01)


# The supervisor


async def test_two_hubs_meet_in_the_relay_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with Supervisor() as relay:
        for name, value in relay.environment.items():
            monkeypatch.setenv(name, value)
        async with Hub("relay://") as one, Hub("relay://") as two:
            connection = Connection()
            async with two.join("t", connection):
                await one.publish("t", "hello")
                await eventually(lambda: connection.received == ["hello"])


async def test_a_relay_that_dies_is_started_again_and_the_clients_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with Supervisor() as relay:
        monkeypatch.setenv(ENVIRONMENT, relay.environment[ENVIRONMENT])
        async with Hub("relay://", topics=KEPT) as hub:
            connection = Connection()
            before = await hub.publish("kept", "before")
            assert before is not None
            async with hub.join("kept", connection):
                first = relay.pid
                assert first is not None
                os.kill(first, signal.SIGKILL)
                await eventually(lambda: any(event["type"] == "resync" for event in connection.sink.events))
                assert relay.pid != first
                after = await hub.publish("kept", "after")
                assert after is not None
                assert after.epoch != before.epoch
                await eventually(lambda: connection.received[-1] == "after")
            async with hub.join("kept", Connection(), since=before) as membership:
                assert not membership.recovered


def test_a_stopped_supervisor_leaves_neither_process_nor_file() -> None:
    relay = Supervisor()
    address = relay.start()
    pid = relay.pid
    assert pid is not None
    assert answers(address)
    relay.stop()
    relay.stop()
    assert gone(pid)
    assert not answers(address)


def test_the_relay_ends_with_a_parent_that_was_killed() -> None:
    program = """
        import sys, time
        from antiphon.hub.backends.relay import Supervisor
        relay = Supervisor()
        relay.start()
        print(relay.pid, flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    wait_until_gone(pid)


def test_a_worker_forked_from_the_supervisor_does_not_keep_the_relay_alive() -> None:
    program = """
        import os, sys, time
        from antiphon.hub.backends.relay import Supervisor
        relay = Supervisor()
        relay.start()
        child = os.fork()
        if not child:
            os.close(1)
            time.sleep(60)
            os._exit(0)
        print(relay.pid, child, flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid, child = map(int, parent.stdout.readline().split())
        parent.kill()
    try:
        wait_until_gone(pid)
        assert not gone(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_hubs_of_forked_workers_have_connections_of_their_own() -> None:
    """A preloading server: the hub is built and used before the fork, and started again in each worker."""
    program = """
        import asyncio, os, sys
        from antiphon.hub import Hub
        from antiphon.hub.backends.relay import Supervisor
        from antiphon.testing.hub_sinks import Connection, eventually

        relay = Supervisor()
        relay.start()
        os.environ |= relay.environment
        hub = Hub("relay://")

        async def warm_up():
            async with hub:
                await hub.publish("t", "warm")

        asyncio.run(warm_up())

        async def work(name):
            async with hub:
                connection = Connection()
                async with hub.join("t", connection):
                    while (await hub.backend.stats()).workers < 2:
                        await asyncio.sleep(0.01)
                    while len({*connection.received}) < 2:
                        await hub.publish("t", name)
                        await asyncio.sleep(0.01)
                    await hub.publish("t", name)

        child = os.fork()
        if not child:
            asyncio.run(asyncio.wait_for(work("child"), 100))
            os._exit(0)
        asyncio.run(asyncio.wait_for(work("parent"), 100))
        _, status = os.waitpid(child, 0)
        relay.stop()
        sys.exit(os.waitstatus_to_exitcode(status))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, timeout=2 * PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


async def test_a_hub_alone_runs_a_relay_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    async with Hub("relay://") as hub:
        assert isinstance(hub.backend, RelayBackend)
        supervisor = hub.backend._supervisor
        assert supervisor is not None
        pid = supervisor.pid
        assert pid is not None
        connection = Connection()
        async with hub.join("t", connection):
            await hub.publish("t", "x")
            await eventually(lambda: connection.received == ["x"])
    assert gone(pid)


async def test_a_child_forked_from_a_running_hub_cannot_speak_on_its_connection(relay: RelayServer) -> None:
    async with Hub(relay.url) as hub:
        child = os.fork()
        if not child:
            try:
                hub.backend.publish("t", b"", None).send(None)
            except BackendUnavailable:
                os._exit(0)
            finally:
                os._exit(1)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert await hub.publish("t", "x") is None


async def test_a_relay_that_goes_on_dying_is_one_loss_until_it_is_back(tmp_path: Path) -> None:
    dying = 0

    class Dying(relay_process.WorkerLink):
        """Dies `dying` times: joined again, and before it confirms the subscriptions."""

        def data_received(self, data: bytes) -> None:
            nonlocal dying
            if dying and self.process:
                dying -= 1
                self.relay.forget(self)
                self.transport.abort()
            else:
                super().data_received(data)

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport = cast(asyncio.Transport, transport)

    events: list[Event] = []
    key, path = new_key(), str(tmp_path / "relay")
    process = relay_process.Relay(key)
    server = await asyncio.get_running_loop().create_unix_server(lambda: Dying(process), path)
    async with Hub(f"relay://{target(key, path)}", observer=events.append) as hub, hub.join("t", Connection()):
        for _ in range(2):
            dying = 3
            with pytest.raises(BackendUnavailable):
                await hub.publish("t", "x")
            await eventually(lambda: hub.stats().connected)
            assert dying == 0
        told = [type(event) for event in events if isinstance(event, (BackendLost, BackendRestored))]
        assert told == [BackendLost, BackendRestored] * 2
    server.close()
    await server.wait_closed()


async def test_a_relay_that_goes_while_it_is_joined_leaves_no_socket(tmp_path: Path) -> None:
    path = tmp_path / "relay"
    server = relay_process.listen(str(path))
    os.mkfifo(key_file(str(path)))

    def go_when_the_key_is_read() -> None:
        """That is when the worker is connected and has not said anything yet."""
        with key_file(str(path)).open("w") as key:
            server.close()
            key.write(new_key())

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        going = asyncio.create_task(asyncio.to_thread(go_when_the_key_is_read))
        with pytest.raises(BackendUnavailable, match="no relay answers"):
            await Hub(f"relay://{path}").start()
        await going
        gc.collect()
    assert [str(warning.message) for warning in warned] == []


async def test_a_relay_whose_queue_is_full_is_joined_when_there_is_room(tmp_path: Path) -> None:
    path = str(tmp_path / "relay")
    key, full = new_key(), socket.socket(socket.AF_UNIX)
    full.bind(path)
    full.listen(0)
    waiting = []
    while True:  # as many as the kernel lets wait
        waiting.append(socket.socket(socket.AF_UNIX))
        waiting[-1].setblocking(False)
        if waiting[-1].connect_ex(path):
            break
    hub = Hub(f"relay://{target(key, path)}")
    threads = threading.active_count()
    starting = asyncio.create_task(hub.start())
    await asyncio.sleep(0)
    assert threading.active_count() == threads, "a thread waits, and nothing could end it"
    relay = relay_process.Relay(key)
    server = await asyncio.get_running_loop().create_unix_server(lambda: relay_process.WorkerLink(relay), sock=full)
    await starting
    await hub.stop()
    for one in waiting:
        one.close()
    server.close()
    await server.wait_closed()


# Bad input


async def test_no_relay_at_the_address_is_an_error_at_start_that_names_it() -> None:
    with pytest.raises(BackendUnavailable, match="@nobody-here"):
        await Hub("relay://@nobody-here").start()


@pytest.mark.parametrize("url", ["relay:/x", "relay://host", "relay://@", "relay://host:80/x"])
def test_a_relay_url_is_nothing_or_a_path_or_an_abstract_name(url: str) -> None:
    with pytest.raises(UnknownBackend):
        Hub(url)


@pytest.mark.parametrize(
    "rubbish",
    [
        pytest.param(b"\xff\xff\xff\xff", id="a length beyond all bounds"),
        pytest.param(b"\x00\x00\x00\x03abc", id="no marshal"),
        pytest.param(frame(99, 1), id="an unknown request"),
        pytest.param(frame(), id="no words"),
    ],
)
async def test_who_sends_rubbish_is_cut_and_nobody_else_is(relay: RelayServer, rubbish: bytes) -> None:
    async with Hub(relay.url) as hub:
        reader, writer = await connected_to(relay)
        peer = WorkerHandshake(relay.key)
        writer.write(peer.asking)
        writer.write(peer.answered(await asyncio.wait_for(reader.readexactly(ANSWER), PATIENCE)) + rubbish)
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        writer.close()
        connection = Connection()
        async with hub.join("t", connection):
            await hub.publish("t", "x")
            await eventually(lambda: connection.received == ["x"])


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user takes root")
async def test_a_process_of_another_user_is_not_let_in(relay: RelayServer) -> None:
    program = f"""
        import os, socket
        os.setuid(65534)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect({native_address(relay.address)!r})
            try:
                assert connection.recv(1) == b""
            except ConnectionResetError:
                pass
    """
    arguments = ("-S", "-c", textwrap.dedent(program))
    stranger = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.PIPE)
    _, errors = await stranger.communicate()
    assert stranger.returncode == 0, errors.decode()


async def test_a_request_that_fails_is_one_error_for_its_sender(relay: RelayServer) -> None:
    async with Hub(relay.url) as hub:
        assert isinstance(hub.backend, RelayBackend)
        assert hub.backend._link is not None
        with pytest.raises(BackendUnavailable, match="refused"):
            await hub.backend._link.request(Op.PUBLISH, "too", "few")
        assert await hub.publish("t", "x") is None


async def test_a_socket_file_that_a_killed_relay_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "relay"
    relay_process.listen(str(path)).close()
    assert path.exists()
    server = relay_process.listen(str(path))
    try:
        assert answers(str(path))
        with pytest.raises(OSError, match="in use"):
            relay_process.listen(str(path))
    finally:
        server.close()


# Limits


async def test_a_worker_that_does_not_read_is_cut_and_comes_back_without_a_gap(relay: RelayServer) -> None:
    topics = {"big": TopicOptions(history=1000)}
    async with Hub(relay.url, topics=topics) as reader, Hub(relay.url, topics=topics) as writer:
        assert isinstance(reader.backend, RelayBackend)
        connection = Connection()
        async with reader.join("big", connection):
            link = reader.backend._link
            assert link is not None
            assert link._transport is not None
            link._transport.pause_reading()
            payload = "x" * (1 << 20)
            for n in range(relay_process.MAX_BACKLOG // len(payload) + 8):
                await writer.publish("big", f"{n}:{payload}")
            link._transport.resume_reading()
            await eventually(lambda: reader.backend._link not in (None, link))  # type: ignore[attr-defined]
            await writer.publish("big", f"{n + 1}:end")
            await eventually(lambda: str(connection.received[-1:]).endswith("end']"))
        assert [int(str(one).partition(":")[0]) for one in connection.received] == list(range(n + 2))


async def test_a_worker_that_asks_for_much_and_reads_nothing_is_waited_for_and_nobody_waits_with_it() -> None:
    """Answers to its own requests are flow control, not backlog."""
    questions, size = 100, relay_process.PAGE_BYTES - 1000
    topics = {"long": TopicOptions(history=1)}
    with RelayServer() as relay:
        async with Hub(relay.url, topics=topics) as hub:
            await hub.publish("long", b"x" * size)
            reader, writer = await connected_to(relay)
            peer = WorkerHandshake(relay.key)
            writer.write(peer.asking)
            writer.write(peer.answered(await asyncio.wait_for(reader.readexactly(ANSWER), PATIENCE)))
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(frame(Op.HELLO, 1, "greedy", 100.0))
            for number in range(questions):
                writer.write(frame(Op.HISTORY, 2 + number, "long", None, 1, None))
            before = resident(relay.pid)
            connection = Connection()
            async with hub.join("long", connection, history=1):
                for number in range(20):
                    await hub.publish("t", f"{number}")
                await eventually(lambda: len(connection.received) == 1)
            assert resident(relay.pid) - before < 16 << 20
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            splitter, answers = Splitter(), 0
            while answers < 1 + questions:
                data = await asyncio.wait_for(reader.read(1 << 20), PATIENCE)
                assert data, "the relay has cut a worker for what it asked"
                answers += len(splitter.feed(data))
            writer.close()


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_unsent_answers_are_counted_among_what_others_published() -> None:
    answers = relay_process.Unsent()
    answers.add(100)
    assert answers.unsent == 100
    answers.written(1000, waiting=1000)
    answers.written(500, waiting=1500)  # nothing but entries
    assert answers.unsent == 100
    answers.left(550)
    assert answers.unsent == 50
    answers.add(30)
    answers.written(30, waiting=530)
    assert answers.unsent == 30
    answers.left(0)
    assert answers.unsent == 0
