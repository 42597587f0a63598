"""One client and the endpoint that serves it, for `simulation`: the actions of each, and their results.

Every call of the endpoint goes through here and is checked when it returns. `simulation` makes the checks at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from starlette.responses import JSONResponse

from antiphon import App, HTTPException, WebSocket, WebSocketException
from antiphon.connection import Closed
from antiphon.connection.life import HANDLING_SECONDS
from antiphon.connection.raw import SENDS_PER_TURN
from antiphon.exceptions import PeerError, WebSocketDisconnect
from antiphon.types import ClosedBy
from tests.connection.foreign_server import Connection, End

SEND_TIMEOUT: Final = 0.5
OUTBOX_BYTES: Final = 400
LONGEST: Final = 350
SLEEPS: Final = (0, 0, 0, 0.001, 0.02, 0.06, 0.3)
DEPENDENCIES: Final = ("speaks", "slow", "fails", "swallows", "breaks", "closes", "accepts")
STATES: Final = ("CONNECTING", "CONNECTED", "RESPONSE", "DISCONNECTED")


class Bug(Exception):
    """A plain exception of a program."""


class Told(WebSocketDisconnect):
    """A program's exception for a raw disconnect message: not ours to excuse, where nobody awaits it."""


class Known(Exception):
    """An exception that the app has a handler for."""


class Surroundings(Protocol):
    """A life's view of its world."""

    app: App
    room: list[Life]
    """The lives that were accepted and have not left."""

    @property
    def now(self) -> float: ...
    def note(self, what: str) -> None: ...
    def fault(self, what: str) -> None: ...


Body: TypeAlias = "Callable[[Life], Awaitable[None]]"


@dataclass
class Life:
    """One client, its connection, and the endpoint that serves it."""

    world: Surroundings
    number: int
    connection: Connection
    rng: random.Random
    body: Body
    """The endpoint's code between `accept` and its last words."""
    websocket: WebSocket = field(init=False)
    heard: list[str | bytes | None] = field(default_factory=list)
    """The messages that the endpoint received. None for a message it asked for in the wrong way."""
    heard_at: float = -1
    heard_end: bool = False
    unheeded: int = 0
    """Own sends in a row behind an end that was not reported."""
    said: Counter[str] = field(default_factory=Counter)
    """How many messages each sender has tried to send here."""
    foreign: set[str] = field(default_factory=set)
    begun: bool = False
    kept_out: Exception | None = None
    """The exception of a dependency before the endpoint could run."""
    accepted: bool = False
    left: BaseException | None = None
    """The exception that left the endpoint and its dependencies. None when it returned."""
    asked: tuple[int, str] | None = None
    """The first close that anybody asked for."""
    refused: int | None = None
    """The status of the refusal that the endpoint sent by itself."""
    entered: list[int] = field(default_factory=list)
    exited: list[int] = field(default_factory=list)
    wants_background: bool = False
    background: int = 0
    cancelled: bool = False
    ends: list[Closed] = field(default_factory=list)
    """The results of `wait_closed`."""
    states: list[tuple[int, int]] = field(default_factory=list)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    @property
    def path(self) -> str:
        return f"/{self.number}"

    def note(self, what: str) -> None:
        self.world.note(f"{self.number}: {what}")
        if self.begun:
            states = self.websocket.client_state.name, self.websocket.application_state.name
            self.states.append((STATES.index(states[0]), STATES.index(states[1])))

    def fault(self, what: str) -> None:
        self.world.fault(f"life {self.number} on {self.connection.dialect.name}: {what}")

    def pause(self) -> Coroutine[Any, Any, None]:
        return asyncio.sleep(self.rng.choice(SLEEPS))

    # The client

    async def be_client(self, rng: random.Random) -> None:
        connection = self.connection
        for _ in range(rng.choice([0, 3, 15])):
            if connection.end is not None:
                break
            self._client_does_something(rng)
            await asyncio.sleep(rng.choice(SLEEPS))
        await asyncio.sleep(rng.choice([0, 0.1, 1]))
        end = rng.choice(["close", "close", "bare", "vanish", "ping", "too big", "stay", "stay", "stall"])
        self.note(f"client: {end}")
        match end:
            case "close":
                connection.leave(rng.choice([1000, 1001, 4001]), rng.choice(["", "bye"]))
            case "bare":
                connection.leave(None)
            case "vanish":
                connection.vanish()
            case "ping":
                connection.fail(1011, "", told=False)
            case "too big":
                connection.fail(1009, "too big", told=True)
            case "stay":
                connection.read_on()
            case "stall":
                connection.stall()
        while connection.end is None and not connection.over:
            connection.changed.clear()
            await connection.changed.wait()
        await asyncio.sleep(rng.choice([0, 0.1, 3]))
        connection.answer_close()

    def _client_does_something(self, rng: random.Random) -> None:
        what = rng.random()
        if what < 0.7:
            label = json.dumps([len(self.connection.told), "x" * rng.choice([0, 10, 200])])
            said: list[str | bytes] = [label, label, label, label.encode(), "{"]
            self.connection.say(rng.choice(said))
        elif what < 0.8:
            self.connection.stall()
        elif what < 0.95:
            self.connection.read_on()

    # Calls of the endpoint

    async def say(self, target: Life, who: str) -> None:
        """One message, to one's own client or to another's."""
        own = target is self
        said = target.said[who]
        target.said[who] += 1
        if not own:
            target.foreign.add(who)
        text = json.dumps([who, said, "x" * self.rng.choice([0, 10, 100, LONGEST - 50])])
        websocket = target.websocket
        calls: list[Callable[[], Awaitable[None]]] = [
            lambda: websocket.send_text(text),
            lambda: websocket.send_bytes(text.encode()),
            lambda: websocket.send_json(json.loads(text)),
            lambda: websocket.send({"type": "websocket.send", "text": text}),
        ]
        target.note(f"{who} says {said}")
        try:
            await self._send(target, own, self.rng.choice(calls)())
        finally:
            self._check_bound(target)
        if own:
            self._check_taken(who, said)

    def _check_taken(self, who: str, said: int) -> None:
        """An own send has returned."""
        if self.connection.end is None and self.websocket.closed is None and (who, said) not in self.arrived():
            self.fault(f"{who}'s own message {said} did not reach the server, and the sender was not told")
        if self.connection.end is None or self.is_handling:
            self.unheeded = 0
        else:
            self.unheeded += 1
        if self.unheeded > 3 * SENDS_PER_TURN:
            self.fault("an own sender goes on sending to a connection that has ended")

    @property
    def is_handling(self) -> bool:
        return self.world.now - self.heard_at < HANDLING_SECONDS

    async def _send(self, target: Life, own: bool, sending: Awaitable[None]) -> None:
        began = self.world.now
        try:
            await sending
        except WebSocketDisconnect as end:
            target.note(f"own send: {end!r}")
            if not own:
                target.fault(f"a foreign sender was told {end!r}")
            elif target.connection.end is None and target.websocket.application_state.name == "CONNECTED":
                target.fault(f"an own sender was told {end!r} on an open connection")
            else:
                self._check_code(end.code)
                self._check_patience(target)
            raise
        except Exception as error:
            target.fault(f"a {'' if own else 'foreign '}sender was told {error!r}")
            raise
        waited = self.world.now - began
        if waited > (SEND_TIMEOUT if own else 0) + 1e-6:
            target.fault(f"{'an own' if own else 'a foreign'} sender waited for {waited} s")

    def _check_code(self, code: int) -> None:
        closed = self.websocket.closed
        by_us = closed is None or closed.by is ClosedBy.US  # None: our own Close is under way
        if code not in (self.connection.truth[0], 1006) and not by_us:
            self.fault(f"told {code}, closed is {closed}, and it was {self.connection.truth}")

    def _check_patience(self, target: Life) -> None:
        closed = target.websocket.closed
        if closed is None or closed.by is ClosedBy.US or target.connection.over or target.connection.has_stalled:
            return
        if target.is_handling and target.websocket.client_state.name == "CONNECTED":
            target.fault("what the client said before its end is not handled to the end")

    def _check_bound(self, target: Life) -> None:
        if target.websocket.sink.buffered > OUTBOX_BYTES + 4:
            target.fault(f"{target.websocket.sink.buffered} bytes in the outbox")

    async def close(self, target: Life, code: int, reason: str) -> None:
        own = target is self
        websocket = target.websocket
        if websocket.application_state.name == "CONNECTED" and websocket.closed is None:
            target.asked = code, reason
        target.note(f"close {code} by {'the endpoint' if own else 'another'}")
        began = self.world.now
        try:
            await websocket.close(code, reason)
        except WebSocketDisconnect as end:
            if not own:
                target.fault(f"a foreign closer was told {end!r}")
            raise
        if not own and self.world.now != began:
            target.fault("a foreign closer waited")

    async def hear(self) -> None:
        """One message of the client."""
        kinds: list[Callable[[], Awaitable[str | bytes]]]
        kinds = [self._hear_text, self._hear_text, self._hear_bytes, self._hear_json, self._hear_raw]
        try:
            self.take(await self.rng.choice(kinds)())
        except PeerError:
            self.take(None)
            raise
        except EOFError:
            raise WebSocketDisconnect(1000) from None
        except WebSocketDisconnect as end:
            self._told_end(end.code)
            raise

    def take(self, data: str | bytes | None) -> None:
        self.heard.append(data)
        self.heard_at = self.world.now if data is not None else -1
        self.note(f"heard {data!r}"[:40])

    def _told_end(self, code: int) -> None:
        self.note(f"told the end: {code}")
        self.heard_end = True
        self._check_code(code)
        closed = self.websocket.closed
        by_us = closed is not None and closed.by is ClosedBy.US
        aborted = code == 1006 and self.connection.has_stalled
        if self.connection.told_end and not by_us and not aborted and code != self.connection.truth[0]:
            self.fault(f"heard {code}, and it was {self.connection.truth}")

    async def _hear_text(self) -> str:
        return await self.websocket.receive_text()

    async def _hear_bytes(self) -> bytes:
        return await self.websocket.receive_bytes()

    async def _hear_json(self) -> str:
        value = await self.websocket.receive_json()
        return json.dumps(value)

    async def _hear_raw(self) -> str | bytes:
        message = await self.websocket.receive()
        if message["type"] == "websocket.disconnect":
            closed = self.websocket.closed
            if self.connection.end is End.APP or (closed is not None and closed.by is ClosedBy.US):
                self.heard_end = True
                raise EOFError  # servers say anything to an app that has closed
            raise Told(message["code"], message.get("reason"))
        if len(message) != 2:
            self.fault(f"a message with more than its kind: {message}")
        text: str | None = message.get("text")
        return text if text is not None else message["bytes"]

    async def wait_closed(self, target: Life) -> None:
        began = self.world.now
        closed = await target.websocket.wait_closed()
        target.ends.append(closed)
        target.note(f"wait_closed: {closed}")
        late = self.world.now - max(target.connection.ended_at, began)
        if target.connection.end in (End.CLIENT, End.SERVER) and late > 0 and not target.connection.over:
            target.fault(f"wait_closed told {closed} {late} s late")

    # The endpoint

    async def serve(self, websocket: WebSocket) -> None:
        self.begin(websocket)
        try:
            if not await self._is_refused():
                await self.open()
                await self.body(self)
                await self._say_last_words()
        except BaseException as error:
            self.left = error
            raise
        finally:
            self.note(f"left: {self.left!r}")
            if self.rng.random() < 0.7 and self in self.world.room:
                self.world.room.remove(self)

    def begin(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.begun = True

    async def _is_refused(self) -> bool:
        what = self.rng.random()
        if what < 0.3:
            await self.pause()
        if what < 0.80 or self.accepted:
            return False
        if what < 0.84:
            self.refused = 403
            await self.websocket.close()
        elif what < 0.88 and self.connection.dialect.denial:
            self.refused = 418
            await self.websocket.send_denial_response(JSONResponse({}, 418))
        elif what < 0.92:
            await self._raise_something()
        elif what < 0.94:
            await self.websocket.send_text("too early")
        elif what < 0.96:
            await self.websocket.receive_text()
        elif what < 0.98:
            return False if self.websocket.is_connected else self.websocket.closed is not None
        return True

    async def open(self) -> None:
        if self.accepted:
            return
        await self.websocket.accept(self.rng.choice([None, "chat"]))
        self.accepted = True
        self.note("accepted")
        self.world.room.append(self)
        if self.rng.random() < 0.3:
            self.start(self.wait_closed(self))

    async def _say_last_words(self) -> None:
        what = self.rng.random()
        if what < 0.2:
            await self._raise_something()
        elif what < 0.5:
            await self.close(self, self.rng.choice([1000, 1001, 3000, 4000]), self.rng.choice(["", "why", "ü" * 100]))
            if what < 0.25:
                await self.close(self, 4999, "twice")
        elif what < 0.55:
            with contextlib.suppress(WebSocketDisconnect):
                await self.say(self, f"{self.number}.last")

    async def _raise_something(self) -> None:
        raise self.rng.choice(
            [
                Bug("a bug"),
                Known(),
                WebSocketException(4100, "no"),
                WebSocketException(1005),
                HTTPException(404, "not here"),
                HTTPException(503, "busy"),
                WebSocketDisconnect(1000),
                ExceptionGroup("group", [WebSocketException(4101)]),
            ]
        )

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task beside the endpoint, which may outlive it."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.append(task)
        return task

    # Dependencies

    def dependency(self, place: int, rng: random.Random) -> Callable[..., AsyncIterator[None]]:
        what = rng.choice(["plain", "plain", "plain", *DEPENDENCIES])

        async def depend(websocket: WebSocket) -> AsyncIterator[None]:
            self.begin(websocket)
            if what == "fails":
                await asyncio.sleep(rng.choice(SLEEPS))
                self.left = self.kept_out = rng.choice([Bug(), WebSocketException(4102), HTTPException(401)])
                raise self.kept_out
            self.entered.append(place)
            try:
                if what == "accepts":
                    await self.open()
                    await self.say(self, f"{self.number}.hello{place}")
                yield
            except Exception:
                if what != "swallows":
                    raise
                self.left = self.kept_out  # an exception that keeps the endpoint from starting cannot be swallowed
            finally:
                self.exited.append(place)
                self.note(f"teardown {place}: {what}")
                if what == "slow":
                    await asyncio.sleep(rng.choice(SLEEPS))
                elif what == "speaks" and self.accepted:
                    with contextlib.suppress(WebSocketDisconnect):
                        await self.say(self, f"{self.number}.dependency{place}")
                elif what == "closes" and self.accepted:
                    with contextlib.suppress(WebSocketDisconnect):
                        await self.close(self, 4200, "")
                elif what == "breaks" and not isinstance(self.left, asyncio.CancelledError):
                    self.left = rng.choice([Bug(), WebSocketException(4103)])
                    raise self.left

        return depend

    async def in_background(self) -> None:
        self.background += 1

    # Results

    def arrived(self) -> list[tuple[str, int]]:
        """Sender and number of each message that the server took."""
        payloads = [one.get("text") or one.get("bytes") for one in self.connection.sent if one["type"].endswith("send")]
        return [tuple(json.loads(payload)[:2]) for payload in payloads if payload is not None]
