"""The workers that a relay accepts, and the relay that a worker trusts."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from antiphon.hub import BackendUnavailable, Hub
from antiphon.hub.backends.base import redact
from antiphon.hub.backends.relay import Supervisor
from antiphon.hub.backends.relay import process as relay_process
from antiphon.hub.backends.relay import trust as relay_trust
from antiphon.hub.backends.relay import wire as relay_wire
from antiphon.hub.backends.relay.trust import (
    ANSWER,
    NotTrusted,
    RelayHandshake,
    WorkerHandshake,
    find_key,
    new_key,
    target,
)
from antiphon.hub.backends.relay.wire import Op, frame, native_address
from antiphon.hub.environment import ENVIRONMENT
from antiphon.testing.hub_sinks import Connection, eventually
from tests.patience import PATIENCE
from tests.relay_server import RelayServer

INTRODUCTION = frame(Op.HELLO, 1, "stranger", 10.0) + frame(Op.HISTORY, 2, "secrets", None, None)


@pytest.fixture
def unmarshalled(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bytes given to `marshal` in this process."""
    seen: list[bytes] = []
    read = relay_wire._words

    def watched(body: memoryview) -> Any:
        seen.append(bytes(body))
        return read(body)

    monkeypatch.setattr(relay_wire, "_words", watched)
    return seen


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(INTRODUCTION, id="requests at once"),
        pytest.param(WorkerHandshake("").asking + bytes(relay_trust.PROOF) + INTRODUCTION, id="a proof that is none"),
        pytest.param(b"\xff" * 100, id="rubbish"),
    ],
)
async def test_nothing_is_unmarshalled_of_a_peer_that_has_not_shown_the_key(
    said: bytes, tmp_path: Path, unmarshalled: list[bytes]
) -> None:
    relay, path = relay_process.Relay(new_key()), str(tmp_path / "relay")
    server = await asyncio.get_running_loop().create_unix_server(lambda: relay_process.WorkerLink(relay), path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(said)
    answer = await asyncio.wait_for(reader.read(), PATIENCE)
    assert len(answer) in (0, ANSWER)
    assert not relay.workers
    assert unmarshalled == []
    writer.close()
    server.close()


async def test_a_stranger_that_says_nothing_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_process, "PATIENCE", 0.05)
    relay, path = relay_process.Relay(new_key()), str(tmp_path / "relay")
    server = await asyncio.get_running_loop().create_unix_server(lambda: relay_process.WorkerLink(relay), path)
    reader, writer = await asyncio.open_unix_connection(path)
    assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
    writer.close()
    server.close()


async def test_a_hub_with_another_key_is_refused_at_start() -> None:
    with RelayServer() as relay:
        with pytest.raises(BackendUnavailable, match=relay.address) as refused:
            await Hub(f"relay://{target(new_key(), relay.address)}").start()
        assert "key" in str(refused.value)
        async with Hub(relay.url) as hub:
            assert await hub.publish("t", "x") is None


async def test_nothing_is_unmarshalled_of_a_relay_that_has_not_shown_the_key(
    tmp_path: Path, unmarshalled: list[bytes]
) -> None:
    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(bytes(ANSWER) + frame(Op.CONTROLLED, b"{}"))
        await reader.read()
        writer.close()

    path = str(tmp_path / "relay")
    server = await asyncio.start_unix_server(pretend, path)
    with pytest.raises(BackendUnavailable, match="key"):
        await Hub(f"relay://{target(new_key(), path)}").start()
    assert unmarshalled == []
    server.close()


def test_the_handshake_comes_out_the_same_however_the_stream_is_cut() -> None:
    key = new_key()
    for size in (1, 7, 47, 48, 49, 500):
        worker, door = WorkerHandshake(key), RelayHandshake(key)
        answer, stream = b"", worker.asking
        while stream:
            more, behind = door.feed(stream[:size])
            assert behind is None
            answer, stream = answer + more, stream[size:]
        stream = worker.answered(answer) + b"behind"
        got = b""
        while stream:
            _, behind = door.feed(stream[:size])
            stream = stream[size:]
            if behind is not None:
                got = behind + stream
                break
        assert got == b"behind"
    with pytest.raises(NotTrusted):
        WorkerHandshake(new_key()).answered(RelayHandshake(key).feed(WorkerHandshake(key).asking)[0])


# Where the key comes from


async def test_who_may_look_into_a_worker_finds_the_key_of_its_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    """`antiphon publish relay://@...` in another terminal of the same user."""
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    with Supervisor() as relay:
        async with Hub(f"relay://{target(relay.key, relay.address)}") as hub:
            assert await hub.publish("t", "x") is None  # it runs: while it starts, nobody can see its environment
        assert find_key(relay.address) == relay.key
        async with Hub(f"relay://{relay.address}") as hub:
            assert await hub.publish("t", "x") is None
    with pytest.raises(LookupError, match="KEY:ADDRESS"):
        find_key("@antiphon-nobody")


def test_a_relay_started_by_hand_on_a_path_leaves_its_key_to_its_user_alone(tmp_path: Path) -> None:
    path, key = tmp_path / "relay", tmp_path / "relay.key"
    environment = {name: value for name, value in os.environ.items() if name != ENVIRONMENT}
    command = [sys.executable, "-m", "antiphon.hub.backends.relay", str(path)]

    async def join() -> None:
        await eventually(lambda: key.exists() and key.read_text())
        async with Hub(f"relay://{path}") as hub:
            connection = Connection()
            async with hub.join("t", connection):
                await hub.publish("t", "x")
                await eventually(lambda: connection.received == ["x"])

    with subprocess.Popen(command, env=environment) as process:
        try:
            asyncio.run(join())
            assert stat.S_IMODE(key.stat().st_mode) == 0o600
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_relay_started_by_hand_on_a_name_wants_its_key() -> None:
    command = [sys.executable, "-m", "antiphon.hub.backends.relay", "@antiphon-test-without-a-key"]
    environment = {name: value for name, value in os.environ.items() if name != ENVIRONMENT}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert b"ANTIPHON_RELAY=KEY:@antiphon-test-without-a-key" in done.stderr


async def test_an_environment_that_names_no_relay_is_an_error_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "host:80")
    with pytest.raises(BackendUnavailable, match="ANTIPHON_RELAY"):
        await Hub("relay://").start()


def test_a_key_in_a_url_is_not_shown() -> None:
    key = new_key()
    for address in ("@name", "/run/relay"):
        assert key not in redact(f"relay://{target(key, address)}")
        assert address.strip("@") in redact(f"relay://{target(key, address)}")


# Processes with our uid that are not our user


@pytest.mark.skipif(os.getuid() != 0, reason="making a user namespace with a map takes root")
def test_the_number_of_all_strangers_is_nobodys_user() -> None:
    """The relay runs as 65534 in a user namespace; root of the outer one has no number in there, so it gets that."""
    program = """
        import ctypes, os, socket, sys
        from antiphon.hub.backends.relay.trust import same_user
        if ctypes.CDLL(None).unshare(0x10000000):
            sys.exit(77)
        server = socket.socket(socket.AF_UNIX)
        server.bind("\\0" + sys.argv[1])
        server.listen()
        print("ready", flush=True)
        sys.stdin.readline()  # the map is written
        os.setresuid(65534, 65534, 65534)
        connection, _ = server.accept()
        print(same_user(connection), flush=True)
        mine, other = socket.socketpair()
        print(same_user(mine), flush=True)
    """
    name = f"antiphon-test-{new_key()}"
    command = [sys.executable, "-c", textwrap.dedent(program), name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if not process.stdout.readline():
            assert process.wait() == 77
            pytest.skip("no user namespaces here")
        Path(f"/proc/{process.pid}/uid_map").write_text("65534 65534 1")
        process.stdin.write("\n")
        process.stdin.flush()
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(native_address(f"@{name}"))
            answers = process.stdout.read().split()
    assert answers == ["False", "True"]
