"""`python -m tests.server.simulation --seeds 0 1000`: random lives of servers with random clients, in virtual time.

The real engine serves random apps (`simulated_app`) to random clients (`simulated_client`) over lines that do all that
networks and event loops do (`simulated_line`), with small limits, and stops at some time. In the end every connection
must have kept the promises of docs/server.md and src/antiphon/server/README.md, and nothing may be left.

The same seed gives the same life, and both twins live the same one: `--trace` prints the outside view of each, for
`tests.server.test_simulation` to compare.
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import hashlib
import json
import logging
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from antiphon.connection.options import ConnectionOptions
from antiphon.events import ConnectionClosed, ConnectionOpened, Event, KeepaliveTimeout, ProtocolViolated, SendTimeout
from antiphon.server import Engine, ServerConfig, Session
from antiphon.server.state import state_of
from antiphon.testing import VirtualTimeLoop
from antiphon.types import ClosedBy
from antiphon.wire import DeflateConfig
from tests.server import simulated_app, simulated_client, simulated_line
from tests.server.simulated_app import GONE, App, Planned
from tests.server.simulated_client import Client, Manners
from tests.server.simulated_line import ClientEnd, MemoryLine, SocketLine

ARRIVALS: Final = 3.0
"""Seconds in which the clients come."""
LONGEST: Final = 60.0
"""Seconds after which a server is stopped that was not before."""
QUIET: Final = 120.0
"""Seconds after the stop in which everything that has an end must come to it."""
PROMPT_KERNEL: Final = 10_000
"""Bytes in the network with which a client that reads at once is not slow."""
QUICK_CHUNK: Final = 1 << 16
"""Bytes in one chunk with which a client's Close does not come late behind its earlier messages."""
SMALL_FRAMES: Final = 2048
"""Bytes of control frames, and of a head, beyond an outbox's bound."""


def draw_config(rng: random.Random) -> ServerConfig:
    deflates = rng.random() < 0.7
    return ServerConfig(
        max_message_size=rng.choice([100, 1000, 5000, 100_000, 300_000]),
        inbound_bytes=rng.choice([1, 500, 5000, 128 << 10]),
        unfinished_bytes=rng.choice([None, None, 150_000]),
        outbox_bytes=rng.choice([1, 500, 5000, 256 << 10]),
        send_timeout=rng.choice([1.0, 3.0, 20.0]),
        handshake_timeout=rng.choice([None, 2.0, 60.0]),
        handshake_size=rng.choice([500, 1000, 64 << 10]),
        close_timeout=rng.choice([1.0, 5.0]),
        ping_interval=rng.choice([None, 1.0, 5.0]),
        ping_timeout=rng.choice([None, 1.0, 3.0]),
        deflate=DeflateConfig(
            server_no_context_takeover=rng.random() < 0.5,
            client_no_context_takeover=rng.random() < 0.5,
            threshold=rng.choice([0, 128]),
        )
        if deflates
        else None,
        max_frames_per_second=rng.choice([None] * 5 + [20]),
        max_bytes_per_second=rng.choice([None] * 5 + [5000]),
        max_connections=rng.choice([None] * 5 + [3]),
        max_connections_per_address=rng.choice([None] * 5 + [2]),
        stop_window=rng.choice([0.0, 0.5, 2.0]),
        stop_grace=rng.choice([0.0, 1.0, 3.0]),
    )


def draw_line(rng: random.Random) -> simulated_line.Habits:
    return simulated_line.Habits(
        tls=rng.random() < 0.3,
        kernel=rng.choice([500, 10_000, 64 << 10, 1 << 20]),
        chunk=rng.choice([1 << 7, 1 << 12, 1 << 16, 256 << 10]),
        per_turn=rng.choice([1, 3, 30]),
        late=rng.random() < 0.5,
        delay=rng.choice([0.0, 0.001, 0.01]),
    )


class Observed(Session):
    """A session whose bounds are checked at every step."""

    def __init__(self, engine: Engine, connection: Connection) -> None:
        super().__init__(engine)
        self.connection = connection
        self.data_received = self._check_data_received
        self._grown = 0

    def _check_data_received(self, data: bytes) -> None:
        pipe = self.pipe
        before = pipe.inbox_bytes
        pipe.data_received(data)
        if before <= pipe.inbound_limit:
            self._grown = 0
        elif pipe.inbox_bytes > before:
            self._grown += 1
        self.connection.expect(self._grown <= 1, "the inbox grew and grew beyond its bound")
        self.check_outbox()

    def resume_writing(self) -> None:
        self.check_outbox()
        super().resume_writing()
        self.check_outbox()

    def check_outbox(self) -> None:
        pipe, record = self.pipe, self.connection.app.record
        bound = pipe.outbox_limit + record.senders * (2 * record.largest + 100) + SMALL_FRAMES
        if record.through_ours:
            bound += ConnectionOptions().outbox_bytes
        if pipe.alive and pipe.buffered > bound:
            self.connection.expect(False, f"{pipe.buffered} bytes wait where {bound} may")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.connection.expect(self.connection.lost_at is None, "connection_lost was called twice")
        self.connection.lost_at = self.engine.loop.time()
        self.connection.line.lost.set()


@dataclass(slots=True, eq=False)
class Connection:
    """One of a life."""

    number: int
    seed: float
    app: App = field(init=False)
    client: Client = field(init=False)
    line: ClientEnd = field(init=False)
    session: Observed = field(init=False)
    events: list[Event] = field(default_factory=list)
    closed_at: float | None = None
    lost_at: float | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        return f"/{self.number}"

    @property
    def opened(self) -> bool:
        return any(isinstance(event, ConnectionOpened) for event in self.events)

    def expect(self, truth: bool, otherwise: str) -> None:
        """For promises that are looked at where an AssertionError would get lost."""
        if not truth:
            self.problems.append(otherwise)


class Errors(logging.Handler):
    """Keeps log records of errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class Life:
    """Everything of one seed."""

    def __init__(self, seed: int, *, calm: bool = False) -> None:
        """`calm`: no two things happen at one moment, no sender waits for the loop's next turn, and no pong is awaited
        (a moment's pause of reading excuses it). Then the turn in which a reader runs, where the twins differ by
        design, makes no difference."""
        self.rng = rng = random.Random(seed)
        self.config = draw_config(rng)
        self.habits = draw_line(rng)
        self.sockets = rng.random() < 0.2
        if calm:
            self.config = replace(self.config, outbox_bytes=256 << 10, ping_timeout=None)
            self.habits = replace(self.habits, per_turn=1, delay=0.01)
            self.sockets = False
        self.connections = [Connection(number, rng.random()) for number in range(rng.choice([1, 1, 2, 6]))]
        self.stop_at = rng.choice([rng.random() * 10, LONGEST])
        self.stop_bound = rng.choice([None, None, 2.0])
        self.errors = Errors()
        self.failures: list[dict[str, Any]] = []
        self.cancelled_at = float("inf")
        self.engine: Engine

    @property
    def messages(self) -> int:
        return sum(len(one.client.seen.received) + len(one.app.record.received) for one in self.arrived)

    @property
    def arrived(self) -> list[Connection]:
        """Those who came before the stop."""
        return [one for one in self.connections if hasattr(one, "client")]

    async def live(self) -> None:
        """Raises AssertionError for a promise that was broken."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.failures.append(context))
        logger = logging.Logger("simulated", logging.INFO)
        logger.addHandler(self.errors)
        self.engine = Engine(
            self._serve if self.rng.random() < 0.5 else lambda *arguments: self._serve(*arguments),
            replace(self.config, observers=(self._observe,)),
            stop_bound=self.stop_bound,
            logger=logger,
            rng=random.Random(self.rng.random()),
            work_clock=loop.time,
        )
        clients = [loop.create_task(self._be_client(one)) for one in self.connections]
        await asyncio.sleep(self.stop_at)
        times = self.engine.begin_stop()
        self.cancelled_at = loop.time() + times.cancel
        await asyncio.sleep(times.cancel + 0.1)
        for one in self.arrived:
            assert one.lost_at is not None, f"{one.path} outlives the stop"
        await asyncio.sleep(QUIET)
        await self._check_residue(clients)
        for one in self.arrived:
            try:
                Verdict(self, one).check()
            except AssertionError as error:
                raise AssertionError(f"{one.path}: {error}\n{self.story(one)}") from None

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        await self.connections[int(scope["path"][1:])].app(scope, receive, send)

    def _observe(self, event: Event) -> None:
        path: str = getattr(event, "path", "")
        if path:
            one = self.connections[int(path[1:])]
            one.events.append(event)
            if isinstance(event, ConnectionClosed):
                one.closed_at = self.engine.clock()

    async def _be_client(self, one: Connection) -> None:
        rng = random.Random(one.seed)
        manners = simulated_client.draw_manners(rng, largest=self.config.max_message_size)
        habits = simulated_app.draw_habits(rng, outbox=self.config.outbox_bytes)
        one.app = App(habits, random.Random(rng.random()), contextvars.Context())
        arrival = rng.random() * ARRIVALS
        line_rng, client_rng = random.Random(rng.random()), random.Random(rng.random())
        await asyncio.sleep(arrival)
        if self.engine.stopping:
            return
        one.session = Observed(self.engine, one)
        if self.sockets:
            one.line = SocketLine(one.session, self.habits, line_rng)
        else:
            one.line = MemoryLine(one.session, self.habits, line_rng, one.number)
        one.client = Client(one.line, manners, client_rng, one.path)
        await one.client.live()

    async def _check_residue(self, clients: list[asyncio.Task[None]]) -> None:
        for client in clients:
            client.cancel()
        for outcome in await asyncio.gather(*clients, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        await asyncio.sleep(TLS_AND_ALL)
        for failure in self.failures:
            raise AssertionError(f"in the loop: {failure}") from failure.get("exception")
        engine = self.engine
        assert not engine.tasks, f"tasks left: {engine.tasks}"
        assert not engine.sessions, f"sessions left: {engine.sessions}"
        assert not engine.connections, f"connections left: {engine.connections}"
        assert (engine.admission.count, engine.admission._addresses) == (0, {}), "still counted"
        assert (engine.unfinished._addresses, engine.unfinished.total) == ({}, 0), "unfinished messages counted"
        assert (engine.unread._addresses, engine.unread.total) == ({}, 0), "unread messages counted"
        assert len(engine.deadlines) == 0, "deadlines left"
        loop: Any = asyncio.get_running_loop()
        timers = [timer for timer in loop._scheduled if not timer.cancelled()]
        assert not timers, f"timers left: {timers}"
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left: {left}"
        self._check_log()

    def _check_log(self) -> None:
        for record in self.errors.records:
            text = record.getMessage()
            if text.startswith("Exception in ASGI application"):
                error = record.exc_info[1] if record.exc_info else None
                assert isinstance(error, (Planned, *GONE)), f"logged {error!r}"
            else:
                assert "returned without completing handshake" in text, f"logged: {text}"

    def story(self, one: Connection) -> str:
        """The facts for finding the cause."""
        session = one.session.pipe
        seen = one.client.seen
        facts = {
            "config": self.config,
            "line": self.habits if not self.sockets else "sockets",
            "stop": (self.stop_at, self.cancelled_at, self.stop_bound),
            "session": (state_of(session.state).name, session.close_code, session.close_reason, session.closed_by),
            "lost at": one.lost_at,
            "events": one.events,
            "app": (one.app.habits, one.app.record.events, one.app.record.codes, one.app.record.statuses),
            "client": one.client.manners,
            "client sent": (len(seen.sent), seen.close_sent, seen.violated, seen.vanished),
            "client saw": (seen.status, len(seen.received), seen.close, seen.reset),
        }
        return "\n".join(f"  {name}: {fact}" for name, fact in facts.items())

    def trace(self) -> list[Any]:
        """The view from outside: equal for both twins."""
        return [_trace(one) for one in self.arrived]


TLS_AND_ALL: Final = simulated_line.TLS_GOODBYE + 1


def _trace(one: Connection) -> list[Any]:
    """Without the order of simultaneous messages of several senders."""
    seen, record, session = one.client.seen, one.app.record, one.session.pipe
    return [
        [session.close_code, session.close_reason, session.closed_by and session.closed_by.name],
        [f"{type(event).__name__} {getattr(event, 'code', '')}" for event in one.events],
        record.events,
        _digest(record.received),
        {sender: _digest(payloads) for sender, payloads in by_sender(seen.received).items()},
        [seen.status, _digest([bytes(seen.body)]), _digest(seen.pongs), seen.close, seen.reset],
    ]


def _digest(payloads: Sequence[str | bytes]) -> str:
    return f"{len(payloads)} {hashlib.sha1(repr(payloads).encode()).hexdigest()}"


def by_sender(payloads: Sequence[str | bytes]) -> dict[str, list[str | bytes]]:
    """The received messages by sender."""
    senders: dict[str, list[str | bytes]] = {}
    for payload in payloads:
        text = payload if isinstance(payload, str) else payload.decode()
        senders.setdefault(text.partition(".")[0], []).append(payload)
    return senders


class Verdict:
    """Whether one connection kept the promises."""

    def __init__(self, life: Life, one: Connection) -> None:
        self.life = life
        self.one = one
        self.seen = one.client.seen
        self.manners: Manners = one.client.manners
        self.blameless = self.manners.prompt and not self.seen.vanished and life.habits.kernel >= PROMPT_KERNEL
        self.record = one.app.record
        self.session = one.session.pipe
        self.aborted_by_stop = one.lost_at is not None and one.lost_at >= life.cancelled_at

    def check(self) -> None:
        assert not self.one.problems, self.one.problems[0]
        assert self.seen.invalid is None, f"an invalid frame: {self.seen.invalid}"
        assert not self.seen.behind_close, f"{self.seen.behind_close} bytes behind the Close"
        assert self.record.disconnects <= 1, "two websocket.disconnect messages"
        for name, count in self.record.calls.items():
            assert count == 1, f"callback {name} was called {count} times"
        self._check_events()
        if self.one.opened:
            self._check_code()
            self._check_time()
            self._check_to_client()
            self._check_to_app()
        else:
            self._check_refusal()

    def _check_events(self) -> None:
        closed = [event for event in self.one.events if isinstance(event, ConnectionClosed)]
        assert len(closed) == self.one.opened, f"{len(closed)} ends were told"
        for event in closed:
            assert (event.code, event.closed_by) == (self.session.close_code, self.session.closed_by)
        if self.record.heard_the_end is not None:
            assert self.record.heard_the_end == (self.session.close_code, self.session.close_reason), "told otherwise"

    def _check_code(self) -> None:
        session, config = self.session, self.life.config
        code, by = session.close_code, session.closed_by
        assert code is not None, "it has not ended"
        if by is ClosedBy.PEER:
            assert code == self.seen.close_sent, f"ended with {code}, but the client sent {self.seen.close_sent}"
        elif by is ClosedBy.US:
            allowed = self.record.codes | {1012, self.seen.violated}
            if config.max_frames_per_second or config.max_bytes_per_second:
                allowed.add(1008)
            if config.unfinished_bytes:
                allowed.add(1013)
            assert code in allowed, f"closed with {code}, where only {allowed} may be"
        else:
            assert code == 1006
            assert not self.blameless or self.aborted_by_stop, "the connection of a client without blame was dropped"

    def _check_time(self) -> None:
        one, config = self.one, self.life.config
        assert one.closed_at is not None
        assert one.lost_at is not None
        took = one.lost_at - one.closed_at
        bound = max(config.close_timeout, config.send_timeout) + config.close_timeout + 1
        assert took <= bound, f"{took} s from the end to the end of its socket"
        failed = any(isinstance(event, ProtocolViolated) for event in one.events)
        quick = self.blameless and self.life.habits.chunk >= QUICK_CHUNK
        if quick and not failed and self.seen.violated is None and not self.aborted_by_stop:
            assert not self.seen.reset, "the closing handshake ended in a reset"

    def _check_to_client(self) -> None:
        seen, record, session = self.seen, self.record, self.session
        got = by_sender(seen.received)
        for sender, payloads in got.items():
            tried = record.tried.get(sender, [])
            assert payloads == tried[: len(payloads)], f"from {sender} came something else than was sent"
        if seen.close is not None:
            assert seen.close[0] == session.close_code, f"the client saw {seen.close}, not {session.close_code}"
            for sender, count in record.sure.items():
                here = len(got.get(sender, []))
                assert here >= count, f"of {count} messages of {sender}, {here} came before the Close"
        elif self.blameless:
            assert self.aborted_by_stop, "a client that reads saw no Close"
        pings = iter(seen.pinged)
        assert all(pong in pings for pong in seen.pongs if pong), "a pong without its ping, or out of order"

    def _check_to_app(self) -> None:
        seen, record, session = self.seen, self.record, self.session
        assert record.received == seen.sent[: len(record.received)], "the app got something else than was sent"
        if record.heard_the_end is None:
            return
        clean = session.closed_by is ClosedBy.PEER
        failed = (
            session.closed_by is ClosedBy.US
            and session.close_code == seen.violated
            and not (record.codes - {1000, 1011})
        )
        told = [type(event) for event in self.one.events]
        finished = seen.finished and session.closed_by is ClosedBy.NOBODY and not self.aborted_by_stop
        finished = finished and KeepaliveTimeout not in told and SendTimeout not in told
        if clean or finished or (failed and session.close_code in (1002, 1007, 1009)):
            missing = len(seen.sent) - len(record.received)
            assert not missing, f"{missing} messages before the end did not reach the app"

    def _check_refusal(self) -> None:
        seen, record, config = self.seen, self.record, self.life.config
        assert self.session.close_code in (None, 1006), f"never open, closed with {self.session.close_code}"
        if not self.blameless or self.aborted_by_stop:
            return
        if seen.status is None:
            assert self.one.app.habits.opening == "half-deny", "a handshake without an answer"
            return
        allowed = record.statuses | {503}
        if config.max_connections_per_address:
            allowed.add(429)
        if config.handshake_timeout:
            allowed.add(408)
        if config.handshake_size <= 1000:
            allowed.add(431)
        assert seen.status in allowed, f"refused with {seen.status}, where only {allowed} may be"
        if record.body is not None and seen.status not in (500, 503):
            assert bytes(seen.body) == record.body, f"{len(seen.body)} bytes of a denial of {len(record.body)}"


def run(seed: int, *, calm: bool = False) -> Life:
    """One life. Raises AssertionError."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(_run(seed, calm))


async def _run(seed: int, calm: bool) -> Life:
    life = Life(seed, calm=calm)
    await life.live()
    return life


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.server.simulation", description=__doc__)
    parser.add_argument("--seeds", nargs=2, type=int, default=(0, 1000), metavar=("FIRST", "BEHIND"))
    parser.add_argument("--trace", action="store_true", help="print what was to be seen of calm lives, as JSON lines")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first broken promise")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    failed = 0
    for seed in range(*options.seeds):
        try:
            life = run(seed, calm=options.trace)
        except AssertionError as error:
            sys.stdout.write(f"seed {seed}: {error}\n")
            failed += 1
            if not options.keep_going:
                return 1
            continue
        if options.trace:
            sys.stdout.write(json.dumps(life.trace()) + "\n")
        elif seed % 100 == 0:
            sys.stdout.write(f"seed {seed}: {len(life.connections)} connections, {life.messages} messages\n")
            sys.stdout.flush()
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
