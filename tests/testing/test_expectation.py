"""`receive_until` and `receive_nothing`: the same on both test clients, and a failure shows the messages that came
instead."""

from __future__ import annotations

import asyncio
import json
import math
import re
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import pytest

from antiphon import App, WebSocket, WebSocketDisconnect
from antiphon.testclient import ReceiveTimeout, TestClient
from antiphon.testing import ConnectionEnded, Server, VirtualTimeLoop, virtual_time
from tests.patience import PATIENCE

SOON = 0.05
PLAYED = ("played",)
"""A call that waits until the script is over, so that its messages are there in time on any machine."""


def scripted_app(*script: Any) -> App:
    """Sends these. A number is a pause, a tuple a Close."""
    app = App()
    app.state.played = threading.Event()

    @app.websocket("/")
    async def play(websocket: WebSocket) -> None:
        await websocket.accept()
        for step in script:
            match step:
                case int() | float():
                    await asyncio.sleep(step)
                case tuple():
                    await websocket.close(*step)
                case str():
                    await websocket.send_text(step)
                case bytes():
                    await websocket.send_bytes(step)
                case _:
                    await websocket.send_json(step)
        app.state.played.set()
        await websocket.wait_closed()

    return app


class Both:
    """One of the two clients, called in the same way. The one in the loop runs in virtual time."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.ended: type[Exception] = ConnectionEnded if kind == "peer" else WebSocketDisconnect

    def __call__(self, app: App, *calls: tuple[Any, ...]) -> Any:
        """The last call's outcome."""
        if self.kind == "session":
            return self._session(app, calls)
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(self._peer(app, calls))

    async def _peer(self, app: App, calls: tuple[tuple[Any, ...], ...]) -> Any:
        outcome = None
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(Server(app))
            peer = await stack.enter_async_context(server.connect("/"))
            for name, *arguments in calls:
                if (name,) != PLAYED:  # no time passes until it is
                    outcome = await getattr(peer, name)(*arguments)
        return outcome

    def _session(self, app: App, calls: tuple[tuple[Any, ...], ...]) -> Any:
        outcome = None
        with ExitStack() as stack:
            client = stack.enter_context(TestClient(app))
            session = stack.enter_context(client.websocket_connect("/"))
            for name, *arguments in calls:
                if (name,) == PLAYED:
                    assert app.state.played.wait(PATIENCE)
                else:
                    outcome = getattr(session, name)(*arguments)
        return outcome


@pytest.fixture(params=["peer", "session"])
def client(request: pytest.FixtureRequest) -> Both:
    return Both(request.param)


EVENTS = ({"type": "joined"}, "plain", b"\x00", {"type": "message", "n": 1}, {"type": "message", "n": 2}, [1, 2])


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("message", {"type": "message", "n": 1}),
        (lambda event: event["n"] == 2, {"type": "message", "n": 2}),
        (bytes, b"\x00"),
        (str, "plain"),
        (list, [1, 2]),
        (lambda message: message == "plain", "plain"),
    ],
)
def test_receive_until_returns_the_first_message_that_is_wanted(client: Both, wanted: Any, expected: Any) -> None:
    assert client(scripted_app(*EVENTS), ("receive_until", wanted)) == expected


def test_what_comes_behind_the_wanted_message_is_still_there(client: Both) -> None:
    assert (
        client(scripted_app("a", "b", "c"), ("receive_until", lambda text: text == "b"), ("receive_until", str)) == "c"
    )


def test_a_wait_in_vain_says_what_came_instead(client: Both) -> None:
    with pytest.raises(ReceiveTimeout) as caught:
        client(scripted_app(*EVENTS), PLAYED, ("receive_until", "left", SOON))
    assert re.search(
        r'a message of type "left" did not come within 0\.05 s; 6 came: '
        r"\{'type': 'joined'\}, 'plain', b'\\x00', .*, \[1, 2\]",
        str(caught.value),
    )


def test_a_wait_in_vain_says_that_nothing_came(client: Both) -> None:
    with pytest.raises(ReceiveTimeout, match=r"a message that is a dict did not come within 0\.05 s; nothing came"):
        client(scripted_app(), ("receive_until", dict, SOON))


def test_a_function_is_named_with_its_place_and_what_it_raised(client: Both) -> None:
    def from_ada(event: Any) -> bool:
        return bool(event["name"] == "ada")

    with pytest.raises(ReceiveTimeout, match=r"for from_ada \(.*test_expectation\.py:\d+\).*KeyError\('name'\)"):
        client(scripted_app({"type": "message"}), PLAYED, ("receive_until", from_ada, SOON))


def test_a_connection_that_ends_first_says_so_with_what_came(client: Both) -> None:
    with pytest.raises(client.ended) as caught:
        client(scripted_app("a", (4001, "enough")), ("receive_until", "left"))
    assert getattr(caught.value, "code", None) == 4001
    assert caught.value.__notes__ == ["a message of type \"left\" did not come before the end; 1 came: 'a'"]


def test_a_flood_is_shown_by_its_end(client: Both) -> None:
    with pytest.raises(ReceiveTimeout, match=r"40 came, the last 10: '30', .*'39'") as caught:
        client(scripted_app(*map(str, range(39)), "39", 0), PLAYED, ("receive_until", "left", SOON))
    assert len(str(caught.value)) < 500
    with pytest.raises(ReceiveTimeout) as caught:
        client(scripted_app("x" * 100_000), PLAYED, ("receive_until", "left", SOON))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("wanted", [None, 5, {"type": "x"}])
def test_what_cannot_be_waited_for_is_refused(client: Both, wanted: Any) -> None:
    with pytest.raises(TypeError, match="expected the type of an event, a class or a plain function"):
        client(scripted_app("a"), ("receive_until", wanted))


async def _no_predicate(message: Any) -> bool:
    return True


def test_a_coroutine_function_is_no_predicate(client: Both) -> None:
    with pytest.raises(TypeError, match="plain function; got <function _no_predicate"):
        client(scripted_app("a"), ("receive_until", _no_predicate))


def test_silence_is_silence(client: Both) -> None:
    client(scripted_app("a"), ("receive_until", str), ("receive_nothing", SOON), ("receive_nothing",))


def test_a_silence_that_is_broken_says_by_what(client: Both) -> None:
    with pytest.raises(AssertionError, match=r"expected nothing for 60 s, but after .* s 1 came: \{'type': 'late'\}"):
        client(scripted_app(SOON, {"type": "late"}), ("receive_nothing", 60.0))


def test_the_end_of_the_connection_is_no_silence(client: Both) -> None:
    with pytest.raises(AssertionError, match=r"the connection ended: 4001 enough"):
        client(scripted_app((4001, "enough")), ("receive_nothing", 60.0))


@pytest.mark.parametrize(("seconds", "error"), [(-1, ValueError), (math.nan, ValueError), ("1", TypeError)])
def test_a_silence_is_a_number_of_seconds(client: Both, seconds: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="for_seconds: expected seconds"):
        client(scripted_app(), ("receive_nothing", seconds))


def test_an_exception_of_the_app_is_raised_where_the_test_waits() -> None:
    app = App()

    @app.websocket("/")
    async def fail(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("one")
        raise ZeroDivisionError

    session = Both("session")
    with pytest.raises(ZeroDivisionError):
        session(app, ("receive_until", "left"))
    with pytest.raises(ZeroDivisionError):
        session(app, ("receive_until", str), ("receive_nothing",))


@virtual_time
async def test_in_virtual_time_an_hour_of_silence_takes_none() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    async with Server(scripted_app(7200, "late")) as server, server.connect("/") as peer:
        await peer.receive_nothing(for_seconds=3600)
        assert loop.time() == pytest.approx(3600)
        with pytest.raises(AssertionError, match=r"expected nothing for 3600\.5 s, but after 3600 s 1 came"):
            await peer.receive_nothing(for_seconds=3600.5)


@pytest.mark.parametrize("number", [1, 2])
@virtual_time
async def test_virtual_time_leaves_fixtures_and_parameters(number: int, tmp_path: object) -> None:
    assert number in (1, 2)
    assert tmp_path is not None


def test_virtual_time_is_for_coroutine_functions() -> None:
    def plain() -> None: ...

    wrong: Callable[[], Awaitable[None]] = plain  # type: ignore[assignment]
    with pytest.raises(TypeError, match="@virtual_time is for an `async def`, got <function"):
        virtual_time(wrong)  # type: ignore[arg-type]


def test_a_json_that_is_none_is_the_text_it_is(client: Both) -> None:
    assert client(scripted_app('{"open'), ("receive_until", str)) == '{"open'
    assert client(scripted_app(json.dumps({"a": "["})), ("receive_until", dict)) == {"a": "["}
