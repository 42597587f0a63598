"""`Identity` as a parameter, `requires`, and demanded scopes: in endpoints, dependencies, requests and channels."""

import asyncio
import dataclasses
import math
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import fastapi
import fastapi.testclient
import pytest
from pydantic import BaseModel
from starlette.testclient import WebSocketDenialResponse

from antiphon import (
    APIRouter,
    App,
    Depends,
    HTTPConnection,
    HTTPException,
    Hub,
    RegistrationError,
    Security,
    TopicOptions,
    WebSocket,
)
from antiphon.gate import FIRST_MESSAGE, HEADER, Identity, WebSocketBearer, admit, requires
from antiphon.testclient import TestClient
from antiphon.testing import ConnectionEnded, HandshakeRefused, Server
from tests.patience import PATIENCE

from .tokens import Watch, no_token_in_logs

__all__ = ["Watch", "no_token_in_logs"]


async def verify(token: str) -> Identity:
    """A token is a name and scopes, as "ada:read:write"."""
    user, *scopes = token.split(":")
    return Identity(user=user, scopes=frozenset(scopes))


bearer = WebSocketBearer([HEADER, FIRST_MESSAGE(5)], verify)
optional = WebSocketBearer([HEADER], verify, auto_error=False)


def as_(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Say(BaseModel):
    text: str


# ---------------------------------------------------------------- as a parameter


async def test_whoever_asks_by_annotation_gets_the_identity() -> None:
    app = App()

    async def by_dependency(identity: Identity) -> str:
        return identity.user

    async def by_generator(somebody: Annotated[Identity, "notes"]) -> AsyncIterator[str]:
        yield somebody.user

    @app.websocket("/ws", dependencies=[Depends(bearer)])
    async def endpoint(
        websocket: WebSocket,
        who: Identity,
        one: Annotated[str, Depends(by_dependency)],
        two: Annotated[str, Depends(by_generator)],
        perhaps: Identity | None,
    ) -> None:
        await websocket.accept()
        assert who is websocket.identity is perhaps
        await websocket.send_json([who.user, one, two])

    async with Server(app) as server:
        async with server.connect("/ws", headers=as_("ada")) as peer:
            assert await peer.receive_json() == ["ada"] * 3
        async with server.connect("/ws") as peer:
            await peer.send("bob")
            assert await peer.receive_json() == ["bob"] * 3


async def test_nobody_is_none_to_who_can_do_without() -> None:
    app = App()

    @app.websocket("/ws", dependencies=[Depends(optional)])
    async def endpoint(websocket: WebSocket, who: Identity | None, again: Identity | None = None) -> None:
        await websocket.accept()
        await websocket.send_json([who, websocket.identity, again] if who is None else who.user)

    async with Server(app) as server:
        async with server.connect("/ws") as peer:
            assert await peer.receive_json() == [None] * 3
        async with server.connect("/ws", headers=as_("ada")) as peer:
            assert await peer.receive_json() == "ada"


async def test_nobody_is_refused_where_somebody_is_demanded(no_token_in_logs: Watch) -> None:
    app = App()

    @app.websocket("/optional", dependencies=[Depends(optional)])
    async def after(websocket: WebSocket, who: Identity) -> None: ...

    @app.websocket("/forgotten")
    async def forgotten(websocket: WebSocket, who: Identity) -> None: ...

    @app.get("/forgotten")
    async def over_http(who: Identity) -> None: ...

    late = WebSocketBearer([FIRST_MESSAGE(0.01)], verify, auto_error=False)

    @app.websocket("/late", dependencies=[Depends(late)])
    async def too_late(websocket: WebSocket, who: Identity) -> None: ...

    async with Server(app) as server:
        for path in ("/optional", "/forgotten"):
            with pytest.raises(HandshakeRefused) as refused:
                await server.connect(path).__aenter__()
            assert refused.value.status == 401
            assert dict(refused.value.headers)["www-authenticate"] == "Bearer"
        with pytest.raises(ConnectionEnded, match="3000 Not authenticated"):
            async with server.connect("/late") as peer:
                await peer.receive()
    assert TestClient(app).get("/forgotten").status_code == 401
    log = "\n".join(no_token_in_logs.texts)
    assert "parameter 'who' is the Identity, and there is none: no token came" in log
    assert log.count("there is none: no dependency of the route finds out who it is; dependencies=[Depends(") == 2


def test_to_ask_before_anybody_can_know_is_a_mistake() -> None:
    app = App()

    async def early(identity: Identity) -> str:
        return identity.user

    with pytest.raises(RegistrationError, match=r"'identity' is the Identity, which .*WebSocketBearer finds out, and"):

        @app.websocket("/ws")
        async def endpoint(
            websocket: WebSocket, who: Annotated[str, Depends(early)], found: Annotated[Identity, Depends(bearer)]
        ) -> None: ...

    with pytest.raises(RegistrationError, match=r"dependencies=\[...\]"):
        app.add_api_websocket_route("/b", _plain, dependencies=[Depends(requires("a")), Depends(bearer)])

    for claimed in (Depends(), Depends(Identity)):
        with pytest.raises(RegistrationError, match="every client could be any user"):

            @app.websocket("/d")
            async def query(websocket: WebSocket, who: Annotated[Identity, claimed]) -> None: ...

    with pytest.raises(RegistrationError, match="injected as"):

        @app.websocket("/c")
        async def marked(websocket: WebSocket, who: Annotated[Identity, fastapi.Query()]) -> None: ...


async def _plain(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("in")


async def test_a_dependency_of_ones_own_lets_somebody_in_with_admit() -> None:
    app = App()

    async def by_address(connection: HTTPConnection) -> None:
        await admit(connection, Identity(user=connection.query_params["name"]))

    @app.websocket("/ws", dependencies=[Depends(by_address)])
    async def endpoint(websocket: WebSocket, who: Identity) -> None:
        await websocket.accept()
        await websocket.send_text(who.user)

    async with Server(app) as server, server.connect("/ws?name=ada") as peer:
        assert await peer.receive() == "ada"


async def test_a_test_says_who_it_is_by_an_override() -> None:
    app = App()

    @app.websocket("/ws", dependencies=[Depends(bearer)])
    async def endpoint(websocket: WebSocket, who: Identity) -> None:
        await websocket.accept()
        assert websocket.identity is who
        await websocket.send_text(who.user)

    channel = app.add_channel("/chat", dependencies=[Depends(bearer)])

    @channel.on("say")
    async def say(message: Say, who: Identity) -> Say:
        return Say(text=f"{who.user}: {message.text}")

    app.dependency_overrides[bearer] = lambda: Identity(user="eve")
    async with Server(app) as server:
        async with server.connect("/ws") as peer:
            assert await peer.receive() == "eve"
        async with server.channel("/chat") as chat:
            assert (await chat.request(Say(text="hi"), Say)).text == "eve: hi"


async def test_the_hubs_user_is_the_identitys() -> None:
    app = App(hub=Hub(topics={"room": TopicOptions(presence=True)}))

    @app.websocket("/ws", dependencies=[Depends(bearer)])
    async def endpoint(websocket: WebSocket, hub: Hub) -> None:
        await websocket.accept()
        async with hub.join("room", websocket, presence={"seat": 1}):
            await websocket.send_json({"members": sorted(await hub.presence("room"))})

    async with Server(app) as server, server.connect("/ws", headers=as_("ada")) as peer:
        async with asyncio.timeout(PATIENCE):
            while "members" not in (told := await peer.receive_json()):
                pass
        assert told == {"members": ["ada"]}


# ---------------------------------------------------------------- permissions


async def told(app: App, token: str, path: str = "/ws", *, late: bool = False) -> Any:
    async with Server(app) as server:
        try:
            async with server.connect(path, headers={} if late else as_(token)) as peer:
                if late:
                    await peer.send(token)
                return await peer.receive()
        except HandshakeRefused as refused:
            return refused.status, dict(refused.headers)["www-authenticate"]
        except ConnectionEnded as ended:
            return ended.code, ended.reason


@pytest.mark.parametrize("how", ["requires", "Security", "above"])
async def test_scopes_are_demanded_before_accept(how: str, no_token_in_logs: Watch) -> None:
    app = App()

    async def user(found: Annotated[Identity, Depends(bearer)]) -> str:
        return found.user

    demanded: dict[str, list[Any]] = {
        "requires": [Depends(bearer), Depends(requires("read", "write"))],
        "Security": [Security(bearer, scopes=["read", "write"])],
        "above": [Security(user, scopes=["read", "write"])],
    }
    app.add_api_websocket_route("/ws", _plain, dependencies=demanded[how])
    assert await told(app, "ada:write:read:more") == "in"
    assert await told(app, "ada:write:read", late=True) == "in"
    assert await told(app, "ada:read") == (403, 'Bearer error="insufficient_scope", scope="read write"')
    assert await told(app, "ada:read", late=True) == (3003, "Insufficient scope")
    assert [text for text in no_token_in_logs.texts if "does not have the scope 'write'" in text]


def test_scopes_are_demanded_of_requests() -> None:
    app = App()

    @app.get("/read", dependencies=[Depends(bearer)])
    async def read(who: Annotated[Identity, Depends(requires("read"))]) -> str:
        return who.user

    client = TestClient(app)
    assert client.get("/read", headers=as_("ada:read")).json() == "ada"
    refused = client.get("/read", headers=as_("ada"))
    assert (refused.status_code, refused.json()) == (403, {"detail": "Insufficient scope"})
    assert refused.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="read"'


@pytest.mark.parametrize("scopes", [(), ("",), ("a b",), ('a"b',), ("a\nb",), (["a"],), (1,)])
def test_what_are_no_scopes_is_told_where_it_is_written(scopes: tuple[Any, ...]) -> None:
    with pytest.raises((TypeError, ValueError), match="scope"):
        requires(*scopes)


# ---------------------------------------------------------------- channels


async def test_handlers_of_a_channel_get_the_identity_of_their_time() -> None:
    app = App()
    scopes: list[Any] = []

    @app.channel("/chat", dependencies=[Depends(bearer)])
    async def chat(websocket: WebSocket, who: Identity) -> None:
        scopes.append(websocket.scope)

    async def by_dependency(identity: Identity, perhaps: Identity | None) -> Identity | None:
        assert identity is perhaps
        return identity

    @chat.on("say")
    async def say(message: Say, who: Identity, same: Annotated[Identity, Depends(by_dependency)]) -> Say:
        assert who is same
        return Say(text=f"{who.user}: {message.text}")

    async with Server(app) as server, server.channel("/chat", headers=as_("ada")) as client:
        assert (await client.request(Say(text="hi"), Say)).text == "ada: hi"
        await admit(HTTPConnection(scopes[0]), Identity(user="ada later"))  # as a renewal does
        assert (await client.request(Say(text="hi"), Say)).text == "ada later: hi"


async def test_a_handler_alone_demands_somebody_when_the_channel_opens() -> None:
    app = App()
    chat = app.add_channel("/chat", dependencies=[Depends(optional)])

    @chat.on("say")
    async def say(message: Say, who: Identity) -> None: ...

    assert await told(app, "", "/chat", late=True) == (3000, "Not authenticated")  # channels refuse with a Close


async def test_a_scope_that_a_handler_demands_is_answered_and_the_channel_goes_on() -> None:
    app = App()
    chat = app.add_channel("/chat", dependencies=[Depends(bearer)])

    @chat.on("say")
    async def say(message: Say, who: Annotated[Identity, Depends(requires("write"))]) -> Say:
        return message

    @chat.on("peek")
    async def peek(message: Say) -> Say:
        return message

    async with Server(app) as server:
        for late in (False, True):
            async with server.connect("/chat", headers={} if late else as_("ada:read")) as peer:
                if late:
                    await peer.send("ada:read")
                await peer.send('{"type": "say", "ref": 1, "text": "hi"}')
                answer = await peer.receive_json()
                assert (answer["type"], answer["ref"], answer["code"]) == ("error", 1, "forbidden")
                await peer.send('{"type": "peek", "ref": 2, "text": "hi"}')
                assert (await peer.receive_json())["ref"] == 2


async def test_a_channel_with_a_subprotocol_answers_it_to_every_source() -> None:
    app = App()
    chat = app.add_channel("/chat", subprotocol="chat.v2", dependencies=[Depends(WebSocketBearer(verify=verify))])
    late = app.add_channel("/late", subprotocol="chat.v2", dependencies=[Depends(bearer)])

    for channel in (chat, late):

        @channel.on("say")
        async def say(message: Say, who: Identity) -> Say:
            return Say(text=who.user)

    async with Server(app) as server:
        for path, offered, first in [
            ("/chat", ["bearer", "ada", "chat.v2"], None),
            ("/late", ["other", "chat.v2"], "ada"),
        ]:
            async with server.connect(path, subprotocols=offered) as peer:
                assert peer.subprotocol == "chat.v2"
                if first is not None:
                    await peer.send(first)
                await peer.send('{"type": "say", "ref": 1, "text": ""}')
                assert "ada" in str(await peer.receive())


# ---------------------------------------------------------------- in others' apps


def test_a_route_of_fastapis_own_takes_the_schemes() -> None:
    """FastAPI reads the scheme's signature, and hands it the scopes that `Security` demands."""
    app = fastapi.FastAPI()

    @app.get("/me")
    async def me(who: Annotated[Any, fastapi.Security(bearer, scopes=["read"])]) -> str:
        user: str = who.user
        return user

    @app.websocket("/ws")
    async def ws(
        websocket: fastapi.WebSocket, who: Annotated[Any, fastapi.Security(optional, scopes=["read"])]
    ) -> None:
        await websocket.accept()
        await websocket.send_text(who.user)

    client = fastapi.testclient.TestClient(app)
    assert client.get("/me", headers=as_("ada:read")).json() == "ada"
    assert client.get("/me", headers=as_("ada")).status_code == 403
    assert client.get("/me").status_code == 401
    with client.websocket_connect("/ws", headers=as_("ada:read")) as connection:
        assert connection.receive_text() == "ada"
    with pytest.raises(WebSocketDenialResponse) as refused:
        client.websocket_connect("/ws", headers=as_("ada")).__enter__()
    assert refused.value.status_code == 403


def test_no_body_is_an_identity() -> None:
    """FastAPI would read one from the body, as it does any dataclass."""
    app = fastapi.FastAPI()
    with pytest.raises(TypeError, match="never read from a peer's data"):

        @app.post("/me")
        async def me(who: Identity) -> None: ...


def test_a_first_message_needs_a_websocket_of_ours_and_says_so() -> None:
    app = fastapi.FastAPI()

    @app.websocket("/ws")
    async def ws(websocket: fastapi.WebSocket, who: Annotated[Any, fastapi.Depends(bearer)]) -> None: ...

    with pytest.raises(RuntimeError, match="register the endpoint with an antiphon App or APIRouter"):
        with fastapi.testclient.TestClient(app).websocket_connect("/ws"):
            pass


def test_a_router_of_ours_in_an_app_of_fastapis_is_guarded_alike() -> None:
    router = APIRouter()

    @router.websocket("/ws", dependencies=[Security(bearer, scopes=["read"])])
    async def endpoint(websocket: WebSocket, who: Identity) -> None:
        await websocket.accept()
        await websocket.send_text(who.user)

    app = fastapi.FastAPI()
    app.include_router(router)  # type: ignore[arg-type]
    client = TestClient(app)
    with client.websocket_connect("/ws", headers=as_("ada:read")) as connection:
        assert connection.receive_text() == "ada"
    with client.websocket_connect("/ws") as connection:
        connection.send_text("bob:read")
        assert connection.receive_text() == "bob"


# ---------------------------------------------------------------- the identity itself


def test_an_identity_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Identity(user="ada").user = "eve"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["expires_at", "issued_at"])
def test_milliseconds_are_no_time_of_an_identity(name: str) -> None:
    """A page's `Date.now()`: as seconds, it would never expire, and no revocation would reach it."""
    now = time.time()
    with pytest.raises(ValueError, match=f"{name} is in Unix seconds, and .* are milliseconds"):
        Identity(user="ada", **{name: now * 1000})  # type: ignore[arg-type]
    assert Identity(user="ada", expires_at=math.inf).expires_at == math.inf
    assert Identity(user="ada", expires_at=99_999_999_999).expires_at


async def test_milliseconds_revoke_nobody() -> None:
    """As seconds, they would refuse every token that is ever issued."""
    async with Hub() as hub:
        with pytest.raises(ValueError, match=r"issued_before: expected Unix seconds, and .* are milliseconds"):
            await hub.revoke(user="ada", issued_before=time.time() * 1000)


def test_an_error_of_the_users_own_stays_it() -> None:
    app = App()

    async def teapot(token: str) -> Identity:
        raise HTTPException(418, "short and stout")

    @app.get("/tea", dependencies=[Depends(WebSocketBearer([HEADER], teapot))])
    async def tea() -> None: ...

    assert TestClient(app).get("/tea", headers=as_("x")).status_code == 418
