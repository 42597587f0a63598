"""`PacedWebSocket`: counts messages as they are received, and delays those beyond the rate.

Owns a message that waits. A `Pace` decides which messages are in excess, and their fate. While a message waits nothing
is read: the inbox fills, then the server stops reading from the socket, and the peer has to wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeAlias

import anyio
from starlette.requests import StateT

from antiphon.exceptions import WebSocketDisconnect
from antiphon.types import ClosedBy, Message, Receive, Scope, Send

from .owner import running_loop
from .raw import RawWebSocket
from .state import CONNECTED, LOST
from .websocket import WebSocket, not_this

TWO_READERS: Final = "two tasks receive from one WebSocket at the same time: let one task receive and pass messages on"


class Excess(NamedTuple):
    """The fate of a message in excess."""

    wait: float
    """Seconds until it may pass;"""
    code: int | None = None
    """or the code of a Close in its place."""
    reason: str = ""


Passes: TypeAlias = Callable[[float, str | bytes], bool]
"""Whether a message that was received at this time may pass, as far as that is known at once. It is counted then."""


class Pace(Protocol):
    """The judge of each message of one connection."""

    @property
    def passes(self) -> Passes:
        """Asked first. After a no, `spend` decides."""

    patience: float
    """Seconds for which messages of a peer that has gone may wait, in all."""

    def spend(self, now: float, data: str | bytes) -> Excess | None:
        """Count a message that was received at `now`. None: it may pass."""


class Intake:
    """The message that one connection has received and not let pass."""

    __slots__ = ("_gone_since", "_held_until", "_patience", "_releasing", "held", "passes", "spend")

    def __init__(self, pace: Pace) -> None:
        self.spend: Final = pace.spend
        self.passes: Final = pace.passes
        self._patience: Final = pace.patience
        self.held: str | bytes | None = None
        """A message that waits,"""
        self._held_until = 0.0  # so long
        self._releasing = False
        self._gone_since: float | None = None

    async def receive(self, websocket: RawWebSocket[Any]) -> Message:
        """The next ASGI message, at the pace."""
        life = websocket.life
        data: str | bytes | None
        if self.held is not None:
            data = await self._release(websocket)
        else:
            message = await life.way.receive()
            if message["type"] != "websocket.receive":
                return message
            text: str | None = message.get("text")
            data = text if text is not None else message["bytes"]
            now = life.clock()
            if self.passes(now, data) or (excess := self.spend(now, data)) is None:
                return message
            data = await self.settle(websocket, excess, data, now)
        if data is None:
            closed = life.closed or LOST
            return {"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason}
        return {"type": "websocket.receive", "text" if isinstance(data, str) else "bytes": data}

    async def settle(
        self, websocket: RawWebSocket[Any], excess: Excess, data: str | bytes, now: float
    ) -> str | bytes | None:
        """Delay a message in excess, or close instead. None: the connection is over."""
        if excess.code is not None:
            try:
                await websocket.send({"type": "websocket.close", "code": excess.code, "reason": excess.reason})
            except WebSocketDisconnect:
                pass  # it has gone, too
            return None
        if not websocket._life.way.alive:
            if self._gone_since is None:
                self._gone_since = now
            if ended_by_us(websocket) or now + excess.wait - self._gone_since > self._patience:
                return None
        self.held = data
        self._held_until = now + excess.wait
        return await self._release(websocket)

    async def _release(self, websocket: RawWebSocket[Any]) -> str | bytes | None:
        """The message that waits, when it may pass. It goes on waiting for the next receive where this is cancelled."""
        if self._releasing:
            raise RuntimeError(TWO_READERS)
        self._releasing = True
        life = websocket.life
        try:
            goes_on = await pause(websocket, self._held_until - life.clock())
        finally:
            self._releasing = False
        data, self.held = self.held, None
        life.read_at = life.clock()
        return data if goes_on else None


def _receiver(method: str, kind: type | None, expected: str) -> Any:
    """One of the methods that receive. The hot path of `WebSocket` with the question in it (benchmarks/rates.py)."""

    async def receive(self: PacedWebSocket[Any]) -> str | bytes:
        life, intake = self._life, self._intake
        if (
            (carrier := self._carrier) is not None
            and intake.held is None
            and life.application_state is CONNECTED
            and life.client_state is CONNECTED
        ):
            data = await carrier.read()
            if data is not None:
                now = life.read_at = life.clock()
                if not intake.passes(now, data) and (excess := intake.spend(now, data)) is not None:
                    data = await intake.settle(self, excess, data, now)
        else:
            data = await self._next(method)
        if data is not None and (kind is None or type(data) is kind):
            return data
        raise not_this(life, data, expected)

    receive.__name__ = method
    receive.__qualname__ = f"PacedWebSocket.{method}"
    receive.__doc__ = f"As `WebSocket.{method}`, at the pace."
    return receive


class PacedWebSocket(WebSocket[StateT], Generic[StateT]):
    """A `WebSocket` that receives at a pace."""

    _is_paced = True

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, pace: Pace) -> None:
        super().__init__(scope, receive, send)
        self._intake: Intake = Intake(pace)


for _method, _kind, _expected in (
    ("receive_text", str, "text"),
    ("receive_bytes", bytes, "binary"),
    ("receive_payload", None, ""),
):  # fmt: skip
    setattr(PacedWebSocket, _method, _receiver(_method, _kind, _expected))  # typed as those of the base


def size_of(data: str | bytes) -> int:
    """Bytes of a message's payload, a text's in UTF-8."""
    if not isinstance(data, str) or data.isascii():
        return len(data)
    return len(data.encode(errors="surrogatepass"))


async def pause(websocket: RawWebSocket[Any], seconds: float) -> bool:
    """Let so much time pass. False, and at once: our side has ended the connection, a stopping server for example."""
    if seconds <= 0:
        return not ended_by_us(websocket)
    loop = running_loop()
    if loop is None or loop is not websocket._loop or not websocket._life.way.alive:
        await anyio.sleep(seconds)
        return not ended_by_us(websocket)
    woken: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    until = loop.time() + seconds
    timer = loop.call_at(until, wake)
    way = websocket._life.way
    way.on_close(wake)
    try:
        await woken
    finally:
        timer.cancel()
        way.off_close(wake)
    if ended_by_us(websocket):
        return False
    if (left := until - loop.time()) > 0:  # the peer has gone: its last message still waits its time
        await asyncio.sleep(left)
    return True


def ended_by_us(websocket: RawWebSocket[Any]) -> bool:
    """Whether the endpoint, another sender, a stopping server has closed it, so that nobody reads on."""
    life = websocket._life
    if life.way.alive and life.ended is None:
        return False
    closed = life.closed
    return closed is not None and closed.by is ClosedBy.US
