"""`antiphon bench` measures a real server, reports failures and reasons, and always ends."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from antiphon.cli.load import MOST_REASONS, Durations, Tally
from tests.commands import ANTIPHON, antiphon, run
from tests.patience import PATIENCE
from tests.serving import ServedProcess

APP = """\
import asyncio
from antiphon import App, WebSocket

app = App()
visits = 0

@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)

@app.websocket("/silent")
async def silent(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.wait_closed()

@app.websocket("/feed")
async def feed(websocket: WebSocket) -> None:
    await websocket.accept()
    while True:
        await websocket.send_text("x" * 100)
        await asyncio.sleep(0.01)

@app.websocket("/three")
async def three(websocket: WebSocket) -> None:
    global visits
    visits += 1
    if visits > 4:  # the first is the command's own look whether there is anybody
        await websocket.close(1013, "full")
        return
    await echo(websocket)

@app.websocket("/brief")
async def brief(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.receive_text()
    await websocket.close(4321, "\\x1b[31menough")
"""


DURATIONS = ("0.5", "5", "50")
"""Seconds: where the machine was too slow to do anything in them, the next are tried."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[ServedProcess]:
    (tmp_path / "main.py").write_text(APP)
    async with run("main:app", app_dir=tmp_path) as server:
        yield server


async def measured(server: ServedProcess, path: str, *options: str) -> tuple[int, Any]:
    done = await antiphon("bench", f"{server.url}{path}", "--json", *options)
    return done.code, json.loads(done.stdout)


async def test_every_connection_echoes_and_its_times_are_told(server: ServedProcess) -> None:
    for duration in DURATIONS:
        done = await antiphon("bench", f"{server.url}/echo", "-c", "8", "--duration", duration)
        assert done.code == 0, done.stderr
        connected, answers = done.stdout.splitlines()[:2]
        if int(answers.split()[1].rstrip(",")) >= 8:
            break
    assert connected.startswith("connected  8 of 8 in ")
    for line in (connected, answers):
        assert [word for word in line.split() if word in ("p50", "p95", "p99", "max")] == ["p50", "p95", "p99", "max"]
    assert int(answers.split()[1].rstrip(",")) >= 8


async def test_a_rate_is_kept(server: ServedProcess) -> None:
    for duration in DURATIONS:
        code, told = await measured(server, "/echo", "-c", "4", "--duration", duration, "--rate", "40")
        assert code == 0
        # never more than that; fewer on a machine that is busy
        assert told["answers"]["count"] <= 40 * told["received"]["seconds"] + 4
        if told["answers"]["count"] >= 4:
            break
    assert told["answers"]["count"] >= 4


async def test_listening_sends_nothing_and_counts_what_comes(server: ServedProcess) -> None:
    for duration in DURATIONS:
        code, told = await measured(server, "/feed", "-c", "3", "--duration", duration, "--listen")
        assert code == 0
        if told["received"]["count"] >= 3:
            break
    assert told["answers"] is None
    assert told["received"]["count"] >= 3
    assert told["received"]["bytes"] == 100 * told["received"]["count"]


async def test_an_endpoint_that_does_not_answer_is_told_apart_from_a_slow_one(server: ServedProcess) -> None:
    code, told = await measured(server, "/silent", "-c", "2", "--duration", "1", "--patience", "0.2")
    assert code == 3
    assert told["answers"]["count"] == 0
    assert told["answers"]["times"] is None
    assert list(told["failed"]) == ["no answer within 0.2 s"]


async def test_refusals_and_ends_are_counted_by_their_reason(server: ServedProcess) -> None:
    code, told = await measured(server, "/three", "-c", "5", "--duration", "0.2")
    assert code == 3
    assert told["connections"]["connected"] == 3
    assert told["failed"] == {"refused: 403 Forbidden": 2}
    code, told = await measured(server, "/brief", "-c", "2", "--duration", "60")
    assert code == 3
    assert told["failed"] == {"closed with 4321 (the application's own): \\x1b[31menough": 2}


async def test_when_everybody_is_gone_it_ends_before_its_time(server: ServedProcess) -> None:
    done = await antiphon("bench", f"{server.url}/brief", "--duration", "3600", timeout=PATIENCE)
    assert done.code == 3
    assert done.stdout.splitlines()[-1].startswith("failed     100 × closed with 4321")


async def test_an_interrupt_prints_what_was_measured(server: ServedProcess) -> None:
    process = await asyncio.create_subprocess_exec(
        *(*ANTIPHON, "bench", f"{server.url}/echo", "-c", "2", "--duration", "3600", "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await server.wait_for_line(r"(?s)WebSocket /echo")
    while sum("WebSocket /echo" in line for line in server.lines) < 3:  # noqa: ASYNC110  the log of another process
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(PATIENCE):
        stdout, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")
    assert json.loads(stdout)["connections"]["wanted"] == 2


async def test_an_interrupt_ends_a_slow_ramp(server: ServedProcess) -> None:
    process = await asyncio.create_subprocess_exec(
        *(*ANTIPHON, "bench", f"{server.url}/echo", "-c", "2", "--ramp", "3600"),
        stdout=asyncio.subprocess.PIPE,
    )
    while sum("WebSocket /echo" in line for line in server.lines) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(PATIENCE):
        stdout, _ = await process.communicate()
    assert stdout.startswith(b"connected  1 of 2 in ")


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["ftp://localhost/x"], 2, "starts with ftp://"),
        (["localhost:1/x"], 1, "nothing listens on localhost port 1"),
        (["localhost:1/x", "--listen", "--rate", "3"], 2, "--listen sends nothing"),
        (["localhost:1/x", "-c", "0"], 2, "0 is not in the range"),
        (["localhost:1/x", "--duration", "inf"], 2, "not a number of seconds"),
        (["localhost:1/x", "--rate", "0"], 2, "0.0 is not in the range"),
        (["localhost:1/x", "-H", "nothing"], 2, "not of the form NAME:VALUE"),
    ],
)
async def test_what_cannot_be_measured_is_explained(args: list[str], code: int, told: str) -> None:
    done = await antiphon("bench", *args)
    assert done.code == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


async def test_a_wrong_path_is_said_once_and_not_a_thousand_times(server: ServedProcess) -> None:
    done = await antiphon("bench", f"{server.url}/ecko", "-c", "1000")
    assert done.code == 1
    assert "refused the connection: 404 Not Found" in done.stderr
    assert sum("/ecko" in line and "404" in line for line in server.lines) <= 1


async def test_more_connections_than_files_are_refused_before_the_first() -> None:
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *ANTIPHON, "bench", "localhost:1/x", "-c", "100"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert b"100 connections are more open files than the 64" in said
    assert b"ulimit -n 132" in said


def test_quantiles_are_right_to_a_hundredth() -> None:
    times = Durations()
    for milliseconds in range(1, 1001):
        times.add(milliseconds / 1000)
    for share in (0.5, 0.95, 0.99):
        assert times.quantile(share) == pytest.approx(share, rel=0.01)
    assert times.quantile(1) == times.longest == 1
    times.add(0)
    with pytest.raises(ValueError, match="nothing was measured"):
        Durations().quantile(0.5)


def test_reasons_that_a_server_makes_up_do_not_pile_up() -> None:
    tally = Tally(1)
    for number in range(1000):
        tally.failed(f"{number:04}" * 1000)
    assert len(tally.errors) == MOST_REASONS + 1
    assert tally.errors["another reason"] == 1000 - MOST_REASONS
    assert max(map(len, tally.errors)) <= 120
