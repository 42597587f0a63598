"""The records that travel between the hub, its backends and their stores. Pure; knows neither of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core.core_schema import CoreSchema

LISTED: Final = 8
"""Connections of one member that watchers see, at most: the newest. Sending all of them in each change to each of them
would grow with the cube of their number. presence.lua has the same number."""
ENTRY_COST: Final = 512
"""An entry's overhead in the size of a page, besides the bytes of its data: passing on a short one costs, too."""

MAX_NOTE_KEY: Final = 450
"""Characters of a note's name, at most: a hundred thousand of them travel together."""

MAX_EPOCH: Final = 64
"""Characters of an epoch, at most; all of them printable."""

MAX_OFFSET_DIGITS: Final = 18
"""An offset fits into 64 bits, with a sign, in every backend."""


class Position(NamedTuple):
    """A place in a topic's history: just behind the entry with this offset.

        since = Position.parse("42-9f") if returning else None
        async with hub.join("room:7", websocket, since=since, history=50): ...

    Offsets of a topic grow by one per entry while its epoch lasts. The pair never names two different entries.
    """

    offset: int
    epoch: str

    def __str__(self) -> str:
        """`offset-epoch`, fit for a URL's query."""
        return f"{self.offset}-{self.epoch}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read the text that `str()` wrote. Raises `InvalidPosition`, a ValueError, for any other: a client may send
        anything.

        Uncaught in an endpoint that is Close 1008, without a traceback.
        """
        if not isinstance(text, str):
            raise _invalid(f"expected a str, got {type(text).__name__}")
        offset, dash, epoch = text.partition("-")
        digits = offset.isascii() and offset.isdecimal() and len(offset) <= MAX_OFFSET_DIGITS
        if not (dash and digits and epoch.isprintable() and len(epoch) <= MAX_EPOCH):
            raise _invalid(ascii(text[:80]))
        return cls(int(offset), epoch)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """As a parameter (`since: Position | None = None`) or in a model: also from its text form."""
        from pydantic_core import core_schema  # not at the top: the relay process does without pydantic

        return core_schema.no_info_before_validator_function(cls._of_text, handler(source))

    @classmethod
    def _of_text(cls, value: Any) -> Any:
        return cls.parse(value) if isinstance(value, str) else value


def _invalid(fault: str) -> ValueError:
    from .errors import InvalidPosition  # not at the top: the relay process does without its imports

    return InvalidPosition(f"not a position (offset-epoch): {fault}")


class Keep(NamedTuple):
    """How much history a topic keeps. The hub passes it with every call. A backend need not remember it.

    For example:

        from antiphon.hub.backends import Keep

        keep = Keep(size=100, ttl=300.0)
    """

    size: int
    """Newest entries kept. At least 1."""
    ttl: float
    """Seconds an entry is kept."""


class Entry(NamedTuple):
    """One published message as the backend sees it.

    For example:

        from antiphon.hub.backends import Entry

        entry = Entry(data=b"hello", position=Position(offset=42, epoch="9f"))
    """

    data: bytes
    """Opaque. Delivered unchanged."""
    position: Position | None
    """None when it was published without `keep`."""


class Page(NamedTuple):
    """A contiguous part of a topic's history.

    For example:

        from antiphon.hub.backends import Page

        nothing_missed = Page(entries=[], position=Position(offset=42, epoch="9f"), recovered=True)
    """

    entries: Sequence[Entry]
    """In the order published."""
    position: Position
    """Behind the last entry of the page. For a page cut by no limit: the head of the topic."""
    recovered: bool
    """`since` was given and everything behind it is there. When False with `since` given, `entries` is empty."""
    rest: int = 0
    """Wanted entries behind `position` that were left out: ask on, `since` this position."""

    @property
    def end(self) -> Position:
        """Behind the rest."""
        return Position(self.position.offset + self.rest, self.position.epoch)


class Track(NamedTuple):
    """One connection's presence in a topic.

    For example:

        from antiphon.hub.backends import Track

        track = Track(ref="c1", user="ann", meta=b'{"name":"Ann"}')
    """

    ref: str
    """Names the connection's membership. Never used twice, by any process."""
    user: str
    """The user of the connection."""
    meta: bytes
    """Opaque info about this connection."""


class Claimed(NamedTuple):
    """The answer to a claim."""

    granted: bool
    wait: float = 0.0
    """Where it was refused: seconds after which a share is free for sure if its process has died; 0: nobody knows."""
    evicted: tuple[str, ...] = ()
    """Refs that had to make room, the oldest first."""


class Note(NamedTuple):
    """A number that is kept under a name for some time."""

    key: str
    """At most `MAX_NOTE_KEY` characters."""
    value: float
    ttl: float
    """Seconds that are left."""


class Change(NamedTuple):
    """A member's state after a change. Empty `metas` means it left.

    For example:

        from antiphon.hub.backends import Change

        ann_left = Change(version=8, user="ann", metas=())
    """

    version: int
    """Grows with every change of a topic, also across the topic's being forgotten meanwhile."""
    user: str
    """The member."""
    metas: tuple[bytes, ...]
    """Of the newest `LISTED` connections, oldest first."""
    more: int = 0
    """Older connections besides those."""


class Roster(NamedTuple):
    """All members of a topic. Contains every change up to `version` and none behind it.

    For example:

        from antiphon.hub.backends import Roster

        roster = Roster(version=7, members={"ann": (b'{"name":"Ann"}',)})
    """

    version: int
    members: Mapping[str, tuple[bytes, ...]]
    """By user: as `Change.metas`."""
    more: Mapping[str, int] = MappingProxyType({})
    """By user, where there are more connections than listed: `Change.more`."""
