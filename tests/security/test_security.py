"""Security schemes on WebSockets and requests, ours and FastAPI's, and the answers to bad credentials."""

import base64
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import fastapi.security
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request

from antiphon import App, WebSocket, security
from antiphon.dependencies import Depends, Kind, Security, analyze, solve
from antiphon.exceptions import HTTPException, ParameterErrors
from tests.dependencies.support import Pairs, request, scope, values_of, websocket

SECRET = base64.b64encode(b"john:secret").decode()
BEARER: Pairs = [("Authorization", "Bearer secret")]

# factory name, its arguments, query, headers, the scheme's result, its challenge
SCHEMES: list[tuple[str, dict[str, Any], Pairs, Pairs, Any, str]] = [
    ("HTTPBase", {"scheme": "other"}, [], [("Authorization", "Other x y")], ("Other", "x y"), "Other"),
    ("HTTPBearer", {}, [], BEARER, ("Bearer", "secret"), "Bearer"),
    ("HTTPDigest", {}, [], [("Authorization", "digest a=1")], ("digest", "a=1"), "Digest"),
    ("HTTPBasic", {}, [], [("Authorization", f"Basic {SECRET}")], ("john", "secret"), "Basic"),
    ("HTTPBasic", {"realm": "us"}, [], [("Authorization", f"basic {SECRET}")], ("john", "secret"), 'Basic realm="us"'),
    ("APIKeyQuery", {"name": "key"}, [("key", "k")], [], "k", "APIKey"),
    ("APIKeyHeader", {"name": "x-key"}, [], [("X-Key", "k")], "k", "APIKey"),
    ("APIKeyCookie", {"name": "key"}, [], [("Cookie", "a=1; key=k")], "k", "APIKey"),
    ("OAuth2", {}, [], BEARER, "Bearer secret", "Bearer"),
    ("OAuth2PasswordBearer", {"tokenUrl": "token"}, [], BEARER, "secret", "Bearer"),
    (
        "OAuth2AuthorizationCodeBearer",
        {"authorizationUrl": "authorize", "tokenUrl": "token"},
        [],
        BEARER,
        "secret",
        "Bearer",
    ),
    ("OpenIdConnect", {"openIdConnectUrl": "connect"}, [], BEARER, "Bearer secret", "Bearer"),
]


def factory(module: Any, name: str) -> Any:
    return getattr(module, name, None) or getattr(fastapi.security.http, name)


def plain(credentials: Any) -> Any:
    return tuple(credentials.model_dump().values()) if hasattr(credentials, "model_dump") else credentials


@pytest.mark.parametrize("module", [security, fastapi.security], ids=["ours", "FastAPI's"])
@pytest.mark.parametrize("connect", [websocket, lambda q=(), h=(): request(headers=h, query=q)], ids=["ws", "http"])
@pytest.mark.parametrize("case", SCHEMES, ids=lambda case: case[0])
async def test_a_scheme_takes_credentials_out_of_any_connection(
    module: Any, connect: Callable[..., Any], case: tuple[Any, ...]
) -> None:
    name, options, query, headers, expected, challenge = case
    for auto_error in (True, False):
        scheme = factory(module, name)(**options, auto_error=auto_error)

        async def endpoint(found: Annotated[Any, Security(scheme, scopes=["any"])]) -> None: ...

        assert plain((await values_of(endpoint, connect(query, headers)))["found"]) == expected
        if not auto_error:
            assert await values_of(endpoint, connect()) == {"found": None}
            continue
        with pytest.raises(StarletteHTTPException) as caught:
            await values_of(endpoint, connect())
        assert caught.value.status_code == 401
        assert caught.value.detail == "Not authenticated"
        assert caught.value.headers == {"WWW-Authenticate": challenge}


async def denial(app: Any, headers: Pairs) -> list[dict[str, Any]]:
    """The messages over the wire for a handshake with these headers."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    connection = {**scope(Kind.WEBSOCKET, [], headers), "extensions": {"websocket.http.response": {}}}
    await app(connection, receive, send)
    return sent


@pytest.mark.parametrize("module", [security, fastapi.security], ids=["ours", "FastAPI's"])
async def test_missing_credentials_deny_the_handshake_with_401_and_a_challenge(module: Any) -> None:
    app = App()
    bearer = module.HTTPBearer()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, found: Annotated[Any, Depends(bearer)]) -> None:
        await websocket.accept()
        await websocket.send_text(found.credentials)
        await websocket.close()

    start, *_ = await denial(app, [])
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    assert (b"www-authenticate", b"Bearer") in start["headers"]
    accepted = await denial(app, BEARER)
    assert [message["type"] for message in accepted] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert accepted[1]["text"] == "secret"


class CookieOrHeader(security.OAuth2PasswordBearer):
    async def __call__(self, request: Request) -> str | None:  # type: ignore[override]  # as written for FastAPI
        return request.cookies.get("token") or await super().__call__(request)


class TheirCookieOrHeader(fastapi.security.OAuth2PasswordBearer):
    async def __call__(self, request: Request) -> str | None:  # type: ignore[override]
        return request.cookies.get("token") or await super().__call__(request)


@pytest.mark.parametrize("scheme", [CookieOrHeader("token"), TheirCookieOrHeader("token")])
async def test_a_scheme_written_for_requests_serves_websockets(scheme: Any) -> None:
    async def endpoint(found: Annotated[Any, Depends(scheme)]) -> None: ...

    assert await values_of(endpoint, websocket([], [("Cookie", "token=c")])) == {"found": "c"}
    assert await values_of(endpoint, websocket([], BEARER)) == {"found": "secret"}


@pytest.mark.parametrize(
    "value",
    [
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic " + base64.b64encode(b"no colon").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(),
        "Basic " + SECRET[:-1],
        "Basic ====",
        "Bearer " + SECRET,
        SECRET,
    ],
)
async def test_malformed_basic_credentials_are_a_401(value: str) -> None:
    with pytest.raises(HTTPException) as caught:
        await security.HTTPBasic()(websocket([], [("Authorization", value)]))
    assert caught.value.status_code == 401


@given(st.text(st.characters(max_codepoint=255, blacklist_characters="\r\n\0")))
async def test_no_authorization_header_is_ever_worse_than_a_401(value: str) -> None:
    schemes: Sequence[Any] = [
        security.HTTPBasic(),
        security.HTTPBearer(),
        security.HTTPDigest(),
        security.OAuth2PasswordBearer("t"),
        security.OpenIdConnect(openIdConnectUrl="u"),
    ]
    for sent in (value, f"Basic {value}", f"Bearer {value}"):
        for scheme in schemes:
            try:
                await scheme(websocket([], [("Authorization", sent)]))
            except HTTPException as refused:
                status = refused.status_code
            else:
                status = 401
            assert status == 401


@given(st.text(), st.text())
async def test_basic_credentials_come_out_as_they_went_in(username: str, password: str) -> None:
    username = username.replace(":", "").encode("utf-8", "ignore").decode()
    password = password.encode("utf-8", "ignore").decode()
    encoded = base64.b64encode(f"{username}:{password}".encode()).decode()
    found = await security.HTTPBasic()(websocket([], [("Authorization", f"Basic {encoded}")]))
    assert found == security.HTTPBasicCredentials(username=username, password=password)


def test_a_realm_is_quoted() -> None:
    headers = security.HTTPBasic(realm='a "b" \\').make_authenticate_headers()
    assert headers == {"WWW-Authenticate": 'Basic realm="a \\"b\\" \\\\"'}


async def test_schemes_keep_what_subclasses_written_for_fastapi_read() -> None:
    assert security.APIKeyHeader(name="x", description="d").model.name == "x"
    assert security.OAuth2PasswordBearer("t", scopes={"a": "b"}).model.flows["password"]["scopes"] == {"a": "b"}
    assert security.HTTPBearer(scheme_name="s").scheme_name == "s"
    assert security.HTTPBearer().scheme_name == "HTTPBearer"


FORM: Pairs = [("content-type", "application/x-www-form-urlencoded")]


@pytest.mark.parametrize("module", [security, fastapi.security], ids=["ours", "FastAPI's"])
async def test_the_password_form_is_read_from_an_http_body(module: Any) -> None:
    async def login(form: Annotated[Any, Depends(module.OAuth2PasswordRequestForm)]) -> None: ...

    plan = analyze(login, path="/", kind=Kind.HTTP)
    async with solve(plan, request(b"username=u&password=p&scope=a+b&client_id=c", FORM)) as solved:
        form = solved.values["form"]
    assert (form.username, form.password, form.scopes, form.client_id) == ("u", "p", ["a", "b"], "c")
    with pytest.raises(ParameterErrors) as caught:
        async with solve(plan, request(b"username=u&grant_type=other", FORM)):
            pytest.fail("the endpoint must not run")
    found = [(error["type"], error["loc"]) for error in caught.value.errors()]
    assert sorted(found) == [("missing", ("body", "password")), ("string_pattern_mismatch", ("body", "grant_type"))]


async def test_the_strict_password_form_demands_its_grant_type() -> None:
    async def login(form: Annotated[Any, Depends(security.OAuth2PasswordRequestFormStrict)]) -> None: ...

    values = await values_of(login, request(b"grant_type=password&username=u&password=p", FORM))
    assert values["form"].grant_type == "password"
    with pytest.raises(ParameterErrors):
        await values_of(login, request(b"username=u&password=p", FORM))
