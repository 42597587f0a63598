"""Every row of the close matrix, over real sockets, on every server."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect

from tests.patience import PATIENCE

from .rows import ROWS, Close, Denial, Log, Row, endpoints, json_of
from .servers import SERVERS, ServerUnderTest

pytestmark = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)


async def _outcome(url: str, row: Row) -> Close | Denial:
    """The row's connection, as seen by a peer that reads."""
    try:
        async with connect(url + row.path) as client:
            if row.sends is not None:
                await client.send(row.sends)
            await asyncio.wait_for(client.wait_closed(), PATIENCE)
            assert client.close_code is not None
            return Close(code=client.close_code, reason=client.close_reason or "")
    except websockets.InvalidStatus as refused:
        response = refused.response
        headers = tuple((name, response.headers[name]) for name in ("x-hint",) if name in response.headers)
        content_type = response.headers.get("content-type", "")
        body = json_of(response.body) if "json" in content_type else None
        return Denial(status=response.status_code, body=body, headers=headers)


def _check_log(records: list[logging.LogRecord], row: Row, formatted: str) -> None:
    ours = [record for record in records if record.name == "antiphon" and record.levelno >= logging.WARNING]
    tracebacks = [record for record in records if record.exc_info]
    alarms = [record for record in records if record.name != "antiphon" and record.levelno >= logging.WARNING]
    assert not alarms, "the server has nothing to add"
    match row.log:
        case Log.NOTHING:
            assert not ours
        case Log.WARNING:
            assert [record.levelno for record in ours] == [logging.WARNING]
            assert not tracebacks
        case Log.TRACEBACK:
            assert len(tracebacks) == 1
            assert len(ours) == 1
    assert row.logs in formatted


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
async def test_an_ending_is_seen_as_the_matrix_says(
    server: ServerUnderTest, row: Row, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with server.run(endpoints()) as served:
        seen = await _outcome(served.url, row)
    if isinstance(row.sees, Denial) and isinstance(seen, Denial) and isinstance(row.sees.body, dict):
        assert isinstance(seen.body, dict)
        seen = Denial(status=seen.status, body=_part(seen.body, row.sees.body), headers=seen.headers)
    assert seen == row.sees
    _check_log(caplog.records, row, caplog.text)


def _part(body: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key in wanted}


async def test_a_parameter_denial_lists_every_error(server: ServerUnderTest) -> None:
    async with server.run(endpoints()) as served:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(f"{served.url}/before/parameters/x?limit=11")
    errors = json_of(refused.value.response.body)["detail"]
    assert {tuple(error["loc"]) for error in errors} == {("path", "room"), ("query", "limit")}


async def test_no_word_of_an_internal_error_reaches_the_peer(server: ServerUnderTest) -> None:
    async with server.run(endpoints()) as served:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(f"{served.url}/before/unhandled")
        async with connect(f"{served.url}/after/unhandled") as client:
            await client.wait_closed()
    assert b"42" not in bytes(refused.value.response.body or b"")
    assert "42" not in (client.close_reason or "")
