"""The Python runtime, alone: events, requests, streams, losses and hostile servers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncGenerator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import BaseModel, TypeAdapter
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.http11 import Request, Response

from antiphon.clients import runtime_py
from antiphon.clients.outbox import MOST_TO_SEND
from antiphon.clients.runtime import SILENCE, Client, ClientState
from antiphon.clients.waiting import MOST_UNREAD, RemoteError
from tests.browser.cable import Cable
from tests.commands import run
from tests.patience import PATIENCE, until
from tests.serving import ServedProcess

from .conftest import APP
from .hostile import HOSTILE
from .scripted import RETURNS, Scripted, joined, message


@pytest_asyncio.fixture
async def server() -> AsyncGenerator[ServedProcess]:
    """In the test's own event loop, in which it looks for leftovers."""
    async with run(APP) as served:
        yield served


@pytest_asyncio.fixture
async def cable(server: ServedProcess) -> AsyncGenerator[Cable]:
    async with Cable(server.port) as cable:
        yield cable


def connected(cable: Cable, path: str = "talk", **options: Any) -> Client[Any]:
    return Client(f"ws://127.0.0.1:{cable.port}/{path}", **{"heartbeat": 1, **options})


async def some(client: Client[Any], count: int) -> list[Any]:
    """The next events."""
    found: list[Any] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            found.append(await anext(aiter(client)))
    return found


class CountingClient(Client[Any]):
    """A client that tells how much it has taken."""

    heard = 0

    def _hear(self, data: str | bytes) -> None:
        self.heard += 1
        super()._hear(data)


async def types_sent(client: Client[Any]) -> list[str]:
    return [one["type"] for one in (await client.request("got"))["messages"]]


# --- requests, events, streams ---------------------------------------------------------------------------------------


async def test_a_request_is_answered_and_events_come_in_between(cable: Cable) -> None:
    async with connected(cable) as client:
        assert await client.request("say", {"text": "hello"}) == 5
        assert await some(client, 1) == [{"type": "said", "text": "hello"}]


async def test_models_go_out_by_alias_and_answers_come_in_as_models(cable: Cable) -> None:
    class Say(BaseModel):
        text: str

    class Got(BaseModel):
        messages: list[dict[str, Any]]

    async with connected(cable) as client:
        await client.request("say", Say(text="x"))
        got = await client.request("got", answer=TypeAdapter(Got))
        assert got.messages[0]["text"] == "x"
        with pytest.raises(RemoteError, match="not of the declared type") as error:
            await client.request("got", answer=TypeAdapter(int))
        assert error.value.code == "invalid_answer"


async def test_an_error_comes_with_its_code_and_its_detail(cable: Cable) -> None:
    async with connected(cable) as client:
        with pytest.raises(RemoteError, match="be quiet") as error:
            await client.request("fail")
        assert (error.value.code, error.value.detail) == ("muted", {"seconds": 30})


async def test_a_request_that_times_out_or_is_cancelled_is_taken_back(cable: Cable) -> None:
    async with connected(cable) as client:
        with pytest.raises(RemoteError) as error:
            await client.request("silence", timeout=0.05)
        assert error.value.code == "timeout"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.request("silence")
        assert await types_sent(client) == ["silence", "cancel", "silence", "cancel", "got"]
        assert client.state.name == "open"


async def test_a_stream_gives_every_item_and_leaving_its_block_cancels_it(cable: Cable) -> None:
    async with connected(cable) as client:
        async with client.stream("search", {"count": 300}) as hits:
            assert [hit["n"] async for hit in hits] == list(range(300))
        async with client.stream("search", {"count": 10**6}) as hits:
            async for hit in hits:
                if hit["n"] == 4:
                    break
        async with asyncio.timeout(PATIENCE):
            while (await client.request("got"))["over"] < 2:  # noqa: ASYNC110  the server's own count
                await asyncio.sleep(0.01)


async def test_a_cancel_does_not_wait_for_all_that_has_come() -> None:
    cancelled = asyncio.Event()

    async def serve(connection: ServerConnection) -> None:
        ref = json.loads(await connection.recv())["ref"]
        for number in range(5000):
            await connection.send(json.dumps({"type": "item", "ref": ref, "data": number}))
        assert json.loads(await connection.recv()) == {"type": "cancel", "ref": ref}
        cancelled.set()

    async with (
        serve_websockets(serve, "127.0.0.1", 0) as server,
        CountingClient(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client,
    ):
        async with client.stream("count") as items:
            await anext(items)
        await asyncio.wait_for(cancelled.wait(), PATIENCE)
        assert client.heard < 1000


async def test_a_cancel_goes_out_where_nothing_else_has_room() -> None:
    cancelled = asyncio.Event()

    async def serve(connection: ServerConnection) -> None:
        ref = json.loads(await connection.recv())["ref"]
        await connection.send(json.dumps({"type": "item", "ref": ref, "data": 1}))
        async for text in connection:
            if text == json.dumps({"type": "cancel", "ref": ref}, separators=(",", ":")):
                cancelled.set()

    async with (
        serve_websockets(serve, "127.0.0.1", 0) as server,
        Client[Any](f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client,
    ):
        async with client.stream("count") as items:
            await anext(items)
            await client.send("x" * (MOST_TO_SEND - 10))
        await asyncio.wait_for(cancelled.wait(), PATIENCE)


async def test_a_stream_that_is_not_read_is_given_up(cable: Cable) -> None:
    async with connected(cable) as client, client.stream("search", {"count": 10**6, "size": 100_000}) as hits:
        async with asyncio.timeout(PATIENCE):
            while not (await client.request("got"))["over"]:  # noqa: ASYNC110  the server's own count
                await asyncio.sleep(0.01)
        with pytest.raises(RemoteError) as error:
            async for _ in hits:
                pass
        assert error.value.code == "too_slow"


# --- the close code decides ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1008, 3003, 4000, 4999])
async def test_a_code_that_means_no_ends_it_for_good(server: ServedProcess, code: int) -> None:
    client = Client[Any](f"{server.url}/closes/{code}?reason=because")
    states: list[ClientState] = []
    client.watch(states.append)
    async with client:
        if code == 1000:
            assert [event async for event in client] == []
        else:
            with pytest.raises(RemoteError, match=f"{code} because"):
                await anext(aiter(client))
    assert states[-1] == client.state == ClientState(name="closed", code=code, reason="because")
    assert "waiting" not in [state.name for state in states]
    with pytest.raises(RemoteError):
        await client.send("x", queue=True)


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 3008, 4001])
async def test_after_other_codes_it_comes_back(server: ServedProcess, code: int) -> None:
    client = Client[Any](f"{server.url}/closes/{code}", retry=(4001,))
    states: list[ClientState] = []
    client.watch(states.append)
    async with client:
        await until(lambda: len([state for state in states if state.name == "waiting"]) >= 2)
    waiting = [state for state in states if state.name == "waiting"]
    assert [state.code for state in waiting[:2]] == [code, code]
    assert [state.attempt for state in waiting[:2]] == [1, 2]


async def test_a_refused_handshake_ends_it_or_is_tried_again_when_the_server_says(server: ServedProcess) -> None:
    with pytest.raises(RemoteError, match="404"):
        await Client[Any](f"{server.url}/nowhere").__aenter__()
    tokens: list[str | None] = []

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        tokens.append(request.headers.get("Authorization"))
        if len(tokens) == 1:
            refused = connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "")
            refused.headers["Retry-After"] = "1.5"
            return refused
        return connection.respond(HTTPStatus.UNAUTHORIZED, "") if len(tokens) in (2, 4, 5) else None

    async def serve(connection: ServerConnection) -> None:
        await connection.close(1012)

    async with serve_websockets(serve, "127.0.0.1", 0, process_request=answer) as refusing:
        port = next(iter(refusing.sockets)).getsockname()[1]
        client = Client[Any](f"ws://127.0.0.1:{port}/", token=lambda: f"{len(tokens)}")
        states: list[ClientState] = []
        client.watch(states.append)
        async with client:
            await until(lambda: client.state.is_final)
    assert tokens == ["Bearer 0", "Bearer 1", "Bearer 2", "Bearer 3", "Bearer 4"]
    assert [(state.name, state.code) for state in states if state.code] == [
        ("waiting", 503), ("waiting", 401), ("waiting", 1012), ("waiting", 401), ("unauthorized", 401)
    ]  # fmt: skip


# --- losses ----------------------------------------------------------------------------------------------------------


async def test_a_request_in_progress_fails_with_the_connection_and_is_not_sent_again(cable: Cable) -> None:
    async with connected(cable, queue=True) as client:
        lost = asyncio.create_task(client.request("silence"))
        await client.request("got")
        await cable.cut()
        with pytest.raises(RemoteError) as error:
            await lost
        assert error.value.code == "closed"
        await cable.mend()
        assert await types_sent(client) == ["got"]


async def test_away_a_message_fails_at_once_or_waits_in_order_as_the_caller_says(cable: Cable) -> None:
    async with connected(cable, queue_limit=3) as client:
        await cable.cut()
        await until(lambda: client.state.name == "waiting")
        for attempt in (client.send({"type": "say", "text": "never"}), client.request("say", {"text": "never"})):
            with pytest.raises(RemoteError, match="no connection"):
                await attempt
        with pytest.raises(RemoteError) as error:
            await client.request("say", {"text": "late"}, queue=True, timeout=0.05)
        assert error.value.code == "timeout"
        one = asyncio.create_task(client.request("say", {"text": "one"}, queue=True))
        await asyncio.sleep(0)
        await client.send({"type": "say", "text": "two"}, queue=True)
        await client.send({"type": "say", "text": "three"}, queue=True)
        with pytest.raises(RemoteError):
            await client.send({"type": "say", "text": "full"}, queue=True)
        await cable.mend()
        assert await one == 3
        texts = [got.get("text") for got in (await client.request("got"))["messages"]]
        assert texts == ["one", "two", "three", None]


async def test_a_link_that_swallows_everything_is_noticed_within_seconds_and_left(cable: Cable) -> None:
    async with connected(cable) as client:
        states: list[ClientState] = []
        client.watch(states.append)
        cable.stall()
        stalled = asyncio.get_running_loop().time()
        await until(lambda: client.state.name != "open")
        noticed = asyncio.get_running_loop().time() - stalled
        # the next attempt may have begun since
        assert [state.silent for state in states[:3]] == [False, True, False]
        assert (states[2].code, states[2].reason) == (1006, SILENCE)
        cable.flow()
        await client.opened()
        assert noticed < 20, noticed  # two heartbeats of one second, on an idle machine


async def test_a_quiet_link_is_not_taken_for_a_dead_one() -> None:
    """The server is in the client's loop: where the machine stalls, the two of them do."""
    async with (
        serve_websockets(ServerConnection.wait_closed, "127.0.0.1", 0) as server,
        Client[Any](f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", heartbeat=0.2) as client,
    ):
        states: list[ClientState] = []
        client.watch(states.append)
        await asyncio.sleep(2)  # ten heartbeats in which nobody says anything
        assert "waiting" not in [state.name for state in states]


async def test_a_loop_that_stands_still_does_not_take_its_link_for_a_dead_one() -> None:
    async with (
        serve_websockets(ServerConnection.wait_closed, "127.0.0.1", 0) as server,
        Client[Any](f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", heartbeat=0.1) as client,
    ):
        await client.opened()
        states: list[ClientState] = []
        client.watch(states.append)
        for _ in range(15):
            time.sleep(0.15)  # noqa: ASYNC251  an endpoint, or a machine, that holds everything up
            await asyncio.sleep(0)  # one turn of the loop, and the answer to a ping takes several
        assert {state.name for state in states} == {"open"}


async def test_a_token_is_asked_for_anew_for_each_attempt_and_may_fail(server: ServedProcess) -> None:
    asked = 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise OSError("no token")
        return f"secret {asked}"

    for parameter, expected in ((None, "Bearer secret"), ("token", "secret")):
        asked = 0
        states: list[ClientState] = []
        async with Client[Any](f"{server.url}/token", token=token, token_parameter=parameter) as client:
            client.watch(states.append)
            assert (await some(client, 1))[0]["seen"][-1] == f"{expected} 1"
            await client.send("again")
            assert (await some(client, 1))[0]["seen"][-1] == f"{expected} 3"
            assert "no token" in [state.reason for state in states]


# --- positions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", RETURNS)
async def test_it_returns_with_the_place_it_has_reached(script: str) -> None:
    frames, query = RETURNS[script]
    async with Scripted() as server:
        server.frames = [frames]
        async with Client[Any](server.url):
            await until(lambda: len(server.queries) > 1)
        assert server.queries == ["", query]


async def test_what_came_before_is_dropped_by_its_place_and_a_new_start_is_not() -> None:
    async with Scripted() as server:
        server.frames = [
            [joined(1), message(1), message(2), message(2), message(1)],
            [joined(4, recovered=True), message(2), message(3), message(4), message(5)],
            [joined(9), message(4), message(9)],
        ]
        async with Client[Any](server.url) as client:
            events = [event for event in await some(client, 10) if event["type"] == "message"]
            assert [event["offset"] for event in events] == [1, 2, 3, 4, 5, 4, 9]
            assert client.positions == {"room/a": "9-e"}


async def test_positions_are_of_what_was_read_and_not_of_what_came() -> None:
    async with Scripted() as server:
        server.frames = [[joined(0), message(1), message(2)], []]
        async with Client[Any](server.url, positions={"room/a": "0-e"}) as client:
            await until(lambda: len(server.queries) > 1)
            assert server.queries == ["since=0-e", "since=2-e"]
            assert client.positions == {"room/a": "0-e"}
            await some(client, 2)
            assert client.positions == {"room/a": "1-e"}


# --- bounds, hostile servers, careless programs ----------------------------------------------------------------------


async def test_nothing_that_a_server_sends_gets_out_of_hand(cable: Cable) -> None:
    async with connected(cable, "says") as client:
        states: list[ClientState] = []
        client.watch(states.append)
        await client.send({"frames": [*HOSTILE, '{"type":"over"}'], "bytes": [1, 2, 3]})
        async with asyncio.timeout(PATIENCE):
            events = []
            async for event in client:
                events.append(event)
                if event == b"\x01\x02\x03":
                    break
        assert {"type": "over"} in events
        assert [state.name for state in states] == ["open"]
        assert client.positions == {}


async def test_a_reader_who_is_slow_makes_the_server_wait_and_misses_nothing(cable: Cable) -> None:
    async with connected(cable, "says", heartbeat=2) as client:  # a busy machine keeps that
        states: list[ClientState] = []
        client.watch(states.append)
        frames = [json.dumps({"type": "x", "n": number, "pad": "x" * (MOST_UNREAD // 10)}) for number in range(30)]
        assert await some(client, 0) == []
        client.__aiter__()
        for frame in frames:
            await client.send({"frames": [frame]})
        await asyncio.sleep(5)  # longer than two heartbeats: it is we who do not read
        numbers = [event["n"] for event in await some(client, 30)]
        assert numbers == list(range(30))
        assert [state.name for state in states if state.name != "open"] == []


async def test_events_that_nobody_reads_are_dropped_oldest_first(cable: Cable) -> None:
    async with connected(cable, "says") as client:
        pad = "x" * (MOST_UNREAD // 4)
        for number in range(20):
            await client.send({"frames": [json.dumps({"type": "x", "n": number, "pad": pad})]})
        await until(lambda: client.dropped >= 16)
        assert [event["n"] for event in await some(client, 20 - client.dropped)][-1] == 19


async def test_an_address_that_is_none_and_data_without_a_json_form_are_the_callers_errors(cable: Cable) -> None:
    for address in ("", "example.org", "ftp://example.org", "ws://", "ws://a:99999/", "ws://a:port/", None):
        with pytest.raises((ValueError, TypeError), match="expected an address"):
            Client[Any](address)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="token is a function that returns one, not a str"):
        Client[Any]("ws://example.org", token="abc")  # type: ignore[arg-type]
    async with connected(cable) as client:
        for bad in (object(), float("nan"), {"a": {1, object()}}):
            with pytest.raises((ValueError, TypeError)):
                await client.send(bad)
        assert await client.request("say", {"text": "x"}) == 1


@pytest.mark.parametrize("option", ["tokenVia", "headers", "protocols"])
async def test_an_option_that_nobody_knows_is_the_end_and_not_tried_again(cable: Cable, option: str) -> None:
    """It would be wrong each time, and `async with` would wait for ever, without a word."""
    client = connected(cable, **{option: "x"})
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(RemoteError, match=f"1006 .*unexpected keyword argument '{option}'"):
            await client.__aenter__()
    assert client.state.name == "closed"


async def test_a_listener_that_fails_disturbs_nobody(cable: Cable, caplog: pytest.LogCaptureFixture) -> None:
    client = connected(cable)
    calls: list[str] = []

    def listener(state: ClientState) -> None:
        calls.append(state.name)
        if state.name == "open":
            raise ZeroDivisionError("mine")

    client.watch(listener)
    async with client:
        assert await client.request("say", {"text": "x"}) == 1
    assert calls[-1] == "closed"
    assert "mine" in caplog.text


async def test_nothing_is_left_behind_in_whatever_state_it_ends(server: ServedProcess) -> None:
    before = asyncio.all_tasks()
    for url in (f"{server.url}/rooms/a", "ws://127.0.0.1:1/"):
        with pytest.raises(TimeoutError):  # noqa: PT012  it is cancelled wherever it is
            async with asyncio.timeout(0.3), Client[Any](url) as client:
                async for _ in client:
                    pass
    assert asyncio.all_tasks() <= before


def test_the_one_file_needs_websockets_and_pydantic_alone(tmp_path: Path, other_python: Path) -> None:
    (tmp_path / "antiphon_client.py").write_text(runtime_py())
    code = "import importlib.util, antiphon_client; assert importlib.util.find_spec('antiphon') is None"
    subprocess.run([other_python, "-W", "error", "-c", code], cwd=tmp_path, check=True)
