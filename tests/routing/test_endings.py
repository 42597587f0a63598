"""The close matrix as data: the ending of each exception, also in a group."""

from __future__ import annotations

import datetime
from http import HTTPStatus
from typing import Any

import pytest
from starlette.endpoints import WebSocketEndpoint as StarletteWebSocketEndpoint

from antiphon import HTTPException, JSONResponse, WebSocketDisconnect, WebSocketException
from antiphon.exceptions import InvalidJSON, ParameterErrors, WrongEncoding
from antiphon.routing.endings import Ending, ending_of, ending_of_response, unwrap


def ending(error: Exception) -> Ending:
    found = ending_of(error)
    assert found is not None
    return found


@pytest.mark.parametrize(("status", "code"), [(400, 1008), (499, 1008), (500, 1011), (503, 1011)])
def test_a_server_error_is_1011_and_any_other_refusal_1008(status: int, code: int) -> None:
    assert ending(HTTPException(status)).code == code
    assert ending_of_response(JSONResponse({}, status_code=status)).code == code


@pytest.mark.parametrize("status", [HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED, HTTPStatus.EARLY_HINTS])
def test_a_status_without_a_body_has_none(status: int) -> None:
    assert ending(HTTPException(status, "detail")).response().body == b""


def test_a_denial_has_a_json_form_whatever_was_raised_with() -> None:
    when = datetime.date(2026, 1, 2)
    assert ending(HTTPException(400, {"when": when})).response().body == b'{"detail":{"when":"2026-01-02"}}'
    assert ending(HTTPException(400, {"when": when})).reason == '{"when": "2026-01-02"}'
    errors: list[dict[str, Any]] = [{"loc": ("query", "q"), "msg": "bad", "ctx": {"error": ValueError("why")}}]
    assert b'"ctx":{"error":"why"}' in bytes(ending(ParameterErrors(errors)).response().body)
    assert ending(WebSocketException(4001)).response().body == b'{"code":4001,"reason":""}'


@pytest.mark.parametrize("error", [ZeroDivisionError(), WebSocketDisconnect(1000)])
def test_bugs_and_disconnects_have_no_ending_of_their_own(error: Exception) -> None:
    assert ending_of(error) is None


GONE = WebSocketDisconnect(1001)
FIRST, SECOND, BUG = WebSocketException(4001), WebSocketException(4002), ZeroDivisionError()


@pytest.mark.parametrize(
    ("errors", "seen"),
    [
        ([GONE], GONE),
        ([GONE, FIRST], FIRST),
        ([FIRST, SECOND], FIRST),
        ([ExceptionGroup("inner", [FIRST])], FIRST),
        ([BUG], BUG),
        ([FIRST, BUG], None),
        ([GONE, BUG, FIRST], None),
    ],
    ids=repr,
)
def test_a_group_is_its_one_error_and_otherwise_itself(errors: list[Exception], seen: Exception | None) -> None:
    group = ExceptionGroup("g", errors)
    assert unwrap(group) is (seen or group)


async def test_only_the_runtime_error_of_starlettes_endpoint_is_a_wrong_encoding() -> None:
    class Sock:
        async def close(self, code: int) -> None: ...

    class Broken(Sock):
        async def close(self, code: int) -> None:
            raise RuntimeError("our own bug")

    class Endpoint(StarletteWebSocketEndpoint):
        encoding = "text"

        def __init__(self) -> None: ...

    async def raised(websocket: Any, message: Any) -> Exception:
        with pytest.raises((RuntimeError, KeyError)) as caught:
            await Endpoint().decode(websocket, message)
        return caught.value

    assert isinstance(unwrap(await raised(Sock(), {"bytes": b""})), WrongEncoding)
    for error in (await raised(Broken(), {"bytes": b""}), RuntimeError("never raised"), InvalidJSON("", "", 0)):
        assert unwrap(error) is error
