"""The state that the WebSocket connections of one server share: its limits, deadlines, observers, and its end.

`Engine` knows no ASGI server in particular: `uvicorn.py` makes one per uvicorn server, `antiphon.testing` one over an
in-memory transport. Of a connection it knows only `Stoppable`.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from antiphon.deadlines import Deadlines
from antiphon.events import ConnectionRefused, Event
from antiphon.shown import shown
from antiphon.types import ASGIApp, Receive, Scope, Send
from antiphon.wire import Deflate, Phase, Role, negotiate
from antiphon.wire.deflate import Agreement
from antiphon.wire.handshake import header_lines

from . import backend
from .backend import Flusher, Pipe, Turns, Twin
from .config import ServerConfig
from .doorway import Doorway
from .keepalive import ping_times
from .limits import Admission, Hoard
from .scope import ASGI_SPEC_VERSION, SharedAddresses, SharedHeaders, SharedTargets, path_with_query
from .state import Opening
from .stop import StopTimes, staggered, stop_times

if TYPE_CHECKING:
    from collections.abc import MutableSet

Headers = Iterable[tuple[bytes, bytes]]


_CANCEL_AGAIN: Final = 1.0
_LONGEST_TARGET: Final = 2000  # characters of it in an access line: more than any honest one has
_LONGEST_TICK: Final = 0.5
_TICKS_PER_TIMEOUT: Final = 16
_MOST_OFFERS: Final = 64


class Stoppable(Protocol):
    """The engine's calls to a connection when the server stops. `session.Session` implements it."""

    task: asyncio.Task[Any] | None
    """The app's."""

    @property
    def pipe(self) -> Pipe:
        """Its messages, its state and its transport."""

    def refuse(self, status: int, reason: str = "", headers: Any = ()) -> None:
        """Answer a handshake that waits."""

    def stop(self) -> None:
        """Send Close 1012, now or when the app has answered its current message."""

    def give_up_message(self) -> None:
        """Close: there is no room for the message it is receiving."""

    def give_up_inbox(self) -> None:
        """Close: there is no room for its unread messages."""

    def abort(self) -> None:
        """Drop the connection."""


class Engine:
    """The shared half of a server's WebSockets. `Session(engine)` is the half of one connection.

    `connections` and `tasks` are the caller's sets, kept up to date: a server that stops waits for both to be empty.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: ServerConfig | None = None,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        connections: MutableSet[Any] | None = None,
        tasks: MutableSet[asyncio.Task[Any]] | None = None,
        app_state: dict[str, Any] | None = None,
        root_path: str = "",
        asgi_version: str = "3.0",
        default_headers: Callable[[], Headers] = tuple,
        limit_concurrency: int | None = None,
        reset_contextvars: bool = False,
        stop_bound: float | None = None,
        logger: logging.Logger | None = None,
        access_log: bool = True,
        rng: random.Random | None = None,
        clock: Callable[[], float] | None = None,
        work_clock: Callable[[], float] = time.perf_counter,
        unproxied_app: ASGIApp | None = None,
    ) -> None:
        """`unproxied_app`: called instead of `app` for requests without a header of a proxy, where that is the same."""
        self.app: Final = app
        self._unproxied_app: Final = unproxied_app
        self.config: Final = config or ServerConfig()
        self.loop: Final = loop or asyncio.get_running_loop()
        self.context: Final = contextvars.copy_context()  # of callbacks that stay, which would each get a copy
        self.clock: Final = clock or self.loop.time  # of all deadlines
        self.connections: Final[MutableSet[Any]] = set() if connections is None else connections
        self.tasks: Final[MutableSet[asyncio.Task[Any]]] = set() if tasks is None else tasks
        self.app_state: Final = {} if app_state is None else app_state
        self.root_path: Final = root_path
        self.asgi: Final = {"version": asgi_version, "spec_version": ASGI_SPEC_VERSION}
        self.default_headers: Final = default_headers
        self.reset_contextvars: Final = reset_contextvars
        self.access_log: Final = access_log
        self.logger: Final = logger or logging.getLogger("antiphon.server")
        self._coroutine_functions: Final = {id(one): _is_coroutine_function(one) for one in (app, unproxied_app)}
        self.sessions: Final[dict[Stoppable, None]] = {}  # for large numbers a third of a set's size
        self.twin: Final[Twin] = backend.twin
        self.flusher: Final[Flusher] = self.twin.Flusher(self.loop)
        self.turns: Final[Turns] = self.twin.Turns(self.loop, work_clock)
        self.doorway: Final = Doorway(self.loop)
        self.headers: Final = SharedHeaders()
        self.targets: Final = SharedTargets(root_path)
        self.addresses: Final = SharedAddresses()
        self.deadlines: Final = Deadlines(_tick(self.config), self.clock, self.loop.call_later)
        self.admission: Final = Admission(self.config.max_connections, self.config.max_connections_per_address)
        self.ping_times: Final = ping_times(self.config.ping_interval, self.config.ping_timeout, self.deadlines.tick)
        self.retry_headers: Final = ((b"retry-after", b"%d" % self.config.retry_after),)
        self.refused: Final[Counter[int]] = Counter()  # handshakes that were turned away, by HTTP status
        self.stopping: bool = False
        self.unfinished: Final[Hoard[Stoppable]] = Hoard(self.config.unfinished_bytes)
        self.unread: Final[Hoard[Stoppable]] = Hoard(self.config.unread_bytes)
        self._agreements: dict[tuple[bytes, ...], tuple[Agreement | None, bytes | None]] = {}
        self._limit_concurrency: Final = limit_concurrency
        self._stop_bound: Final = stop_bound
        self._rng: Final = rng or random.Random()
        self._stop_queue: list[tuple[float, Stoppable]] = []

    _cancel_at: float = 0.0
    _grace: float = 0.0

    _default_lines: tuple[Sequence[tuple[bytes, bytes]], bytes] = ((), b"")
    """`default_headers` when they were last asked for, and as they go on the wire."""

    refusals: Final = {503: "no room for another connection", 429: "too many connections from this address"}

    def call_app(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, Any]:
        """The coroutine of the app's task for one connection."""
        app = self.app
        if self._unproxied_app is not None and not _came_by_proxy(scope["headers"]):
            app = self._unproxied_app
        if self._coroutine_functions[id(app)]:
            return app(scope, receive, send)  # type: ignore[return-value]
        return _call(app, scope, receive, send)

    # ------------------------------------------------------------ limits

    def admit(self, address: str) -> int | None:
        """Count a connection in, or say with which HTTP status it is refused."""
        if self.stopping:
            return 503
        limit = self._limit_concurrency
        if limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit):
            return 503  # uvicorn's limit counts HTTP connections too, and this one
        return self.admission.enter(address)

    def agree_on_compression(self, offered: Sequence[bytes]) -> tuple[Deflate | None, bytes | None]:
        """`wire.negotiate`; clients of one kind all make the same offer, which is understood once.

        Raises HandshakeError for an offer that breaks the grammar.
        """
        config = self.config.deflate
        key = tuple(offered)
        known = self._agreements.get(key)
        if known is None or config is None:
            deflate, answer = negotiate(offered, config)
            if len(self._agreements) < _MOST_OFFERS:
                self._agreements[key] = (None if deflate is None else deflate.agreement, answer)
            return deflate, answer
        agreement, answer = known
        return None if agreement is None else Deflate(agreement, Role.SERVER, config), answer

    def default_lines(self) -> bytes:
        """`default_headers` as they go on the wire, made anew when they have changed: uvicorn's do once a second."""
        known, lines = self._default_lines
        headers = tuple(self.default_headers())
        if headers != known:
            lines = header_lines(headers)
            self._default_lines = (headers, lines)
        return lines

    def note_unfinished(self, session: Stoppable, address: str, size: int) -> None:
        """A session holds so much of an unfinished message. Too much for all together: the greediest are given up."""
        for greedy in self.unfinished.note(session, address, size):
            greedy.give_up_message()

    def note_unread(self, session: Stoppable, address: str, size: int) -> None:
        """A session's inbox is so much beyond its bound. Too much for all together: the greediest are given up."""
        for greedy in self.unread.note(session, address, size):
            greedy.give_up_inbox()

    # ------------------------------------------------------------ who looks on

    @property
    def observed(self) -> bool:
        """Whether anybody wants to hear of events: without observers none has to be made."""
        return bool(self.config.observers)

    def emit(self, event: Event) -> None:
        """Tell all observers."""
        for observer in self.config.observers:
            try:
                observer(event)
            except Exception:
                self.logger.exception("an observer failed on %r", event)

    def note_refusal(self, path: str, status: int, reason: str) -> None:
        """Count a handshake that was turned away, and tell the observers. `path` is "" when it is not known."""
        self.refused[status] += 1
        self.emit(ConnectionRefused(path=path, status=status, reason=reason))

    def log_answer(self, scope: Scope | None, answer: str) -> None:
        """One line for how a handshake was answered, as uvicorn writes it."""
        if scope is None or not self.access_log or not self.logger.isEnabledFor(logging.INFO):
            return
        client = scope.get("client")
        address = f"{client[0]}:{client[1]}" if client else ""
        self.logger.info(
            '%s - "WebSocket %s" %s', shown(address), shown(path_with_query(scope), _LONGEST_TARGET), answer
        )

    # ------------------------------------------------------------ the end

    def begin_stop(self) -> StopTimes:
        """Refuse new connections, close the open ones, spread over a window, and cancel the rest. Ends in bounded
        time."""
        config = self.config
        times = stop_times(config.stop_window, config.stop_grace, config.close_timeout, self._stop_bound)
        if self.stopping:
            return times
        self.stopping = True
        now = self.clock()
        open_sessions = []
        for session in list(self.sessions):
            if session.pipe.state == Phase.OPEN:
                open_sessions.append(session)
            elif session.pipe.state <= Opening.WAITING_APP:
                session.refuse(503, "the server stops", self.retry_headers)
        if open_sessions:
            self.logger.info("Closing %d WebSocket(s) within %.1f s", len(open_sessions), times.window)
        queue = [(now + offset, session) for offset, session in staggered(open_sessions, times.window, self._rng)]
        self._stop_queue = queue[::-1]
        self._grace = times.cancel - times.window
        self._cancel_at = now + times.cancel
        self._close_next()
        return times

    def _close_next(self) -> None:
        queue = self._stop_queue
        now = self.clock()
        while queue and queue[-1][0] <= now:
            _, session = queue.pop()
            session.stop()
        if queue:
            self.loop.call_later(max(0.01, queue[-1][0] - now), self._close_next)
        elif self.sessions:
            # Where the loop had no time for the window, the grace period begins when the last has been told.
            self.loop.call_later(max(self._cancel_at - now, self._grace), self._cancel_rest)

    def _cancel_rest(self) -> None:
        for session in list(self.sessions):
            if session.task is not None:
                session.task.cancel("the server stops")
            if session.pipe.transport is not None:
                session.abort()
        if any(session.task is not None for session in self.sessions):
            self.loop.call_later(_CANCEL_AGAIN, self._cancel_rest)  # some have not understood


def _came_by_proxy(headers: Headers) -> bool:
    return b"forwarded" in b"\n".join([name for name, _ in headers])  # a third of the price of any() (connect)


async def _call(app: Any, scope: Scope, receive: Receive, send: Send) -> Any:
    """For an app that is no coroutine function itself: call it inside its task."""
    return await app(scope, receive, send)


def _tick(config: ServerConfig) -> float:
    """Fine enough for the shortest timeout to be kept to a sixteenth."""
    times = (config.handshake_timeout, config.close_timeout, config.send_timeout, config.ping_interval)
    shortest = min(time for time in (*times, config.ping_timeout) if time is not None)
    return min(_LONGEST_TICK, max(0.001, shortest / _TICKS_PER_TIMEOUT))


def _is_coroutine_function(app: Any) -> bool:
    return inspect.iscoroutinefunction(app) or (
        not inspect.isfunction(app) and inspect.iscoroutinefunction(getattr(app, "__call__", None))  # noqa: B004
    )
