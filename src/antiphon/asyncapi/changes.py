"""The changes of a new document that break the clients of an old one.

The server must still accept the clients' messages: a schema may only become wider there. Messages to clients must keep
their known form: no field goes, and none becomes optional or of another type. Clients ignore new fields. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from .comparison import Side, differences

Json = Mapping[str, Any]


class Breakage(NamedTuple):
    """One thing that breaks clients."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def breaking_changes(old: Json, new: Json) -> list[Breakage]:
    """All changes that break clients of `old`, in the order of `old`. Raises ValueError for anything but an AsyncAPI 3
    document."""
    for document in (old, new):
        if not str(document.get("asyncapi", "")).startswith("3.") or not isinstance(document.get("channels"), Mapping):
            raise ValueError("expected an AsyncAPI 3 document, as `antiphon asyncapi` prints it")
    return list(dict.fromkeys(_changes(_Document(old), _Document(new))))


class _Document:
    """A document with its references looked up."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self.channels: Json = document["channels"]
        self.operations: Json = document.get("operations", {})

    def at(self, ref: str) -> Any:
        found: Any = self.document
        for part in ref.removeprefix("#/").split("/"):
            found = found.get(part, {}) if isinstance(found, Mapping) else {}
        return found

    def resolved(self, value: Any) -> Any:
        seen: set[str] = set()
        while isinstance(value, Mapping) and isinstance(value.get("$ref"), str) and value["$ref"] not in seen:
            seen.add(value["$ref"])
            value = self.at(value["$ref"])
        return value

    def operations_of(self, key: str) -> dict[str, Json]:
        """By the name behind the channel's."""
        ref = f"#/channels/{key}"
        return {
            name.removeprefix(f"{key}."): one
            for name, one in self.operations.items()
            if one.get("channel", {}).get("$ref") == ref
        }

    def messages(self, operation: Json | None) -> dict[str, Json]:
        """By their keys in the channel."""
        refs = (operation or {}).get("messages", ())
        return {one["$ref"].rpartition("/")[2]: self.resolved(one) for one in refs}


def _changes(old: _Document, new: _Document) -> Iterator[Breakage]:
    there = {_address(one): key for key, one in new.channels.items()}
    for key, channel in old.channels.items():
        where = str(channel.get("address", key))
        other = there.get(_address(channel))
        if other is None:
            yield Breakage(where, "the channel is gone")
            continue
        yield from _handshake(where, channel, new.channels[other], old, new)
        yield from _wire(where, channel, new.channels[other])
        yield from _resuming(where, channel, new.channels[other])
        yield from _operations(where, (old, key), (new, other))


def _address(channel: Json) -> str:
    """Clients fill placeholders in: the names do not matter to them."""
    return re.sub(r"{[^}]*}", "{}", str(channel.get("address", "")))


def _wire(where: str, old: Json, new: Json) -> Iterator[Breakage]:
    before, after = (one.get("x-antiphon", {}).get("wire") for one in (old, new))
    if before is not None and before != after:
        yield Breakage(where, f"the wire's names were {before} and are {after}")
    subprotocol = new.get("x-antiphon", {}).get("subprotocol")
    if subprotocol is not None and subprotocol != old.get("x-antiphon", {}).get("subprotocol"):
        yield Breakage(where, f"the subprotocol {subprotocol!r} has to be offered")


def _resuming(where: str, old: Json, new: Json) -> Iterator[Breakage]:
    before, after = (one.get("x-antiphon", {}).get("resumable", {}) for one in (old, new))
    for parameter, topics in before.items():
        if after.get(parameter) != topics:
            yield Breakage(where, f"clients that return with {parameter!r} do not get what they missed in {topics}")


def _handshake(where: str, old: Json, new: Json, before: _Document, after: _Document) -> Iterator[Breakage]:
    for part in ("query", "headers"):
        ours, theirs = (one.get("bindings", {}).get("ws", {}).get(part, {"type": "object"}) for one in (old, new))
        for found in differences(ours, theirs, before.resolved, after.resolved, Side.WRITTEN_BY_CLIENT):
            yield Breakage(f"{where} {part}", found)
    cookies = [
        one.get("bindings", {}).get("ws", {}).get("headers", {}).get("properties", {}).get("cookie", {})
        for one in (old, new)
    ]
    ours, theirs = (one.get("x-antiphon", {}).get("cookies", {"type": "object"}) for one in cookies)
    for found in differences(ours, theirs, before.resolved, after.resolved, Side.WRITTEN_BY_CLIENT):
        yield Breakage(f"{where} cookies", found)
    old_names, new_names = (re.findall(r"{([^}]*)}", str(one.get("address"))) for one in (old, new))
    for was, now in zip(old_names, new_names, strict=True):
        ours, theirs = (
            one.get("parameters", {}).get(name, {}).get("x-antiphon", {}).get("schema", {})
            for one, name in ((old, was), (new, now))
        )
        for found in differences(ours, theirs, before.resolved, after.resolved, Side.WRITTEN_BY_CLIENT):
            yield Breakage(f"{where} path {was}", found)


def _operations(where: str, old: tuple[_Document, str], new: tuple[_Document, str]) -> Iterator[Breakage]:
    (before, key), (after, other) = old, new
    now = after.operations_of(other)
    sent_now = _by_name(after, now, "send")
    taken_now = _by_name(after, now, "receive")
    operations = before.operations_of(key)
    for named, message in _by_name(before, operations, "receive").items():
        yield from _message(where, named, message, taken_now, before, after, Side.SENT_BY_CLIENT)
    for named, message in _by_name(before, operations, "send").items():
        yield from _message(where, named, message, sent_now, before, after, Side.SENT_BY_SERVER)
    for name, operation in operations.items():
        yield from _operation(f"{where} {name}", operation, _same(operation, now, before, after), before, after)


class _Named(NamedTuple):
    """A message by the name that it has on the wire. One of a topic with events has a type of its own around it."""

    name: str
    type: Any


def _by_name(document: _Document, operations: Mapping[str, Json], action: str) -> dict[_Named, Json]:
    return {
        _Named(str(message.get("name", key)), _type_of(document, message)): message
        for one in operations.values()
        if one.get("action") == action
        for key, message in document.messages(one).items()
    }


def _type_of(document: _Document, message: Json) -> Any:
    return document.resolved(message.get("payload", {})).get("properties", {}).get("type", {}).get("const")


def _message(
    where: str,
    named: _Named,
    message: Json,
    others: Mapping[_Named, Json],
    before: _Document,
    after: _Document,
    side: Side,
) -> Iterator[Breakage]:
    same = others.get(named)
    candidates = [same] if same is not None else list(others.values())
    found = [
        list(differences(message.get("payload", {}), one.get("payload", {}), before.resolved, after.resolved, side))
        for one in candidates
    ]
    if same is None:
        if named.type is not None or [] not in found:
            yield Breakage(f"{where} {named.name}", "the message is gone")
        return
    for text in found[0]:
        yield Breakage(f"{where} {named.name}", text)


def _same(operation: Json, others: Mapping[str, Json], before: _Document, after: _Document) -> Json | None:
    """The operation that takes the same messages now."""
    names = {one.get("name") for one in before.messages(operation).values()}
    for one in others.values():
        same = {message.get("name") for message in after.messages(one).values()}
        if one.get("action") == operation.get("action") and names & same:
            return one
    return None


_ANSWERS: Final = {("value", "value"), ("ack", "ack"), ("stream", "stream"), ("ack", "value")}


def _operation(where: str, old: Json, new: Json | None, before: _Document, after: _Document) -> Iterator[Breakage]:
    if new is None:
        return  # its messages are gone, which was reported
    was, now = (one.get("x-antiphon", {}).get("answer", "none") for one in (old, new))
    if was != now and was != "none" and (was, now) not in _ANSWERS:
        yield Breakage(where, f"the answer was {was} and is {now}")
        return
    demanded = [_scheme(after, one) for one in new.get("security", ())]
    known = [_scheme(before, one) for one in old.get("security", ())]
    if any(one not in known for one in demanded):
        yield Breakage(where, "other credentials are demanded")
    replies = {_reply(key): one for key, one in after.messages(new.get("reply")).items()}
    for key, message in before.messages(old.get("reply")).items():
        other = replies.get(_reply(key))
        if other is None:
            continue  # an error that does not come any more
        payloads = message.get("payload", {}), other.get("payload", {})
        for found in differences(*payloads, before.resolved, after.resolved, Side.SENT_BY_SERVER):
            yield Breakage(f"{where} {_reply(key)}", found)


def _reply(key: str) -> str:
    """`say.reply` is `reply`, `say.error.muted` is `error.muted`."""
    found = re.search(r"(?:^|\.)(reply|item|end|error(?:\..*)?)$", key)
    return found[1] if found else key


def _scheme(document: _Document, scheme: Any) -> Any:
    found = dict(document.resolved(scheme))
    found.pop("description", None)
    return found
