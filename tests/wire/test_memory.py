"""Whole connections, opened and closed many times: the process stays as large as it was."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from antiphon.wire import Deflate, DeflateConfig, Role, WireConnection
from antiphon.wire.deflate import Agreement
from tests.wire import raw
from tests.wire.twins import Twin

STATM = Path("/proc/self/statm")


def resident() -> int:
    gc.collect()
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def live(deflate: tuple[Deflate, Deflate] | None) -> None:
    server = WireConnection(Role.SERVER, deflate=deflate and deflate[0])
    client = WireConnection(Role.CLIENT, deflate=deflate and deflate[1])
    client.send_text("some words of a message " * 20)
    client.send_fragments(["Grü", "ße"])
    client.send_ping(b"ping")
    for event in server.receive_data(client.data_to_send()):
        if isinstance(event, str):
            server.send_text(event)
    client.receive_data(server.data_to_send())
    client.send_close(1000, "bye")
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())


@pytest.mark.skipif(not STATM.exists(), reason="resident memory is read from Linux's /proc")
@pytest.mark.parametrize("forget", [True, False, None], ids=["deflate", "takeover", "plain"])
def test_connections_opened_and_closed_leave_nothing_behind(forget: bool | None) -> None:
    config = DeflateConfig(threshold=0)

    def work(rounds: int) -> None:
        for _ in range(rounds):
            if forget is None:
                live(None)
                continue
            agreement = Agreement(server_no_context_takeover=forget, client_no_context_takeover=forget)
            live((Deflate(agreement, Role.SERVER, config), Deflate(agreement, Role.CLIENT, config)))

    rounds = 500 if forget is False else 3000  # making a compressor costs more than all the rest
    work(rounds)
    before = resident()
    work(rounds)
    assert resident() - before < 1 << 20


@pytest.mark.skipif(not STATM.exists(), reason="resident memory is read from Linux's /proc")
def test_parsers_that_come_and_go_leave_nothing_behind(twin: Twin) -> None:
    """Every way for one to end: idle, in a frame, in a message, after an error, after a Close."""
    endings = [
        b"",
        raw.frame(2, b"x" * 5000, declared=9000),
        raw.frame(1, b"x" * 5000, fin=False) + b"\x80",
        raw.frame(2, b"x" * 5000, fin=False) + raw.frame(3),
        raw.frame(2, b"x" * 5000, fin=False) + raw.frame(8, b"\x03\xe8"),
    ]

    def work() -> None:
        for _ in range(1000):
            for ending in endings:
                parser = twin.server()
                parser.feed(raw.text("hello") + ending[:3])
                parser.feed(ending[3:])

    work()
    before = resident()
    work()
    assert resident() - before < 1 << 20
