"""A channel's `auth` and `auth_expiring`: a client goes on as the same user, with a new token."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from websockets.asyncio.client import connect

from antiphon import App, ChannelOptions, Depends, HTTPException, WebSocket, WebSocketException, Wire
from antiphon.asyncapi.serving import document_of
from antiphon.connection import OnInvalid
from antiphon.connection.expiry import expiries_of
from antiphon.exceptions import RegistrationError
from antiphon.gate import Identity, admit
from antiphon.messages.renewal import MOST_TOKEN
from antiphon.testing import ConnectionEnded, Peer, Server, virtual_time
from tests.matrix.servers import SERVERS, ServerUnderTest
from tests.patience import PATIENCE

released = asyncio.Event()


async def verify(token: str) -> Identity:
    """A token is `user:seconds`, or names a fault."""
    user, _, seconds = token.partition(":")
    match user:
        case "bad":
            raise HTTPException(401, "this token is not good")
        case "away":
            raise HTTPException(503, "nobody knows")
        case "first":
            raise WebSocketException(3000, "the first message")
        case "bug":
            raise LookupError(token)
        case "slow":
            await asyncio.sleep(60)
    return Identity(user=user, expires_at=time.time() + float(seconds) if seconds else None)


async def let_in(connection: HTTPConnection, token: str = "ann:100") -> Identity:
    return await admit(connection, await verify(token), verify)


async def let_in_for_good(connection: HTTPConnection, token: str = "ann:100") -> Identity:
    return await admit(connection, await verify(token))


class Verifier:
    """A dependency that documents can be made of, as a `WebSocketBearer` is."""

    def __init__(self) -> None:
        self.verify = verify

    async def __call__(self, websocket: WebSocket, token: str = "ann:100") -> Identity:
        return await admit(websocket, await verify(token), verify)


@dataclass
class Ask:
    text: str


@dataclass
class Asked:
    text: str
    user: str


@dataclass
class AuthExpiring:
    """A class whose tag is taken."""


def channel(dependency: Any = let_in, **options: Any) -> App:
    app = App()

    @app.channel("/", dependencies=[Depends(dependency)], options=ChannelOptions(**options))
    async def chat(websocket: WebSocket) -> AsyncIterator[None]:
        yield

    @chat.on
    async def ask(message: Ask, websocket: WebSocket) -> Asked:
        return Asked(message.text, websocket.scope["antiphon.identity"].user)

    @chat.on("forever")
    async def forever() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(10_000)

    return app


async def said(peer: Peer) -> Any:
    return json.loads(await peer.receive(timeout=10_000))


async def tell(peer: Peer, **message: Any) -> None:
    await peer.send(json.dumps(message))


async def end_of(peer: Peer) -> tuple[int, str]:
    with pytest.raises(ConnectionEnded) as ended:
        await peer.receive(timeout=10_000)
    return ended.value.code, ended.value.reason


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual_time
async def test_a_client_is_told_ahead_and_goes_on_with_a_new_token() -> None:
    async with Server(channel(auth_expiring=30)) as server, server.connect("/") as peer:
        expiring = await said(peer)
        assert 69 <= now() <= 71
        assert expiring["type"] == "auth_expiring"
        assert 29 <= expiring["expires_in"] <= 30
        await tell(peer, type="auth", ref="a", token="ann:100")
        renewed = await said(peer)
        assert (renewed["type"], renewed["ref"]) == ("reply", "a")
        assert 99 <= renewed["data"]["expires_in"] <= 100
        assert (await said(peer))["type"] == "auth_expiring"
        assert 139 <= now() <= 142
        assert await end_of(peer) == (3000, "expired")
        assert 170 <= now() <= 172
        assert len(expiries_of(asyncio.get_running_loop()).deadlines) == 0


@virtual_time
async def test_a_token_without_a_ref_is_answered_when_it_is_refused_alone() -> None:
    async with Server(channel(auth_expiring=None)) as server, server.connect("/") as peer:
        await tell(peer, type="auth", token="ann")
        await tell(peer, type="auth", token="bad")
        assert await said(peer) == {"type": "error", "code": "unauthorized", "message": "this token is not good"}
        await tell(peer, type="ask", ref=1, text="")
        await asyncio.sleep(1000)
        assert (await said(peer))["data"] == {"text": "", "user": "ann"}


REFUSED = {
    "bad": ("unauthorized", "this token is not good"),
    "first": ("unauthorized", "the first message"),
    "ann:-1": ("unauthorized", "expired"),
    "away": ("service_unavailable", "nobody knows"),
    "bug": ("internal", "something went wrong"),
    "slow": ("timeout", "the token was not verified in time"),
}


@pytest.mark.parametrize("token", REFUSED)
@virtual_time
async def test_after_a_token_that_is_not_taken_the_client_may_try_again_until_its_end(
    token: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Server(channel(auth_expiring=None, auth_timeout=5)) as server, server.connect("/") as peer:
        await tell(peer, type="auth", ref=1, token=token)
        code, message = REFUSED[token]
        assert await said(peer) == {"type": "error", "ref": 1, "code": code, "message": message}
        assert now() <= 6
        await tell(peer, type="auth", ref=2, token="ann:300")
        assert (await said(peer))["type"] == "reply"
        renewed = now()
        assert await end_of(peer) == (3000, "expired")
        assert abs(now() - renewed - 300) <= 1
    tracebacks = [record for record in caplog.records if record.exc_info]
    assert len(tracebacks) == (token == "bug")


@virtual_time
async def test_a_token_that_is_not_taken_leaves_the_old_end_as_it_was() -> None:
    async with Server(channel(auth_expiring=None)) as server, server.connect("/") as peer:
        await asyncio.sleep(50)
        await tell(peer, type="auth", token="bad")
        assert (await said(peer))["code"] == "unauthorized"
        assert await end_of(peer) == (3000, "expired")
        assert abs(now() - 100) <= 1


@virtual_time
async def test_another_users_token_ends_the_connection() -> None:
    async with Server(channel()) as server, server.connect("/") as peer:
        await tell(peer, type="auth", ref=1, token="bob:100")
        assert await end_of(peer) == (3003, "another user")


@pytest.mark.parametrize("token", ["", "x" * (MOST_TOKEN + 1), None, 7, {"a": 1}])
@virtual_time
async def test_what_is_no_token_is_invalid_and_is_not_shown(token: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with Server(channel()) as server, server.connect("/") as peer:
        await tell(peer, type="auth", ref=1, **({} if token is None else {"token": token}))
        error = await said(peer)
        assert (error["type"], error["code"], error["ref"]) == ("error", "invalid", 1)
        assert "xxx" not in json.dumps(error) + caplog.text


@virtual_time
async def test_tokens_that_are_refused_count_towards_the_limit_and_the_servers_own_faults_do_not() -> None:
    async with Server(channel(invalid_limit=3)) as server, server.connect("/") as peer:
        for _ in range(10):
            await tell(peer, type="auth", token="away")
            assert (await said(peer))["code"] == "service_unavailable"
        for _ in range(3):
            await tell(peer, type="auth", token="bad")
            assert (await said(peer))["code"] == "unauthorized"
        await tell(peer, type="auth", token="bad")
        assert await end_of(peer) == (1008, "too many invalid messages")


@virtual_time
async def test_where_mistakes_close_a_token_that_is_refused_does_not() -> None:
    async with Server(channel(on_invalid=OnInvalid.CLOSE)) as server, server.connect("/") as peer:
        await tell(peer, type="auth", ref=1, token="bad")
        assert (await said(peer))["code"] == "unauthorized"
        await tell(peer, type="auth", ref=1, token="ann:100")
        assert (await said(peer))["type"] == "reply"


@virtual_time
async def test_what_is_said_behind_a_token_is_said_with_the_new_identity() -> None:
    app, scopes = App(), []

    @app.channel("/", dependencies=[Depends(let_in)])
    async def chat(websocket: WebSocket) -> AsyncIterator[None]:
        yield

    @chat.on
    async def ask(message: Ask, websocket: WebSocket) -> None:
        scopes.append(websocket.scope["antiphon.identity"].expires_at)

    async with Server(app) as server, server.connect("/") as peer:
        for token in ("ann:100", "ann:200", "ann:300"):
            await tell(peer, type="auth", token=token)
            await tell(peer, type="ask", ref=1, text="")
        for _ in range(3):
            assert (await said(peer))["type"] == "reply"
    assert [round(at - time.time(), -2) for at in scopes] == [100, 200, 300]


@virtual_time
async def test_a_ref_in_use_is_refused() -> None:
    async with Server(channel()) as server, server.connect("/") as peer:
        await tell(peer, type="forever", ref=1)
        assert (await said(peer))["type"] == "item"
        await tell(peer, type="auth", ref=1, token="ann:100")
        assert (await said(peer))["code"] == "duplicate_ref"


@virtual_time
async def test_on_a_nested_wire_both_messages_are_nested() -> None:
    options = {"wire": Wire(tag="kind", ref="id", content="body"), "auth_expiring": 10.0}
    async with Server(channel(**options)) as server, server.connect("/") as peer:
        await tell(peer, kind="auth", id=1, body={"token": "ann:50"})
        renewed = await said(peer)
        assert (renewed["kind"], renewed["id"]) == ("reply", 1)
        assert renewed["body"]["expires_in"] > 49
        expiring = await said(peer)
        assert expiring["kind"] == "auth_expiring"
        assert 9 <= expiring["body"]["expires_in"] <= 10


@pytest.mark.parametrize(
    ("dependency", "options"), [(let_in_for_good, {}), (let_in, {"auth": False}), (let_in_for_good, {"auth": True})]
)
@virtual_time
async def test_where_nothing_takes_new_tokens_nothing_is_told_and_auth_is_an_unknown_message(
    dependency: Any, options: dict[str, Any]
) -> None:
    async with Server(channel(dependency, **options)) as server, server.connect("/") as peer:
        await tell(peer, type="auth", ref=1, token="ann:500")
        assert (await said(peer))["code"] == "unknown_type"
        assert await end_of(peer) == (3000, "expired")


@virtual_time
async def test_an_identity_without_an_end_is_told_of_none() -> None:
    async with Server(channel()) as server, server.connect("/?token=ann") as peer:
        await tell(peer, type="auth", ref=1, token="ann")
        assert (await said(peer))["data"] == {"expires_in": None}
        await asyncio.sleep(10_000)
        assert len(expiries_of(asyncio.get_running_loop()).deadlines) == 0


@virtual_time
async def test_a_short_life_is_told_of_in_its_second_half() -> None:
    async with Server(channel()) as server, server.connect("/?token=ann:20") as peer:
        assert (await said(peer))["type"] == "auth_expiring"
        assert 9.9 <= now() <= 11


@virtual_time
async def test_the_tag_is_the_channels_own() -> None:
    app = App()
    chat = app.add_channel("/")
    with pytest.raises(RegistrationError, match="'auth' is one of the reserved tags"):

        @chat.on("auth")
        async def auth() -> None: ...

    with pytest.raises(RegistrationError, match="'auth_expiring' is one of the reserved tags"):
        app.add_channel("/other", sends=AuthExpiring)


@pytest.mark.parametrize("bad", [{"auth": 1}, {"auth_expiring": 0}, {"auth_timeout": None}, {"auth_timeout": -1}])
def test_an_option_that_is_none_is_told_by_its_name(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} is "):
        ChannelOptions(**bad)


def test_documents_have_both_messages_where_a_dependency_verifies() -> None:
    for app in (channel(Verifier()), channel(auth=True)):
        document = document_of(app).content()
        messages = next(iter(document["channels"].values()))["messages"]
        assert {"auth.request", "auth.reply", "auth_expiring"} <= messages.keys()
        assert messages["auth.request"]["payload"]["properties"]["token"]["maxLength"] == MOST_TOKEN
    for app in (channel(let_in), channel(Verifier(), auth=False)):
        assert "auth" not in json.dumps(document_of(app).content()["channels"])


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_on_every_server_a_client_is_told_ahead_and_goes_on(
    server: ServerUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told in the middle of the four seconds that its tokens last. A busy machine has the other two."""
    tasks = asyncio.all_tasks()
    with caplog.at_level(logging.INFO):
        async with server.run(channel(auth_expiring=10)) as running, asyncio.timeout(PATIENCE):
            async with connect(f"{running.url}/?token=ann:4") as client:
                assert json.loads(await client.recv())["type"] == "auth_expiring"
                await client.send('{"type": "auth", "ref": 1, "token": "ann:4"}')
                assert json.loads(await client.recv())["type"] == "reply"
                assert json.loads(await client.recv())["type"] == "auth_expiring"
                await client.send('{"type": "auth", "ref": 2, "token": "bad:secret"}')
                assert json.loads(await client.recv())["code"] == "unauthorized"
                await client.send('{"type": "auth", "ref": 3, "token": "ann:0.2"}')
                await client.wait_closed()
                assert (client.close_code, client.close_reason) == (3000, "expired")
    assert "secret" not in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert asyncio.all_tasks() <= tasks
