"""antiphon inside FastAPI and Starlette, FastAPI inside antiphon, over real uvicorn."""

import asyncio
import copy
import logging
from typing import Annotated, Any

import fastapi
import fastapi.params
import fastapi.security
import httpx2 as httpx
import pytest
import websockets
from starlette.applications import Starlette
from starlette.routing import Mount, Router
from websockets.asyncio.client import connect

from antiphon import APIRouter, App, Depends, HTTPException, Query, Security, WebSocket, WebSocketException
from antiphon.dependencies import params
from antiphon.routing import APIRoute, APIWebSocketRoute
from tests.matrix.rows import json_of
from tests.serving import serve


def chat() -> APIRouter:
    """A router of ours with its distinctive features: injection, validation, endings."""
    router = APIRouter()

    def greeting(name: str = "you") -> str:
        return f"hello {name}"

    @router.websocket("/greet/{count}")
    async def greet(websocket: WebSocket, count: int, words: Annotated[str, Depends(greeting)]) -> None:
        await websocket.accept()
        for _ in range(count):
            await websocket.send_text(words)

    @router.websocket("/bug")
    async def bug(websocket: WebSocket) -> None:
        await websocket.accept()
        raise ZeroDivisionError

    @router.websocket("/refused")
    async def refused(websocket: WebSocket) -> None:
        raise WebSocketException(4003, "no")

    @router.websocket("/missing")
    async def missing(websocket: WebSocket) -> None:
        await websocket.accept()
        raise HTTPException(404, "no such room")

    return router


def in_fastapi_as_app() -> Any:
    app = App()
    app.include_router(chat())
    outer = fastapi.FastAPI()
    outer.mount("/rt", app)
    return outer


def in_fastapi_as_router() -> Any:
    outer = fastapi.FastAPI()
    outer.mount("/rt", chat())
    return outer


def in_fastapi_as_routes() -> Any:
    outer = fastapi.FastAPI()
    router = APIRouter()
    router.include_router(chat(), prefix="/rt")
    outer.router.routes.extend(router.routes)
    return outer


def in_fastapi_as_included() -> Any:
    outer, between = fastapi.FastAPI(), fastapi.APIRouter()
    between.include_router(chat(), prefix="/rt")  # type: ignore[arg-type]  # it takes the shape, not the class
    outer.include_router(between)
    return outer


def in_starlette_as_routes() -> Any:
    router = APIRouter()
    router.include_router(chat(), prefix="/rt")
    return Starlette(routes=router.routes)


def in_starlette_as_mount() -> Any:
    return Starlette(routes=[Mount("/rt", routes=chat().routes)])


def in_a_bare_router() -> Any:
    return Router(routes=[Mount("/rt", app=chat())])


def alone() -> Any:
    router = APIRouter()
    router.include_router(chat(), prefix="/rt")
    return router


HOSTS = [
    in_fastapi_as_app,
    in_fastapi_as_router,
    in_fastapi_as_routes,
    in_fastapi_as_included,
    in_starlette_as_routes,
    in_starlette_as_mount,
    in_a_bare_router,
    alone,
]
hosts = pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.__name__)


@hosts
async def test_our_routes_serve_in_a_foreign_app(host: Any) -> None:
    async with serve(host()) as server, connect(f"{server.url}/rt/greet/2?name=Ada") as client:
        assert [message async for message in client] == ["hello Ada", "hello Ada"]
        assert client.close_code == 1000


@hosts
async def test_our_endings_hold_in_a_foreign_app(host: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with serve(host()) as server:
        with pytest.raises(websockets.InvalidStatus) as invalid:
            await connect(f"{server.url}/rt/greet/many")
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(f"{server.url}/rt/refused")
        async with connect(f"{server.url}/rt/missing") as client:
            await client.wait_closed()
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert json_of(invalid.value.response.body)["detail"][0]["loc"] == ["path", "count"]
    assert json_of(refused.value.response.body) == {"code": 4003, "reason": "no"}
    assert (client.close_code, client.close_reason) == (1008, "no such room")


@hosts
async def test_a_bug_in_a_foreign_app_is_1011_and_one_traceback(host: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with serve(host()) as server, connect(f"{server.url}/rt/bug") as client:
        await client.wait_closed()
    assert client.close_code == 1011
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_a_foreign_apps_handlers_and_overrides_hold_for_our_routes() -> None:
    class Quota(Exception):
        pass

    def limit() -> int:
        return 1

    async def endpoint(websocket: WebSocket, value: Annotated[int, Depends(limit)]) -> None:
        await websocket.accept()
        await websocket.send_json(value)
        raise Quota

    outer = fastapi.FastAPI()
    outer.router.routes.append(APIWebSocketRoute("/ws", endpoint))
    outer.dependency_overrides[limit] = lambda: 7

    @outer.exception_handler(Quota)
    async def handler(websocket: WebSocket, error: Exception) -> None:
        await websocket.close(4029, "quota")

    async with serve(outer) as server, connect(f"{server.url}/ws") as client:
        assert await client.recv() == "7"
        await client.wait_closed()
    assert (client.close_code, client.close_reason) == (4029, "quota")


async def test_fastapis_include_router_adds_its_prefix_and_dependencies_to_ours() -> None:
    ran: list[str] = []
    router = APIRouter(prefix="/inner", dependencies=[Depends(lambda: ran.append("router"))])
    outer = fastapi.FastAPI(dependencies=[fastapi.Depends(lambda: ran.append("app"))])
    outer.include_router(router, prefix="/outer", dependencies=[fastapi.Depends(lambda: ran.append("include"))])  # type: ignore[arg-type]

    @router.websocket("/ws", name="late")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(" ".join(ran))

    @router.get("/http")
    def over_http() -> str:
        return "http"

    async with serve(outer) as server:
        async with connect(f"{server.url}/outer/inner/ws") as client:
            assert await client.recv() == "app include router"
        assert await _get(f"{server.http_url}/outer/inner/http") == (200, b'"http"')
        assert (await _get(f"{server.http_url}/openapi.json"))[0] == 200
        with pytest.raises(websockets.InvalidStatus):
            await connect(f"{server.url}/inner/ws")
    assert outer.url_path_for("late") == "/outer/inner/ws"


async def test_an_http_route_of_ours_answers_422_in_a_foreign_app() -> None:
    def endpoint(count: int) -> int:
        return count

    app = Starlette(routes=[APIRoute("/x", endpoint)])
    async with serve(app) as server:
        assert await _get(f"{server.http_url}/x?count=3") == (200, b"3")
        status, body = await _get(f"{server.http_url}/x?count=no")
    assert status == 422
    assert json_of(body)["detail"][0]["loc"] == ["query", "count"]


async def test_a_whole_fastapi_app_is_mounted_in_ours() -> None:
    inner = fastapi.FastAPI()

    @inner.get("/items/{number}")
    def items(number: int) -> dict[str, int]:
        return {"number": number}

    @inner.websocket("/ws")
    async def theirs(websocket: fastapi.WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("from FastAPI")
        await websocket.close()

    app = App()
    app.include_router(chat(), prefix="/ours")
    app.mount("/api", inner)
    async with serve(app) as server:
        assert await _get(f"{server.http_url}/api/items/3") == (200, b'{"number":3}')
        assert b"/items/{number}" in (await _get(f"{server.http_url}/api/openapi.json"))[1]
        async with connect(f"{server.url}/api/ws") as client:
            assert await client.recv() == "from FastAPI"
        async with connect(f"{server.url}/ours/greet/1") as client:
            assert await client.recv() == "hello you"


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
@pytest.mark.parametrize("accepts", [False, True])
async def test_a_bug_in_a_mounted_fastapi_app_is_500_or_1011(
    ws: str, accepts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    inner = fastapi.FastAPI()

    @inner.websocket("/bug")
    async def bug(websocket: fastapi.WebSocket) -> None:
        if accepts:
            await websocket.accept()
        raise ZeroDivisionError

    app = App()
    app.mount("/api", inner)
    async with serve(app, ws=ws) as server:
        if accepts:
            async with connect(f"{server.url}/api/bug") as client:
                await client.wait_closed()
            assert client.close_code == 1011
        else:
            with pytest.raises(websockets.InvalidStatus) as refused:
                await connect(f"{server.url}/api/bug")
            assert refused.value.response.status_code == 500
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_dependencies_written_for_fastapi_work_in_our_endpoints() -> None:
    closed: list[str] = []
    bearer = fastapi.security.HTTPBearer()
    key = fastapi.security.APIKeyHeader(name="x-key", auto_error=False)

    async def session(limit: Annotated[int, fastapi.Query(le=5)] = 2) -> Any:
        try:
            yield limit
        finally:
            closed.append("session")

    class Common:
        def __init__(self, q: str | None = None, x_token: str = fastapi.Header(default="none")) -> None:
            self.q = q
            self.token = x_token

    app = App()

    @app.websocket("/ws/{room}")
    async def endpoint(
        websocket: fastapi.WebSocket,
        room: Annotated[str, fastapi.Path(max_length=4)],
        limit: Annotated[int, fastapi.Depends(session)],
        common: Annotated[Common, fastapi.Depends()],
        credentials: Annotated[Any, fastapi.Security(bearer)],
        api_key: str | None = fastapi.Security(key),
        own: Annotated[str, Query()] = "own",
        connection: fastapi.requests.HTTPConnection = None,  # type: ignore[assignment]
    ) -> None:
        await websocket.accept()
        values = [room, limit, common.q, common.token, credentials.credentials, api_key, own, connection is websocket]
        await websocket.send_json(values)

    async with serve(app) as server:
        headers = {"Authorization": "Bearer secret", "x-token": "t", "x-key": "k"}
        async with connect(f"{server.url}/ws/room?limit=3&q=find", additional_headers=headers) as client:
            assert json_of(str(await client.recv()).encode()) == ["room", 3, "find", "t", "secret", "k", "own", True]
            await client.wait_closed()
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(f"{server.url}/ws/room")
        with pytest.raises(websockets.InvalidStatus) as invalid:
            await connect(f"{server.url}/ws/much-too-long?limit=9", additional_headers=headers)
    assert closed == ["session", "session"]
    assert refused.value.response.status_code in (401, 403)
    assert {tuple(error["loc"]) for error in json_of(invalid.value.response.body)["detail"]} == {
        ("path", "room"),
        ("query", "limit"),
    }


async def _get(url: str) -> tuple[int, bytes]:
    import urllib.error
    import urllib.request

    def get() -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(url) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    return await asyncio.to_thread(get)


async def test_our_markers_guard_the_routes_of_fastapi() -> None:
    """With the names of both in one module, nobody may come in because the wrong one was imported."""
    outer = fastapi.FastAPI()

    def deny(scopes: fastapi.security.SecurityScopes, name: str = "nobody") -> str:
        raise fastapi.HTTPException(403, f"{name} {scopes.scopes}")

    class Pages:
        def __init__(self, limit: int = 10) -> None:
            self.limit = limit

    @outer.get("/default")
    async def by_default(user=Depends(deny)) -> str:  # type: ignore[no-untyped-def]
        return str(user)

    @outer.get("/annotated")
    async def by_annotation(user: Annotated[str, Depends(deny, max_concurrency=2)]) -> str:
        return user

    @outer.get("/scoped")
    async def by_scopes(user: Annotated[str, Security(deny, scopes=["orders"])]) -> str:
        return user

    @outer.get("/called")
    async def by_class(pages: Annotated[Pages, Depends()]) -> int:
        return pages.limit

    async with serve(outer) as server, httpx.AsyncClient(base_url=server.http_url) as client:
        for path in ("/default", "/annotated"):
            answer = await client.get(f"{path}?user=admin&name=ada")
            assert (answer.status_code, answer.json()) == (403, {"detail": "ada []"})
        assert (await client.get("/scoped?user=admin")).json() == {"detail": "nobody ['orders']"}
        assert (await client.get("/called?limit=3")).json() == 3


def test_a_marker_of_ours_stays_what_it_is() -> None:
    for marker in (Depends(print, max_concurrency=2), Security(print, scopes=["a"])):
        assert isinstance(marker, params.Depends)
        assert isinstance(marker, params.Security) == isinstance(marker, fastapi.params.Security)
        assert copy.copy(marker) == marker
        assert repr(marker).startswith(type(marker).__name__ + "(")
    assert copy.deepcopy(Depends(print)) == Depends(print)
