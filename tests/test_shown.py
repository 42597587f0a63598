"""A peer's text stands in a log on one line, in the order it is read, and short. Every log call sees to that."""

from __future__ import annotations

import ast
import asyncio
import logging
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.middleware import Middleware
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, WebSocketException

import antiphon
from antiphon import App, WebSocket
from antiphon.shown import LONGEST, shown
from antiphon.types import ASGIApp, Receive, Scope, Send
from tests.matrix.servers import SERVERS, ServerUnderTest
from tests.patience import PATIENCE

SOURCE = Path(antiphon.__file__).parent


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("/room/ä 東京 🎉", "/room/ä 東京 🎉"),
        ("a\nINFO: b\r", "a\\nINFO: b\\r"),
        ("\x1b[31m\x00\x7f", "\\x1b[31m\\x00\\x7f"),
        ("\x9b31m\x85", "\\x9b31m\\x85"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("\u202eexe.txt\u2066", "\\u202eexe.txt\\u2066"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        (b"\x9b\n", "\\x9b\\n"),
        (None, "None"),
    ],
)
def test_what_would_change_the_line_is_shown_as_its_escape(said: object, line: str) -> None:
    assert shown(said) == line


def test_every_character_there_is_stays_on_the_line() -> None:
    for number in range(0x110000):
        sign = chr(number)
        if unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            assert shown(sign).isascii(), hex(number)


def test_a_long_value_is_cut_and_says_so() -> None:
    assert shown("ä" * LONGEST) == "ä" * LONGEST
    assert shown("ä" * (LONGEST + 1)) == "ä" * LONGEST + "…"
    assert shown("\n" * 10, 3) == "\\n\\n\\n…"


class Turnstile:
    """Middleware that answers in the endpoint's place, or not at all."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or not scope["path"].startswith("/middleware"):
            await self._app(scope, receive, send)


def endpoints() -> App:
    app = App(middleware=[Middleware(Turnstile)])

    @app.websocket("/returns/{_rest}")
    async def returns(websocket: WebSocket) -> None: ...

    @app.websocket("/raises/{_rest}")
    async def raises(websocket: WebSocket) -> None:
        raise ZeroDivisionError

    @app.websocket("/validates/{_rest}")
    async def validates(websocket: WebSocket, number: int) -> None: ...

    @app.websocket("/chooses/{_rest}")
    async def chooses(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol=websocket.path_params["rest"])

    @app.websocket("/reads/{_rest}")
    async def reads(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_json()

    @app.websocket("/floods/{_rest}")
    async def floods(websocket: WebSocket) -> None:
        await websocket.accept()

        async def flood() -> None:
            for _ in range(100):
                await websocket.send_bytes(bytes(1 << 20))

        await asyncio.create_task(flood(), context=__import__("contextvars").Context())

    return app


HOSTILE = "a%0AINFO:%20forged%0D%1B[31m%C2%9B%E2%80%A8%E2%80%AE"
"""A line break, ESC, CSI in one character, a line separator and a right-to-left override, percent-encoded UTF-8."""

BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_no_line_of_ours_is_broken_by_a_path_a_query_or_a_subprotocol(
    server: ServerUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with server.run(endpoints()) as served:
        for first in ("returns", "raises", "validates", "chooses", "reads", "floods", "middleware", "nowhere"):
            url = f"{served.url}/{first}/{HOSTILE}?number=%0Ax&{HOSTILE}"
            try:
                async with connect(url, open_timeout=PATIENCE, compression=None) as client:
                    await client.send("\u2028{\x1b")
                    async with asyncio.timeout(PATIENCE):
                        if first != "floods":
                            await client.wait_closed()
            except (InvalidHandshake, WebSocketException, OSError):
                continue
    lines = [record.getMessage() for record in caplog.records if _is_ours(record, server)]
    assert {line for line in lines if BREAKS.search(line)} == set()
    for endpoint in ("returns", "raises", "validates", "chooses", "reads"):
        assert any(f"/{endpoint}/a" in line for line in lines), f"{endpoint} left no line: {lines}"


def _is_ours(record: logging.LogRecord, server: ServerUnderTest) -> bool:
    return record.name.startswith("antiphon") or (server.name == "antiphon" and record.name == "uvicorn.error")


LOGS = frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"})
SAID_BY_PEERS = frozenset(
    {
        "path",
        "raw_path",
        "query_string",
        "subprotocol",
        "subprotocols",
        "offered",
        "reason",
        "origin",
        "client",
        "fault",
    }
    | {"host", "user", "detail", "note", "headers", "text", "target", "closed"}
)
SAFE = frozenset({"shown", "describe", "path_with_query", "redact", "len"})


def _log_calls() -> Iterator[tuple[Path, ast.Call]]:
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if node.func.attr in LOGS and name in ("logger", "log"):
                yield path, node


def _unshown(node: ast.AST) -> Iterator[str]:
    """The variables with peers' texts, outside of a call that makes them fit for a line."""
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in SAFE:
            return
    word = {ast.Name: "id", ast.Attribute: "attr", ast.Constant: "value"}.get(type(node))
    if word is not None and getattr(node, word) in SAID_BY_PEERS:
        yield getattr(node, word)
    for child in ast.iter_child_nodes(node):
        yield from _unshown(child)


FILES_OF_OURS = {"handover.py"}
"""Where a path is that of a file, which no peer names."""


def test_every_log_call_shows_what_a_peer_has_said() -> None:
    calls = list(_log_calls())
    assert len(calls) > 30, "the log calls are found"
    found = [
        f"{path.relative_to(SOURCE)}:{call.lineno}: {word}"
        for path, call in calls
        if path.name not in FILES_OF_OURS
        for argument in call.args[1:]
        for word in _unshown(argument)
    ]
    assert found == []
