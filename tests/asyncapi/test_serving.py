"""A document over HTTP: where it is, and where it keeps out of the way."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse

from antiphon import APIRouter, App, WebSocket
from antiphon.asyncapi import asyncapi_app
from antiphon.testclient import TestClient
from tests.asyncapi.programs import State, chat


def router() -> APIRouter:
    made = APIRouter()

    @made.websocket("/game", sends=State)
    async def game(websocket: WebSocket) -> None: ...

    return made


def app(**options: Any) -> App:
    made = App(**options)
    made.include_router(router())
    return made


def get(served: Any, path: str = "/asyncapi.json", **headers: str) -> Any:
    with TestClient(served) as client:
        return client.get(path, headers=headers, follow_redirects=False)


def test_an_app_serves_its_document_in_the_version_asked_for() -> None:
    served = chat()
    assert get(served).json()["asyncapi"] == "3.0.0"
    assert get(served).headers["content-type"] == "application/json"
    assert get(served, "/asyncapi.json?version=3.1.0").json()["asyncapi"] == "3.1.0"
    wrong = get(served, "/asyncapi.json?version=2.6.0")
    assert wrong.status_code == 400
    assert "3.0.0 and 3.1.0" in wrong.json()["detail"]
    with TestClient(served) as client:
        assert client.post("/asyncapi.json").status_code == 405
        assert client.head("/asyncapi.json").text == ""


def test_who_has_it_already_is_told_so() -> None:
    first = get(app())
    again = get(app(), **{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_it_is_where_the_app_says_or_nowhere() -> None:
    assert get(app(asyncapi_url="/docs/ws.json"), "/docs/ws.json").status_code == 200
    for served in (app(asyncapi_url="/docs/ws.json"), app(asyncapi_url=None), app(openapi_url=None)):
        assert get(served).status_code == 404
    with pytest.raises(ValueError, match="starts with '/'"):
        App(asyncapi_url="asyncapi.json")


def test_an_app_that_tells_of_no_messages_answers_as_before() -> None:
    plain = App()

    @plain.websocket("/ws")
    async def ws(websocket: WebSocket) -> None: ...

    assert get(plain).status_code == 404
    assert [route.path for route in plain.routes] == ["/ws"]  # type: ignore[attr-defined]


def test_a_route_of_ones_own_goes_first_wherever_it_stands() -> None:
    served = app()
    served.add_route("/asyncapi.json", lambda request: PlainTextResponse("mine"))
    assert get(served).text == "mine"
    served = app()
    served.mount("/", Starlette())
    assert get(served).status_code == 404


def test_a_route_that_comes_later_is_in_it() -> None:
    served = app()
    with TestClient(served) as client:
        assert set(client.get("/asyncapi.json").json()["channels"]) == {"game"}

        @served.websocket("/late", receives=State)
        async def late(websocket: WebSocket) -> None: ...

        assert set(client.get("/asyncapi.json").json()["channels"]) == {"game", "late"}


@pytest.mark.parametrize("host", [FastAPI, Starlette, App])
def test_other_apps_serve_it_at_that_very_path(host: Any) -> None:
    served = host()
    served.add_route("/asyncapi.json", asyncapi_app(router(), title="Games", version="7", prefix="/live"))
    answer = get(served)
    assert answer.json()["info"] == {"title": "Games", "version": "7"}
    assert answer.json()["channels"]["game"]["address"] == "/live/game"


def test_it_is_the_same_below_a_mount_and_on_its_own() -> None:
    outer = FastAPI()
    outer.mount("/live", app())
    assert get(outer, "/live/asyncapi.json").json() == get(app()).json()


def test_what_has_no_routes_has_no_document() -> None:
    with pytest.raises(TypeError, match="an app or a router"):
        asyncapi_app(7)


def test_the_console_is_where_the_app_says_and_never_without_a_document() -> None:
    page = get(app(), "/asyncapi")
    assert page.headers["content-type"].startswith("text/html")
    assert 'data-document="/asyncapi.json"' in page.text
    assert get(app(console_url="/try"), "/try/console.js").status_code == 200
    assert get(app(), "/asyncapi/serving.py").status_code == 404
    assert get(app(), "/asyncapi/../serving.py").status_code == 404
    for served in (app(console_url=None), app(asyncapi_url=None), App()):
        assert get(served, "/asyncapi").status_code == 404
        assert get(served, "/asyncapi/console.js").status_code == 404


def test_a_mounted_console_asks_for_its_own_document() -> None:
    outer = FastAPI()
    outer.mount("/live", app())
    page = get(outer, "/live/asyncapi").text
    assert 'data-document="/live/asyncapi.json"' in page
    assert 'data-root="/live"' in page
