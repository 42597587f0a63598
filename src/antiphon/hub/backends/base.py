"""The contract of a backend, which moves published bytes between processes and stores history and presence.

Knows nothing of sockets, outboxes, options or JSON: those live in the hub. hub/README.md shows the flow.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeGuard

from ..errors import UnsupportedBackend
from ..records import Change, Claimed, Entry, Keep, Note, Page, Position, Roster, Track

MAX_PREFIX: Final = 100
"""Characters: it is a part of every key and channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendConfig:
    """The settings that the hub gives every backend it builds.

    For example:

        from antiphon.hub.backends import BackendConfig

        config = BackendConfig(prefix="shop", call_timeout=2)
    """

    presence_lease: float = 10.0
    """Seconds after which a silent process's members have left. Renewed every third of it. Shorter costs traffic."""
    start_timeout: float = 5.0
    """`start()` fails after this many seconds: an orchestrator should see a wrong URL at once."""
    call_timeout: float = 5.0
    """One request to the backend. Longer is trouble (`BackendUnavailable`)."""
    backoff: tuple[float, float] = (0.05, 2.0)
    """First and longest pause between attempts to reconnect, in seconds. A backend adds jitter."""
    prefix: str = "antiphon"
    """Of names in a shared store. Hubs with different ones never meet."""

    def __post_init__(self) -> None:
        """Raises TypeError, ValueError."""
        if not 0 < self.presence_lease < float("inf"):
            raise ValueError(f"presence_lease: expected seconds, more than 0; got {self.presence_lease!r}")
        if not isinstance(self.prefix, str):
            raise TypeError(f"prefix: expected a str, got {type(self.prefix).__name__}")
        if not self.prefix or not self.prefix.isprintable() or len(self.prefix) > MAX_PREFIX:
            raise ValueError(f"prefix: expected 1 to {MAX_PREFIX} printable characters, got {self.prefix[:80]!a}")


class Listener(Protocol):
    """The hub, as its backend sees it. None of the methods waits, raises, or calls back into the backend.

    A backend with a `loop` calls them in that loop's thread. One without (memory) calls them in the thread of its
    caller and may hold its lock, except for `flush`.
    """

    def deliver(self, topic: str, entry: Entry) -> None:
        """An entry of a subscribed topic, in the topic's one order. Topics nobody subscribed to are ignored."""

    def presence_changed(self, topic: str, change: Change) -> None:
        """A change in the members of a subscribed topic, in the order of versions."""

    def controlled(self, payload: bytes) -> None:
        """Somebody, here or elsewhere, called `control`."""

    def flush(self) -> None:
        """The entries since the last flush may go out. Called after every batch, outside of the backend's locks."""

    def lost(self) -> None:
        """From now on entries may be missed. Called once per loss. From then on calls raise `BackendUnavailable`."""

    def restored(self) -> None:
        """Connected again and every subscribed topic is subscribed again, before any new entry is delivered.

        The hub then asks for the missed entries, topic by topic, and tracks its members again.
        """

    def forgotten(self) -> None:
        """Connected all along, but this process's lease ran out: the hub tracks its members again."""


class Backend(Protocol):
    """One process's way to all the others.

    The hub calls all methods in the thread of `loop`, between `start` and `stop`. Where `loop` is None, in any thread
    and without `start`. Async methods raise `BackendUnavailable` at once while the backend is in trouble (waiting is
    the hub's part) and within `call_timeout` otherwise. A cancelled call leaves nothing half done here. Reconnecting
    is the backend's own work, for as long as it takes.
    """

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that `start` ran in. None when any thread may call."""

    @property
    def in_process(self) -> bool:
        """It also keeps the promises of `InProcessBackend`. False for all that have a connection, or suspend."""
        return False

    @property
    def refusing(self) -> bool:
        """It is there, and takes no writes now. Then the hub is not `connected`."""
        return False

    async def start(self, listener: Listener) -> None:
        """Connect. Raises `BackendUnavailable` (URL without password) within `start_timeout`."""

    async def stop(self) -> None:
        """Let go of everything. Members tracked by this process leave at once. Safe to call twice, or unstarted."""

    async def subscribe(self, topic: str, keep: Keep | None) -> Position | None:
        """Deliver the topic's entries and presence changes from now on.

        Returns a position such that every entry behind it will be delivered (entries before it may be, the hub drops
        them). None without `keep`. Leaves no trace in a store for a topic never published to. Subscribing twice is
        subscribing once.
        """

    def unsubscribe(self, topic: str) -> None:
        """Stop delivering, soon. Never fails. A later `subscribe` of the same topic is not harmed by it."""

    async def publish(self, topic: str, data: bytes, keep: Keep | None) -> Position | None:
        """Append one entry to the topic's one order and deliver it to every subscribed process, this one included.

        With `keep`: append to the history atomically with the ordering, and return the entry's position.
        Entries one process publishes one after the other keep that order.
        """

    async def history(
        self, topic: str, keep: Keep, since: Position | None, limit: int | None, size: int | None = None
    ) -> Page:
        """With `since`: the entries behind it, oldest first, at most `limit`. Without: the newest `limit`.

        `size`: of these, the oldest that have together at most so many bytes (each counts its data and `ENTRY_COST`),
        but one at least. `Page.rest` says how many are left. A backend may leave out more, also without `size`: no
        answer needs to be long.

        All or nothing. When the epoch differs, `since` is ahead of the head, or an entry behind `since` is no longer
        there, the page is empty and not recovered. Its position is the head. An entry in a page may still be delivered
        afterwards, and the hub drops it. No entry before the page's position may be delivered that is not in the
        history.
        """

    async def track(self, topic: str, track: Track) -> None:
        """Put a connection into the topic's members, or replace the one with the same ref.

        It takes the place of one lingering connection of the same user (see `untrack`), if there is one. Every
        subscribed process gets the change, if the member's metas did change.
        """

    async def untrack(self, topic: str, ref: str, grace: float) -> None:
        """The connection left. With `grace` > 0 it lingers, still listed, for that many seconds. Unknown refs:
        nothing.

        The connections of a process whose lease ran out leave with no grace: the lease was their grace.
        """

    async def presence(self, topic: str) -> Roster:
        """All members. A process sees its own earlier `track` and `untrack` in it."""

    async def presence_count(self, topic: str) -> int:
        """How many members `presence` would have now: users, not connections. Counted where they are kept."""

    async def control(self, payload: bytes) -> None:
        """Tell `payload` to every process's `controlled`, this one included."""


class InProcessBackend(Backend, Protocol):
    """A backend whose `in_process` is True: all there is of it is in this process, and so are all of its hubs.

    The hub takes it at its word: it waits for nothing, shares no answers, and hands no call over to another loop.

    - Any thread may call, at any time: before `start`, without it, and after `stop`. `loop` is None.
    - It is never in trouble: it does not raise `BackendUnavailable`, nor call `lost`, `restored` or `forgotten`.
    - No method but `start` and `stop` suspends. `publish` has called `deliver` and `flush` when it returns. Each method
      that changes the members of a topic has called `presence_changed`, in the order of the versions.
    - Entries are delivered whether their topic is subscribed or not. `subscribe` may come late, or not at all.
    - `stop` forgets histories, and the next one begins a new epoch. Subscribers that still listen hear the entries
      that come then.
    """

    def listen(self, listener: Listener) -> None:
        """From now on `listener` is called. Called once, when the hub is made. `start` may come later, or never."""


def is_in_process(backend: Backend) -> TypeGuard[InProcessBackend]:
    """Whether the hub may use it without starting it, and without waiting for it."""
    return backend.in_process


class GateBackend(Backend, Protocol):
    """A backend that also keeps the gate's state of all processes: tickets, shares of quotas, revocations.

    Each call is one atomic step, even among concurrent calls. In trouble they raise as those of `Backend` do. None of
    these has to outlive the store, but a clean restart keeps notes where it keeps histories.
    """

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keep `value` for `ttl` seconds, to be taken once. It replaces a value of the same name.

        Bounded: of a hundred thousand the one that ends first goes.
        """

    async def take(self, key: str) -> bytes | None:
        """The value, for the first who asks for it in time, in whichever process. None for all others.

        Never asked twice: an answer that got lost is `BackendUnavailable` with `uncertain`.
        """

    async def claim(self, key: str, ref: str, limit: int | None, evict: bool) -> Claimed:
        """A share for `ref`, which is named once and for all processes, of the `limit` that there are under this name.

        There are too many: refused, with the seconds after which asking again is of use. With `evict` the oldest are
        released instead, and named. None: granted whether it fits or not. A ref that has a share keeps it, and its
        place in the order. The shares of a process are free once its lease ran out (`presence_lease`), at once when it
        stops. One that lives hears of that by `Listener.forgotten`.
        """

    async def release(self, key: str, ref: str) -> None:
        """The share is free. Unknown ones: nothing."""

    async def note(self, notes: Sequence[Note]) -> None:
        """Keep these numbers, each under its name for its time. Of two under one name the greater one stays, and the
        longer time. Bounded as `put`."""

    async def noted(self) -> Sequence[Note]:
        """All notes that are kept, each with the time that is left."""


def keeps_gate(backend: Backend) -> TypeGuard[GateBackend]:
    """Whether it has the methods that `GateBackend` adds."""
    return all(callable(getattr(backend, name, None)) for name in GATE_CALLS)


def gate_of(backend: Backend, feature: str) -> GateBackend:
    """The backend, for a feature that needs the methods of `GateBackend`. Raises `UnsupportedBackend`."""
    if keeps_gate(backend):
        return backend
    raise UnsupportedBackend(
        f"{feature} needs {', '.join(GATE_CALLS)} of the hub's backend (antiphon.hub.backends.base.GateBackend), "
        f"and {type(backend).__name__} does not have them all"
    )


GATE_CALLS: Final = ("put", "take", "claim", "release", "note", "noted")
"""The methods that `GateBackend` adds to `Backend`."""


class BackendFactory(Protocol):
    """How the hub builds a backend: `MemoryBackend`, `RelayBackend`, `RedisBackend` are called like this."""

    def __call__(self, url: str, config: BackendConfig) -> Backend:
        """Connects to nothing yet. Raises `UnknownBackend` for a URL it cannot read."""


# To the last @, past the characters that end a host: a password that should have been percent-encoded is still secret.
_USERINFO = re.compile(r"(?<=://).*@", re.DOTALL)
_RELAY_KEY = re.compile(r"(?<=://)[0-9a-f]{64}:")
_SECRET_QUERY = re.compile(r"(?<=[?&])(\w*password|username)=[^&#]*", re.IGNORECASE)


def redact(url: str) -> str:
    """`url` without its user, password and key, to be shown in errors and logs."""
    return _SECRET_QUERY.sub(r"\1=***", _RELAY_KEY.sub("***:", _USERINFO.sub("***@", url)))
