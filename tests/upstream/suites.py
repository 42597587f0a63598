"""Which tests of which projects hold for antiphon, and which promises it changes on purpose."""

from __future__ import annotations

from tests.upstream.runner import File, Suite

_BEFORE_ACCEPT = (
    "a receive before accept is NotAccepted, a RuntimeError that is not a disconnect: "
    "the programming error stays visible (WebSocket, point 5)"
)

STARLETTE = Suite(
    project="starlette",
    version="1.10.0",
    support=("tests/__init__.py", "tests/conftest.py", "tests/types.py"),
    names={"starlette.websockets": "antiphon.websockets", "starlette.testclient": "antiphon.testclient"},
    files=(
        File(
            path="tests/test_websockets.py",
            deselected={
                "test_receive_text_before_accept": _BEFORE_ACCEPT,
                "test_receive_bytes_before_accept": _BEFORE_ACCEPT,
                "test_receive_json_before_accept": _BEFORE_ACCEPT,
            },
        ),
        File(path="tests/test_testclient.py"),
        File(path="tests/test_routing.py", only="websocket"),
        File(path="tests/test_endpoints.py", only="websocket"),
        File(path="tests/test_authentication.py", only="websocket"),
        File(path="tests/test_exceptions.py", only="websocket"),
        File(path="tests/test_applications.py", only="websocket"),
    ),
)

SUITES: tuple[Suite, ...] = (STARLETTE,)
