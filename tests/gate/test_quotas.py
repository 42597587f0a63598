"""So many connections and no more, over all processes, and the fate of one too many."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import textwrap
from pathlib import Path
from typing import Annotated, Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from antiphon import App, Depends, HTTPException, Hub, WebSocket
from antiphon.gate import QUERY, Identity, Over, Quota, WebSocketBearer, WhileAway
from antiphon.hub.shares import Share
from antiphon.testing.hub_sinks import Connection, eventually
from tests.commands import run
from tests.hub.test_contract_in_process import Drawer
from tests.matrix.servers import SERVERS, ServerUnderTest
from tests.patience import PATIENCE
from tests.redis_server import redis_server
from tests.serving import serve

bearer = WebSocketBearer([QUERY("user")], lambda user: Identity(user=user), auto_error=False)
Known = Annotated[Identity | None, Depends(bearer)]


def application(hub: Hub, *quotas: Quota) -> App:
    app = App(hub=hub, dependencies=[Depends(quota) for quota in quotas])

    @app.websocket("/in")
    async def enter(websocket: WebSocket, identity: Known) -> None:
        await websocket.accept()
        await websocket.send_text("in")
        await websocket.wait_closed()

    @app.websocket("/refused")
    async def refuse(identity: Known) -> None:
        raise HTTPException(418)

    @app.get("/")
    async def page() -> str:
        return "a request is no connection"

    return app


async def status(url: str) -> tuple[int, str | None]:
    """Of a handshake that is refused, and its Retry-After."""
    try:
        async with connect(url, open_timeout=PATIENCE):
            return 101, None
    except InvalidStatus as error:
        return error.response.status_code, error.response.headers.get("Retry-After")


async def until_let_in(url: str) -> ClientConnection:
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(InvalidStatus):
                client = await connect(url, open_timeout=PATIENCE)
                assert await client.recv() == "in"
                return client
            await asyncio.sleep(0.05)


async def closed(client: ClientConnection) -> tuple[int, str]:
    await asyncio.wait_for(client.wait_closed(), PATIENCE)
    return client.close_code or 0, client.close_reason or ""


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_one_too_many_is_refused_until_one_has_gone(
    server: ServerUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "antiphon")
    hub = Hub()
    async with server.run(application(hub, Quota(connections_per_user=2))) as served:
        ann = f"{served.url}/in?user=ann"
        async with connect(ann), connect(f"{served.url}/in?user=bob"), connect(f"{served.url}/in"):
            async with connect(ann):
                assert await status(ann) == (429, "1")
            async with await until_let_in(ann):
                assert (await status(ann))[0] == 429
        await (await until_let_in(ann)).close()
    assert "Quota(connections_per_user=2)" in caplog.text
    await eventually(lambda: not len(hub.door._shares))


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_the_oldest_makes_room_where_that_was_chosen(server: ServerUnderTest) -> None:
    hub = Hub()
    async with server.run(application(hub, Quota(connections_per_user=2, over=Over.REPLACE))) as served:
        url = f"{served.url}/in?user=ann"
        async with connect(url) as first, connect(url) as second, connect(url) as third:
            assert await closed(first) == (1008, "replaced")
            assert await third.recv() == "in"
            async with connect(url):
                assert await closed(second) == (1008, "replaced")


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_a_refused_handshake_holds_no_share(server: ServerUnderTest) -> None:
    hub = Hub()
    async with server.run(application(hub, Quota(connections_per_address=1))) as served:
        for _ in range(3):
            assert await until_not(429, f"{served.url}/refused") == 418
        await eventually(lambda: not len(hub.door._shares))
        async with await until_let_in(f"{served.url}/in"):
            assert (await status(f"{served.url}/in?user=ann"))[0] == 429


async def until_not(refused: int, url: str) -> int:
    async with asyncio.timeout(PATIENCE):
        while True:
            found, _ = await status(url)
            if found != refused:
                return found
            await asyncio.sleep(0.02)


async def test_an_address_of_version_6_counts_with_its_network() -> None:
    hub = Hub()
    app = application(hub, Quota(connections_per_address=1))

    async def from_address(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            scope["client"] = scope["query_string"].decode(), 1
        await app(scope, receive, send)

    async with serve(from_address) as served:
        async with connect(f"{served.url}/in?2001:db8:1:2::1"):
            assert (await status(f"{served.url}/in?2001:db8:1:2:ffff::9"))[0] == 429
            assert (await status(f"{served.url}/in?2001:db8:1:3::1"))[0] == 101
            assert (await status(f"{served.url}/in?192.0.2.1"))[0] == 101
            async with connect(f"{served.url}/in?192.0.2.7"):
                assert (await status(f"{served.url}/in?::ffff:192.0.2.7"))[0] == 429


async def test_two_quotas_of_one_limit_count_a_connection_once_and_names_keep_them_apart() -> None:
    hub = Hub()
    quotas = Quota(connections_per_user=1), Quota(connections_per_user=1), Quota(connections_per_user=1, name="more")
    async with serve(application(hub, *quotas)) as served:
        async with connect(f"{served.url}/in?user=ann") as client:
            assert await client.recv() == "in"
            assert len(hub.door._shares) == 2


async def test_while_the_backend_is_away_each_process_counts_alone_or_lets_nobody_in() -> None:
    with redis_server() as redis:
        async with Hub(redis.url) as hub:
            app = application(hub, Quota(connections_per_user=2))
            strict = application(hub, Quota(connections_per_user=3, while_away=WhileAway.CLOSED))
            async with serve(app) as served, serve(strict) as closed_while_away:
                url = f"{served.url}/in?user=ann"
                async with connect(url) as first:
                    await first.recv()
                    redis.kill()
                    await eventually(lambda: not hub.connected)
                    async with connect(url) as second:
                        await second.recv()
                        assert (await status(url))[0] == 429
                        assert await status(f"{closed_while_away.url}/in?user=ann") == (503, "1")
                        redis.start()
                        await eventually(lambda: hub.connected)
                        assert await until_not(101, url) == 429
                    async with await until_let_in(url):
                        pass


PROGRAM = textwrap.dedent(
    """
    import os
    from typing import Annotated
    from antiphon import App, Depends, Hub, WebSocket
    from antiphon.gate import QUERY, Identity, Quota, WebSocketBearer

    bearer = WebSocketBearer([QUERY("user")], lambda user: Identity(user=user))
    app = App(hub=Hub(os.environ.get("QUOTAS_AT"), presence_lease=5.0))

    @app.websocket("/in", dependencies=[Depends(Quota(connections_per_user=8)), Depends(bearer)])
    async def enter(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(os.getpid()))
        await websocket.wait_closed()
    """
)


@pytest.mark.parametrize("backend", ["relay", "redis"])
async def test_a_quota_over_four_workers_one_of_which_is_killed(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with redis_server() as redis:
        if backend == "redis":
            monkeypatch.setenv("QUOTAS_AT", redis.url)
        async with run("program:app", "--workers", "4", "--no-state", app_dir=tmp_path) as server:
            url = f"ws://127.0.0.1:{server.port}/in?user=ann"
            refused: list[tuple[int, str]] = []

            async def come() -> tuple[ClientConnection, int] | None:
                try:
                    client = await connect(url, open_timeout=PATIENCE)
                    return client, int(await client.recv())
                except InvalidStatus as error:
                    refused.append((error.response.status_code, error.response.headers["Retry-After"]))
                    return None

            let_in = [one for one in await asyncio.gather(*(come() for _ in range(40))) if one is not None]
            assert len(let_in) == 8
            victim = let_in[0][1]
            freed = sum(process == victim for _, process in let_in)
            os.kill(victim, signal.SIGKILL)
            again: list[tuple[ClientConnection, int]] = []
            async with asyncio.timeout(PATIENCE):
                while len(again) < freed:
                    with contextlib.suppress(OSError, ConnectionClosed):
                        one = await come()
                        again += [one] if one is not None else []
                    await asyncio.sleep(0.05)
            assert await come() is None
            for client, _ in (*let_in, *again):
                await client.close()
    assert {code for code, _ in refused} == {429}
    assert all(int(seconds) >= 1 for _, seconds in refused)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"connections_per_user": 0},
        {"connections_per_user": True},
        {"connections_per_user": "5"},
        {"connections_per_address": -1},
        {"connections_per_user": 1, "over": "replace"},
        {"connections_per_user": 1, "while_away": True},
        {"connections_per_user": 1, "name": None},
        {"connections_per_user": 1, "hub": "redis://"},
    ],
)
def test_what_no_quota_can_be_is_told(given: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"Quota\("):
        Quota(**given)


async def test_a_quota_without_a_hub_or_with_a_poor_one_says_so() -> None:
    for hub, text in ((None, "app.state.hub"), (Hub(backend=Drawer()), "Drawer does not have them all")):
        quota = Quota(connections_per_address=1, hub=hub)

        async def bare(scope: Any, receive: Any, send: Any, quota: Quota = quota, text: str = text) -> None:
            with pytest.raises(RuntimeError, match=text):
                await quota(WebSocket(scope, receive, send))
            await send({"type": "websocket.close"})

        async with serve(bare, lifespan="off") as served:
            assert (await status(served.url))[0] == 403


async def test_threads_that_claim_at_once_while_the_backend_is_away_keep_one_limit() -> None:
    shares, sink = Hub().door._shares, Connection().sink

    def claim(thread: int) -> int:
        mine = (Share("a limit", f"{thread}.{number}", sink) for number in range(100))
        return sum(shares._claim_here(share, 50, False).granted for share in mine)

    assert sum(await asyncio.gather(*(asyncio.to_thread(claim, thread) for thread in range(4)))) == 50
