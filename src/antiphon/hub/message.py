"""The form of messages for receivers: `Message` for code, `Parcel` for sockets, and the JSON events among them.
Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Generic

from typing_extensions import TypeVar

from antiphon.exceptions import InvalidMessage
from antiphon.tagged import MessageSet
from antiphon.types import PreparedMessage

from .envelope import PayloadForm, decode, decode_json, encode_json, unpack
from .presence import Diff, Listed
from .records import ENTRY_COST, Entry, Position
from .topics import Framing

logger: Final = logging.getLogger("antiphon.hub")

D_co = TypeVar("D_co", covariant=True, default=Any)
D = TypeVar("D", default=Any)


class MessageKind(Enum):
    """The kind of news in a `Message`.

    For example:

        async with hub.subscribe("news") as messages:
            async for message in messages:
                if message.kind is MessageKind.RESYNC:
                    print("messages may be missing: load the state again")
    """

    MESSAGE = "message"
    """`data` was published."""
    PRESENCE_DIFF = "presence_diff"
    """`data` is a dict with `joins`, `leaves` and `updates`: user to list of infos. Applied one after the other, to
    nothing at first, they are the members. `counts`: the number of connections of members with unlisted ones."""
    RESYNC = "resync"
    """Messages may have been missed and are no longer available: load the state again. `data` is None."""
    JOINED = "joined"
    """The first event on a socket that joined a topic with `Framing.EVENT`. Code has the membership instead."""


@dataclass(frozen=True, slots=True)
class Message(Generic[D_co]):
    """One message of a topic, for code that has no socket.

    `data` is the published value: str, bytes, or the JSON form of anything else. `kind` tells published messages from
    the hub's own news. `offset` and `epoch` say where it stands in the topic's history.

        async with hub.subscribe("news") as messages:
            async for message in messages:
                print(message.topic, message.data, message.offset)
    """

    topic: str
    data: D_co
    offset: int | None = None
    """Place in the topic's history. None for topics without."""
    epoch: str | None = None
    kind: MessageKind = MessageKind.MESSAGE

    @property
    def position(self) -> Position | None:
        """The value for `since=` that asks for the messages behind this one."""
        return None if self.offset is None or self.epoch is None else Position(self.offset, self.epoch)


class History(list[Message[D]]):
    """A list of `messages` of a topic, oldest first, with its `position`, and `recovered`.

    For example:

        history = await hub.history("news", limit=10)
        print([message.data for message in history], history.position)
    """

    def __init__(self, messages: Iterable[Message[D]], position: Position | None, recovered: bool) -> None:
        super().__init__(messages)
        self.position = position
        """Behind the last of them. None for topics without history."""
        self.recovered = recovered
        """`since` was given and everything behind it is (or, with `limit`, starts) here."""


class Parcel(PreparedMessage):
    """A message on its way to the local receivers: made once, shared by all."""

    __slots__ = ("excluded", "form", "key", "kind", "position", "raw", "size", "topic")

    def __init__(self, topic: str, kind: MessageKind, payload: str | bytes, raw: bytes, form: PayloadForm) -> None:
        super().__init__(payload)
        self.topic: str = topic
        self.kind: MessageKind = kind
        self.raw: bytes = raw
        """The data in `form`, for `message()`. `payload` may be an event around it."""
        self.form: PayloadForm = form
        self.size: int = len(payload) if isinstance(payload, bytes) else max(len(payload), len(raw))
        self.position: Position | None = None
        self.key: str | None = None
        """For CONFLATE. None is never replaced."""
        self.excluded: str = ""

    @property
    def cost(self) -> int:
        """Its size as a part of a page."""
        return self.size + ENTRY_COST

    def message(self, messages: MessageSet[Any] | None = None) -> Message | None:
        """For code. `messages`: the topic's declaration. None for data that does not fit it."""
        if self.kind is MessageKind.RESYNC:
            data = None
        elif messages is None or self.kind is not MessageKind.MESSAGE:
            data = decode(self.form, self.raw)
        elif (data := _declared(self.topic, self.raw, messages)) is None:
            return None
        if self.position is None:
            return Message(self.topic, data, kind=self.kind)
        return Message(self.topic, data, self.position.offset, self.position.epoch, self.kind)


def unwrap(topic: str, entry: Entry, framing: Framing) -> Parcel:
    """An entry of the backend, ready for all receivers. Raises `BadEnvelope`, UnicodeDecodeError."""
    form, raw, key, excluded = unpack(entry.data)
    payload: str | bytes
    if form is PayloadForm.BINARY:
        payload = raw
    elif framing is Framing.RAW:
        payload = raw.decode()
    else:
        payload = _message_event(topic, form, raw, entry.position)
    parcel = Parcel(topic, MessageKind.MESSAGE, payload, raw, form)
    parcel.position = entry.position
    parcel.key = key
    parcel.excluded = excluded
    return parcel


def to_message(topic: str, entry: Entry, messages: MessageSet[Any] | None = None) -> Message | None:
    """An entry of the backend, for code. None for data that does not fit the declared messages. Raises as `unwrap`."""
    form, raw, _, _ = unpack(entry.data)
    data = decode(form, raw) if messages is None else _declared(topic, raw, messages)
    if data is None and messages is not None:
        return None
    return Message(topic, data) if entry.position is None else Message(topic, data, *entry.position)


def _declared(topic: str, raw: bytes, messages: MessageSet[Any]) -> Any:
    """The message. None for one of another version of the program, or of one that declares nothing."""
    try:
        return messages.decode(raw)
    except InvalidMessage as error:
        logger.warning(
            "a message of topic %r does not fit the types that the topic declares, and is left out: %s", topic, error
        )
        return None


def presence_diff(topic: str, diff: Diff[Listed]) -> Parcel:
    """The event `{"type": "presence_diff", "topic": …, "joins": {user: [info, …]}, "leaves": …, "updates": …}`.

    With `"counts": {user: number}` for those in it who have more connections than are listed.
    """
    parts = [
        b'"%b":%b' % (part, _infos_raw(members))
        for part, members in ((b"joins", diff.joins), (b"leaves", diff.leaves), (b"updates", diff.updates))
    ]
    here = (diff.joins, diff.updates)
    counts = {user: len(one.metas) + one.more for part in here for user, one in part.items() if one.more}
    if counts:
        parts.append(b'"counts":' + encode_json(counts))
    raw = b"{%b}" % b",".join(parts)
    event = f"{_event('presence_diff', topic, {})[:-1]},{raw[1:].decode()}"
    return Parcel(topic, MessageKind.PRESENCE_DIFF, event, raw, PayloadForm.JSON)


def _infos_raw(members: Mapping[str, Listed]) -> bytes:
    """`infos` as JSON. The metas of connections are JSON already (benchmarks/crowds.py)."""
    told = [b"%b:[%b]" % (encode_json(user), b",".join(listed.metas)) for user, listed in members.items()]
    return b"{%b}" % b",".join(told)


def resync(topic: str) -> Parcel:
    """The event `{"type": "resync", "topic": …}`."""
    return Parcel(topic, MessageKind.RESYNC, _event("resync", topic, {}), b"", PayloadForm.JSON)


def joined(topic: str, position: Position | None, recovered: bool, heartbeat: float | None = None) -> Parcel:
    """The event `{"type": "joined", "topic": …, "offset": …, "epoch": …, "recovered": …, "heartbeat": seconds}`."""
    body = {**_place(position), "recovered": recovered}
    if heartbeat is not None:
        body["heartbeat"] = heartbeat
    return Parcel(topic, MessageKind.JOINED, _event("joined", topic, body), encode_json(body), PayloadForm.JSON)


def _message_event(topic: str, form: PayloadForm, raw: bytes, position: Position | None) -> str:
    data = raw.decode() if form is PayloadForm.JSON else encode_json(raw.decode()).decode()
    head = _event("message", topic, _place(position))
    return f'{head[:-1]},"data":{data}}}'


def _event(kind: str, topic: str, body: Mapping[str, object]) -> str:
    return encode_json({"type": kind, "topic": topic, **body}).decode()


def _place(position: Position | None) -> dict[str, object]:
    return {} if position is None else {"offset": position.offset, "epoch": position.epoch}


def infos(members: Mapping[str, tuple[bytes, ...]]) -> dict[str, list[Any]]:
    """The members as their connections gave their presence, out of the bytes that travel."""
    return {user: [decode_json(meta) for meta in metas] for user, metas in members.items()}
