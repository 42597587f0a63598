"""Events that nobody asked for: a `Caller` outside of an answer, in the hands of a task, of others, or misplaced."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel

from antiphon import App, Caller, RegistrationError, UndeclaredMessage, WebSocket
from antiphon.testclient import TestClient
from antiphon.testing import Server, virtual_time
from tests.commands import ROOT


class Tick(BaseModel):
    number: int


class Stray(BaseModel):
    number: int


def printed(containing: str) -> dict[str, Any]:
    """The names that docs/messages.md defines up to the block that holds this text."""
    defined: dict[str, Any] = {"__name__": "page"}
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "messages.md").read_text(), re.M | re.S):
        exec(compile(block, "docs/messages.md", "exec", dont_inherit=True), defined)
        if containing in block:
            return defined
    raise AssertionError(f"no block holds {containing!r}")


@virtual_time
async def test_the_clock_of_the_page_ticks_until_its_client_leaves() -> None:
    page = printed("ticking.cancel()")
    async with Server(page["app"]) as server:
        async with server.channel("/clock") as ann:
            assert [(await ann.receive_as(Tick)).number for _ in range(5)] == [0, 1, 2, 3, 4]
        async with server.channel("/clock") as bob:
            assert (await bob.receive_as(Tick)).number == 0


def test_a_route_sends_with_a_caller_that_was_kept_and_its_end_is_no_error() -> None:
    app = App()
    callers: dict[str, Caller[Tick]] = {}

    @app.channel("/desk")
    async def desk(name: str, caller: Caller[Tick]) -> AsyncIterator[None]:
        callers[name] = caller
        yield

    @app.post("/ticks/{name}")
    async def ring(name: str, tick: Tick) -> str:
        with pytest.raises(UndeclaredMessage, match="declares to send"):
            await callers[name].send(Stray(number=1))  # type: ignore[arg-type]
        await callers[name].send(tick)
        await callers[name].websocket.send_model(tick)
        return "sent"

    with TestClient(app) as client:
        with client.channel("/desk?name=ann") as ann:
            assert client.post("/ticks/ann", json={"number": 7}).json() == "sent"
            assert [ann.receive_as(Tick), ann.receive_as(Tick)] == [Tick(number=7)] * 2
        assert client.post("/ticks/ann", json={"number": 8}).json() == "sent"


@pytest.mark.parametrize("kind", ["websocket", "post"])
def test_a_caller_where_there_is_no_channel_is_refused_with_the_way_to_send(kind: str) -> None:
    app = App()

    async def endpoint(websocket: WebSocket, caller: Caller[Tick] | None = None) -> None: ...

    async def route(caller: Caller[Tick]) -> None: ...

    register = app.websocket("/") if kind == "websocket" else app.post("/")
    with pytest.raises(RegistrationError, match=r"a Caller, which only channels have: .*send_model"):
        register(endpoint if kind == "websocket" else route)
