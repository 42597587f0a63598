"""An ASGI app of random habits, by every door to a connection: raw messages, Starlette's WebSocket, ours, the Carrier.

It may refuse, deny, fail, be cancelled, stop reading, send from several tasks at a time, and go on when all is over;
strangers send beside it, and close. Its actions and observations are in its `Record`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import starlette.websockets

import antiphon
from antiphon.server import ClientDisconnected
from antiphon.server.backend import Pipe
from antiphon.types import CARRIER_EXTENSION, PreparedMessage

Payload = str | bytes

GONE: Final = (OSError, starlette.websockets.WebSocketDisconnect, antiphon.WebSocketDisconnect)


class Planned(Exception):
    """An exception that an app raises on purpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How one app behaves."""

    door: str
    opening: str
    loop: str
    lasts: float
    pace: float
    largest: int
    """Bytes of a message it sends."""
    count: int
    helpers: int
    strangers: int
    stranger_limit: int
    stranger_closes_at: float | None
    ending: str
    code: int
    stubborn: int
    """So many cancellations it does not heed."""


def draw_habits(rng: random.Random, *, outbox: int) -> Habits:
    opening = rng.choice(["accept"] * 16 + ["slowly"] * 3 + ["close", "deny", "return", "raise", "never", "half-deny"])
    closes = rng.random() < 0.1
    return Habits(
        door=rng.choice(["raw", "starlette", "ours", "carrier"]),
        opening=opening,
        loop=rng.choice(["echo", "listen", "talk", "chatter", "wait"]),
        lasts=rng.choice([0.1, 2, 5, 30, 1000]) * rng.random(),
        pace=rng.choice([0, 0, 0.01, 0.5]),
        largest=rng.choice([30, 1000, 70_000]),
        count=rng.choice([1, 10, 100]),
        helpers=rng.choice([0, 0, 1, 2]),
        strangers=rng.choice([0, 0, 0, 1, 2]),
        stranger_limit=rng.randint(1, outbox),
        stranger_closes_at=rng.random() * 5 if closes else None,
        ending=rng.choice(["return", "raise", "close", "close and send", "cancel", "listen", "listen", "twice"]),
        code=rng.choice([1000, 1001, 1008, 3333, 4000]),
        stubborn=rng.choice([0] * 9 + [3]),
    )


@dataclass(slots=True)
class Record:
    """The actions and observations of one app."""

    events: list[str] = field(default_factory=list)
    received: list[Payload] = field(default_factory=list)
    heard_the_end: tuple[int | None, str] | None = None
    disconnects: int = 0
    """`websocket.disconnect` messages of raw ASGI."""
    tried: dict[str, list[Payload]] = field(default_factory=dict)
    """By sender, all that may have reached the client."""
    sure: dict[str, int] = field(default_factory=dict)
    """By sender, how many of these must have, if a Close did."""
    codes: set[int] = field(default_factory=set)
    """With which it, or a stranger, or its ending asked for a close."""
    statuses: set[int] = field(default_factory=set)
    """With which the handshake may have been refused."""
    body: bytes | None = None
    """Of its denial, if that was completed."""
    planned_errors: int = 0
    """Exceptions that it raised on purpose, or that left it though it could know better."""
    calls: dict[str, int] = field(default_factory=dict)
    """How often each callback was called."""
    largest: int = 0
    senders: int = 0
    through_ours: bool = False
    """Strangers send through our WebSocket, which has a bound of its own for them."""
    ended: bool = False

    def note(self, what: str) -> None:
        self.events.append(what)


class Door(Protocol):
    """One way to use a connection."""

    async def accept(self) -> None: ...
    async def receive(self) -> Payload | None:
        """None: the end, told for the first time."""

    async def send(self, payload: Payload) -> None: ...
    async def close(self, code: int) -> None: ...


class Raw:
    def __init__(self, scope: Any, receive: Any, send: Any, record: Record) -> None:
        self._receive, self._send, self._record = receive, send, record

    async def accept(self) -> None:
        message = await self._receive()
        assert message["type"] == "websocket.connect", message
        await self._send({"type": "websocket.accept"})

    async def receive(self) -> Payload | None:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._record.disconnects += 1
            self._record.heard_the_end = message["code"], message["reason"]
            return None
        assert message["type"] == "websocket.receive", message
        text: str | None = message.get("text")
        return message["bytes"] if text is None else text

    async def send(self, payload: Payload) -> None:
        key = "text" if isinstance(payload, str) else "bytes"
        await self._send({"type": "websocket.send", key: payload})

    async def close(self, code: int) -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": "the app's"})


class Sockets:
    """Starlette's class or ours."""

    def __init__(self, scope: Any, receive: Any, send: Any, record: Record, kind: Any) -> None:
        self.websocket = kind(scope, receive, send)
        self._record = record

    async def accept(self) -> None:
        await self.websocket.accept()

    async def receive(self) -> Payload | None:
        message = await self.websocket.receive()
        if message["type"] == "websocket.disconnect":
            self._record.heard_the_end = message["code"], message["reason"]
            return None
        text: str | None = message.get("text")
        return message["bytes"] if text is None else text

    async def send(self, payload: Payload) -> None:
        await (self.websocket.send_text if isinstance(payload, str) else self.websocket.send_bytes)(payload)

    async def close(self, code: int) -> None:
        await self.websocket.close(code, "the app's")


class Short(Raw):
    """Accepts by messages and then uses the Carrier, as our WebSocket does."""

    def __init__(self, scope: Any, receive: Any, send: Any, record: Record) -> None:
        super().__init__(scope, receive, send, record)
        self._carrier: Pipe = scope["extensions"][CARRIER_EXTENSION]
        self._told = False

    async def receive(self) -> Payload | None:
        payload = await self._carrier.read()
        if payload is None:
            if self._told:
                raise ClientDisconnected("told already")
            self._told = True
            self._record.heard_the_end = self._carrier.close_code, self._carrier.close_reason
        return payload

    async def send(self, payload: Payload) -> None:
        if not self._carrier.write(payload):
            await self._carrier.drain()


DOORS: Final[dict[str, Callable[[Any, Any, Any, Record], Door]]] = {
    "raw": Raw,
    "carrier": Short,
    "starlette": functools.partial(Sockets, kind=starlette.websockets.WebSocket),
    "ours": functools.partial(Sockets, kind=antiphon.WebSocket),
}


class App:
    """The app of one connection."""

    def __init__(self, habits: Habits, rng: random.Random, strangers: contextvars.Context) -> None:
        self.record = Record()
        self.habits = habits
        self.tasks: list[asyncio.Task[None]] = []
        self.carrier: Pipe | None = None
        self._rng = rng
        self._strangers = strangers
        self._door: Door
        self._stubborn = habits.stubborn
        self._closed = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        record = self.record
        self.carrier = scope["extensions"][CARRIER_EXTENSION]
        try:
            await self._live(scope, receive, send)
            record.codes.add(1000)
            record.note("returned")
        except asyncio.CancelledError:
            record.codes.add(1011)
            record.note("cancelled")
            raise
        except BaseException as error:
            record.codes.add(1011)
            record.planned_errors += 1
            record.note(f"raised {type(error).__name__}")
            if not isinstance(error, (Planned, *GONE)):
                record.note(repr(error))
            raise
        finally:
            record.statuses.add(500)
            record.ended = True

    async def _live(self, scope: Any, receive: Any, send: Any) -> None:
        record, habits = self.record, self.habits
        self._door = DOORS[habits.door](scope, receive, send, record)
        if not await self._open(send):
            return
        self._begin_helpers()
        for _ in range(self._stubborn + 1):
            try:
                await self._use()
                break
            except asyncio.CancelledError:
                if not self._stubborn:
                    raise
                self._stubborn -= 1
                record.note("did not heed")
        await self._end()

    # ------------------------------------------------------------ the opening

    async def _open(self, send: Any) -> bool:
        """Whether the connection is open."""
        rng, record, opening = self._rng, self.record, self.habits.opening
        if opening == "return":
            return False
        if opening == "raise":
            raise Planned
        if opening == "never":
            await asyncio.sleep(1000)
        if opening == "slowly":
            await asyncio.sleep(rng.random() * 5)
        if opening == "close":
            record.statuses.add(403)
            return await self._told_of_the_end(send({"type": "websocket.close"}), value=False)
        if opening in ("deny", "half-deny"):
            return await self._told_of_the_end(self._deny(send, whole=opening == "deny"), value=False)
        return await self._told_of_the_end(self._door.accept(), value=True)

    async def _told_of_the_end(self, work: Awaitable[Any], *, value: bool) -> bool:
        try:
            await work
        except GONE as error:
            self.record.note(f"opening: {type(error).__name__}")
            return False
        return value

    async def _deny(self, send: Any, *, whole: bool) -> None:
        rng, record = self._rng, self.record
        status = rng.choice([200, 401, 404, 599])
        record.statuses.add(status)
        parts = [rng.randbytes(rng.choice([0, 10, 5000])) for _ in range(rng.randint(1, 4))]
        body = b"".join(parts)
        headers = [(b"content-length", b"%d" % len(body))] if rng.random() < 0.5 else []
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        for number, part in enumerate(parts, 1):
            if number == len(parts) and not whole:
                return
            await asyncio.sleep(rng.choice([0, 0.1]))
            await send({"type": "websocket.http.response.body", "body": part, "more_body": number < len(parts)})
        record.body = body

    # ------------------------------------------------------------ using it

    async def _use(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.habits.lasts):
                await self._loop()

    async def _loop(self) -> None:
        habits = self.habits
        if habits.loop == "echo":
            number = 0
            while (await self._receive()) is not None:
                number += 1
                if not await self._send("echo", self._message("echo", number)):
                    break
        elif habits.loop == "talk":
            await self._talk("talk", self._rng)
            await self._listen()
        elif habits.loop == "chatter":
            async with asyncio.TaskGroup() as group:
                group.create_task(self._talk("chatter", random.Random(self._rng.random())))
                group.create_task(self._listen())
        elif habits.loop == "wait":
            await self._wait_closed()
        else:
            await self._listen()

    async def _listen(self) -> None:
        while (await self._receive()) is not None:
            await self._pause()

    async def _wait_closed(self) -> None:
        assert self.carrier is not None
        if isinstance(self._door, Sockets) and isinstance(self._door.websocket, antiphon.WebSocket):
            closed = await self._door.websocket.wait_closed()
            self.record.note(f"closed {closed.code}")
            return
        over = asyncio.Event()
        callback = self._counted("waiting", over.set)
        self.carrier.on_close(callback)
        try:
            await over.wait()
        except asyncio.CancelledError:
            self.carrier.off_close(callback)
            self.record.calls["waiting"] = 1
            raise

    def _counted(self, name: str, callback: Callable[[], object]) -> Callable[[], None]:
        """A callback that must be called once."""
        calls = self.record.calls
        calls.setdefault(name, 0)

        def call() -> None:
            calls[name] += 1
            callback()

        return call

    async def _receive(self) -> Payload | None:
        record = self.record
        try:
            payload = await self._door.receive()
        except GONE as error:
            record.note(f"receive: {type(error).__name__}")
            return None
        except RuntimeError:
            if record.heard_the_end is None and not self._closed:
                raise
            record.note("receive: RuntimeError")
            return None
        if payload is None:
            record.note(f"disconnect {record.heard_the_end}")
            return None
        record.received.append(payload)
        return payload

    async def _send(self, sender: str, payload: Payload) -> bool:
        record = self.record
        assert self.carrier is not None
        alive = self.carrier.alive
        tried = record.tried.setdefault(sender, [])
        if alive:
            tried.append(payload)
            record.largest = max(record.largest, len(payload))
        position = len(tried)
        try:
            await self._door.send(payload)
        except GONE as error:
            record.note(f"{sender}: {type(error).__name__}")
            return False
        except RuntimeError:
            record.note(f"{sender}: RuntimeError")
            if self.carrier.alive:
                raise
            return False
        if alive:
            record.sure[sender] = position
        return True

    def _message(self, sender: str, number: int, rng: random.Random | None = None) -> Payload:
        rng = rng or self._rng
        size = rng.choice([0, 10, 100, 130, self.habits.largest, rng.randint(0, self.habits.largest)])
        text = f"{sender}.{number}|" + rng.choice(["a", "é"]) * (size // 2)
        return text if rng.random() < 0.5 else text.encode()

    async def _pause(self, rng: random.Random | None = None) -> None:
        if self.habits.pace:
            await asyncio.sleep((rng or self._rng).random() * self.habits.pace)

    async def _talk(self, sender: str, rng: random.Random) -> None:
        for number in range(self.habits.count):
            if not await self._send(sender, self._message(sender, number, rng)):
                return
            await self._pause(rng)

    # ------------------------------------------------------------ beside it

    def _begin_helpers(self) -> None:
        habits, rng = self.habits, self._rng
        loop = asyncio.get_running_loop()
        self.record.senders = 2 + habits.helpers + habits.strangers
        for number in range(habits.helpers):
            work = self._talk(f"helper{number}", random.Random(rng.random()))
            self.tasks.append(loop.create_task(work))
        for number in range(habits.strangers):
            foreign = self._offer(f"stranger{number}", random.Random(rng.random()))
            self.tasks.append(loop.create_task(foreign, context=self._strangers.copy()))
        if habits.stranger_closes_at is not None:
            self.tasks.append(loop.create_task(self._close_from_outside(habits.stranger_closes_at)))
        assert self.carrier is not None
        self.carrier.on_close(self._counted("on_close", lambda: None))

    async def _offer(self, sender: str, rng: random.Random) -> None:
        """As a hub does, or as another endpoint does that holds our WebSocket."""
        record, carrier = self.record, self.carrier
        assert carrier is not None
        through_ours = self._door.websocket if isinstance(self._door, Sockets) and self.habits.door == "ours" else None
        for number in range(self.habits.count):
            if not carrier.alive:
                break
            payload = self._message(sender, number, rng)
            record.largest = max(record.largest, len(payload))
            tried = record.tried.setdefault(sender, [])
            if through_ours is not None:
                record.through_ours = True
                tried.append(payload)
                await through_ours.send(
                    {"type": "websocket.send", "text": payload}
                    if isinstance(payload, str)
                    else {"type": "websocket.send", "bytes": payload}
                )
                record.codes.add(1013)
                if carrier.alive:
                    record.sure[sender] = len(tried)
            elif carrier.offer(PreparedMessage(payload), self.habits.stranger_limit):
                tried.append(payload)
                record.sure[sender] = len(tried)
            else:
                room = asyncio.Event()
                carrier.on_writable(self._counted(f"{sender}.{number}", room.set))
                await room.wait()
            await self._pause(rng)

    async def _close_from_outside(self, at: float) -> None:
        await asyncio.sleep(at)
        assert self.carrier is not None
        if self.carrier.alive:
            self.record.codes.add(4444)
            self.carrier.disconnect(4444, "a stranger's")

    # ------------------------------------------------------------ the end

    async def _end(self) -> None:
        record, ending = self.record, self.habits.ending
        record.note(ending)
        if ending == "raise":
            raise Planned
        if ending == "cancel":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        if ending in ("close", "close and send"):
            await self._close()
        if ending == "close and send":
            for number in range(3):
                await self._send("late", self._message("late", number))
                await asyncio.sleep(0)
        if ending in ("listen", "twice"):
            await self._listen()
        if ending == "twice":
            try:
                assert await self._door.receive() is None
            except (RuntimeError, *GONE) as error:
                record.note(f"again: {type(error).__name__}")

    async def _close(self) -> None:
        record = self.record
        assert self.carrier is not None
        if self.carrier.alive:
            record.codes.add(self.habits.code)
        try:
            self._closed = True
            await self._door.close(self.habits.code)
        except (RuntimeError, *GONE) as error:
            record.note(f"close: {type(error).__name__}")
