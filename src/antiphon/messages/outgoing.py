"""The messages that a channel sends by itself: events, found by their class and written with their tag.

Knows nothing of connections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from typing_extensions import is_typeddict

from antiphon import tags
from antiphon.exceptions import RegistrationError, UndeclaredMessage

from .options import Wire
from .typecodec import Codec, codec_of, sent_codec_of, shown_type


class Outgoing:
    """One class of messages to the client."""

    __slots__ = ("_head", "_tail", "codec", "tag", "tags", "writes_tag")

    def __init__(self, tag: str, own_tags: tuple[str, ...], codec: Codec, wire: Wire, *, writes_tag: bool) -> None:
        self.tag: Final = tag
        self.tags: Final = own_tags
        """More than one where its `Literal` field has several values."""
        self.codec: Final = codec
        self.writes_tag: Final = writes_tag
        """Its `Literal` field is the tag; otherwise the tag is put before its fields."""
        names = codec_of(dict[str, str], "wire")
        self._head = names.encode({wire.tag: tag})[:-1]
        self._tail = "" if wire.content is None else f",{names.encode({wire.content: ''})[1:-3]}"

    def frame(self, message: Any) -> str:
        """The whole message as JSON text."""
        text = self.codec.encode(message)
        if self._tail:
            return f"{self._head}{self._tail}{text}}}"
        if self.writes_tag:
            return text
        return f"{self._head}}}" if text == "{}" else f"{self._head},{text[1:]}"


class Events:
    """All classes that a channel sends, by class; TypedDicts by their tag."""

    __slots__ = ("_by_class", "_by_tag", "_found", "_wire")

    def __init__(self, outgoing: Iterable[Outgoing], wire: Wire) -> None:
        self._wire = wire
        self._by_class: dict[type, Outgoing] = {}
        self._by_tag: dict[str, Outgoing] = {}
        self._found: dict[type, Outgoing] = {}
        for one in outgoing:
            kind = tags.bare(one.codec.annotation)
            if is_typeddict(kind):
                self._by_tag.update(dict.fromkeys(one.tags, one))
            else:
                self._by_class[_class_of(kind)] = one

    def frame(self, message: Any) -> str:
        """The message as JSON text. Raises `UndeclaredMessage` for a class that is not among these."""
        cls = type(message)
        found = self._found.get(cls)
        if found is None:
            found = self._find(cls, message)
        return found.frame(message)

    def _find(self, cls: type, message: Any) -> Outgoing:
        if cls is dict and isinstance(message, Mapping):
            tag = message.get(self._wire.tag)
            if isinstance(tag, str) and tag in self._by_tag:
                return self._by_tag[tag]
        for base in cls.__mro__:
            if (found := self._by_class.get(base)) is not None:
                self._found[cls] = found
                return found
        if isinstance(message, type):
            raise UndeclaredMessage(
                f"the class {message.__name__} is no message: send an object, {message.__name__}(...)"
            )
        declared = ", ".join(sorted({shown_type(one) for one in self._by_class} | self._by_tag.keys())) or "nothing"
        if cls is dict:
            raise UndeclaredMessage(
                f"a dict is none of the messages that this channel declares ({declared}): send these"
            )
        raise UndeclaredMessage(
            f"{cls.__qualname__} is nothing that this channel declares to send ({declared}): annotate a parameter with "
            f"Caller[{cls.__name__}], or give the channel sends={cls.__name__}"
        )


def _class_of(kind: Any) -> type:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind  # also a parametrised generic, which is a class of its own
    origin: type = getattr(kind, "__origin__", None) or kind
    return origin


def outgoing_of(annotation: Any, wire: Wire, where: str) -> list[Outgoing]:
    """The events of a union of message classes. Raises RegistrationError for a class that cannot be an event."""
    made = []
    for member in tags.members(annotation):
        if not tags.is_message_class(member):
            raise RegistrationError(
                f"{where}: {shown_type(tags.bare(member))} is no class of messages: a model, a dataclass or a TypedDict"
            )
        if (problem := event_problem(member, wire)) is not None:
            raise RegistrationError(f"{where}: {problem}")
        made.append(_outgoing(member, wire, where))
    return made


def event_problem(member: Any, wire: Wire) -> str | None:
    """Why a message class cannot be sent as an event. None: it can."""
    name = shown_type(tags.bare(member))
    if tags.is_root_model(member) and wire.content is None:
        return f"{name} is no object, and fields stand beside the tag; nest them, Wire(content='data')"
    own = tags.literal_tags(member, wire.tag, tags.Direction.OUT)
    if own == ():
        if wire.content is None:
            return f"{name} has a field {wire.tag!r} that is not its tag; rename it, or nest the fields: Wire(content=)"
        own = None
    if own is None and is_typeddict(tags.bare(member)):
        return f"{name} is a TypedDict, of which only a Literal field {wire.tag!r} says which message it is: add one"
    if own is None and tags.is_generic(member):
        return f"{name} is generic, so its name is no tag: give it a Literal field {wire.tag!r}"
    return next(filter(None, map(tags.problem_of, own or (tags.class_tag(member),))), None)


def _outgoing(member: Any, wire: Wire, where: str) -> Outgoing:
    own = tags.literal_tags(member, wire.tag, tags.Direction.OUT) or ()
    tag = own[0] if own else tags.class_tag(member)
    return Outgoing(
        tag, own or (tag,), sent_codec_of(member, where), wire, writes_tag=bool(own) and wire.content is None
    )


def check_distinct(outgoing: Iterable[Outgoing], where: str) -> tuple[Outgoing, ...]:
    """Each class once. Raises RegistrationError for two classes with one tag."""
    seen: dict[str, Outgoing] = {}
    for one in outgoing:
        for tag in one.tags:
            known = seen.setdefault(tag, one)
            if tags.bare(known.codec.annotation) != tags.bare(one.codec.annotation):
                names = f"{shown_type(known.codec.annotation)} and {shown_type(one.codec.annotation)}"
                raise RegistrationError(
                    f"{where}: {names} would both be sent as {tag!r}; a Literal field tells them apart"
                )
    return tuple(dict.fromkeys(seen.values()))
