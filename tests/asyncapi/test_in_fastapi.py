"""The document of a FastAPI app: our routers that it includes, with their prefixes and dependencies."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import fastapi
import fastapi.security
import pytest
from click.testing import CliRunner
from starlette.requests import Request

from antiphon import APIRouter, App, Depends, WebSocket
from antiphon.asyncapi import asyncapi_app
from antiphon.asyncapi.serving import document_of
from antiphon.cli.asyncapi import command
from antiphon.clients import javascript
from antiphon.testclient import TestClient
from tests.asyncapi import documented_in_fastapi
from tests.asyncapi.judges import faults
from tests.asyncapi.programs import Say, State
from tests.commands import ROOT


def rooms() -> APIRouter:
    router = APIRouter()

    @router.channel("/rooms/{room}")
    async def chat(websocket: WebSocket, room: int) -> AsyncIterator[None]:
        """One room."""
        yield

    @chat.on
    async def say(message: Say, room: int) -> int:
        return room

    @router.websocket("/feed", sends=State)
    async def feed(websocket: WebSocket) -> None: ...

    return router


async def tenant(tenant: str) -> str:
    return tenant


def including(app: Any, between: Any) -> Any:
    """Both routers, one behind another router, each behind dependencies of its inclusion."""
    bearer = fastapi.security.HTTPBearer(description="A token.")
    between.include_router(rooms(), prefix="/{building}", dependencies=[Depends(tenant)])
    app.include_router(between, prefix="/v1", dependencies=[Depends(bearer)])
    app.include_router(rooms())
    return app


def in_fastapi() -> fastapi.FastAPI:
    return including(fastapi.FastAPI(title="Houses", version="7"), fastapi.APIRouter())  # type: ignore[no-any-return]


def content(app: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(document_of(app).content()))
    return made


def test_the_document_of_a_fastapi_app_is_that_of_an_app_of_ours_with_the_same_inclusions() -> None:
    document = content(in_fastapi())
    assert document == content(including(App(title="Houses", version="7"), APIRouter()))
    assert {one["address"] for one in document["channels"].values()} == {
        "/v1/{building}/rooms/{room}",
        "/v1/{building}/feed",
        "/rooms/{room}",
        "/feed",
    }
    assert list(faults(document)) == []


def test_prefix_and_dependencies_of_an_inclusion_are_those_of_its_channels_alone() -> None:
    document = content(in_fastapi())
    inner = document["channels"]["chat_v1_building_rooms_room"]
    assert set(inner["parameters"]) == {"building", "room"}
    assert inner["bindings"]["ws"]["query"]["required"] == ["tenant"]
    say = document["operations"]["chat_v1_building_rooms_room.say"]
    assert say["security"] == [{"$ref": "#/components/securitySchemes/HTTPBearer"}]
    assert "bindings" not in document["channels"]["chat_rooms_room"]
    assert "security" not in document["operations"]["chat_rooms_room.say"]


def test_a_fastapi_app_serves_it_beside_its_own_and_has_what_comes_later() -> None:
    app, late = in_fastapi(), APIRouter()
    app.add_route("/asyncapi.json", asyncapi_app(app))

    @app.websocket("/theirs")
    async def theirs(websocket: fastapi.WebSocket) -> None: ...

    with TestClient(app) as client:
        first = client.get("/asyncapi.json")
        assert first.json()["info"] == {"title": "Houses", "version": "7"}
        assert len(first.json()["channels"]) == 4
        assert client.get("/asyncapi.json", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
        app.include_router(late, prefix="/late")  # type: ignore[arg-type]  # it takes the shape, not the class
        late.add_channel("/chat").on("ping")(lambda: None)
        found = {one["address"] for one in client.get("/asyncapi.json").json()["channels"].values()}
        assert "/late/chat" in found
        assert "/theirs" not in found


@pytest.mark.parametrize("how", ["mounted", "included and mounted"])
def test_what_is_mounted_in_it_is_described_too(how: str) -> None:
    ours, outer = App(), fastapi.FastAPI()
    ours.include_router(rooms())
    if how == "mounted":
        outer.mount("/sub", ours)
    else:
        between = fastapi.APIRouter()
        between.mount("/sub", ours)
        outer.include_router(between, prefix="/v1")
    prefix = "/sub" if how == "mounted" else "/v1/sub"
    assert {one["address"] for one in content(outer)["channels"].values()} == {
        f"{prefix}/rooms/{{room}}",
        f"{prefix}/feed",
    }


PROGRAM = """
from antiphon import APIRouter
from fastapi import FastAPI

app, live = FastAPI(), APIRouter()
live.add_channel("/chat")
app.include_router(live, prefix="/live")
"""


def test_the_command_line_takes_a_fastapi_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "program_in_fastapi.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(tmp_path)
    done = CliRunner().invoke(command, ["program_in_fastapi:app", "--app-dir", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["channels"]["chat"]["address"] == "/live/chat"


def statements(source: str) -> list[str]:
    return [ast.unparse(one) for one in ast.parse(source).body if not isinstance(one, ast.Import | ast.ImportFrom)]


def test_the_program_of_the_page_is_the_one_that_mypy_checks() -> None:
    page = (ROOT / "docs" / "asyncapi.md").read_text()
    [shown] = [one for one in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) if "asyncapi_app" in one]
    checked = Path(documented_in_fastapi.__file__).read_text()
    assert set(statements(shown)) <= set(statements(checked))


@pytest.mark.parametrize("path", ["/asyncapi.json", "/antiphon.js", "/healthz", "/metrics"])
def test_what_type_checkers_take_for_an_endpoint_is_served_as_an_app(path: str) -> None:
    with TestClient(documented_in_fastapi.app) as client:
        assert client.get(path).status_code == 200
        assert client.post(path).status_code == 405


async def test_and_called_as_an_endpoint_it_returns_a_response() -> None:
    request = Request({"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""})
    response = await javascript(request)
    assert response.media_type == "text/javascript"
