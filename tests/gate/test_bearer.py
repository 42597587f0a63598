"""`WebSocketBearer` and its sources, on the real engine in memory: the places of a token, and the answer to its
lack."""

import asyncio
import base64
import json
import re
from collections.abc import Callable
from typing import Annotated, Any

import pytest

from antiphon import App, Depends, HTTPException, Request, Security, WebSocket
from antiphon.gate import (
    COOKIE,
    FIRST_MESSAGE,
    HEADER,
    QUERY,
    SUBPROTOCOL,
    Identity,
    InvalidToken,
    TokenSource,
    WebSocketBearer,
)
from antiphon.masking import masked
from antiphon.testclient import TestClient
from antiphon.testing import ConnectionEnded, HandshakeRefused, Server, virtual_time

from .tokens import Watch, kept, no_token_in_logs

__all__ = ["Watch", "no_token_in_logs"]

TOKEN = "opaque-token-of-ada-0123456789"
KUBERNETES = "base64url.bearer.authorization.k8s.io."


@pytest.fixture(autouse=True)
def secret(no_token_in_logs: Watch) -> str:
    return kept(TOKEN)


def encoded(token: str) -> str:
    return KUBERNETES + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


async def known(token: str) -> Identity | None:
    return Identity(user="ada", scopes=frozenset({"read"})) if token == TOKEN else None


def app_with(scheme: Any, **accept: Any) -> App:
    app = App()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket, found: Annotated[Any, Depends(scheme)]) -> None:
        await websocket.accept(**accept)
        who = found.user if isinstance(found, Identity) else found
        offered = [websocket.scope["subprotocols"], websocket.headers.get("sec-websocket-protocol")]
        await websocket.send_json([who, *offered])
        while True:
            await websocket.send_text(f"echo {await websocket.receive_text()}")

    return app


async def told(scheme: Any, *, path: str = "/ws", first: str | bytes | None = None, **handshake: Any) -> Any:
    """The endpoint's finding. Else the status of the refusal, or the code and reason of the Close."""
    async with Server(app_with(scheme)) as server:
        try:
            async with server.connect(path, **handshake) as peer:
                if first is not None:
                    await peer.send(first)
                return [*await peer.receive_json(), peer.subprotocol]
        except HandshakeRefused as refused:
            return refused.status
        except ConnectionEnded as ended:
            return ended.code, ended.reason


# ---------------------------------------------------------------- where it comes from

SOURCES: list[tuple[str, TokenSource, dict[str, Any]]] = [
    ("header", HEADER, {"headers": {"Authorization": f"Bearer {TOKEN}"}}),
    ("header in small letters", HEADER, {"headers": {"authorization": f"bearer  {TOKEN}"}}),
    ("cookie", COOKIE("session"), {"headers": {"Cookie": f"a=1; session={TOKEN}"}}),
    ("query", QUERY("access"), {"path": f"/ws?access={TOKEN}"}),
    ("first message", FIRST_MESSAGE(), {"first": TOKEN}),
    ("first message as JSON", FIRST_MESSAGE(), {"first": json.dumps({"type": "auth", "token": TOKEN, "ref": 1})}),
]


@pytest.mark.parametrize(("name", "source", "handshake"), SOURCES, ids=[name for name, _, _ in SOURCES])
@pytest.mark.parametrize("verify", [None, known])
async def test_a_token_is_found_where_it_is_looked_for(
    name: str, source: TokenSource, handshake: dict[str, Any], verify: Any
) -> None:
    who = TOKEN if verify is None else "ada"
    assert await told(WebSocketBearer([source], verify), **handshake) == [who, [], None, None]
    if name.startswith("first"):
        return
    others = [one for one in (HEADER, SUBPROTOCOL, COOKIE("other"), QUERY("other")) if type(one) is not type(source)]
    assert await told(WebSocketBearer(others, verify), **handshake) == 401


OFFERS: list[tuple[list[str], Any]] = [
    (["bearer", TOKEN], ["ada", ["bearer"], "bearer", "bearer"]),
    (["Bearer", TOKEN], ["ada", ["Bearer"], "Bearer", "Bearer"]),
    (["chat", "bearer", TOKEN], ["ada", ["chat", "bearer"], "chat, bearer", "bearer"]),
    (["bearer", TOKEN, "chat"], ["ada", ["bearer", "chat"], "bearer, chat", "bearer"]),
    ([encoded(TOKEN), "chat"], ["ada", ["chat"], "chat", "chat"]),
    (["v2", encoded(TOKEN), "v1"], ["ada", ["v2", "v1"], "v2, v1", "v2"]),
    ([encoded(TOKEN)], ["ada", [], None, None]),  # which a browser would end, and programs do not
    (["bearer"], 401),
    (["chat"], 401),
    ([KUBERNETES, "chat"], 401),
    ([KUBERNETES + "!!!", "chat"], 401),
    ([KUBERNETES + "4oCm", "chat"], 401),  # "…"
    (["bearer", TOKEN, encoded(TOKEN)], 401),
    (["bearer", encoded(TOKEN)], ["ada", ["bearer"], "bearer", "bearer"]),
    (["bearer", "wrong-token-0123456789"], 401),
]


@pytest.mark.parametrize(("offered", "expected"), OFFERS, ids=[", ".join(one)[:60] for one, _ in OFFERS])
async def test_a_token_among_the_subprotocols_is_taken_out_and_never_answered(
    offered: list[str], expected: Any
) -> None:
    assert await told(WebSocketBearer([SUBPROTOCOL], known), subprotocols=offered) == expected


async def test_the_endpoint_selects_among_what_is_left() -> None:
    for selected, answer in (("chat", "chat"), ("bearer", "bearer"), (None, "bearer"), (TOKEN, "bearer")):
        async with Server(app_with(WebSocketBearer([SUBPROTOCOL], known), subprotocol=selected)) as server:
            async with server.connect("/ws", subprotocols=["chat", "bearer", TOKEN]) as peer:
                assert peer.subprotocol == answer


async def test_a_token_is_taken_out_also_where_another_source_has_one() -> None:
    scheme = WebSocketBearer(verify=known)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    other = kept("another-token-0123456789")
    assert await told(scheme, headers=headers, subprotocols=["bearer", other]) == [
        "ada",
        ["bearer"],
        "bearer",
        "bearer",
    ]


async def test_sources_are_asked_in_order_and_the_first_token_counts() -> None:
    headers = {"Authorization": "Bearer wrong-0123456789", "Cookie": f"session={TOKEN}"}
    assert await told(WebSocketBearer([HEADER, COOKIE("session")], known), headers=headers) == 401
    assert (await told(WebSocketBearer([COOKIE("session"), HEADER], known), headers=headers))[0] == "ada"
    basic = {"Authorization": "Basic YTpi", "Cookie": f"session={TOKEN}"}
    assert (await told(WebSocketBearer([HEADER, COOKIE("session")], known), headers=basic))[0] == "ada"


@pytest.mark.parametrize("token", ["x" * 8193, "with space", "tab\there", "\u00fc" * 20])
async def test_what_no_token_looks_like_is_verified_by_nobody(token: str) -> None:
    asked = []

    async def verify(found: str) -> Identity:
        asked.append(found)
        return Identity(user="eve")

    message = json.dumps({"type": "auth", "token": token})
    assert await told(WebSocketBearer([FIRST_MESSAGE()], verify), first=message) == (3000, "Invalid token")
    assert asked == []
    assert (await told(WebSocketBearer([FIRST_MESSAGE()], verify), first="x" * 8192))[0] == "eve"


# ---------------------------------------------------------------- the first message


@virtual_time
@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (None, "Not authenticated"),
        (b"binary", "Invalid token"),
        (TOKEN.encode(), "Invalid token"),
        ("", "Invalid token"),
        ("x" * 16385, "Invalid token"),
        ('{"type": "auth", "token": "' + TOKEN + '"' + " " * 16384 + "}", "Invalid token"),
        ("{}", "Invalid token"),
        ("{", "Invalid token"),
        ('{"type": "auth"}', "Invalid token"),
        ('{"type": "auth", "token": 5}', "Invalid token"),
        ('{"type": "auth", "token": "\\ud800"}', "Invalid token"),
        ('{"type": "say", "token": "' + TOKEN + '"}', "Invalid token"),
        ('{"a":' * 2000 + "1" + "}" * 2000, "Invalid token"),
        ("[" * 8000, "Invalid token"),
        ("wrong-token-0123456789", "Invalid token"),
    ],
)
async def test_a_first_message_that_is_no_token_ends_with_3000(first: Any, reason: str) -> None:
    assert await told(WebSocketBearer([HEADER, FIRST_MESSAGE(2)], known), first=first) == (3000, reason)


@virtual_time
async def test_a_first_message_has_its_time_and_not_more() -> None:
    async with Server(app_with(WebSocketBearer([FIRST_MESSAGE(5)], known))) as server:
        async with server.connect("/ws") as peer:
            await asyncio.sleep(4.9)
            await peer.send(TOKEN)
            assert (await peer.receive_json())[0] == "ada"
            await asyncio.sleep(60)  # the time was for the first
            await peer.send("later")
            assert await peer.receive() == "echo later"
        async with server.connect("/ws") as peer:
            await asyncio.sleep(5.1)
            with pytest.raises(ConnectionEnded, match="3000"):
                await peer.receive()


async def test_what_follows_the_first_message_is_the_endpoints() -> None:
    async with Server(app_with(WebSocketBearer([FIRST_MESSAGE()], known))) as server:
        async with server.connect("/ws") as peer:
            for text in (TOKEN, "hello", TOKEN):
                await peer.send(text)
            await peer.receive_json()
            assert [await peer.receive(), await peer.receive()] == ["echo hello", f"echo {TOKEN}"]


async def test_a_peer_that_leaves_instead_of_a_first_message_is_no_failure(no_token_in_logs: Watch) -> None:
    async with Server(app_with(WebSocketBearer([FIRST_MESSAGE()], known))) as server:
        async with server.connect("/ws") as peer:
            await peer.close(1001)
    assert not [text for text in no_token_in_logs.texts if "Traceback" in text or "refused" in text]


async def test_the_subprotocol_is_answered_before_the_first_message() -> None:
    for source, offered, answer in [
        (FIRST_MESSAGE(), ["v2", "v1"], "v2"),
        (FIRST_MESSAGE(subprotocol="v1"), ["v2", "v1"], "v1"),
        (FIRST_MESSAGE(subprotocol="v3"), ["v2", "v1"], "v2"),
        (FIRST_MESSAGE(), [], None),
    ]:
        found = await told(WebSocketBearer([source], known), first=TOKEN, subprotocols=offered)
        assert found == ["ada", offered, ", ".join(offered) or None, answer]


@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        (["eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl", "bearer"], "bearer"),
        (["eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl"], None),
        ([encoded(TOKEN), "v1"], "v1"),
    ],
)
async def test_a_token_is_not_answered_before_the_first_message(offered: list[str], answer: str | None) -> None:
    """A page that has the two in the wrong order: the token would stand in the answer's header."""
    async with Server(app_with(WebSocketBearer([FIRST_MESSAGE()], known))) as server:
        async with server.connect("/ws", subprotocols=offered) as peer:
            assert peer.subprotocol == answer


async def test_an_accept_that_comes_too_late_says_what_is_lost(no_token_in_logs: Watch) -> None:
    accept = {"subprotocol": "v1", "headers": [(b"x-a", b"b")]}
    async with Server(app_with(WebSocketBearer([FIRST_MESSAGE()], known), **accept)) as server:
        async with server.connect("/ws", subprotocols=["v2", "v1"]) as peer:
            await peer.send(TOKEN)
            assert (await peer.receive_json())[0] == "ada"
    assert any(
        "accept() came with subprotocol 'v1' and headers after FIRST_MESSAGE had accepted with 'v2'" in text
        for text in no_token_in_logs.texts
    )


async def test_a_second_accept_is_still_an_error() -> None:
    app = App()

    @app.websocket("/ws", dependencies=[Depends(WebSocketBearer([FIRST_MESSAGE()], known))])
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(RuntimeError, match="accepted already"):
            await websocket.accept()
        await websocket.send_text("fine")

    async with Server(app) as server, server.connect("/ws") as peer:
        await peer.send(TOKEN)
        assert await peer.receive() == "fine"


# ---------------------------------------------------------------- verifying


async def test_verify_may_be_sync_async_or_a_method_and_refuse_in_several_ways(no_token_in_logs: Watch) -> None:
    class Users:
        async def find(self, token: str) -> Identity | None:
            return await known(token)

        def __call__(self, token: str) -> Identity | None:
            return Identity(user="ada") if token == TOKEN else None

    def sync(token: str) -> Identity | None:
        return Users()(token)

    headers = {"Authorization": f"Bearer {TOKEN}"}
    for verify in (known, sync, Users().find, Users(), lambda token: known(token)):
        assert (await told(WebSocketBearer(verify=verify), headers=headers))[0] == "ada"
        assert await told(WebSocketBearer(verify=verify), headers={"Authorization": "Bearer wrong"}) == 401

    async def by_name(token: str) -> Identity:
        raise InvalidToken("session ended an hour ago")

    async def by_status(token: str) -> Identity:
        raise HTTPException(401, "who?")

    async def away(token: str) -> Identity:
        raise HTTPException(503, "database away")

    assert await told(WebSocketBearer(verify=by_name), headers=headers) == 401
    assert await told(WebSocketBearer(verify=by_status), headers=headers) == 401
    assert await told(WebSocketBearer(verify=away), headers=headers) == 503
    assert any("refused: 401, session ended an hour ago" in text for text in no_token_in_logs.texts)
    first = [FIRST_MESSAGE()]
    assert await told(WebSocketBearer(first, by_name), first=TOKEN) == (3000, "Invalid token")
    assert await told(WebSocketBearer(first, by_status), first=TOKEN) == (3000, "who?")
    assert await told(WebSocketBearer(first, away), first=TOKEN) == (1013, "database away")


@pytest.mark.parametrize("found", ["ada", {"user": "ada"}, True, 5])
async def test_a_verify_that_gives_something_else_is_a_bug_and_lets_nobody_in(
    found: Any, no_token_in_logs: Watch
) -> None:
    async def verify(token: str) -> Any:
        return found

    assert await told(WebSocketBearer(verify=verify), headers={"Authorization": f"Bearer {TOKEN}"}) == 500
    assert any("gives an Identity, or None, and gave a" in text for text in no_token_in_logs.texts)


async def test_a_token_is_verified_once_however_many_dependencies_ask() -> None:
    asked = []

    async def verify(token: str) -> Identity:
        asked.append(token)
        return Identity(user="ada", scopes=frozenset({"a", "b"}))

    scheme = WebSocketBearer([FIRST_MESSAGE()], verify)
    app = App()

    @app.websocket("/ws", dependencies=[Security(scheme, scopes=["a"])])
    async def endpoint(
        websocket: WebSocket,
        one: Annotated[Identity, Security(scheme, scopes=["b"])],
        two: Annotated[Identity, Depends(scheme)],
        three: Annotated[Identity, Depends(scheme, use_cache=False)],
    ) -> None:
        await websocket.accept()
        assert one is two is three is websocket.identity
        await websocket.send_text(one.user)

    async with Server(app) as server, server.connect("/ws") as peer:
        await peer.send(TOKEN)
        assert await peer.receive() == "ada"
    assert asked == [TOKEN]


async def test_a_first_message_is_read_once_for_several_schemes() -> None:
    app = App()
    tokens, users = WebSocketBearer([FIRST_MESSAGE()]), WebSocketBearer([FIRST_MESSAGE()], known)

    @app.websocket("/ws", dependencies=[Depends(tokens)])
    async def endpoint(websocket: WebSocket, who: Annotated[Identity, Depends(users)]) -> None:
        await websocket.accept()
        await websocket.send_text(who.user)

    async with Server(app) as server, server.connect("/ws") as peer:
        await peer.send(TOKEN)
        assert await peer.receive() == "ada"


async def test_without_auto_error_no_token_is_none_and_a_bad_one_is_refused() -> None:
    scheme = WebSocketBearer(verify=known, auto_error=False)
    assert await told(scheme) == [None, [], None, None]
    assert await told(scheme, headers={"Authorization": "Bearer wrong"}) == 401
    late = WebSocketBearer([FIRST_MESSAGE(0.01)], known, auto_error=False)
    assert await told(late) == [None, [], None, None]


# ---------------------------------------------------------------- requests, and log lines


def test_requests_are_let_in_by_the_same_scheme(no_token_in_logs: Watch) -> None:
    scheme = WebSocketBearer([HEADER, SUBPROTOCOL, COOKIE("session"), FIRST_MESSAGE()], known)
    app = App()

    @app.get("/me")
    def me(request: Request, who: Annotated[Identity, Depends(scheme)], again: Identity) -> list[str]:
        return [who.user, again.user, request.scope["antiphon.identity"].user]

    client = TestClient(app)
    assert client.get("/me", headers={"Authorization": f"Bearer {TOKEN}"}).json() == ["ada"] * 3
    assert client.get("/me", headers={"Cookie": f"session={TOKEN}"}).json() == ["ada"] * 3
    missing = client.get("/me", headers={"Sec-WebSocket-Protocol": f"bearer, {TOKEN}"})
    assert (missing.status_code, missing.headers["www-authenticate"]) == (401, "Bearer")
    wrong = client.get("/me", headers={"Authorization": "Bearer wrong"})
    assert (wrong.status_code, wrong.json()) == (401, {"detail": "Invalid token"})
    assert wrong.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    told = [text for text in no_token_in_logs.texts if "refused" in text]
    assert told == [
        "GET /me refused: 401, no token: one is expected in the header Authorization (Bearer), as the "
        "bearer subprotocol, in the cookie session or in the first message",
        "GET /me refused: 401, verify() knows no such token; log in again for a new one",
    ]
    assert [masked(line) for line in told] == told  # a filter for secrets finds none


async def test_a_refusal_is_one_line_in_the_log(no_token_in_logs: Watch) -> None:
    scheme = WebSocketBearer([HEADER, FIRST_MESSAGE()], known)
    assert await told(scheme, headers={"Authorization": "Bearer wrong"}) == 401
    assert await told(scheme, first="wrong") == (3000, "Invalid token")
    before, after = (text for text in no_token_in_logs.texts if "refused" in text)
    assert "endpoint (/ws) refused: 401, verify() knows no such token; log in again for a new one (Invalid" in before
    assert after == "WebSocket /ws refused: 3000, verify() knows no such token; log in again for a new one"


async def test_a_refused_handshake_carries_its_challenge() -> None:
    async with Server(app_with(WebSocketBearer(verify=known))) as server:
        for headers, challenge in (({}, "Bearer"), ({"Authorization": "Bearer x"}, 'Bearer error="invalid_token"')):
            with pytest.raises(HandshakeRefused) as refused:
                await server.connect("/ws", headers=headers).__aenter__()
            assert dict(refused.value.headers)["www-authenticate"] == challenge


async def test_the_scope_does_not_show_tokens_to_who_prints_it() -> None:
    app = App()

    @app.websocket("/ws", dependencies=[Depends(WebSocketBearer([SUBPROTOCOL, FIRST_MESSAGE()]))])
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str({key: value for key, value in websocket.scope.items() if key != "extensions"}))

    async with Server(app) as server:
        async with server.connect("/ws", subprotocols=["bearer", TOKEN]) as peer:
            assert TOKEN not in str(await peer.receive())
        async with server.connect("/ws") as peer:
            await peer.send(TOKEN)
            assert TOKEN not in str(await peer.receive())


def test_documents_say_where_the_token_goes() -> None:
    app = App()

    @app.websocket("/ws", sends=str, dependencies=[Depends(WebSocketBearer(verify=known, bearerFormat="JWT"))])
    async def endpoint(websocket: WebSocket) -> None: ...

    (scheme,) = TestClient(app).get("/asyncapi.json").json()["components"]["securitySchemes"].values()
    assert scheme == {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token in the header Authorization (Bearer) or as the bearer subprotocol.",
    }


@pytest.mark.parametrize(("source", "place"), [(QUERY("ticket"), "query"), (COOKIE("session"), "cookie")])
def test_documents_name_the_parameter_or_the_cookie(source: TokenSource, place: str) -> None:
    app = App()

    @app.websocket("/ws", sends=str, dependencies=[Depends(WebSocketBearer([source], known))])
    async def endpoint(websocket: WebSocket) -> None: ...

    (scheme,) = TestClient(app).get("/asyncapi.json").json()["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("httpApiKey", place, getattr(source, "name"))  # noqa: B009


# ---------------------------------------------------------------- held wrong

WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: WebSocketBearer([]), "at least one"),
    (lambda: WebSocketBearer(HEADER), r"\[HEADER, SUBPROTOCOL\]"),  # type: ignore[arg-type]
    (lambda: WebSocketBearer("header"), "got 'h'"),  # type: ignore[arg-type]
    (lambda: WebSocketBearer(["cookie"]), "got 'cookie'"),  # type: ignore[list-item]
    (lambda: WebSocketBearer([FIRST_MESSAGE(), HEADER]), "once, and last"),
    (lambda: WebSocketBearer([FIRST_MESSAGE(), FIRST_MESSAGE(5)]), "once, and last"),
    (lambda: WebSocketBearer(verify="known"), "a function of a token"),  # type: ignore[arg-type]
    (lambda: WebSocketBearer(longest=0), "longest"),
    (lambda: COOKIE(""), r'COOKIE\("token"\)'),
    (lambda: QUERY(None), r'QUERY\("token"\)'),  # type: ignore[arg-type]
    (lambda: FIRST_MESSAGE("5"), "expected seconds"),  # type: ignore[arg-type]
    (lambda: FIRST_MESSAGE(0), "more than 0 s"),
    (lambda: FIRST_MESSAGE(float("nan")), "more than 0 s"),
    (lambda: FIRST_MESSAGE(float("inf")), "more than 0 s"),
    (lambda: FIRST_MESSAGE(5, subprotocol=["v1"]), "expected a str"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "says"), WRONG, ids=[says for _, says in WRONG])
def test_what_cannot_work_is_told_where_it_is_written(make: Callable[[], Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        make()


@pytest.mark.parametrize(
    ("source", "made"), [(QUERY, 'QUERY("token")'), (COOKIE, 'COOKIE("session")'), (FIRST_MESSAGE, "FIRST_MESSAGE()")]
)
def test_a_source_that_was_not_called_is_shown_with_its_call(source: Any, made: str) -> None:
    with pytest.raises(TypeError, match=re.escape(f"sources: {source.__name__} is a class: write {made}")):
        WebSocketBearer([HEADER, source])
