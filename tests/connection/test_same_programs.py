"""Random programs on our WebSocket and on Starlette's, on the same model of a server: they see the same.

Actions of a program behind the end of its connection are not compared: there antiphon has promises of its own
(docs/closing.md), which `simulation` checks.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import pytest
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketDisconnect as StarletteWebSocketDisconnect

from antiphon.connection import WebSocket
from antiphon.testing import VirtualTimeLoop
from antiphon.types import Message, Receive, Scope, Send
from tests.connection.foreign_server import LEGACY, SANSIO, Connection, End

SEEDS: Final = 150
SLEEPS: Final = (0, 0, 0.01, 0.3)

Step: TypeAlias = "Callable[[Any, random.Random], Awaitable[Any]]"


async def _timeout(websocket: Any, rng: random.Random) -> Any:
    async with asyncio.timeout(rng.choice([0, 0.01, 0.2])):
        return await websocket.receive_text()


async def _iterate(websocket: Any, rng: random.Random) -> list[Any]:
    messages: AsyncIterator[Any] = rng.choice([websocket.iter_text, websocket.iter_bytes, websocket.iter_json])()
    heard: list[Any] = []
    async for message in messages:
        heard.append(message)
        if len(heard) == 2:
            break
    return heard


RECEIVES: Final[tuple[Step, ...]] = (
    lambda websocket, rng: websocket.receive(),
    lambda websocket, rng: websocket.receive_text(),
    lambda websocket, rng: websocket.receive_text(),
    lambda websocket, rng: websocket.receive_bytes(),
    lambda websocket, rng: websocket.receive_json(),
    lambda websocket, rng: websocket.receive_json("binary"),
    lambda websocket, rng: websocket.receive_json("nonsense"),
    _iterate,
    _timeout,
)
SENDS: Final[tuple[Step, ...]] = (
    lambda websocket, rng: websocket.send_text("ü" * rng.randrange(3)),
    lambda websocket, rng: websocket.send_bytes(bytes(rng.randrange(3))),
    lambda websocket, rng: websocket.send_json({"ü": [1, None, 2.5, "x"]}, rng.choice(["text", "binary"])),
    lambda websocket, rng: websocket.send({"type": "websocket.send", "text": "raw"}),
    lambda websocket, rng: websocket.send({"type": "nonsense"}),
    lambda websocket, rng: websocket.accept(),
)


async def _close(websocket: Any, rng: random.Random) -> None:
    await websocket.close(rng.choice([1000, 4000]), rng.choice([None, "", "why"]))


@dataclass
class Run:
    """One program on one of the two classes, and its observations."""

    seed: int
    cls: type[Any]
    seen: list[tuple[float, str, Any]] = field(default_factory=list)
    """The time, the task and the observation."""
    behind: bool = False
    """The program has sent behind the end."""

    async def run(self) -> None:
        rng = random.Random(self.seed)
        self.connection = Connection(self.app, "/", rng.choice([SANSIO, LEGACY]))
        server = asyncio.create_task(self.connection.run())
        await self._be_client(random.Random(rng.random()))
        await asyncio.sleep(10)
        server.cancel()
        await server

    async def _be_client(self, rng: random.Random) -> None:
        for _ in range(rng.randrange(10)):
            text = json.dumps([rng.randrange(10)])
            said: list[str | bytes] = [text, text, text.encode(), "{"]
            self.connection.say(rng.choice(said))
            await asyncio.sleep(rng.choice(SLEEPS))
        await asyncio.sleep(rng.choice([0, 1]))
        self.connection.leave(rng.choice([1000, 1001, 4000]), rng.choice(["", "bye"]))

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = self.cls(scope, receive, send)
        rng = random.Random(self.seed + 1)
        if rng.random() < 0.1:
            await self._step("early", rng.choice(RECEIVES), websocket, rng)
        await self._step("accept", lambda websocket, rng: websocket.accept("chat", [(b"x-a", b"1")]), websocket, rng)
        if rng.random() < 0.5:
            await self._go("one", (*RECEIVES, *SENDS, _close), websocket, rng)
        else:
            reader, writer = random.Random(rng.random()), random.Random(rng.random())
            await asyncio.gather(
                self._go("reader", RECEIVES, websocket, reader), self._go("writer", SENDS, websocket, writer)
            )
        await self._step("close", _close, websocket, rng)
        await self._step("close", _close, websocket, rng)

    async def _go(self, who: str, steps: tuple[Step, ...], websocket: Any, rng: random.Random) -> None:
        for _ in range(rng.randrange(12)):
            await self._step(who, rng.choice(steps), websocket, rng)
            await asyncio.sleep(rng.choice(SLEEPS))

    async def _step(self, who: str, step: Step, websocket: Any, rng: random.Random) -> None:
        if self.connection.end is not None and step not in RECEIVES:
            self.behind = True
        try:
            result: object = _canonical(await step(websocket, rng))
        except Exception as error:
            result = _kind(error)
        now = asyncio.get_running_loop().time()
        if step not in RECEIVES and self.connection.end is End.CLIENT and self.connection.ended_at == now:
            self.behind = True  # or beside it: nobody says which of the two comes first
        if not self.behind:
            self.seen.append((now, who, result))

    @property
    def outcome(self) -> tuple[list[Any], list[Message] | None]:
        """The observations, and the sent messages if none was sent behind the end."""
        sent = [_canonical(message) for message in self.connection.sent]
        return self.seen, None if self.behind else sent


def _canonical(value: Any) -> Any:
    """A message without the keys that say nothing."""
    if not isinstance(value, dict) or "type" not in value:
        return value
    return {key: one for key, one in value.items() if one not in (None, "", [])}


def _kind(error: Exception) -> object:
    if isinstance(error, StarletteWebSocketDisconnect) and not isinstance(error, RuntimeError):
        return error.code, error.reason
    kinds = (RuntimeError, json.JSONDecodeError, KeyError, TimeoutError, TypeError)
    return next((kind for kind in kinds if isinstance(error, kind)), type(error))


@pytest.mark.parametrize("block", range(4))
def test_random_programs_see_what_starlettes_websocket_shows_them(block: int) -> None:
    compared = 0
    for seed in range(block * SEEDS, block * SEEDS + SEEDS):
        outcomes = []
        for cls in (WebSocket, StarletteWebSocket):
            run = Run(seed, cls)
            with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
                runner.run(run.run())
            outcomes.append(run.outcome)
        (ours, our_sent), (theirs, their_sent) = outcomes
        both = min(len(ours), len(theirs)) if None in (our_sent, their_sent) else None
        assert ours[:both] == theirs[:both], f"seed {seed}"
        assert both is not None or our_sent == their_sent, f"seed {seed}"
        compared += len(ours)
    assert compared > SEEDS * 4
