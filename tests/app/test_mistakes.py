"""Mistakes of a tired developer, and the words that are enough to mend each of them.

The developer reads every exception, warning and log line on the way, and misses those that do not come.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.websockets import WebSocket as StarletteWebSocket

from antiphon import APIRouter, App, Depends, Hub, Position, Request, WebSocket, WebSocketException
from antiphon.endpoints import WebSocketEndpoint
from antiphon.gate import Identity
from antiphon.hub import TopicOptions
from antiphon.testclient import TestClient

Mistake = Callable[..., Any]

IN_AN_ENDPOINT: dict[str, str] = {
    "websocket.accept()": "coroutine 'WebSocket.accept' was never awaited",
    "await websocket.receive_text()": r"receive_text\(\) before the connection is accepted: call accept\(\) first",
    "await websocket.send_text('x')": "before the connection is accepted: call accept",
    "pass": r"returned without accepting the connection: answered with 403\. Call `await websocket\.accept\(\)`",
    "await a(); websocket.send_text('x')": "coroutine 'WebSocket.send_text' was never awaited",
    "await a(); hub.publish('t', 'x')": "coroutine 'Hub.publish' was never awaited",
    "await a(); await a()": r"accept\(\) was called on a connection that is accepted already",
    "await a(); await websocket.close(); await websocket.close()": r"close\(\) on a connection that has ended",
    "await a(); await websocket.send_text({})": r"a text message is a str, not dict: use .* send_json\(\)",
    "await a(); await websocket.send('hi')": r"send\(\) takes an ASGI message, a dict with its type, not 'hi'",
    "await a(); await websocket.send_json(object())": "Object of type object is not JSON serializable",
    "await a(); await websocket.close(999)": "close code 999 may not be sent: use 1000-1003, 1007-1014 or 3000-4999",
    "await a(); await websocket.close('bye')": "expected a close code, an int, got str",
    "await a(); raise WebSocketException(403)": "asked for close code 403, which may not be sent",
    "await a(); return {'a': 1}": r"returned a dict, which no client gets: await websocket\.send_json",
    "await a(); return 'hello'": r"returned a str, which no client gets: await websocket\.send_text",
    "await a(); hub.join('t', Theirs(websocket.scope, websocket.receive, websocket.send))": (
        r"got starlette\.websockets\.WebSocket: accept and join `antiphon\.WebSocket\(websocket\.scope, "
    ),
    "await a(); hub.join('t', websocket, since=Position('5', 7))": (
        "endpoint.*since: expected a whole number as offset, got str"
    ),
    "await a(); await hub.publish('t', object())": "object has no JSON form",
    "await a(); await hub.publish({}, 't')": "not a topic name: {}: expected a str, got dict",
    "await a(); await hub.publish('', 'x')": "not a topic name: '': expected at least one character",
    "await a(); hub.join('t', websocket)": r"membership of topic 't' was never entered.*`async with`",
    "await a(); await hub.join('t', websocket)": r"not awaited: async with hub\.join\('t', websocket\)",
    "await hub.join('t', websocket).__aenter__()": r"an accepted WebSocket to join topic 't': call accept\(\) first",
    "await a(); hub.join(websocket, 't')": "expected a str, got WebSocket",
    "await a(); hub.join('t', object())": "expected an antiphon WebSocket",
    "await a(); hub.join('t', websocket, since='5-e')": r"expected a Position \(Position\.parse reads a str\)",
    "await a(); hub.join('t', websocket, history=9)": r"history= for topic 't'.*TopicOptions\(history=100\)",
    "await a(); m = [hub.join('t', websocket) for _ in 'ab']; [await one.__aenter__() for one in m]": (
        "in topic 't' already, and would get each message twice"
    ),
}

AT_REGISTRATION: dict[str, tuple[Mistake, str]] = {
    "no slash": (lambda: App().websocket("ws")(serves), "A path must start with '/'"),
    "no path": (lambda: App().websocket(serves), r"a route needs a path, as in @app\.websocket\('/path'\)"),  # type: ignore[arg-type]
    "a def": (lambda: App().websocket("/ws")(lambda_like), "must be an `async def`"),
    "get": (
        lambda: App().get("/ws")(serves),
        "is a WebSocket, which an HTTP route does not have: @app.websocket registers",
    ),
    "request": (
        lambda: App().websocket("/ws")(asks_request),
        "a Request, which a WebSocket route does not have: annotate it",
    ),
    "called": (
        lambda: App().websocket("/", dependencies=[Depends(5)])(serves),  # type: ignore[arg-type]
        r"dependencies take Depends\(callable\)",
    ),
    "converter": (
        lambda: App().websocket("/{n:integer}")(serves),
        r"Unknown path convertor 'integer' \(converters: str",
    ),
    "twice": (lambda: twice(), "serves is never reached: '/ws' is served by"),
    "include": (lambda: App().include_router(App()), "takes an APIRouter.*mount"),  # type: ignore[arg-type]
    "prefix": (lambda: APIRouter(prefix="chat"), "A path prefix must start with '/'"),
    "option": (lambda: TopicOptions(histroy=1), "unexpected keyword argument 'histroy'"),  # type: ignore[call-arg]
    "overflow": (lambda: TopicOptions(overflow="drop"), r"expected one of Overflow\.DISCONNECT, .*; got 'drop'"),  # type: ignore[arg-type]
    "scheme": (lambda: Hub("http://redis"), "expected a hub URL with one of memory://, relay://, redis://"),
    "url": (lambda: Hub("redis://["), r"expected redis://.*host.*Invalid IPv6 URL"),
    "options": (lambda: Hub(topics={"t": {}}), r"topics\['t'\]: expected TopicOptions\("),  # type: ignore[arg-type]
    "framing": (lambda: TopicOptions(framing="event"), r"expected one of Framing\.RAW, Framing\.EVENT; got 'event'"),  # type: ignore[arg-type]
    "outage": (lambda: Hub(on_outage="wait"), r"expected one of OnOutage\.RAISE, OnOutage\.WAIT; got 'wait'"),  # type: ignore[arg-type]
    "wrapper": (
        lambda: App().websocket("/ws")(hidden),
        r"no parameter is annotated .*`@functools\.wraps` on the wrapper",
    ),
    "str": (
        lambda: App().websocket("/ws")(takes_str),
        "'websocket' is read from the query: annotate it with WebSocket",
    ),
    "endpoint class": (lambda: App().websocket("/ws")(Echo), r"Echo is a class: websocket_route\(path\)"),
    "lifespan": (
        lambda: App(lifespan=contextlib.asynccontextmanager(no_app)),
        r"no_app does not take: lifespan\(app\)",
    ),
    "their endpoint": (lambda: FastAPI().websocket("/")(asks_hub), r"take it from `websocket\.app\.state\.hub`"),
    "class": (lambda: App(hub=Hub), r"takes a Hub, as in Hub\('redis://localhost'\)"),  # type: ignore[arg-type]
    "app option": (lambda: App(origin=[]), r"keyword argument 'origin': did you mean origins=\?"),  # type: ignore[call-arg]
    "route option": (
        lambda: App().websocket("/ws", rate=[])(serves),  # type: ignore[call-arg]
        r"keyword argument 'rate': did you mean rates=\?",
    ),
    "a decorator that is none": (
        lambda: App().websocket("/ws")(Identity(user="ada")),  # type: ignore[type-var]
        "a WebSocket endpoint is a function, not a Identity: a decorator may have made it",
    ),
    "hub's class": (
        lambda: App().websocket("/ws")(hub_as_default),
        "'hub' has the class Hub as its default: annotate it, `hub: Hub`",
    ),
    "websocket's class": (
        lambda: App().websocket("/ws")(websocket_as_default),
        "'websocket' has the class WebSocket as its default: annotate it, `websocket: WebSocket`",
    ),
    "wrapped middleware": (
        lambda: App().add_middleware(GZipMiddleware(App())),  # type: ignore[arg-type]
        "add_middleware takes a class, called with the app, got <starlette.*GZipMiddleware object",
    ),
    "middleware": (lambda: App(middleware=[BaseHTTPMiddleware]), r"takes Middleware\(factory, \.\.\.\)"),  # type: ignore[list-item]
}


async def serves(websocket: WebSocket) -> None: ...


def lambda_like(websocket: WebSocket) -> None: ...


async def asks_request(request: Request) -> None: ...


async def hub_as_default(websocket: WebSocket, hub=Hub) -> None: ...  # type: ignore[no-untyped-def]


async def websocket_as_default(websocket=WebSocket) -> None: ...  # type: ignore[no-untyped-def]


async def asks_hub(hub: Hub) -> None: ...


async def takes_str(websocket: str) -> None: ...


async def hidden(*args: Any, **kwargs: Any) -> None:
    """The wrapper of a decorator without `functools.wraps`."""


class Echo(WebSocketEndpoint):
    encoding = "text"


async def no_app() -> AsyncIterator[None]:
    yield


def twice() -> None:
    app = App()
    app.websocket("/ws")(serves)
    app.websocket("/ws")(serves)


def read(mistake: Mistake, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything that the developer gets to read."""
    said: list[str] = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: said.append(str(unraisable.exc_value)))
    caplog.set_level(logging.INFO)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            mistake()
        except Exception as error:
            said.append(str(error))
        gc.collect()
    return "\n".join([*said, *(str(one.message) for one in caught), caplog.text])


@pytest.mark.parametrize("body", IN_AN_ENDPOINT)
def test_what_is_wrong_in_an_endpoint_is_said_in_words_that_mend_it(
    body: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, Any] = {one.__name__: one for one in (WebSocketException, WebSocket, Hub, Position)}
    names["Theirs"] = StarletteWebSocket
    source = f"async def endpoint(websocket: WebSocket, hub: Hub):\n a = websocket.accept\n {body}\n"
    exec(compile(source, "<endpoint>", "exec"), names)
    app = App()
    app.websocket("/ws")(names["endpoint"])

    def talk() -> None:
        with TestClient(app).websocket_connect("/ws") as session:
            session.receive()

    assert matches(IN_AN_ENDPOINT[body], read(talk, caplog, monkeypatch))


@pytest.mark.parametrize("name", AT_REGISTRATION)
def test_what_is_wrong_at_registration_is_said_in_words_that_mend_it(
    name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake, words = AT_REGISTRATION[name]
    assert matches(words, read(mistake, caplog, monkeypatch))


def test_a_model_may_hold_a_hub_where_it_takes_objects_of_any_type() -> None:
    class Tools(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        hub: Hub

    assert isinstance(Tools(hub=Hub()).hub, Hub)


def matches(words: str, text: str) -> bool:
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(text)
    return True
