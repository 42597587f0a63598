"""A token as a function: where it goes, when it is asked for anew, and which end is the last. In both languages."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import Any

import pytest

from antiphon.clients import attempts, renewing
from antiphon.clients.attempts import NO_TOKEN
from antiphon.clients.runtime import Client, ClientState, RemoteError
from tests.patience import PATIENCE, until
from tests.serving import ServedProcess

from .drivers import Driver, ScriptError

pytestmark = pytest.mark.asyncio(loop_scope="session")

COUNTING = "globalThis.asked = 0"
QUICK = """
  const real = globalThis.setTimeout;
  globalThis.setTimeout = (f, ms, ...more) => real(f, ms > 9_000 ? ms : ms / 20, ...more);
"""
"""Waiting for a token that never comes takes nine seconds. The time for an answer is longer: the server may need it."""


# --- where it goes ---


@pytest.mark.parametrize(("via", "came"), [("query", "query"), ("subprotocol", "subprotocol"), ("message", "auth")])
async def test_in_a_page_a_token_goes_where_the_option_says(
    driver: Driver, server: ServedProcess, via: str, came: str
) -> None:
    await driver.run(COUNTING)
    await driver.open(
        f"{server.url}/account", f"{{ token: async () => `ann-${{60 + asked++}}`, tokenVia: '{via}', queue: true }}"
    )
    assert await driver.run("return client.request('came')") == [f"{came} ann-60", "ann-60"]
    await driver.run("client.reconnect()")
    assert await driver.run("return client.request('came')") == [f"{came} ann-61", "ann-61"]


@pytest.mark.parametrize(
    ("via", "came"),
    [(None, "header"), ("header", "header"), ("query", "query"), ("subprotocol", "subprotocol"), ("message", "auth")],
)
async def test_in_python_a_token_goes_where_the_option_says(server: ServedProcess, via: Any, came: str) -> None:
    numbers = itertools.count(60)
    async with Client[Any](
        f"{server.url}/account", token=lambda: f"ann-{next(numbers)}", token_via=via, queue=True
    ) as client:
        assert await client.request("came") == [f"{came} ann-60", "ann-60"]
        states: list[str] = []
        client.watch(lambda state: states.append(state.name))
        client.reconnect()
        await until(lambda: states.count("open") == 2)
        assert await client.request("came") == [f"{came} ann-61", "ann-61"]


async def test_where_there_is_no_such_place_it_is_told(driver: Driver, server: ServedProcess) -> None:
    with pytest.raises(ScriptError, match="tokenVia: header is none of query"):
        await driver.open(f"{server.url}/account", "{ tokenVia: 'header' }")
    with pytest.raises(ValueError, match="token_via is header, query, subprotocol or message, not 'cookie'"):
        Client("ws://localhost/", token_via="cookie")  # type: ignore[arg-type]


# --- renewed in time ---

# Tokens last for five seconds: they are renewed after half of that, and a busy machine has the other half.


async def test_in_a_page_a_connection_outlives_its_tokens(driver: Driver, server: ServedProcess) -> None:
    await driver.run(COUNTING)
    await driver.opened(f"{server.url}/account", "{ token: () => `ann-${5 + asked++ / 100}` }")
    await driver.until("asked >= 4")
    first, newest = await driver.run("return client.request('came')")
    assert first == "query ann-5"
    assert newest in ("ann-5.02", "ann-5.03")
    assert await driver.run("return driven.states.map(({ name }) => name)") == ["connecting", "open"]
    assert len(await driver.events("auth_expiring")) >= 3


async def test_in_python_a_connection_outlives_its_tokens(server: ServedProcess) -> None:
    numbers = itertools.count()
    states: list[ClientState] = []
    async with Client[Any](f"{server.url}/account", token=lambda: f"ann-{5 + next(numbers) / 100}") as client:
        client.watch(states.append)
        for _ in range(3):
            assert (await anext(aiter(client)))["type"] == "auth_expiring"
        await until(lambda: client._renewal._task is None or client._renewal._task.done())
        first, newest = await client.request("came")
        assert (first, newest) == ("header ann-5.0", "ann-5.03")
    assert [state.name for state in states] == ["open", "closed"]


async def test_in_a_page_a_token_that_is_late_or_bad_is_asked_for_again(driver: Driver, server: ServedProcess) -> None:
    await driver.run(f"{COUNTING}; {QUICK}")
    await driver.opened(
        f"{server.url}/expires",
        "{ token: () => { switch (asked++) { case 0: return 'first'; case 1: throw new Error('asleep');"
        " case 2: return new Promise(() => {}); case 3: return 'bad!unauthorized'; default: return 'good'; } } }",
    )
    say = "client.send({ type: 'say', event: { type: 'auth_expiring', expires_in: 60 } })"
    await driver.run(f"{say}; {say}")  # told twice, done once
    await driver.until("asked === 5")
    got = await driver.run("return client.request('got')")
    assert [message["token"] for message in got if message["type"] == "auth"] == ["bad!unauthorized", "good"]
    await driver.run(say)
    await driver.until("asked === 6")


async def test_in_python_a_token_that_is_late_or_bad_is_asked_for_again(
    server: ServedProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(attempts, "TOKEN_WITHIN", 0.1)
    monkeypatch.setattr(renewing, "LONGEST_PAUSE", 0.1)
    asked: list[int] = []

    async def token() -> str:
        asked.append(len(asked))
        match asked[-1]:
            case 1:
                raise OSError("asleep")
            case 2:
                await asyncio.sleep(PATIENCE)
            case 3:
                return "bad!unauthorized"
        return "good"

    expiring = {"type": "say", "event": {"type": "auth_expiring", "expires_in": 60}}
    with caplog.at_level(logging.WARNING, "antiphon.client"):
        async with Client[Any](f"{server.url}/expires", token=token) as client:
            await client.send(expiring)
            await client.send(expiring)
            await until(lambda: len(asked) == 5)
            got = await client.request("got")
            assert [one["token"] for one in got if one["type"] == "auth"] == ["bad!unauthorized", "good"]
    assert [record.message for record in caplog.records] == [
        "a new token could not be had: asleep",
        f"a new token could not be had: {NO_TOKEN}",
        "a new token was not taken: unauthorized: unauthorized",
    ]


@pytest.mark.parametrize("seconds", ["0", "-5", "'x'", "null", "1e400", "NaN"])
async def test_a_date_that_is_none_is_one_try_at_most(driver: Driver, server: ServedProcess, seconds: str) -> None:
    await driver.run(COUNTING)
    await driver.opened(f"{server.url}/expires", "{ token: () => { asked++; return 'bad!unknown_type'; } }")
    await driver.run(f"client.send({{ type: 'say', event: {{ type: 'auth_expiring', expires_in: {seconds} }} }})")
    await driver.until("asked === 2")
    got = await driver.run("return client.request('got')")
    assert [message["type"] for message in got] == ["say", "auth", "got"]


async def test_without_a_function_nothing_is_sent(driver: Driver, server: ServedProcess) -> None:
    await driver.opened(f"{server.url}/expires")
    await driver.run("client.send({ type: 'say', event: { type: 'auth_expiring', expires_in: 60 } })")
    await driver.until("driven.events.length === 1")
    assert [message["type"] for message in await driver.run("return client.request('got')")] == ["say", "got"]


# --- 3000: once more ---


async def test_in_a_page_a_second_refusal_in_a_row_is_the_last(driver: Driver, server: ServedProcess) -> None:
    await driver.run(COUNTING)
    await driver.open(f"{server.url}/refuses", "{ token: () => `t${asked++}` }")
    await driver.until("client.state.name === 'unauthorized'")
    assert await driver.state() == {"name": "unauthorized", "code": 3000, "reason": "t1"}
    waited = "return driven.states.filter(({ name }) => name === 'waiting').map(({ code, attempt }) => [code, attempt])"
    assert await driver.run(waited) == [[3000, 1]]
    assert await driver.run("return asked") == 2
    with pytest.raises(ScriptError, match="3000 t1") as error:
        await driver.run("await client.opened()")
    assert error.value.code == "closed"
    await driver.run("client.retry(); client.reconnect(); client.close(); client.send('x', { queue: true })")
    assert (await driver.state())["name"] == "unauthorized"


async def test_in_a_page_a_message_in_between_makes_it_a_first_one_again(driver: Driver, server: ServedProcess) -> None:
    await driver.run(f"Math.random = () => 0; {COUNTING}")
    await driver.open(f"{server.url}/refuses?word=1", "{ token: () => `t${asked++}` }")
    await driver.until("asked > 3")
    states = await driver.run("return driven.states")
    assert "unauthorized" not in [state["name"] for state in states]
    attempts = [state["attempt"] for state in states if state["name"] == "waiting"]
    assert attempts == list(range(1, len(attempts) + 1)), "a close right behind open is no success: waits grow"


async def test_in_python_a_second_refusal_in_a_row_is_the_last(server: ServedProcess) -> None:
    numbers = itertools.count()
    states: list[ClientState] = []
    client = Client[Any](f"{server.url}/refuses", token=lambda: f"t{next(numbers)}", token_via="query")
    client.watch(states.append)
    async with client:
        await until(lambda: client.state.is_final)
        with pytest.raises(RemoteError, match="3000 t1"):
            await client.opened()
    assert states[-1] == ClientState(name="unauthorized", code=3000, reason="t1")
    assert [state.attempt for state in states if state.name == "waiting"] == [1]
    assert next(numbers) == 2


async def test_in_python_a_message_in_between_makes_it_a_first_one_again(
    server: ServedProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)
    numbers = itertools.count()
    states: list[ClientState] = []
    client = Client[Any](f"{server.url}/refuses?word=1", token=lambda: f"t{next(numbers)}", token_via="query")
    client.watch(states.append)
    async with client:
        await until(lambda: len([state for state in states if state.name == "waiting"]) > 3)
    assert "unauthorized" not in [state.name for state in states]
    assert [state.attempt for state in states if state.name == "waiting"][:4] == [1, 2, 3, 4]


# --- a function that fails ---


@pytest.mark.parametrize("failure", ["throw new Error('asleep')", "return Promise.reject(new Error('asleep'))"])
async def test_in_a_page_a_function_that_fails_is_waited_for_with_its_reason(
    driver: Driver, server: ServedProcess, failure: str
) -> None:
    await driver.run(COUNTING)
    await driver.open(f"{server.url}/account", f"{{ token: () => {{ if (!asked++) {failure}; return 'ann-60'; }} }}")
    await driver.run("await client.opened()")
    waiting = [state for state in await driver.run("return driven.states") if state["name"] == "waiting"]
    assert [(state["code"], state["reason"]) for state in waiting] == [(1006, "asleep")]


async def test_in_a_page_a_token_that_does_not_come_is_given_up(driver: Driver, server: ServedProcess) -> None:
    await driver.run(f"{COUNTING}; {QUICK}")
    await driver.open(f"{server.url}/account", "{ token: () => asked++ ? 'ann-60' : new Promise(() => {}) }")
    await driver.run("await client.opened()")
    waiting = [state for state in await driver.run("return driven.states") if state["name"] == "waiting"]
    assert [state["reason"] for state in waiting] == [NO_TOKEN]


async def test_in_python_a_token_that_does_not_come_is_given_up(
    server: ServedProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "TOKEN_WITHIN", 0.1)
    asked: list[None] = []
    states: list[ClientState] = []

    async def token() -> str:
        asked.append(None)
        if len(asked) == 1:
            await asyncio.sleep(PATIENCE)
        return "ann-60"

    client = Client[Any](f"{server.url}/account", token=token)
    client.watch(states.append)
    async with client:
        assert await client.request("came") == ["header ann-60", "ann-60"]
    assert [(state.code, state.reason) for state in states if state.name == "waiting"] == [(1006, NO_TOKEN)]


async def test_in_python_no_task_is_left_when_a_client_ends_in_the_middle_of_a_renewal(server: ServedProcess) -> None:
    before = asyncio.all_tasks()
    asked: list[None] = []

    async def token() -> str:
        asked.append(None)
        if len(asked) > 1:
            await asyncio.sleep(PATIENCE)
        return "first"

    async with Client[Any](f"{server.url}/expires", token=token) as client:
        await client.send({"type": "say", "event": {"type": "auth_expiring", "expires_in": 60}})
        await until(lambda: len(asked) == 2)
    assert asyncio.all_tasks() == before
