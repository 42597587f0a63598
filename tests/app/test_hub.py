"""The app and its hub: one life, and plain words when the hub cannot live."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from antiphon import App, BackendUnavailable, Hub
from antiphon.hub import workers
from antiphon.hub.backends.relay.trust import target
from antiphon.hub.environment import ENVIRONMENT
from antiphon.hub.errors import HubError, HubNotRunning
from antiphon.testclient import TestClient
from tests.relay_server import RelayServer

PROGRAM = """
from antiphon import App, Hub
app = App(hub=Hub("redis://me:secret@127.0.0.1:{port}/0"))
"""


@pytest.fixture
def relay() -> Iterator[RelayServer]:
    with RelayServer() as server:
        yield server


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this host that nobody listens on while the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def test_a_hub_that_cannot_start_is_one_line_without_password_and_ends_the_server(
    tmp_path: Path, closed_port: int
) -> None:
    (tmp_path / "hubless.py").write_text(PROGRAM.format(port=closed_port))
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "hubless:app", "--port", "0"),
        cwd=tmp_path,
        stderr=asyncio.subprocess.PIPE,
    )
    _, printed = await server.communicate()
    errors = [line for line in printed.decode().splitlines() if not line.startswith("INFO")]
    assert server.returncode == 3
    assert len(errors) == 2, printed.decode()
    assert errors[0].startswith("ERROR:    the app cannot start without its hub: ")
    assert f"redis://***@127.0.0.1:{closed_port}/0" in errors[0]
    assert "secret" not in printed.decode()


def test_a_test_meets_the_error_itself(closed_port: int) -> None:
    app = App(hub=Hub(f"redis://127.0.0.1:{closed_port}"))
    with pytest.raises(BackendUnavailable), TestClient(app):
        pass


async def startup_message(app: App) -> str:
    """The message to a server about a failed startup."""
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        assert message["type"] == "lifespan.startup.failed"
        told.set_result(message["message"])

    with pytest.raises((BackendUnavailable, ZeroDivisionError)):
        await app({"type": "lifespan"}, receive, send)
    return await told


def test_an_app_does_not_start_on_trio_and_says_what_does_not_run_there() -> None:
    with pytest.raises(HubError, match="runs on asyncio"), TestClient(App(), backend="trio"):
        pass


async def test_an_applications_own_failure_at_startup_keeps_its_traceback(closed_port: int) -> None:
    async def broken(app: App) -> AsyncIterator[None]:
        raise ZeroDivisionError
        yield

    assert "Traceback" not in await startup_message(App(hub=Hub(f"redis://127.0.0.1:{closed_port}")))
    assert "ZeroDivisionError" in await startup_message(App(lifespan=broken))


async def test_a_failure_of_the_hub_is_not_told_again_for_a_later_one_of_the_application() -> None:
    async def broken(app: App) -> AsyncIterator[None]:
        raise ZeroDivisionError
        yield

    relay = RelayServer()
    app = App(lifespan=broken, hub=Hub(relay.url))
    assert "cannot start without its hub" in await startup_message(app)
    with relay:
        assert "ZeroDivisionError" in await startup_message(app)


async def test_a_startup_that_fails_stops_the_hub_again(relay: RelayServer) -> None:
    async def broken(app: App) -> AsyncIterator[None]:
        raise ZeroDivisionError
        yield

    app = App(lifespan=broken, hub=Hub(relay.url))
    await startup_message(app)
    with pytest.raises(HubNotRunning):
        await app.hub.publish("topic", "data")


@pytest.mark.parametrize(("url", "warnings"), [("memory://", 1), (None, 0)])
def test_a_memory_hub_among_several_workers_is_warned_of(
    url: str | None,
    warnings: int,
    relay: RelayServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(ENVIRONMENT, target(relay.key, relay.address))
    monkeypatch.setattr(workers, "_warned", set())
    with TestClient(App(hub=Hub(url))):
        lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lines) == warnings
    assert all("memory:// does not reach the other workers" in line for line in lines)


def test_a_memory_hub_of_one_process_is_nothing_to_warn_of(caplog: pytest.LogCaptureFixture) -> None:
    with TestClient(App(hub=Hub("memory://"))):
        assert not caplog.records
