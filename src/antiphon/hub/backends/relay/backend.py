"""`relay://`: the workers of one host, joined by one small process (process.py). No broker, no port.

Where the relay is: `relay://` alone takes it from the environment variable `ANTIPHON_RELAY`, which
`antiphon run --workers N` sets; without it this process runs one of its own. `relay:///run/app.sock` and
`relay://@name` (an abstract socket) join one that somebody else runs. `relay://KEY:@name` says its key, too.

Owns one connection: made in `start`, made again when it is lost, never shared with a forked child.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, cast

from ...environment import ENVIRONMENT
from ...errors import BackendUnavailable, UnknownBackend
from ...records import Change, Claimed, Entry, Keep, Note, Page, Position, Roster, Track
from .. import handover
from ..base import BackendConfig, Listener, redact
from .names import MarkedNames, forget, warn_of_another
from .supervisor import Supervisor
from .trust import ANSWER, NotTrusted, WorkerHandshake, find_key, read_target, same_user
from .wire import MAX_REQUEST, DamagedStream, Op, Splitter, Words, frame, native_address, unpack_page

__all__ = ["RelayBackend", "RelayStats", "Supervisor"]

log: Final = logging.getLogger("antiphon.hub.relay")

MAX_UNSENT: Final = 32 << 20
"""Bytes of requests that wait for a relay that does not read; more are refused."""

QUEUE_FULL: Final = 0.02
"""Seconds until a relay whose queue of new connections is full is tried again."""

RENEWALS: Final = 3
"""Renewals per lease: two may be late before anybody is taken for dead."""


class RelayStats(NamedTuple):
    """Statistics of the relay process."""

    stored: int
    """Topics with history or members."""
    subscribed: int
    """Topics at least one worker wants to hear of."""
    workers: int


class RelayBackend:
    """One worker's connection to the relay of its host."""

    in_process = False
    refusing = False

    # Of a start, each made anew by the next one.
    _listener: Listener
    _target: str
    _target_key: str

    def __init__(self, url: str, config: BackendConfig) -> None:
        scheme, separator, named = url.partition("://")
        try:
            self._key, self._address = read_target(named) if named else ("", "")
        except ValueError:
            separator = ""
        if scheme != "relay" or not separator:
            raise UnknownBackend(f"expected relay://, relay:///path or relay://@name; got {redact(url)!r}")
        self._config = config
        self._names = MarkedNames(config.prefix)
        self._reset()

    def _reset(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._link: _Link | None = None
        self._supervisor: Supervisor | None = None
        self._handover: handover.Handover | None = None
        self._topics: set[str] = set()
        """As the relay knows them."""
        self._alone = True
        """Nobody has asked yet whether another hub of this program uses the same names."""
        self._reconnecting: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._stopped = False
        self._away = False
        """The hub knows of a loss and not yet of its end."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        return self._loop

    # Life

    async def start(self, listener: Listener) -> None:
        # anything started before a fork belongs to the parent, its connection and its tasks included
        self._reset()
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._target, self._target_key = address, _ = self._find()
        try:
            async with asyncio.timeout(self._config.start_timeout):
                self._link = await self._connect()
        except BaseException as error:
            self._stop_supervisor()
            if isinstance(error, (OSError, TimeoutError, LookupError)):
                raise BackendUnavailable(f"no relay answers at {address!r}: {error or 'no answer in time'}") from error
            raise
        if self._link.closed:
            self._stop_supervisor()
            raise BackendUnavailable(f"the relay at {address!r} closed the connection at once")
        self._link.ready = True
        self._renewing = asyncio.create_task(self._renew())

    def _find(self) -> tuple[str, str]:
        """Address and key; without a key it is looked up on connecting. Raises BackendUnavailable."""
        if self._address:
            return self._address, self._key
        named = os.environ.get(ENVIRONMENT, "")
        if named:
            try:
                key, address = read_target(named)
            except ValueError as error:
                raise BackendUnavailable(f"{ENVIRONMENT} in the environment names no relay: {error}") from None
            return address, key
        self._handover = handover.claim()
        self._supervisor = Supervisor(None if self._handover is None else self._handover.path)
        return self._supervisor.start(), self._supervisor.key

    async def stop(self) -> None:
        if self._stopped or self._pid != os.getpid():
            return
        self._stopped = True
        forget(self)
        for task in (self._renewing, self._reconnecting):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        link, self._link = self._link, None
        if link is not None:
            if link.ready:
                try:
                    await link.request(Op.GOODBYE)
                except BackendUnavailable:
                    pass  # then the lease ends our members
            link.close()
        self._stop_supervisor()

    def _stop_supervisor(self) -> None:
        if self._supervisor is not None:
            self._supervisor.stop()
            self._supervisor = None
            handover.give_back(self._handover)

    # Calls from the hub

    async def subscribe(self, topic: str, keep: Keep | None) -> Position | None:
        link = self._used()
        topic = self._names.mark + topic
        self._topics.add(topic)
        ((offset, epoch),) = await link.request(Op.SUBSCRIBE, (topic,))
        return None if keep is None else Position(offset, epoch)

    def unsubscribe(self, topic: str) -> None:
        topic = self._names.mark + topic
        self._topics.discard(topic)
        if self._link is not None and self._link.ready and self._pid == os.getpid():
            self._link.tell(Op.UNSUBSCRIBE, topic)

    async def publish(self, topic: str, data: bytes, keep: Keep | None) -> Position | None:
        kept = None if keep is None else tuple(keep)
        position = await self._used().request(Op.PUBLISH, self._names.mark + topic, data, kept)
        return None if position is None else Position(*position)

    async def history(
        self, topic: str, keep: Keep, since: Position | None, limit: int | None, size: int | None = None
    ) -> Page:
        position = None if since is None else tuple(since)
        return unpack_page(await self._ready().request(Op.HISTORY, self._names.mark + topic, position, limit, size))

    async def track(self, topic: str, track: Track) -> None:
        await self._ready().request(Op.TRACK, self._names.mark + topic, *track)

    async def untrack(self, topic: str, ref: str, grace: float) -> None:
        await self._ready().request(Op.UNTRACK, self._names.mark + topic, ref, grace)

    async def presence(self, topic: str) -> Roster:
        return Roster(*await self._ready().request(Op.PRESENCE, self._names.mark + topic))

    async def presence_count(self, topic: str) -> int:
        return int(await self._ready().request(Op.COUNT, self._names.mark + topic))

    async def control(self, payload: bytes) -> None:
        await self._ready().request(Op.CONTROL, self._names.message(payload))

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        await self._ready().request(Op.PUT, self._names.mark + key, value, ttl)

    async def take(self, key: str) -> bytes | None:
        taken: bytes | None = await self._ready().request(Op.TAKE, self._names.mark + key)
        return taken

    async def claim(self, key: str, ref: str, limit: int | None, evict: bool) -> Claimed:
        return Claimed(*await self._ready().request(Op.CLAIM, self._names.mark + key, ref, limit, evict))

    async def release(self, key: str, ref: str) -> None:
        await self._ready().request(Op.RELEASE, self._names.mark + key, ref)

    async def note(self, notes: Sequence[Note]) -> None:
        marked = [(self._names.mark + key, value, ttl) for key, value, ttl in notes]
        await self._ready().request(Op.NOTE, tuple(marked))

    async def noted(self) -> Sequence[Note]:
        return self._names.own(Note(*words) for words in await self._ready().request(Op.NOTED))

    async def stats(self) -> RelayStats:
        """Statistics of the relay process. Raises `BackendUnavailable`."""
        return RelayStats(*await self._ready().request(Op.STATS))

    def _ready(self) -> _Link:
        if self._pid not in (0, os.getpid()):
            raise BackendUnavailable("the relay connection belongs to the parent process; start the hub in this one")
        if self._link is None or not self._link.ready:
            raise BackendUnavailable("the relay backend is stopped" if self._stopped else "not connected to the relay")
        return self._link

    def _used(self) -> _Link:
        """As `_ready`. The first time, other hubs on the relay of this program's workers are looked for."""
        link = self._ready()
        if self._alone:
            self._alone = False
            if not self._address and self._supervisor is None:
                warn_of_another(self, self._target, self._config.prefix)
        return link

    # Connecting

    async def _connect(self) -> _Link:
        """A connection that has said hello, under a new name: the remains of an old one end with the old lease."""
        loop, config = asyncio.get_running_loop(), self._config
        listener = self._names.heard_by(self._listener)
        # uvloop takes a path up to its first NUL, so an abstract address must be connected by the socket itself.
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await _reach(sock, native_address(self._target))
            # looked up anew each time: a relay that was started again by hand has a new one
            key = self._target_key or await loop.run_in_executor(None, find_key, self._target)
            _, link = await loop.create_unix_connection(
                lambda: _Link(listener, self._lost, config.call_timeout, key), sock=sock
            )
        except BaseException:
            sock.close()
            raise
        try:
            link.begin()
            await link.trusted
            await link.request(Op.HELLO, uuid.uuid4().hex, config.presence_lease)
        except BaseException as error:
            link.close()
            if isinstance(error, BackendUnavailable):
                raise ConnectionError(str(error)) from error
            raise
        return link

    def _lost(self, link: _Link) -> None:
        if link is not self._link or self._stopped:
            return
        log.warning("lost the relay at %s", self._target)
        self._link = None
        if not self._away:
            self._away = True
            self._listener.lost()
            self._listener.flush()
        self._reconnecting = asyncio.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        pause, longest = self._config.backoff
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, longest)
            try:
                async with asyncio.timeout(self._config.call_timeout):
                    link = await self._connect()
            except (OSError, TimeoutError, LookupError):
                continue
            self._link = link
            try:
                self._resubscribe(link)
            except BackendUnavailable:
                self._link = None  # it broke before it was ours
                continue
            return

    def _resubscribe(self, link: _Link) -> None:
        """`restored` comes in the very turn the relay's answer does: entries may stand right behind it."""
        listener = self._listener

        def restored() -> None:
            link.ready = True
            self._away = False
            log.info("joined the relay at %s again", self._target)
            listener.restored()

        link.on_answer(restored, Op.SUBSCRIBE, tuple(self._topics))

    async def _renew(self) -> None:
        """Keep the lease. A relay that does not answer in time is one that is lost."""
        while True:
            await asyncio.sleep(self._config.presence_lease / RENEWALS * random.uniform(0.9, 1.0))
            link = self._link
            if link is None or not link.ready:
                continue
            try:
                await link.request(Op.RENEW)
            except BackendUnavailable:
                link.close()


async def _reach(sock: socket.socket, address: str) -> None:
    """Connect. No thread that waits is left behind when this is cancelled. Raises OSError."""
    while True:
        try:
            return sock.connect(address)
        except BlockingIOError:  # Linux says so of a queue that is full
            await asyncio.sleep(QUEUE_FULL)


class _Link(asyncio.Protocol):
    """One connection: requests out, answers and news in."""

    def __init__(self, listener: Listener, lost: Callable[[_Link], None], timeout: float, key: str) -> None:
        self.trusted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when both ends have shown that they know the key; before that nothing is unmarshalled."""
        self.ready = False
        """Subscriptions stand and the hub knows it."""
        self._listener = listener
        self._lost = lost
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._worker: WorkerHandshake | None = WorkerHandshake(key)
        self._answer = b""
        self._splitter = Splitter()
        self._number = 0
        self._waiting: dict[int, tuple[float, asyncio.Future[Any]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._callbacks: dict[int, Callable[[], None]] = {}

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def begin(self) -> None:
        """Ask the relay to show that it is the right one. `trusted` says how that went."""
        if self._transport is None or self._worker is None or self.closed:
            return  # it was lost since
        if not same_user(self._transport.get_extra_info("socket")):
            log.error("the relay runs as another user: not joined")
            self._transport.abort()
        else:
            self._transport.write(self._worker.asking)

    # Requests

    async def request(self, *words: Any) -> Any:
        """The relay's answer. Raises BackendUnavailable."""
        future: asyncio.Future[Any] = self._loop.create_future()
        number = self._send(words)
        self._waiting[number] = (self._loop.time() + self._timeout, future)
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout, self._expire)
        return await future

    def tell(self, *words: Any) -> None:
        """A request nobody waits for."""
        if self._transport is not None:
            op, *arguments = words
            self._transport.write(frame(op, 0, *arguments))

    def on_answer(self, callback: Callable[[], None], *words: Any) -> None:
        """Call back in the turn the answer comes; close the connection when it does not come in time."""
        number = self._send(words)
        self._callbacks[number] = callback
        self._loop.call_later(self._timeout, self._close_unless_answered, number)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _send(self, words: tuple[Any, ...]) -> int:
        if self._transport is None or self.closed:
            raise BackendUnavailable("not connected to the relay")
        if self._transport.get_write_buffer_size() > MAX_UNSENT:
            raise BackendUnavailable("the relay does not read its requests")
        self._number += 1
        op, *arguments = words
        data = frame(op, self._number, *arguments)
        if len(data) > MAX_REQUEST:
            raise BackendUnavailable(f"a request of {len(data)} bytes; the relay takes {MAX_REQUEST}")
        self._transport.write(data)
        return self._number

    def _expire(self) -> None:
        """All requests have the same patience: the first that still waits is the first whose time is over."""
        self._timer = None
        now = self._loop.time()
        for number, (deadline, future) in list(self._waiting.items()):
            if deadline > now:
                self._timer = self._loop.call_at(deadline, self._expire)
                return
            del self._waiting[number]
            if not future.done():
                late = f"the relay did not answer within {self._timeout:g} s"
                future.set_exception(BackendUnavailable(late, uncertain=True))

    def _close_unless_answered(self, number: int) -> None:
        if number in self._callbacks:
            self.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """`begin` does the rest.

        A transport may not end in here, by `abort` or because the peer of a `write` is gone: on uvloop it then never
        learns that it owns the socket it was made from. The descriptor would be closed once more, when it is another's.
        """
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.ready = False
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting = self._waiting, {}
        for _, future in waiting.values():
            if not future.done():
                future.set_exception(BackendUnavailable("the connection to the relay was lost", uncertain=True))
        self._callbacks.clear()
        if not self.trusted.done():
            self.trusted.set_exception(ConnectionError("the relay closed the connection: not its key, or not its user"))
            self.trusted.exception()  # an awaiting caller gets it
        self._lost(self)

    def data_received(self, data: bytes) -> None:
        if self._worker is not None:
            self._answer += data
            if len(self._answer) < ANSWER:
                return
            data = self._trust(self._worker)
        try:
            batch = self._splitter.feed(data)
        except DamagedStream as error:
            log.error("the relay sent %s", error)
            self.close()
            return
        for words in batch:
            _RECEIVERS[words[0]](self, words)
        self._listener.flush()

    def _trust(self, worker: WorkerHandshake) -> bytes:
        """The relay has answered. Returns the bytes behind the answer."""
        assert self._transport is not None
        try:
            self._transport.write(worker.answered(self._answer))
        except NotTrusted as error:
            log.error("not joined: %s", error)
            self._transport.abort()
            return b""
        behind, self._answer = self._answer[ANSWER:], b""
        self._worker = None
        if not self.trusted.done():
            self.trusted.set_result(None)
        return behind

    # Messages from the relay

    def _entry(self, words: Words) -> None:
        if not self.ready:
            return
        _, topic, data, position = words
        self._listener.deliver(topic, Entry(data, None if position is None else Position(*position)))

    def _reply(self, words: Words) -> None:
        _, number, result = words
        callback = self._callbacks.pop(number, None)
        if callback is not None:
            callback()
            return
        _, future = self._waiting.pop(number, (0.0, None))
        if future is not None and not future.done():
            future.set_result(result)

    def _failed(self, words: Words) -> None:
        _, number, text = words
        _, future = self._waiting.pop(number, (0.0, None))
        if future is not None and not future.done():
            future.set_exception(BackendUnavailable(f"the relay refused: {text}"))

    def _change(self, words: Words) -> None:
        if self.ready:
            _, topic, *change = words
            self._listener.presence_changed(topic, Change(*change))

    def _controlled(self, words: Words) -> None:
        self._listener.controlled(words[1])

    def _forgotten(self, words: Words) -> None:
        if self.ready:
            self._listener.forgotten()


_RECEIVERS: Final[dict[int, Callable[[_Link, Words], None]]] = {
    Op.ENTRY: _Link._entry,
    Op.REPLY: _Link._reply,
    Op.FAILED: _Link._failed,
    Op.CHANGE: _Link._change,
    Op.CONTROLLED: _Link._controlled,
    Op.FORGOTTEN: _Link._forgotten,
}
