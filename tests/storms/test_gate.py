"""Workers and their backend are killed while users are revoked and quotas are full: the gate's promises hold."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import textwrap
import time
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from tests.commands import run
from tests.patience import PATIENCE
from tests.redis_server import RedisServer
from tests.relay_server import RelayServer
from tests.serving import ServedProcess

LIMIT = 4
LEASE = 6.0
"""Seconds that a killed worker keeps its shares of quotas, and that a worker may stand still and keep them."""

SOON = 20
"""Revocations of somebody else, one after the other at each worker: a second, and longer where anybody is slow."""

USERS = tuple(f"user{number}" for number in range(6))
SECRET = secrets.token_urlsafe(48)

PROGRAM = textwrap.dedent(
    """
    import os
    from collections import Counter
    from antiphon import App, Depends, Hub, WebSocket
    from antiphon.events import AccessRefused
    from antiphon.gate import JWT, QUERY, Quota, WhileAway
    from antiphon.hub import BackendUnavailable

    refused = Counter()

    def observe(event):
        if isinstance(event, AccessRefused):
            refused[event.reason.value] += 1

    known = JWT(os.environ["STORM_SECRET"], algorithms=["HS256"], sources=[QUERY("token")])
    quota = Quota(connections_per_user=4, while_away=WhileAway.CLOSED)
    app = App(hub=Hub(os.environ["STORM_AT"], presence_lease=LEASE, observer=observe))

    @app.websocket("/in", dependencies=[Depends(known), Depends(quota)])
    async def enter(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("in")
        await websocket.wait_closed()

    @app.post("/revoke/{user}")
    async def revoke(user: str) -> str:
        try:
            await app.hub.revoke(user=user)
        except BackendUnavailable:
            return "later"
        return "done"

    @app.get("/state")
    async def state() -> dict[str, object]:
        return {"connected": app.hub.connected, "refused": refused}
    """
).replace("LEASE", str(LEASE))


def token_of(user: str) -> str:
    now = time.time()
    return jwt.encode({"sub": user, "iat": now, "exp": now + 3600}, SECRET, "HS256")


class Storm:
    """Two workers, a backend, and the clients that knock at them."""

    def __init__(self, backend: RedisServer | RelayServer, folder: Path) -> None:
        self.backend = backend
        self.folder = folder
        self.workers: list[ServedProcess] = []
        self.logs: list[list[str]] = []
        self.tokens = {user: token_of(user) for user in USERS}
        self.made = list(self.tokens.values())
        self.open: dict[str, list[tuple[ClientConnection, ServedProcess]]] = {user: [] for user in USERS}
        self.seen: dict[int, Counter[int]] = {}
        """The codes of refused clients, by the worker's port."""
        self._stack = contextlib.AsyncExitStack()

    async def start_worker(self) -> ServedProcess:
        worker = await self._stack.enter_async_context(run("program:app", "--no-state", app_dir=self.folder))
        self.workers.append(worker)
        self.logs.append(worker.lines)
        self.seen[worker.port] = Counter()
        return worker

    async def kill_worker(self, worker: ServedProcess) -> None:
        worker.process.kill()
        await worker.process.wait()
        self.workers.remove(worker)
        for user in USERS:
            self.open[user] = [one for one in self.open[user] if one[1] is not worker]

    async def come(self, user: str, worker: ServedProcess) -> bool:
        url = f"{worker.url}/in?token={self.tokens[user]}"
        try:
            client = await connect(url, open_timeout=PATIENCE, ping_interval=None)
            await client.recv()
        except InvalidStatus as error:
            self.seen[worker.port][error.response.status_code] += 1
            return False
        except (OSError, ConnectionClosed, InvalidHandshake, InvalidMessage):
            return False  # the worker died
        self.open[user].append((client, worker))
        return True

    async def crowd(self) -> None:
        """Twice as many of each user as may come in, at all workers at once."""
        await asyncio.gather(*(self.come(user, self.workers[n % 2]) for user in USERS for n in range(2 * LIMIT)))

    async def fill(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not all(len(self.living(user)) >= LIMIT for user in USERS):
                await self.crowd()

    def living(self, user: str) -> list[ClientConnection]:
        return [client for client, _ in self.open[user] if client.close_code is None]

    async def leave(self) -> None:
        for user in USERS:
            await asyncio.gather(*(client.close() for client, _ in self.open[user]))
            self.open[user].clear()

    async def get(self, worker: ServedProcess, path: str, method: str = "GET") -> object:
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            return (await client.request(method, f"{worker.http_url}{path}")).json()

    async def connected(self) -> bool:
        states = [await self.get(worker, "/state") for worker in self.workers]
        return all(isinstance(state, dict) and state["connected"] for state in states)

    async def until_connected(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not await self.connected():
                pass  # each question takes a round trip

    async def revoke(self, user: str, worker: ServedProcess | None = None) -> object:
        return await self.get(worker or self.workers[0], f"/revoke/{user}", "POST")

    async def all_out(self, user: str) -> None:
        """Of a user who was revoked, and soon."""
        for _ in range(SOON):
            if not self.living(user):
                break
            await asyncio.gather(*(self.revoke("nobody", worker) for worker in self.workers), asyncio.sleep(0.05))
        assert not self.living(user)
        ends = {(one.close_code, one.close_reason) for one, _ in self.open[user]}
        assert ends <= {(3000, "revoked")}, "but for those that died with their worker"
        for worker in self.workers:
            assert not await self.come(user, worker), "an old token of who was revoked lets nobody in"

    def renew(self, user: str) -> None:
        self.open[user].clear()
        self.tokens[user] = token_of(user)
        self.made.append(self.tokens[user])

    async def __aenter__(self) -> Storm:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()
        await self._stack.aclose()


@pytest.fixture(params=[RedisServer, RelayServer], ids=["redis", "relay"])
async def storm(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Storm]:
    (tmp_path / "program.py").write_text(PROGRAM)
    with request.param() as backend:
        monkeypatch.setenv("STORM_AT", backend.url)
        monkeypatch.setenv("STORM_SECRET", SECRET)
        async with Storm(backend, tmp_path) as one:
            await one.start_worker()
            await one.start_worker()
            yield one


async def test_kills_among_revocations_and_full_quotas(storm: Storm) -> None:
    await storm.fill()
    assert {user: len(storm.living(user)) for user in USERS} == dict.fromkeys(USERS, LIMIT)

    # the backend is killed, and a user revoked while it is away
    storm.backend.kill()
    assert await storm.revoke(USERS[0]) == "later"
    await storm.crowd()
    assert all(len(storm.living(user)) <= LIMIT for user in USERS), "CLOSED lets nobody in meanwhile"
    storm.backend.start()
    await storm.until_connected()
    await storm.all_out(USERS[0])
    storm.renew(USERS[0])
    await storm.leave()
    await storm.fill()
    assert {user: len(storm.living(user)) for user in USERS} == dict.fromkeys(USERS, LIMIT)

    # a worker is killed in a crowd, and a user revoked before another takes its place
    crowd = asyncio.create_task(storm.crowd())
    await storm.kill_worker(storm.workers[1])
    await crowd
    assert await storm.revoke(USERS[1]) == "done"
    await storm.start_worker()
    await storm.all_out(USERS[1])
    storm.renew(USERS[1])
    await storm.fill()
    assert {user: len(storm.living(user)) for user in USERS} == dict.fromkeys(USERS, LIMIT)

    # both at once, with a user revoked who is in
    storm.backend.kill()
    await storm.kill_worker(storm.workers[1])
    assert await storm.revoke(USERS[2]) == "later"
    storm.backend.start()
    await storm.start_worker()
    await storm.until_connected()
    await storm.all_out(USERS[2])

    await _check_what_was_told(storm)


@dataclass(frozen=True)
class Refused:
    """A refusal's line in the log, and its label in the metrics."""

    counted: str
    why: str
    remedy: str


REFUSED = {
    401: Refused("revoked", "refused: 401, the identity was revoked", "log in again for a new token"),
    403: Refused("revoked", "refused: 3000 revoked, by hub.revoke()", "Who was revoked needs a new token"),
    429: Refused(
        "quota",
        f"refused: 429, this user has {LIMIT} connections already (Quota(connections_per_user={LIMIT}))",
        "raise it, or give over=Over.REPLACE",
    ),
    503: Refused(
        "unavailable",
        "refused: 503, the hub's backend is away, and Quota(while_away=WhileAway.CLOSED) lets nobody in",
        "start it, or give WhileAway.OPEN",
    ),
}
"""By the status that the client gets."""


async def _check_what_was_told(storm: Storm) -> None:
    """Every refusal stands in the log once, with its reason and its remedy, and is counted by its reason."""
    for lines in storm.logs:  # also of those that were killed
        for line in lines:
            if "refused" in line and "Connection refused" not in line:
                known = [one for one in REFUSED.values() if one.why in line]
                assert known, line
                assert all(one.remedy in line for one in known), line
    for worker in storm.workers:
        state = await storm.get(worker, "/state")
        assert isinstance(state, dict)
        seen = storm.seen[worker.port]
        assert seen.keys() <= REFUSED.keys()
        counted: Counter[str] = Counter()
        for status, count in seen.items():
            lines = [line for line in worker.lines if REFUSED[status].why in line]
            assert len(lines) == count, (status, count, worker.log)
            counted[REFUSED[status].counted] += count
        assert state["refused"] == counted
    assert sum(sum(seen.values()) for seen in storm.seen.values()) > LIMIT * len(USERS)
    told = "".join(line for lines in storm.logs for line in lines)
    told += storm.backend.log() if isinstance(storm.backend, RedisServer) else ""
    assert "token=" in told, "the access log has the requests"
    for token in storm.made:
        assert not [part for part in (token, *token.split(".")[1:]) if part in told]
    assert SECRET not in told
