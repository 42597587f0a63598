"""A message to a user instead of a topic: its form between processes, and its form for each kind of connection."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, Final

from antiphon import tags
from antiphon.exceptions import RegistrationError
from antiphon.tagged import TAG, Tagged, tagged
from antiphon.types import DECLARED_EXTENSION, PreparedMessage

from .envelope import Envelope, PayloadForm, encode, pack, unpack
from .guests import short

SENT: Final = b"s"
"""The first byte of the control message that carries one."""

_HEAD: Final = struct.Struct(">HHB")  # bytes of the user, bytes of the tag, whether the payload has it


class UserMessage:
    """The message, made once for all connections of the user in this process."""

    __slots__ = ("_head", "_payload", "_plain", "_with_tag", "excluded", "tag", "user")

    def __init__(self, packed: bytes) -> None:
        """Raises struct.error, `BadEnvelope`, UnicodeDecodeError."""
        user, tag, own = _HEAD.unpack_from(packed)
        start = _HEAD.size
        self.user: str = packed[start : start + user].decode()
        self.tag: str = packed[start + user : start + user + tag].decode()
        """The message's tag. "": no channel could have declared it."""
        envelope = unpack(packed[start + user + tag :])
        self.excluded: str = envelope.exclude
        self._payload: str | bytes = envelope.payload
        if envelope.form is not PayloadForm.BINARY:
            self._payload = envelope.payload.decode()
        self._head = "" if own or not self.tag else f'{{"{TAG}":"{self.tag}"'
        self._plain: PreparedMessage | None = None
        self._with_tag: PreparedMessage | None = None

    def for_connection(self, scope: Any) -> PreparedMessage | None:
        """As the connection of this scope gets it. None: its channel does not declare it."""
        declared = None if scope is None else scope.get(DECLARED_EXTENSION)
        if declared is None:
            if self._plain is None:
                self._plain = PreparedMessage(self._payload)
            return self._plain
        if self.tag not in _tags_of(declared):
            return None
        if self._with_tag is None:
            self._with_tag = PreparedMessage(self._tagged())
        return self._with_tag

    def _tagged(self) -> str | bytes:
        payload = self._payload
        if not self._head or isinstance(payload, bytes):
            return payload
        return self._head + ("," if len(payload) > 2 else "") + payload[1:]


def pack_direct(user: str, data: object, exclude: str) -> bytes:
    """Raises `UnencodableData`."""
    form, payload = encode(data)
    tag, own = _tag_of(data) if form is PayloadForm.JSON and payload[:1] == b"{" else ("", False)
    name, tag_bytes = short(user).encode(), tag.encode()
    packed = pack(Envelope(form, payload, "", exclude))
    return b"".join((SENT, _HEAD.pack(len(name), len(tag_bytes), own), name, tag_bytes, packed))


def _tag_of(data: Any) -> tuple[str, bool]:
    """Which message it is, and whether the tag is one of its fields."""
    if isinstance(data, dict):
        tag = data.get(TAG)
        return (tag, True) if isinstance(tag, str) and len(tag) <= tags.LONGEST_TAG else ("", False)
    kind: Any = type(data)
    one = _message_class(kind)
    if one is None:
        return "", False
    return (getattr(data, TAG) if one.own else one.tag), one.own


@lru_cache(maxsize=1024)
def _message_class(kind: Any) -> Tagged | None:
    try:
        return tagged(kind, "hub.send()") if tags.is_message_class(kind) else None
    except RegistrationError:
        return None  # it goes as any data does, and no channel can have declared it


@lru_cache(maxsize=256)
def _tags_of(declared: frozenset[Any]) -> frozenset[str]:
    found: set[str] = set()
    for kind in declared:
        found.update(tagged(kind, "a channel").tags)
    return frozenset(found)
