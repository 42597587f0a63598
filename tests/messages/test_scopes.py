"""Dependencies of messages and of connections: the number of runs, their inputs, and their ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any, Protocol

import pytest
from pydantic import BaseModel
from starlette.requests import HTTPConnection
from typing_extensions import TypedDict

from antiphon import App, Caller, Denials, Depends, Header, HTTPException, Hub, MessageRouter, WebSocket
from antiphon.dependencies.solve import TEARDOWN_SECONDS
from antiphon.testing import HandshakeRefused, RemoteError, Server, virtual_time
from tests.patience import PATIENCE


class Say(BaseModel):
    text: str = ""


class Said(BaseModel):
    text: str


class Shoot(TypedDict):
    at: int


class Named(Protocol):
    """A protocol that is not checkable at run time."""

    name: str


class Player(Named):
    def __init__(self, name: str) -> None:
        self.name = name


class Log:
    """Events, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fails = False

    async def message(self) -> AsyncIterator[str]:
        self.lines.append("begin")
        try:
            yield "m"
        except BaseException as error:
            self.lines.append(f"rollback {type(error).__name__}")
            raise
        self.lines.append("commit")
        if self.fails:
            raise RuntimeError("commit failed")

    def sync(self) -> Iterator[str]:
        self.lines.append("sync begin")
        yield "s"
        self.lines.append("sync end")

    async def connection(self) -> AsyncIterator[str]:
        self.lines.append("connect")
        yield "c"
        self.lines.append("disconnect")


async def test_a_dependency_ends_before_the_answer_goes_out_and_its_error_is_the_answer() -> None:
    log, app = Log(), App()
    chat = app.add_channel("/")

    @chat.on
    async def say(message: Say, session: str = Depends(log.message), sync: str = Depends(log.sync)) -> str:
        log.lines.append("handle")
        if message.text == "bad":
            raise HTTPException(409)
        return session + sync

    async with Server(app) as server, server.channel("/") as peer:
        assert await peer.request(Say(), str) == "ms"
        assert log.lines == ["begin", "sync begin", "handle", "sync end", "commit"]
        log.lines.clear()
        with pytest.raises(RemoteError, match="conflict"):
            await peer.request(Say(text="bad"), str)
        assert log.lines[-1] == "rollback HTTPException"
        log.fails = True
        with pytest.raises(RemoteError, match="internal"):
            await peer.request(Say(), str)


async def test_a_streams_dependency_ends_behind_the_last_item_and_before_the_end() -> None:
    log, app = Log(), App()
    chat = app.add_channel("/")

    @chat.on("numbers")
    async def numbers(session: str = Depends(log.message)) -> AsyncIterator[int]:
        yield 1
        log.lines.append("last item")

    log.fails = True
    async with Server(app) as server, server.connect("/") as peer:
        await peer.send_json({"type": "numbers", "ref": 1})
        assert (await peer.receive_json())["type"] == "item"
        assert (await peer.receive_json())["code"] == "internal"
    assert log.lines == ["begin", "last item", "commit"]


@pytest.mark.filterwarnings("ignore::antiphon.RegistrationWarning")
async def test_what_the_connection_has_run_is_shared_and_the_rest_runs_for_each_message() -> None:
    log, app = Log(), App()
    counts = {"user": 0, "each": 0, "once": 0}

    async def user() -> int:
        counts["user"] += 1
        return counts["user"]

    async def each(user: int = Depends(user)) -> int:
        counts["each"] += 1
        return counts["each"]

    async def once() -> int:
        counts["once"] += 1
        return counts["once"]

    @app.channel("/", dependencies=[Depends(log.connection)])
    async def chat(user: int = Depends(user)) -> AsyncIterator[None]:
        yield

    @chat.on
    async def say(
        message: Say,
        user: int = Depends(user),
        fresh: int = Depends(user, use_cache=False),
        each: int = Depends(each),
        once: int = Depends(once, scope="connection"),
        shared: str = Depends(log.connection),
    ) -> list[int | str]:
        return [user, fresh, each, once, shared]

    async with Server(app) as server, server.channel("/") as peer:
        assert await peer.request(Say(), list[int | str]) == [1, 2, 1, 1, "c"]
        assert await peer.request(Say(), list[int | str]) == [1, 3, 2, 1, "c"]
        assert log.lines == ["connect"]
    assert log.lines == ["connect", "disconnect"]
    assert counts["once"] == 1


async def test_a_thousand_idle_connections_hold_nothing_of_a_pool() -> None:
    app = App()
    held, most = 0, 0

    async def pool() -> AsyncIterator[int]:
        nonlocal held, most
        held += 1
        most = max(most, held)
        yield held
        held -= 1

    chat = app.add_channel("/")

    @chat.on
    async def say(message: Say, pooled: int = Depends(pool)) -> int:
        return pooled

    async with Server(app) as server, AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(server.channel("/", timeout=PATIENCE)) for _ in range(1000)]
        for peer in peers:
            assert await peer.request(Say(), int) == 1
        assert (held, most) == (0, 1)


async def test_what_handlers_read_from_the_handshake_refuses_it_once() -> None:
    app = App()

    async def limited(limit: int) -> int:
        return limit

    @app.channel("/rooms/{room}", denials=Denials.HTTP)
    async def chat(room: int) -> AsyncIterator[Player]:
        yield Player(f"in {room}")

    @chat.on
    async def say(
        message: Say, room: int, name: str, player: Player, hub: Hub, connection: HTTPConnection,
        limit: int = Depends(limited), agent: str = Header(), other: str = "x",
    ) -> list[Any]:  # fmt: skip
        assert isinstance(hub, Hub)
        assert isinstance(connection, WebSocket)
        return [room, name, player.name, limit, agent, other]

    @chat.on("again")
    async def again(name: str, limit: int) -> str:
        return name

    async with Server(app) as server:
        with pytest.raises(HandshakeRefused) as refused:
            async with server.connect("/rooms/x?limit=y", headers={"agent": "a"}):
                pass
        failures = [tuple(error["loc"]) for error in refused.value.json()["detail"]]
        assert sorted(failures) == [("path", "room"), ("query", "limit"), ("query", "name")]
        async with server.channel("/rooms/7?name=ann&limit=3", headers={"agent": "a"}) as peer:
            assert await peer.request(Say(), list[Any]) == [7, "ann", "in 7", 3, "a", "x"]
            assert await peer.request(None, str, tag="again") == "ann"


async def test_the_connections_object_is_told_from_a_message_that_is_no_class_to_compare_with() -> None:
    app = App()

    @app.channel("/shots")
    async def shots() -> AsyncIterator[Player]:
        yield Player("ann")

    @shots.on
    async def shoot(message: Shoot, player: Named) -> str:
        return f"{player.name} {message['at']}"

    async with Server(app) as server, server.channel("/shots") as peer:
        assert await peer.request({"at": 7}, str, tag="shoot") == "ann 7"


async def test_overrides_hold_for_both_layers() -> None:
    app = App()

    async def user() -> str:
        return "user"

    async def session() -> str:
        return "session"

    @app.channel("/")
    async def chat(caller: Caller[Said], user: str = Depends(user)) -> AsyncIterator[None]:
        await caller.websocket.accept()
        await caller.send(Said(text=user))
        yield

    @chat.on
    async def say(message: Say, session: str = Depends(session)) -> str:
        return session

    async with Server(app) as server:
        for users, sessions in (("user", "session"), ("ann", "fake"), ("user", "session")):
            if users == "ann":
                app.dependency_overrides = {user: lambda: "ann", session: lambda: "fake"}
            else:
                app.dependency_overrides = {}
            async with server.channel("/") as peer:
                assert await peer.receive_as(Said) == Said(text=users)
                assert await peer.request(Say(), str) == sessions


async def test_groups_bring_their_dependencies_and_their_prefix() -> None:
    app = App()
    chat, editing, deeper = app.add_channel("/"), MessageRouter("doc."), MessageRouter("a.")
    ran: list[str] = []

    async def check(allowed: bool = True) -> None:
        ran.append("check")
        if not allowed:
            raise HTTPException(403)

    chat.include(editing, dependencies=[Depends(check)])
    editing.include(deeper)

    @deeper.on
    async def say(message: Say) -> str:
        return message.text

    async with Server(app) as server, server.channel("/?allowed=1") as peer:
        assert await peer.request(Say(text="x"), str, tag="doc.a.say") == "x"
        with pytest.raises(RemoteError, match="unknown_type"):
            await peer.request(Say(text="x"), str)
        assert ran == ["check"]

        @editing.on("later")
        async def later() -> int:
            return 1

        with pytest.raises(RemoteError, match="unknown_type"):
            await peer.request(None, int, tag="doc.later")
    async with Server(app) as server, server.channel("/?allowed=0") as peer:
        with pytest.raises(RemoteError, match="forbidden"):
            await peer.request(None, int, tag="doc.later")


async def test_a_connection_function_accepts_refuses_fails_and_says_good_bye() -> None:
    app = App()
    told: list[str] = []

    @app.channel("/{how}")
    async def chat(websocket: WebSocket, how: str) -> AsyncIterator[None]:
        match how:
            case "refuse":
                raise HTTPException(401)
            case "return":
                await websocket.close(1008)
                return
            case "accept":
                await websocket.accept()
                await websocket.send_text("hello")
            case "close":
                await websocket.accept()
                await websocket.close(4000)
        try:
            yield
        except Exception as error:
            told.append(type(error).__name__)
            raise
        finally:
            told.append(f"bye {how}")

    @chat.on("fail")
    async def fail() -> None:
        from antiphon import WebSocketException

        raise WebSocketException(4001)

    async with Server(app) as server:
        for how, code in (("refuse", 3000), ("return", 1008)):
            async with server.connect(f"/{how}") as peer:
                assert await peer.wait_closed() == code
        async with server.connect("/accept") as peer:
            assert await peer.receive() == "hello"
        async with server.connect("/close") as peer:
            assert await peer.wait_closed() == 4000
        async with server.connect("/plain") as peer:
            await peer.send_json({"type": "fail"})
            assert await peer.wait_closed() == 4001
    assert told == ["bye accept", "bye close", "WebSocketException", "bye plain"]


async def test_a_connection_function_without_yield_runs_at_the_start() -> None:
    app = App()
    started: list[str] = []

    @app.channel("/async")
    async def one(websocket: WebSocket) -> None:
        await websocket.accept()
        started.append("async")

    @app.channel("/sync")
    def two(name: str = "sync") -> None:
        started.append(name)

    async def ping() -> int:
        return 1

    for channel in (one, two):
        channel.on("ping")(ping)
    async with Server(app) as server:
        for path in ("/async", "/sync"):
            async with server.channel(path) as peer:
                assert await peer.request(None, int, tag="ping") == 1
    assert started == ["async", "sync"]


@pytest.mark.parametrize("taken", [False, True])
async def test_after_an_error_dependencies_end_last_first_and_one_may_take_it(taken: bool) -> None:
    app = App()
    chat = app.add_channel("/")
    seen: list[str] = []

    async def outer() -> AsyncIterator[None]:
        try:
            yield
        except HTTPException:
            seen.append("outer failed")
            raise
        seen.append("outer")

    async def inner(outer: None = Depends(outer)) -> AsyncIterator[None]:
        try:
            yield
        except HTTPException:
            seen.append("inner failed")
            if not taken:
                raise

    @chat.on("find")
    async def find(inner: None = Depends(inner)) -> None:
        raise HTTPException(404)

    async with Server(app) as server, server.connect("/") as peer:
        await peer.send_json({"type": "find", "ref": 1})
        answer = await peer.receive_json()
        assert (answer["type"], answer.get("code")) == (("reply", None) if taken else ("error", "not_found"))
    assert seen == (["inner failed", "outer"] if taken else ["inner failed", "outer failed"])


@virtual_time
async def test_the_teardown_of_a_cancelled_request_has_so_many_seconds(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    chat = app.add_channel("/")
    loop = asyncio.get_running_loop()

    async def session() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.Event().wait()

    @chat.on("listen")
    async def listen(session: None = Depends(session)) -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async with Server(app) as server, server.connect("/") as peer:
        await peer.send_json({"type": "listen", "ref": 1})
        await peer.receive_json()
        began = loop.time()
        await peer.send_json({"type": "cancel", "ref": 1})
        assert await peer.receive_json(timeout=100) == {"type": "end", "ref": 1}
        assert TEARDOWN_SECONDS <= loop.time() - began < TEARDOWN_SECONDS + 1
    assert "the teardown of a cancelled call was cut off" in caplog.text


async def test_a_dependency_that_yields_twice_is_an_internal_error_also_where_all_went_well() -> None:
    app = App()
    chat = app.add_channel("/")

    async def twice() -> AsyncIterator[None]:
        yield
        yield

    @chat.on("save")
    async def save(twice: None = Depends(twice)) -> int:
        return 7

    async with Server(app) as server, server.connect("/") as peer:
        await peer.send_json({"type": "save", "ref": 1})
        assert (await peer.receive_json())["code"] == "internal"


@pytest.mark.parametrize(("use_cache", "runs"), [(True, 1), (False, 2)])
async def test_two_dependencies_of_one_message_share_a_third(use_cache: bool, runs: int) -> None:
    app = App()
    chat = app.add_channel("/")
    ran: list[None] = []

    async def third() -> None:
        ran.append(None)

    async def first(third: None = Depends(third, use_cache=use_cache)) -> None: ...

    async def second(third: None = Depends(third, use_cache=use_cache)) -> None: ...

    @chat.on("save")
    async def save(first: None = Depends(first), second: None = Depends(second)) -> None: ...

    async with Server(app) as server, server.connect("/") as peer:
        for ref in (1, 2):
            await peer.send_json({"type": "save", "ref": ref})
            await peer.receive_json()
            assert len(ran) == ref * runs


async def test_a_dependency_of_messages_runs_so_many_times_at_once_over_all_connections() -> None:
    app = App()
    chat = app.add_channel("/")
    at_work, most = 0, 0

    async def session() -> AsyncIterator[None]:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        yield
        for _ in range(5):
            await asyncio.sleep(0)
        at_work -= 1

    @chat.on("save", concurrent=4)
    async def save(session: None = Depends(session, max_concurrency=2)) -> None: ...

    async with Server(app) as server, server.connect("/") as one, server.connect("/") as other:
        for ref in range(4):
            for peer in (one, other):
                await peer.send_json({"type": "save", "ref": ref})
        for peer in (one, other):
            for _ in range(4):
                assert (await peer.receive_json())["type"] == "reply"
    assert (at_work, most) == (0, 2)
