"""A router of ours as a guest of FastAPI's own `include_router`."""

from __future__ import annotations

from typing import Annotated

import fastapi
import pytest
from starlette.testclient import TestClient

from antiphon import APIRouter, Depends, WebSocket


def guests() -> APIRouter:
    router = APIRouter()

    @router.get("/word")
    async def word() -> str:
        return "ours"

    @router.websocket("/ws/{name}")
    async def greet(websocket: WebSocket, name: str) -> None:
        await websocket.accept()
        await websocket.send_text(f"hello {name}")

    return router


def test_its_routes_are_found_below_the_prefix_and_nowhere_else() -> None:
    host = fastapi.FastAPI()
    host.include_router(guests(), prefix="/api")  # type: ignore[arg-type]
    client = TestClient(host)
    assert client.get("/api/word").json() == "ours"
    assert client.get("/word").status_code == 404
    with client.websocket_connect("/api/ws/ada") as session:
        assert session.receive_text() == "hello ada"


def test_the_hosts_dependencies_run_before_its_endpoints() -> None:
    ran: list[str] = []

    def guard() -> None:
        ran.append("guard")

    host = fastapi.FastAPI()
    host.include_router(guests(), dependencies=[fastapi.Depends(guard)])  # type: ignore[arg-type]
    assert TestClient(host).get("/word").json() == "ours"
    assert ran == ["guard"]


def test_two_hosts_include_one_router_each_in_its_own_way() -> None:
    router, first, second = guests(), fastapi.FastAPI(), fastapi.FastAPI()
    first.include_router(router, prefix="/first")  # type: ignore[arg-type]
    second.include_router(router, prefix="/second")  # type: ignore[arg-type]
    assert TestClient(first).get("/first/word").json() == "ours"
    assert TestClient(second).get("/second/word").json() == "ours"
    assert TestClient(second).get("/first/word").status_code == 404


def test_a_route_that_is_added_after_the_inclusion_is_served() -> None:
    router, host = guests(), fastapi.FastAPI()
    host.include_router(router)  # type: ignore[arg-type]
    client = TestClient(host)
    assert client.get("/late").status_code == 404

    @router.get("/late")
    async def late() -> str:
        return "late"

    assert client.get("/late").json() == "late"


def who() -> str:
    return "nobody"


@pytest.mark.parametrize("override", ["host", "nobody"])
def test_the_hosts_overrides_hold_in_its_endpoints(override: str) -> None:
    router, host = APIRouter(), fastapi.FastAPI()

    @router.get("/who")
    async def tell(name: Annotated[str, Depends(who)]) -> str:
        return name

    host.include_router(router)  # type: ignore[arg-type]
    if override == "host":
        host.dependency_overrides[who] = lambda: "host"
    assert TestClient(host).get("/who").json() == override
