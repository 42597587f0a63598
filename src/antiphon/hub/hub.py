"""`Hub`, the one door: publish, join, subscribe, history, presence, stats."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from antiphon.events import Observer
from antiphon.exceptions import RegistrationError
from antiphon.heartbeat import check_heartbeat
from antiphon.identity import Identity
from antiphon.status import WS_1008_POLICY_VIOLATION
from antiphon.tagged import MessageSet
from antiphon.types import SupportsSink

from .arguments import (
    Warnings,
    check_declared,
    has_sink,
    need_user,
    read_close,
    read_count,
    read_position,
    read_revocation,
    read_sink,
    read_user,
    user_in,
    user_of,
    warn_of_missing_f,
)
from .backend_access import BackendAccess, OnOutage
from .backends import build, default_url
from .backends.base import Backend, BackendConfig, is_in_process, redact
from .delivery import LocalReceiver
from .direct import pack_direct
from .door import HubDoor
from .envelope import Envelope, PayloadForm, encode, encode_json, pack
from .errors import HubError, UnencodableData
from .events import Published
from .joining import Joining
from .lifecycle import Lifecycle
from .membership import PLAIN, JoinRequest, Membership, Subscription
from .message import History, infos, to_message
from .pages import PART_BYTES, Pages
from .records import ENTRY_COST, Position, Track
from .rooms import Rooms
from .subscription import QueueSink
from .topics import MAX_SECONDS, DeclaredTopics, Framing, TopicOptions, TopicTable, check_member, check_number

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core.core_schema import CoreSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class HubStats:
    """Figures of a hub: the present state, and counters since it was made. This process only.

    For example:

        stats = hub.stats()
        print(stats.connected, stats.connections, stats.published)
    """

    backend: str
    """Its URL, without password."""
    connected: bool
    """The backend is there and takes messages: it is neither full nor read-only."""
    connections: int
    """Sockets (and subscriptions of code) that are in at least one topic."""
    topics: int
    """Topics with at least one of them."""
    memberships: int
    """Joins, a connection in two topics counted twice."""
    published: int
    """Messages published here."""
    delivered: int
    """Messages handed to receivers: one publish to a thousand counts a thousand."""
    dropped: int
    """Messages lost by overflow policies, for all receivers together."""
    disconnected: int
    """Receivers disconnected for being too slow."""
    high_water: int
    """Bytes in the fullest outbox that ever refused a message."""
    dropped_now: Mapping[str, int] = field(default_factory=dict)
    """By topic: messages lost for the receivers that are in it now."""


class Hub:
    """Topics across connections, processes and machines.

        app = App(hub=Hub(topics={"room:*": TopicOptions(history=100)}))

        @app.websocket("/rooms/{room}")
        async def room(websocket: WebSocket, hub: Hub, room: str) -> None:
            await websocket.accept()
            async with hub.join(f"room:{room}", websocket, history=20):
                async for text in websocket.iter_text():
                    await hub.publish(f"room:{room}", text)

    `url` picks the backend: `memory://` (this process; needs no `start`), `relay://` (the workers of one host),
    `redis://…` (many hosts; `unix://…`: the same by a socket of this machine). Without one, the hub reaches all
    workers of `antiphon run` and `antiphon relay`, else this process. Use it as `async with hub:`, or call `start`
    and `stop`, or leave it to the lifespan of the `App` that owns it. If nothing starts it, as in a mounted app, it
    starts at its first use and stops with the event loop of that use. All methods may be called from any task of any
    event loop, and none waits for a receiver.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        topics: Mapping[str, TopicOptions] | Iterable[DeclaredTopics | Mapping[str, TopicOptions]] | None = None,
        on_outage: OnOutage = OnOutage.RAISE,
        outage_timeout: float = 30.0,
        presence_lease: float = 10.0,
        heartbeat: float | None = None,
        prefix: str = "antiphon",
        observer: Observer | None = None,
        backend: Backend | None = None,
    ) -> None:
        """Connects to nothing yet.

        `topics`: options by topic or pattern (`*` stands for any characters), see `TopicOptions`. Or a list of typed
        `Topics`, with such options beside them. `on_outage`: the policy of a call while the backend is away.
        `outage_timeout`: seconds after which WAIT gives up. `presence_lease`: seconds after which the members of a
        killed process have left. `heartbeat`: seconds between two `{"type": "heartbeat"}` on connections in topics
        with `Framing.EVENT`. None sends none. `prefix`: of names in the relay and in Redis, so that hubs with different
        ones never meet. `observer`: receives events (`antiphon.hub.events`). `backend`: instead of `url`, one of your
        own. Raises `UnknownBackend`, `InvalidTopic`, RegistrationError, TypeError and ValueError for bad options.
        """
        check_member("on_outage", on_outage, OnOutage)
        if not 0 <= check_number("outage_timeout", outage_timeout, float) <= MAX_SECONDS:
            raise ValueError(f"outage_timeout: expected seconds, 0 or more; got {outage_timeout!r}")
        url = default_url() if url is None else url
        self._topics = TopicTable({} if topics is None else topics)
        self._rooms = Rooms(_process())
        config = BackendConfig(presence_lease=presence_lease, prefix=prefix)
        self._backend = build(url, config) if backend is None else backend
        self.url: str = redact(url) if backend is None else type(backend).__name__
        """Without password."""
        self._access = BackendAccess(self._backend, self._rooms, on_outage, outage_timeout)
        self._lifecycle = Lifecycle(self._access, self._rooms, self.url, self._name_process)
        self._pages = Pages(self._access)
        self._joining = Joining(self._rooms, self._access, self._pages, check_heartbeat(heartbeat))
        self._serial = itertools.count(1)
        self._warned = Warnings(bool(topics))
        self._door = HubDoor(self._rooms, self._access, self._lifecycle, self._serial)
        self._published = 0
        if is_in_process(self._backend):
            self._backend.listen(self._rooms)
        self.observer = observer
        _hubs.add(self)
        for declared in self._topics.declared:
            declared.bind(self)
        for greet in _greeters:
            greet(self)

    @property
    def observer(self) -> Observer | None:
        """Called with the hub's events (`antiphon.hub.events`). None costs nothing."""
        return self._rooms.observer

    @observer.setter
    def observer(self, observer: Observer | None) -> None:
        self._rooms.observer = observer

    @property
    def backend(self) -> Backend:
        """The backend, which moves the messages."""
        return self._backend

    @property
    def door(self) -> HubDoor:
        """The hub's side of `antiphon.gate`."""
        return self._door

    # Life

    async def start(self) -> None:
        """Connect. Raises `BackendUnavailable` with the URL without its password, soon. Starting twice does nothing.

        Needed where the start is to tell that the backend is away. Else the first use does it. Raises HubError outside
        asyncio: a hub runs in no other event loop.
        """
        await self._lifecycle.start()

    async def stop(self) -> None:
        """Let go of the backend and end all subscriptions of code. Sockets stay up. Safe to call again.

        From then on the hub is not running, until somebody starts it.
        A hub in memory forgets its histories: the next life starts empty, with a new epoch.
        """
        for station in tuple(self._rooms.stations.values()):
            station.put(station.close, _is_queue, (1001, "the hub has stopped"))
        self._rooms.flush()
        await self._lifecycle.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def connected(self) -> bool:
        """The backend is there and takes messages. Costs nothing."""
        return self._access.accepting

    async def awake(self, within: float) -> bool:
        """`connected`. A hub that nobody has started or used yet is started first, and waited for `within` seconds."""
        if self._lifecycle.startable:
            with contextlib.suppress(TimeoutError, HubError):
                async with asyncio.timeout(within):
                    await self._lifecycle.wake()
        return self.connected

    # Messages

    async def publish(self, topic: str, data: Any, *, exclude: SupportsSink | None = None) -> Position | None:
        """Send `data` to all receivers of the topic, in every process, in the topic's one order.

            await hub.publish("room:7", {"text": "hi"}, exclude=websocket)

        str goes as a text frame, bytes as a binary frame, anything else as JSON text. `exclude`: a connection that
        does not get it. Returns the message's position for topics with history, else None. When it returns, the
        backend has taken the message. Receivers in this loop already have it in their outboxes on `memory://`. Raises
        `InvalidTopic`, `UnencodableData` and, of a typed topic, `UndeclaredMessage` before anything is sent,
        `BackendUnavailable`, `HubNotRunning`.
        """
        topic, options = self._topics.find(topic)
        form, payload = encode(data, options.messages)
        if form is PayloadForm.BINARY and options.framing is Framing.EVENT:
            raise UnencodableData(f"topic {topic!r} sends JSON events (Framing.EVENT); bytes have no place in them")
        key = "" if options.conflate_by is None else options.conflation_key(data)
        packed = pack(Envelope(form, payload, key, "" if exclude is None else self._name_of(exclude)))
        self._lifecycle.check()
        if self._access.in_process and not self._rooms.entered:
            self._warned.of_members_elsewhere(topic, (hub._rooms.rooms for hub in tuple(_hubs)))
        position = await self._access.publish(topic, packed, options.keep)
        if self._rooms.observer is not None:
            self._rooms.tell(Published(topic=topic, size=len(payload)))
        self._published += 1
        return position

    def join(
        self,
        topic: str,
        websocket: SupportsSink,
        *,
        since: Position | None = None,
        history: int = 0,
        presence: object = None,
        user: str | int | None = None,
    ) -> Membership:
        """Use as `async with`: messages published to the topic reach the socket until the block or the socket ends.

            async with hub.join("room:7", websocket, history=20, presence={"name": "Ann"}) as membership:
                print(membership.position)

        `since`: first everything published behind this position, or nothing of it (see `Membership.recovered`).
        `history`: first that many of the newest messages. With `since` too, only if that could not be recovered.
        `presence`: the value that others see of this connection. Any JSON value but None makes it a member. With
        `TopicOptions(presence=True)` the socket gets the members as `presence_diff` events, the first of which brings
        all of them. `user`: its name, and several connections of one user are one member. Without it:
        `presence["user"]`, `["id"]`, or presence itself if it is a str. Else the connection's authenticated user, else
        it is a member of its own.

        Raises `InvalidTopic`, `UndeclaredTopic`, `UnencodableData` and `HubNotRunning` at once. On entering it raises
        `NotAccepted` before `accept()`, `WebSocketDisconnected` when the socket is closed, `BackendUnavailable`.
        """
        topic, options = self._topics.find(topic)
        check_declared(topic, options.messages, websocket)
        warn_of_missing_f(topic, websocket)
        serial = next(self._serial)
        given = read_user(user)
        who = given or user_of(websocket)
        self._lifecycle.check()
        if presence is None and since is None and history == 0:
            request = PLAIN
        else:
            track = None
            if presence is not None:
                ref = f"{self._rooms.process}.{serial}"
                who = given or user_in(presence) or who or ref
                track = Track(ref, who, encode_json(presence))
            watch = track is not None and bool(options.presence)
            request = JoinRequest(read_position(since), read_count("history", history), track, watch)
            self._warned.of_what_is_not_kept(topic, options, since, history, presence)
        receiver = LocalReceiver(read_sink(websocket), serial, who, websocket)
        return Membership(self._joining, topic, options, receiver, request, websocket)

    def messages_of(self, topic: str) -> MessageSet[Any] | None:
        """The messages of a typed topic. None for one that is not declared. Raises `InvalidTopic`."""
        return self._topics.find(topic)[1].messages

    def subscribe(
        self, topic: str, *, since: Position | None = None, history: int = 0, presence: bool = False
    ) -> Subscription:
        """The same without a socket: `async with hub.subscribe(topic) as messages: async for message in messages`.

        Yields `Message`. Its `kind` is MESSAGE, or RESYNC after trouble that lost messages, or with `presence` also
        PRESENCE_DIFF. Call it in the event loop that iterates.
        """
        topic, options = self._topics.find(topic)
        self._lifecycle.check()
        queue = QueueSink()
        receiver = LocalReceiver(queue, next(self._serial), None)
        request = JoinRequest(read_position(since), read_count("history", history), None, presence)
        self._warned.of_what_is_not_kept(topic, options, since, history)
        return Subscription(self._joining, topic, options, receiver, request, queue)

    async def history(self, topic: str, since: Position | None = None, limit: int | None = None) -> History:
        """Messages kept for the topic, oldest first: those behind `since`, at most `limit`, or the newest `limit`.

        `.position` is where to go on, `.recovered` whether everything behind `since` is there. If not, it is empty. Of
        a topic that keeps none it is empty, and that is warned of once. Raises `InvalidTopic`, `BackendUnavailable`,
        `HubNotRunning`.
        """
        topic, options = self._topics.find(topic)
        self._lifecycle.check()
        if options.keep is None:
            self._warned.of_history_not_kept(topic, "hub.history()")
            return History((), None, False)
        limit = None if limit is None else read_count("limit", limit)
        page = await self._pages.whole(topic, options.keep, read_position(since), limit)
        found: History = History((), page.position, page.recovered)
        size = 0
        for entry in page.entries:
            message = to_message(topic, entry, options.messages)
            if message is not None:
                found.append(message)
            size += len(entry.data) + ENTRY_COST
            if size > PART_BYTES:
                size = 0
                await asyncio.sleep(0)  # others have their turn while a long page is decoded
        return found

    # People

    async def presence(self, topic: str) -> dict[str, list[Any]]:
        """The members: user to the `presence` of each of its connections (the newest 8), oldest first.

        Raises `InvalidTopic`, `BackendUnavailable`, `HubNotRunning`.
        """
        topic, _ = self._topics.find(topic)
        self._lifecycle.check()
        await self._access.flush_departures(topic)
        return infos((await self._access.presence(topic)).members)

    async def presence_count(self, topic: str) -> int:
        """How many members the topic has: users, not connections. Raises as `presence`."""
        topic, _ = self._topics.find(topic)
        self._lifecycle.check()
        await self._access.flush_departures(topic)
        return await self._access.presence_count(topic)

    async def close_connections(
        self,
        *,
        user: str | int | None = None,
        topic: str | None = None,
        code: int = WS_1008_POLICY_VIOLATION,
        reason: str = "",
    ) -> None:
        """Close the sockets of a user, of a topic, or of a user in a topic, in every process.

        Knows the connections that are in a topic, `user` as `join` understood it, and those that were let in with an
        identity, in topics or not. Each is closed once. They may come back: only `revoke` keeps them out. Returns when
        all processes have been told. Raises ValueError for a code that may not go on the wire or when neither is
        given, TypeError, `InvalidTopic`, `BackendUnavailable`, `HubNotRunning`.
        """
        who = read_user(user)
        if user is None and topic is None:
            raise ValueError("expected a user, a topic, or both; got neither")
        if user is not None and who is None:
            raise ValueError("user: expected a name; an empty one is nobody's")
        if topic is not None:
            topic, _ = self._topics.find(topic)
        code, reason = read_close(code, reason)
        self._lifecycle.check()
        command = {"user": who, "topic": topic, "code": code, "reason": reason}
        await self._access.control(encode_json(command))

    async def send(self, data: Any, *, user: str | int, exclude: SupportsSink | None = None) -> None:
        """Send `data` to all connections of a user, in every process, in topics or not.

            await hub.send({"type": "reminder"}, user="ann")

        Those that were let in with an identity of this user, and those that joined a topic as it. `data` and `exclude`
        as for `publish`. A connection of a channel gets only messages that the channel declares, with their tag. One
        that does not keep up is closed with 1013, as topics do by default. Returns when the backend has taken the
        message. Absent users get nothing. Messages of one process keep their order, and have none relative to
        published ones. Raises `UnencodableData`, ValueError, `BackendUnavailable`, `HubNotRunning`.
        """
        excluded = "" if exclude is None else self._name_of(exclude)
        packed = pack_direct(need_user(user), data, excluded)
        self._lifecycle.check()
        await self._access.control(packed)

    async def admit(self, websocket: object, identity: Identity) -> None:
        """The connection is this identity's until it ends: `send`, `close_connections` and `revoke` find it.

        Code that lets users in calls it, above all `antiphon.gate.admit`, and again when the identity was renewed.
        `websocket`: an antiphon WebSocket, accepted or not, or an object with a `sink`. Of any other connection only
        the identity counts. Raises `Revoked`, and `BackendUnavailable` where the backend was never there: then no one
        knows who was revoked.
        """
        if not isinstance(identity, Identity):
            raise TypeError(f"expected an Identity, got {type(identity).__name__}")
        await self._door.admit(websocket if has_sink(websocket) else None, identity)

    async def revoke(
        self,
        *,
        user: str | int | None = None,
        session: str | None = None,
        issued_before: float | None = None,
        lifetime: float = 86400.0,
    ) -> None:
        """Log somebody out: close their sockets in every process with 3000 "revoked", and refuse their tokens.

            await hub.revoke(user="ann")

        `user`: all tokens that were issued for them until now. `session`: those of one login. With `user`, of this
        user's alone. `issued_before`: Unix seconds. Tokens that were issued then or later stay. Alone it means
        everybody. A token that does not say when it was issued counts as old. `lifetime`: seconds for which tokens are
        refused, as long as one lives. Up to 100 000 revocations are kept at a time.

        Returns when all processes have been told. `BackendUnavailable`: it is in force in this process, and the others
        learn of it once the backend is back. Raises TypeError, ValueError, `UnsupportedBackend`, `HubNotRunning`.
        """
        who = None if user is None else need_user(user)
        await self._door.revoke(who, *read_revocation(who, session, issued_before, lifetime))

    def stats(self) -> HubStats:
        """Cheap enough for every scrape, however many memberships there are."""
        stations = tuple(self._rooms.stations.values())
        dropped: dict[str, int] = {}
        for station in stations:
            for topic, count in tuple(station.lost.items()):
                dropped[topic] = dropped.get(topic, 0) + count
        return HubStats(
            backend=self.url,
            connected=self.connected,
            connections=sum(len(station.sinks) for station in stations),
            topics=len(self._rooms.rooms),
            memberships=sum(station.memberships for station in stations),
            published=self._published,
            delivered=self._rooms.counters.delivered,
            dropped=self._rooms.counters.dropped,
            disconnected=self._rooms.counters.disconnected,
            high_water=self._rooms.counters.high_water,
            dropped_now=dropped,
        )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """FastAPI asks for one where an endpoint of its own annotates a parameter with Hub: name the remedy."""
        from pydantic.errors import PydanticSchemaGenerationError  # not at the top: nobody else needs it

        if isinstance(source, cls):
            raise RegistrationError("a parameter is annotated with an object: the class is meant, `hub: Hub`")
        try:
            return handler(source)  # of a model with arbitrary types
        except PydanticSchemaGenerationError:
            raise RegistrationError(
                "a Hub is given to endpoints of antiphon's App and APIRouter; in an endpoint of FastAPI's own take it "
                "from `websocket.app.state.hub`, or from a dependency"
            ) from None

    def _name_process(self) -> None:
        if not self._rooms.rooms:
            # Two workers forked from one preloaded process need different names.
            self._rooms.process = _process()

    def _name_of(self, websocket: SupportsSink) -> str:
        return f"{self._rooms.process}:{id(read_sink(websocket))}:{next(self._serial)}"


_hubs: weakref.WeakSet[Hub] = weakref.WeakSet()
_greeters: list[Callable[[Hub], None]] = []


def greet_hubs(greet: Callable[[Hub], None]) -> None:
    """Call `greet` with every hub of this process, and with each that is made later: for observers of the whole
    process."""
    _greeters.append(greet)
    for hub in tuple(_hubs):
        greet(hub)


def _process() -> str:
    return uuid.uuid4().hex[:16]


def _is_queue(receiver: LocalReceiver) -> bool:
    return isinstance(receiver.sink, QueueSink)
