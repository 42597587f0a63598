"""The relay: one small process that holds a `Store` and passes entries between the workers of one host.

Run by `supervisor.Supervisor`, or by hand: `python -m antiphon.hub.backends.relay ADDRESS`. Accepts only processes of
the same user that know its key (trust.py). A worker that does not read is disconnected when `MAX_BACKLOG` bytes that
others published wait for it. It reconnects and catches up by position. Answers to its own requests are no backlog: with
more than `MAX_ANSWERS` bytes of them unsent, the relay reads no more requests of it until it has read. All state is in
memory: a new process has a new epoch, unless the one before stopped cleanly and handed its histories over
(handover.py).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, cast

from ...environment import ENVIRONMENT
from ...records import Change, Keep, Position, Track
from ...store import Store
from ..handover import Handover
from .gatework import GATE_REQUESTS
from .trust import PATIENCE, NotTrusted, RelayHandshake, key_file, new_key, read_target, same_user
from .wire import MAX_REQUEST, DamagedStream, Op, Splitter, Words, frame, native_address, pack_page

log: Final = logging.getLogger("antiphon.hub.relay")

MAX_BACKLOG: Final = 32 << 20
"""Bytes waiting for one worker before it is cut: seconds of traffic for one that is only busy."""

MAX_ANSWERS: Final = 2 << 20
"""Bytes of answers that wait for one worker before its next request is looked at."""

PAGE_BYTES: Final = 1 << 20
"""A longer page of history is answered in parts: all workers wait while one answer is made."""

STOP: Final = b"."
"""A parent writes it to standard input to end the relay in order. An end without it: the parent was killed."""

SLACK: Final = 0.005
"""Seconds a sweep runs behind its deadline, so that it finds the deadline passed."""


class Relay:
    """The store, and the subscriptions of its workers."""

    def __init__(self, key: str, handover: Handover | None = None, clock: Callable[[], float] | None = None) -> None:
        """`key`: the secret that workers have to know."""
        self.key = key
        self._loop = asyncio.get_running_loop()
        self.clock: Callable[[], float] = self._loop.time if clock is None else clock
        self._handover = handover
        snapshot = None if handover is None else handover.take()
        version = time.time_ns() // 1000
        if snapshot is None:
            self.store: Store = Store(epoch=uuid.uuid4().hex[:12], version=version)
        else:
            self.store = Store.restored(snapshot, version=version, now=self.clock())
        self.workers: set[WorkerLink] = set()
        self.subscribers: dict[str, set[WorkerLink]] = {}
        self._pending: set[WorkerLink] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        """When the timer runs. Not asked of it: uvloop's handle does not know its time once that is almost due."""
        deadline = self.store.deadline
        if deadline is not None:
            self.arm(max(deadline - self.clock(), 0.0))

    def hand_over(self) -> None:
        """A clean stop: the next relay gets all data taken from workers, and no more is taken now."""
        for worker in tuple(self.workers):
            worker.cut()
        if self._handover is not None:
            self._handover.leave(self.store.snapshot(self.clock()))

    def send(self, worker: WorkerLink, data: bytes) -> None:
        worker.outgoing.append(data)
        self._pending.add(worker)

    def flush(self) -> None:
        """The results of one batch of requests leave in one write per worker."""
        pending, self._pending = self._pending, set()
        for worker in pending:
            worker.flush()

    def tell(self, changes: Iterable[tuple[str, Change]]) -> None:
        for topic, change in changes:
            subscribers = self.subscribers.get(topic)
            if subscribers:
                data = frame(Op.CHANGE, topic, *change)
                for worker in subscribers:
                    self.send(worker, data)

    def forget(self, worker: WorkerLink) -> None:
        """The connection is gone. Its members stay until the lease ends: the worker may be back by then."""
        self.workers.discard(worker)
        self._pending.discard(worker)
        for topic in worker.topics:
            self._unsubscribed(worker, topic)
        worker.topics.clear()

    def arm(self, delay: float) -> None:
        """Sweep in `delay` seconds, unless that is going to happen earlier."""
        when = self._loop.time() + delay + SLACK
        if self._timer is not None:
            if self._due <= when:
                return
            self._timer.cancel()
        self._due = when
        self._timer = self._loop.call_at(when, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = self.clock()
        self.let_go(now)
        self.flush()
        deadline = self.store.deadline
        if deadline is not None:
            self.arm(max(deadline - now, 0.0))

    def let_go(self, now: float) -> None:
        """Remove expired entries, and report them. A worker whose lease ran out gets a notice, too."""
        self.tell(self.store.sweep(now))
        for worker in self.workers:
            if worker.until is not None and worker.until <= now:
                worker.until = None
                self.send(worker, frame(Op.FORGOTTEN))  # it reads this before anything newer, whenever it wakes up

    def _unsubscribed(self, worker: WorkerLink, topic: str) -> None:
        subscribers = self.subscribers.get(topic)
        if subscribers is None:
            return
        subscribers.discard(worker)
        if not subscribers:
            del self.subscribers[topic]

    # Requests: each returns the words of the reply.

    def hello(self, worker: WorkerLink, process: str, lease: float) -> None:
        worker.process, worker.lease = process, lease
        self.extend(worker)

    def publish(self, worker: WorkerLink, topic: str, data: bytes, keep: tuple[int, float] | None) -> Words | None:
        kept = None if keep is None else Keep(*keep)
        entry = self.store.publish(topic, data, kept, self.clock())
        subscribers = self.subscribers.get(topic)
        if subscribers:
            words = frame(Op.ENTRY, topic, data, None if entry.position is None else tuple(entry.position))
            for subscriber in subscribers:
                self.send(subscriber, words)
        if kept is not None:
            self.arm(kept.ttl)
        return None if entry.position is None else tuple(entry.position)

    def subscribe(self, worker: WorkerLink, topics: tuple[str, ...]) -> Words:
        for topic in topics:
            self.subscribers.setdefault(topic, set()).add(worker)
        worker.topics.update(topics)
        return tuple(tuple(self.store.head(topic)) for topic in topics)

    def unsubscribe(self, worker: WorkerLink, topic: str) -> None:
        worker.topics.discard(topic)
        self._unsubscribed(worker, topic)

    def history(
        self, worker: WorkerLink, topic: str, since: tuple[int, str] | None, limit: int | None, size: int | None
    ) -> Words:
        position = None if since is None else Position(*since)
        size = PAGE_BYTES if size is None else min(size, PAGE_BYTES)
        return pack_page(self.store.page(topic, position, limit, self.clock(), size))

    def track(self, worker: WorkerLink, topic: str, ref: str, user: str, meta: bytes) -> None:
        self.extend(worker)
        change = self.store.track(topic, Track(ref, user, meta), worker.process)
        if change is not None:
            self.tell([(topic, change)])

    def untrack(self, worker: WorkerLink, topic: str, ref: str, grace: float) -> None:
        change = self.store.untrack(topic, ref, grace, self.clock())
        if change is not None:
            self.tell([(topic, change)])
        if grace > 0:
            self.arm(grace)

    def presence(self, worker: WorkerLink, topic: str) -> Words:
        self.let_go(self.clock())
        roster = self.store.roster(topic)
        return (roster.version, dict(roster.members), dict(roster.more))

    def count(self, worker: WorkerLink, topic: str) -> int:
        self.let_go(self.clock())
        return self.store.count(topic)

    def control(self, worker: WorkerLink, payload: bytes) -> None:
        data = frame(Op.CONTROLLED, payload)
        for other in self.workers:
            self.send(other, data)

    def renew(self, worker: WorkerLink) -> None:
        self.extend(worker)

    def goodbye(self, worker: WorkerLink) -> None:
        self.tell(self.store.drop_process(worker.process))

    def stats(self, worker: WorkerLink) -> Words:
        return (self.store.topics, len(self.subscribers), len(self.workers))

    def extend(self, worker: WorkerLink) -> None:
        """Its lease begins anew."""
        worker.until = self.clock() + worker.lease
        self.store.renew(worker.process, worker.until)
        self.arm(worker.lease)


REQUESTS: Final[dict[int, Callable[..., object]]] = {
    Op.HELLO: Relay.hello,
    Op.PUBLISH: Relay.publish,
    Op.SUBSCRIBE: Relay.subscribe,
    Op.UNSUBSCRIBE: Relay.unsubscribe,
    Op.HISTORY: Relay.history,
    Op.TRACK: Relay.track,
    Op.UNTRACK: Relay.untrack,
    Op.PRESENCE: Relay.presence,
    Op.CONTROL: Relay.control,
    Op.RENEW: Relay.renew,
    Op.GOODBYE: Relay.goodbye,
    Op.STATS: Relay.stats,
    Op.COUNT: Relay.count,
    **GATE_REQUESTS,
}


class WorkerLink(asyncio.Protocol):
    """One worker's connection."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.process = ""
        self.lease: float = 0.0
        self.until: float | None = None
        """When the lease ends. None: it did, and the worker has been told."""
        self.topics: set[str] = set()
        self.outgoing: list[bytes] = []
        self._door: RelayHandshake | None = RelayHandshake(relay.key)
        """None: the peer has shown that it knows the key. Before that nothing it sends is unmarshalled."""
        self._patience: asyncio.TimerHandle | None = None
        self._splitter = Splitter(MAX_REQUEST)
        self._transport: asyncio.Transport | None = None
        self._requests: deque[Words] = deque()
        """Read and not looked at yet. The socket is not read meanwhile."""
        self._paused = False
        self._answers = Unsent()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        # Below MAX_ANSWERS: a worker with so many unsent bytes will see `resume_writing`.
        self._transport.set_write_buffer_limits(high=MAX_ANSWERS // 2, low=MAX_ANSWERS // 4)
        if not same_user(transport.get_extra_info("socket")):
            log.warning("relay: refused a connection of another user")
            self._transport.abort()
            return
        self._patience = asyncio.get_running_loop().call_later(PATIENCE, self._transport.abort)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._patience is not None:
            self._patience.cancel()
        self.relay.forget(self)

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._door is not None and not (data := self._at_the_door(self._transport, self._door, data)):
            return
        try:
            self._requests += self._splitter.feed(data)
        except DamagedStream as error:
            self._cut(error)
        self._work()

    def resume_writing(self) -> None:
        self._work()

    def _work(self) -> None:
        """Answer the requests, while the worker takes the answers."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._answers.left(transport.get_write_buffer_size())
        try:
            while self._requests and self._answers.unsent < MAX_ANSWERS:
                self._answer(self._requests.popleft())
        except DamagedStream as error:
            self._cut(error)
        self.relay.flush()
        if not self._requests:
            if self._paused:
                self._paused = False
                transport.resume_reading()
            return
        if not self._paused:
            self._paused = True
            transport.pause_reading()
        if self._answers.unsent < MAX_ANSWERS:  # it took them at once: others have their turn before its next
            asyncio.get_running_loop().call_soon(self._work)

    def _cut(self, error: DamagedStream) -> None:
        log.warning("relay: cut a worker that sent %s", error)
        self._requests.clear()
        if self._transport is not None:
            self._transport.abort()

    def _at_the_door(self, transport: asyncio.Transport, door: RelayHandshake, data: bytes) -> bytes:
        """The bytes behind the proof."""
        try:
            answer, behind = door.feed(data)
        except NotTrusted as error:
            log.warning("relay: refused %s", error)
            transport.abort()
            return b""
        if answer:
            transport.write(answer)
        if behind is None:
            return b""
        self._door = None
        if self._patience is not None:
            self._patience.cancel()
        self.relay.workers.add(self)
        return behind

    def cut(self) -> None:
        """Nothing more is read from this worker."""
        if self._transport is not None:
            self._transport.abort()

    def flush(self) -> None:
        data, self.outgoing = self.outgoing, []
        if self._transport is None or self._transport.is_closing():
            return
        batch = b"".join(data) if len(data) > 1 else data[0]
        self._transport.write(batch)
        waiting = self._transport.get_write_buffer_size()
        self._answers.written(len(batch), waiting)
        if waiting - self._answers.unsent > MAX_BACKLOG:
            log.warning("relay: cut worker %s, %d bytes behind", self.process, waiting)
            self._transport.abort()

    def _answer(self, words: Words) -> None:
        op, number, *arguments = words
        request = REQUESTS.get(op)
        if request is None:
            raise DamagedStream(f"the unknown request {op!r}")
        try:
            result = request(self.relay, self, *arguments)
        except Exception as error:  # one request's fault must not end the relay of all workers
            log.exception("relay: request %s failed", op)
            self._reply(frame(Op.FAILED, number, f"{type(error).__name__}: {error}"))
            return
        if number:
            self._reply(frame(Op.REPLY, number, result))

    def _reply(self, data: bytes) -> None:
        self._answers.add(len(data))
        self.relay.send(self, data)


class Unsent:
    """The number of bytes of answers, among others, that have not left yet. Pure.

    Bytes that leave in one batch are counted as if the answers came last: they may be fewer by then, never more.
    """

    def __init__(self) -> None:
        self._fresh = 0
        self._end = 0
        self._batches: deque[tuple[int, int]] = deque()
        self._old = 0

    @property
    def unsent(self) -> int:
        return self._fresh + self._old

    def add(self, size: int) -> None:
        """An answer of the batch to come."""
        self._fresh += size

    def written(self, size: int, waiting: int) -> None:
        """A batch of this size was written; so many bytes wait now, it included."""
        self._end += size
        if self._fresh:
            self._batches.append((self._end, self._fresh))
            self._old += self._fresh
            self._fresh = 0
        self.left(waiting)

    def left(self, waiting: int) -> None:
        """So many bytes wait now."""
        sent = self._end - waiting
        while self._batches and self._batches[0][0] <= sent:
            self._old -= self._batches.popleft()[1]
        if self._batches:
            end, size = self._batches[0]
            self._old -= size - min(size, end - sent)
            self._batches[0] = (end, min(size, end - sent))


def listen(address: str) -> socket.socket:
    """A listening socket: `@name` is an abstract one (Linux, no file), anything else a path."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(address)
        server.bind(native_address(address))
        server.listen(1024)
    except BaseException:
        server.close()
        raise
    return server


def _remove_stale(address: str) -> None:
    """A relay that was killed leaves its socket file. Nobody listens behind it."""
    if address.startswith("@") or not os.path.exists(address):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(address)
        except ConnectionRefusedError:
            os.unlink(address)


async def serve(server: socket.socket, key: str, *, with_parent: bool, state: str | None) -> None:
    """Serve until SIGTERM. With `with_parent` until the parent says so, or is gone.

    `state`: the file by which a relay that is stopped in order hands over to the next one.
    """
    loop = asyncio.get_running_loop()
    over: asyncio.Future[bool] = loop.create_future()

    def end(clean: bool) -> None:
        if not over.done():
            over.set_result(clean)

    # Ctrl-C and a process manager reach the whole group: the parent lets its workers end first, and then us.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if with_parent else (lambda: end(True)))
    if with_parent:
        loop.add_reader(sys.stdin.fileno(), lambda: end(os.read(sys.stdin.fileno(), 1) == STOP))
    relay = Relay(key, None if state is None else Handover(state))
    listening = await loop.create_unix_server(lambda: WorkerLink(relay), sock=server)
    clean = await over
    listening.close()
    if clean:
        relay.hand_over()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m antiphon.hub.backends.relay", description="Pass hub messages between the workers of one host."
    )
    parser.add_argument("address", help="a path, or @name for an abstract socket")
    parser.add_argument("--fd", type=int, help="listen on this inherited socket")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input says so, or ends")
    parser.add_argument("--state", metavar="FILE", help="hand histories over to the next relay in this file")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    address = arguments.address
    key = _given_key(address)
    if not key and address.startswith("@"):
        parser.error(f"expected the key in {ENVIRONMENT}=KEY:{address}, as the workers have it (64 hexadecimal digits)")
    inherited = arguments.fd is not None
    server = socket.socket(fileno=arguments.fd) if inherited else listen(address)
    try:
        with contextlib.nullcontext(key) if key else _key_beside(address) as key:
            run = asyncio.run
            with contextlib.suppress(ImportError):
                import uvloop

                run = uvloop.run
            run(serve(server, key, with_parent=arguments.with_parent, state=arguments.state))
    finally:
        if not inherited and not address.startswith("@"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(address)


def _given_key(address: str) -> str:
    with contextlib.suppress(ValueError):
        key, named = read_target(os.environ.get(ENVIRONMENT, ""))
        return key if named == address else ""
    return ""


@contextlib.contextmanager
def _key_beside(address: str) -> Iterator[str]:
    """A new key in a file beside the socket, for all that may read our user's files."""
    key, path = new_key(), key_file(address)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # of a relay that was killed
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(key)
    try:
        yield key
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
