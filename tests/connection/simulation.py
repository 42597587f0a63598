"""`python -m tests.connection.simulation --seeds 0 1000`: random endpoints on other servers, in virtual time.

Each life is a client on a server of a random dialect (`foreign_server`), and an endpoint (`simulated_life`) put
together from parts that users write (`simulated_programs`): loops that receive, broadcasts, tasks beside the endpoint,
timeouts, dependencies, closes and exceptions. Clients stall, close, vanish or stay. The servers stop at the end. Then
the contract's promises must have held.

The same seed gives the same life.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import contextvars
import gc
import json
import logging
import random
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount

from antiphon import App, BackgroundTasks, Depends, HTTPException, WebSocket, WebSocketException
from antiphon.connection import ConnectionOptions
from antiphon.exceptions import PeerError, WebSocketDisconnect
from antiphon.hub import Hub, TopicOptions
from antiphon.testing import VirtualTimeLoop
from antiphon.types import ASGIApp, ClosedBy, Message, Overflow, Receive, Scope, Send
from tests.connection.foreign_server import DIALECTS, Connection, End, Opening
from tests.connection.simulated_life import OUTBOX_BYTES, SEND_TIMEOUT, SLEEPS, Bug, Known, Life, Told
from tests.connection.simulated_programs import BODIES, TOPIC

LIVES: Final = 6
BROADCASTERS: Final = 2
BUSY_SECONDS: Final = 4.0
GRACE_SECONDS: Final = 0.5
QUIET_SECONDS: Final = 30.0


@dataclass
class World:
    """Everything of one seed."""

    seed: int
    rng: random.Random = field(init=False)
    app: App = field(init=False)
    server_app: ASGIApp = field(init=False)
    """The server's app: ours, behind middleware or below another app in some worlds."""
    wrapped: bool = field(init=False)
    lives: list[Life] = field(default_factory=list)
    room: list[Life] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    records: list[logging.LogRecord] = field(default_factory=list)
    published: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        overflow = self.rng.choice([Overflow.DISCONNECT, Overflow.DROP_NEWEST])
        options = ConnectionOptions(outbox_bytes=OUTBOX_BYTES, send_timeout=SEND_TIMEOUT, overflow=overflow)
        hub = Hub(topics={TOPIC: TopicOptions(outbox_bytes=OUTBOX_BYTES)})
        self.app = App(hub=hub, connection_options=options)

        self.wrapped = self.rng.random() < 0.2
        self.server_app = _Wrapping(self.app) if self.wrapped else self.app
        if self.rng.random() < 0.2:
            self.wrapped = True  # Starlette wraps `send` as well
            self.server_app = Starlette(routes=[Mount("/", self.server_app)])

        @self.app.exception_handler(Known)
        async def close(websocket: WebSocket, error: Known) -> JSONResponse:
            return JSONResponse({}, 418)

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def note(self, what: str) -> None:
        self.trace.append(f"{self.now:.3f} {what}")

    def fault(self, what: str) -> None:
        self.note(f"FAULT {what}")
        self.faults.append(what)

    def _child(self) -> random.Random:
        return random.Random(self.rng.random())

    async def live(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_exception)
        await self.app.hub.start()
        self.lives = [self._born(number) for number in range(LIVES)]
        clients = [loop.create_task(self._connect(life)) for life in self.lives]
        others = [
            loop.create_task(self._broadcast(number, self._child()), context=contextvars.Context())
            for number in range(BROADCASTERS)
        ]
        await asyncio.sleep(BUSY_SECONDS)
        await asyncio.gather(*others)
        await self._stop(clients)
        for task in clients:
            await task
        await asyncio.sleep(QUIET_SECONDS)
        await self.app.hub.stop()
        for life in self.lives:
            Check(self, life).all()
        await self._check_residue()

    def _born(self, number: int) -> Life:
        connection = Connection(self.server_app, f"/{number}", self.rng.choice(DIALECTS))
        life = Life(self, number, connection, self._child(), self.rng.choice(BODIES))
        dependencies = [
            Depends(life.dependency(place, self._child())) for place in range(self.rng.choice([0, 0, 1, 3]))
        ]

        async def simple(websocket: WebSocket) -> None:
            await life.serve(websocket)

        async def with_background(websocket: WebSocket, background: BackgroundTasks) -> None:
            life.wants_background = True
            background.add_task(life.in_background)
            await life.serve(websocket)

        if not dependencies and self.rng.random() < 0.3:
            self.app.add_websocket_route(life.path, simple)
            return life
        endpoints: list[Callable[..., Any]] = [simple, with_background]
        self.app.add_api_websocket_route(life.path, self.rng.choice(endpoints), dependencies=dependencies)
        return life

    async def _connect(self, life: Life) -> None:
        rng = random.Random(life.rng.random())
        await asyncio.sleep(rng.choice([0, 0.01, 0.5]))
        loop = asyncio.get_running_loop()
        server = loop.create_task(life.connection.run(), context=contextvars.Context(), name="server")
        life.tasks.insert(0, server)
        await life.be_client(rng)
        await server

    async def _broadcast(self, number: int, rng: random.Random) -> None:
        """Code that has nothing to do with any connection, as an HTTP route has."""
        outsider = Life(self, -1 - number, self.lives[0].connection, rng, BODIES[0])
        while self.now < BUSY_SECONDS - 0.1:
            what = rng.random()
            if what < 0.8:
                for target in list(self.room):
                    await outsider.say(target, f"w{number}")
            elif what < 0.85 and self.room:
                await outsider.close(rng.choice(self.room), 4005, "by the house")
            elif what < 0.87 and self.room:
                outsider.start(outsider.wait_closed(rng.choice(self.room)))
            elif self.room:
                target = rng.choice(self.room)
                target.note(f"asked: {target.websocket.is_connected} {target.websocket.closed}")
                self.published += 1
                await self.app.hub.publish(TOPIC, json.dumps(["hub", self.published, ""]))
            await asyncio.sleep(rng.choice(SLEEPS))
        self.lives[0].tasks += outsider.tasks

    async def _stop(self, clients: list[asyncio.Task[None]]) -> None:
        for life in self.lives:
            life.note("stop")
            life.connection.stop()
        await asyncio.sleep(GRACE_SECONDS)
        for life in self.lives:
            if not life.connection.over and life.tasks:
                life.note("cancelled")
                life.cancelled = True
                life.tasks[0].cancel()
        await asyncio.sleep(GRACE_SECONDS * 6)
        for life in self.lives:
            if not life.connection.over:
                self.fault(f"life {life.number} does not end when it is cancelled")

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        leaves = error.exceptions if isinstance(error, ExceptionGroup) else [error]
        if not all(isinstance(leaf, Bug | Told | RuntimeError) and _is_programs(leaf) for leaf in leaves):
            self.fault(f"the loop was told: {context['message']} {error!r}")

    async def _check_residue(self) -> None:
        for life in self.lives:
            while life.tasks:
                if not (task := life.tasks.pop()).done():
                    task.cancel()  # not the others: asyncio would no longer tell of their exceptions
                del task
        await asyncio.sleep(0.1)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            self.fault(f"tasks left: {left}")


class _Wrapping:
    """ASGI middleware that puts functions of its own before the server's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def wrapped_receive() -> Message:
            return await receive()

        async def wrapped_send(message: Message) -> None:
            await send(message)

        await self._app(scope, wrapped_receive, wrapped_send)


def _is_programs(error: BaseException | None) -> bool:
    return isinstance(error, Bug | Told) or "two tasks receive" in str(error)


# ---------------------------------------------------------------- promises


@dataclass
class Promise:
    """The row of the close matrix for an exception."""

    code: int
    reason: str = ""
    status: int = 403
    level: int = 0
    """Of the log line that it may have. A bug's must be there."""


def promised(error: BaseException | None, *, accepted: bool) -> Promise:
    match error:
        case None:
            return Promise(1000, level=0 if accepted else logging.WARNING)
        case ExceptionGroup():
            return _promised_for(error, accepted=accepted)
        case WebSocketDisconnect():
            return Promise(1000)
        case WebSocketException(code=1005):
            return Promise(1011, level=logging.ERROR if accepted else 0)
        case WebSocketException():
            return Promise(error.code, error.reason)
        case HTTPException():
            return Promise(1008 if error.status_code < 500 else 1011, error.detail, error.status_code)
        case PeerError():
            return Promise(error.close_code, error.close_reason, level=logging.WARNING)
        case Known():
            return Promise(1008, status=418)
        case asyncio.CancelledError():
            return Promise(1012)
    return Promise(1011, "Internal Server Error", 500, logging.ERROR)


def _promised_for(group: ExceptionGroup[Exception], *, accepted: bool) -> Promise:
    disconnects = [one for one in group.exceptions if isinstance(one, WebSocketDisconnect)]
    others = [one for one in group.exceptions if not isinstance(one, WebSocketDisconnect)]
    return promised(others[0] if others else disconnects[0], accepted=accepted)


@dataclass
class Check:
    """One life, looked at when all is over."""

    world: World
    life: Life

    def all(self) -> None:
        life = self.life
        for fault in life.connection.faults:
            life.fault(fault)
        if not life.begun:
            return
        self.states()
        self.teardown()
        self.heard()
        self.order()
        self.wait_closed()
        self.ending()
        self.log()

    def states(self) -> None:
        for before, after in zip(self.life.states, self.life.states[1:], strict=False):
            if before[0] > after[0] or before[1] > after[1]:
                self.life.fault(f"states went back: {before} {after}")

    def teardown(self) -> None:
        if self.life.exited != self.life.entered[::-1]:
            self.life.fault(f"dependencies {self.life.entered} were left as {self.life.exited}")

    def heard(self) -> None:
        life, told = self.life, self.life.connection.told
        succeeded = promised(life.left, accepted=True).code == 1000
        if life.wants_background and not life.cancelled and life.background != succeeded:
            life.fault(f"background tasks ran {life.background} times for {life.left!r}")
        for number, data in enumerate(life.heard):
            if data is not None and data != (told[number] if number < len(told) else None):
                life.fault(f"heard {life.heard}, and the client said {told}")
                return
        closed = life.websocket.closed
        by_us = closed is not None and closed.by is ClosedBy.US
        read_on = life.heard_end and life.websocket.client_state.name == "DISCONNECTED" and not by_us
        if read_on and life.connection.told_end and len(life.heard) != len(told):
            life.fault(f"heard only {len(life.heard)} of {len(told)} messages: {life.heard} {told}")

    def order(self) -> None:
        life = self.life
        by_sender: dict[str, list[int]] = {}
        for who, number in life.arrived():
            by_sender.setdefault(who, []).append(number)
        missing = 0
        for who, numbers in by_sender.items():
            if sorted(set(numbers)) != numbers:
                life.fault(f"{who}'s messages came as {numbers}")
            if who in life.foreign:
                missing += numbers[-1] + 1 - len(numbers)
        if missing > life.websocket.dropped:
            life.fault(f"{missing} foreign messages are missing, {life.websocket.dropped} were dropped")

    def wait_closed(self) -> None:
        life = self.life
        closed = life.websocket.closed
        if closed is None:
            life.fault("not closed at the end")
        for told in life.ends:
            true_codes = (1006, life.connection.truth[0])
            given_up = life.connection.has_stalled  # regardless of the server's later report
            truth = told.by is ClosedBy.US or told.code in true_codes or given_up
            if not truth or (told != closed and told.code != 1006):
                life.fault(f"wait_closed told {told}, and it was {closed}")

    def ending(self) -> None:
        life, connection = self.life, self.life.connection
        if connection.end is End.ABORTED or connection.left_open:
            closed = life.websocket.closed
            aborts = connection.dialect.aborts and not self.world.wrapped
            if not connection.has_stalled or (connection.left_open and aborts):
                life.fault(f"left open, and closed is {closed}")
        if connection.end is not End.APP or connection.left_open:
            return
        promise = promised(life.left, accepted=life.accepted)
        if connection.opening is Opening.REFUSED:
            self._refusal(promise)
            return
        closes = [one for one in connection.sent if one["type"] == "websocket.close"]
        code, reason = (closes[0]["code"], closes[0]["reason"]) if closes else (None, "")
        wanted = life.asked or (promise.code, promise.reason)
        if code == 1013 and (connection.has_stalled or connection.dialect.suspends):
            return
        if code != wanted[0] or not wanted[1].startswith(reason):
            life.fault(f"closed with {code} {reason}, and {wanted} was promised for {life.left!r}")

    def _refusal(self, promise: Promise) -> None:
        life, first = self.life, self.life.connection.sent[0]
        status = first.get("status", 403)
        wanted = life.refused or (promise.status if life.connection.dialect.denial else 403)
        if status != wanted:
            life.fault(f"refused with {status}, and {wanted} was promised for {life.left!r}")

    def log(self) -> None:
        life = self.life
        named = [record for record in self.world.records if f"({life.path})" in record.getMessage()]
        records = [record for record in named if record.levelno > logging.INFO]  # the reason of a refusal is there
        level = max((record.levelno for record in records), default=0)
        promise = promised(life.left, accepted=life.accepted)
        traceback = promise.status == 500 and level < logging.ERROR
        if level > promise.level or traceback:
            shown = [record.getMessage() for record in records]
            life.fault(f"logged {shown} for {life.left!r}")
        if len(records) > 1:
            life.fault(f"logged {len(records)} lines")


# ---------------------------------------------------------------- running


class _Collector(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.records.append(record)
        if not re.search(r"\(/\d\)|a task that nobody awaits ended: ", record.getMessage()):
            self._world.fault(f"logged: {record.getMessage()}")


@contextlib.contextmanager
def _watched(world: World) -> Iterator[None]:
    """Collects log lines, and errors that the interpreter would only print."""
    logger = logging.getLogger("antiphon")
    others = logging.getLogger("asyncio")
    collector = _Collector(world)
    before = logger.propagate, others.propagate, sys.unraisablehook
    for one in (logger, others):
        one.propagate = False
        one.addHandler(collector)
    sys.unraisablehook = lambda what: world.faults.append(f"unraisable: {what.exc_value!r} in {what.object!r}")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        world.faults += [f"warned: {warning.message}" for warning in caught]
    finally:
        logger.propagate, others.propagate, sys.unraisablehook = before
        for one in (logger, others):
            one.removeHandler(collector)


def run(seed: int) -> World:
    """One world; its `faults` are the promises that were broken."""
    world = World(seed)
    with _watched(world):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(_run(world))
        gc.collect()
    return world


async def _run(world: World) -> None:
    await world.live()
    gc.collect()
    await asyncio.sleep(0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.connection.simulation", description=__doc__)
    parser.add_argument("--seeds", nargs=2, type=int, default=(0, 1000), metavar=("FIRST", "BEHIND"))
    parser.add_argument("--trace", action="store_true", help="print what happened in a world that broke a promise")
    parser.add_argument("--go-on", action="store_true", help="do not stop at the first")
    options = parser.parse_args()
    gc.freeze()
    broken = 0
    for seed in range(*options.seeds):
        world = run(seed)
        if world.faults:
            broken += 1
            lines = world.trace if options.trace else world.faults
            sys.stdout.write("\n".join([f"seed {seed}:", *lines, ""]))
            if not options.go_on:
                break
    sys.stdout.write(f"{broken} broken\n")
    return broken > 0


if __name__ == "__main__":
    sys.exit(main())
