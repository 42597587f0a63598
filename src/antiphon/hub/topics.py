"""The names and options of topics. Pure: knows no connection and no backend."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, ClassVar, Final

from antiphon.exceptions import RegistrationError, RegistrationWarning
from antiphon.tagged import MessageSet
from antiphon.types import Overflow

from .errors import InvalidTopic, InvalidTopicName, UnencodableData
from .pattern import TopicPattern
from .records import Keep

MAX_SECONDS: Final = 10 * 366 * 86400.0
"""Longest time an option takes: ten years. A longer one is a mistake, and too much for some clock below."""

MAX_TOPIC_BYTES: Final = 255
"""In UTF-8. A name travels with every message: longer content is data."""

_BRACES: Final = re.compile(r"\{\w*\}")
_FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def check_topic(topic: object) -> str:
    """The topic's name, if it is one. Raises `InvalidTopic`."""
    if not isinstance(topic, str):
        raise InvalidTopic(topic, f"expected a str, got {type(topic).__name__}")
    if not topic:
        raise InvalidTopicName(topic, "expected at least one character")
    if found := _FORBIDDEN.search(topic):
        raise InvalidTopicName(topic, f"control character or lone surrogate U+{ord(found.group()):04X}")
    if len(topic) > MAX_TOPIC_BYTES or len(topic.encode()) > MAX_TOPIC_BYTES:
        raise InvalidTopicName(topic, f"longer than {MAX_TOPIC_BYTES} bytes")
    # A str, and no kind of it: a member of an enum has a hash of its own and no form on the wire.
    return str.__str__(topic)


def check_number(name: str, value: object, kind: type[int | float]) -> float:
    """`value`, if it is such a number. Raises TypeError, ValueError for NaN and the infinities."""
    if not isinstance(value, (int, kind)) or isinstance(value, bool):
        expected = "a whole number" if kind is int else "a number"
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return value


def check_member(name: str, value: object, kind: type[Enum]) -> None:
    """Raise TypeError for a value that is no member of the enum."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected one of {', '.join(map(str, kind))}; got {value!r}")


class Framing(Enum):
    """The form of a published message on a socket.

    For example:

        hub = Hub(topics={"room/*": TopicOptions(history=100, framing=Framing.EVENT)})
    """

    RAW = "raw"
    """The data itself: str as a text frame, bytes as a binary frame, anything else as JSON text."""
    EVENT = "event"
    """A JSON object with `type`, `topic`, `data`, `offset`, `epoch`: for pages that resume by position or hold several
    topics on one socket. Such a topic takes no bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicOptions:
    """How a topic behaves.

        Hub(topics={"room:*": TopicOptions(history=100), "price:*": TopicOptions(overflow=Overflow.DROP_OLDEST)})

    Give the same to all processes: they are not told about each other's.
    """

    history: int = 0
    """Newest messages kept for joiners and recovery. 0: none, and messages have no position."""
    ttl: float = 300.0
    """Seconds a message is kept: long enough for a laptop lid, short enough for memory."""
    presence: bool | None = None
    """Tell those who joined with `presence=` about joins and leaves (`presence_diff` events). False: nobody is, and
    `hub.presence` answers. None, the default: the same, and the log says so once when somebody joins with it."""
    presence_grace: float = 2.0
    """Seconds a member whose connection broke stays listed: a page reload is not a leave. 0: leaves at once."""
    overflow: Overflow = Overflow.DISCONNECT
    """What happens to a receiver whose outbox is full. The default tells it (1013) instead of losing silently."""
    outbox_bytes: int = 1 << 20
    """Bytes that may wait for one receiver. An empty outbox takes any one message, of any size."""
    conflate_by: str | Callable[[Any], object] | None = None
    """With CONFLATE: the field of the data, or a function of it, that says which messages replace each other. None: all
    messages of the topic do."""
    framing: Framing = Framing.RAW
    """The form on the wire: the data alone, or with `Framing.EVENT` JSON events that carry positions and presence."""
    messages: ClassVar[MessageSet[Any] | None] = None
    """The messages of a typed topic. None: anything."""

    def __post_init__(self) -> None:
        if check_number("history", self.history, int) < 0:
            raise ValueError(f"history: expected a number of messages, 0 or more; got {self.history!r}")
        if not 0 < check_number("ttl", self.ttl, float) <= MAX_SECONDS:
            raise ValueError(f"ttl: expected seconds, more than 0 and at most ten years; got {self.ttl!r}")
        if not 0 <= check_number("presence_grace", self.presence_grace, float) <= MAX_SECONDS:
            raise ValueError(f"presence_grace: expected seconds, 0 to ten years; got {self.presence_grace!r}")
        if check_number("outbox_bytes", self.outbox_bytes, int) < 1:
            raise ValueError(f"outbox_bytes: expected at least 1; got {self.outbox_bytes!r}")
        if not (self.presence is None or isinstance(self.presence, bool)):
            raise TypeError(f"presence: expected True, False or None, got {self.presence!r}")
        check_member("overflow", self.overflow, Overflow)
        check_member("framing", self.framing, Framing)
        if not (self.conflate_by is None or isinstance(self.conflate_by, str) or callable(self.conflate_by)):
            raise TypeError(f"conflate_by: expected a field's name or a function, got {self.conflate_by!r}")
        if self.conflate_by is not None and self.overflow is not Overflow.CONFLATE:
            raise ValueError(f"conflate_by: needs overflow=Overflow.CONFLATE; got {self.overflow}")

    @property
    def keep(self) -> Keep | None:
        """The history in the backend's words."""
        return Keep(int(self.history), float(self.ttl)) if self.history else None

    def conflation_key(self, data: object) -> str:
        """Which messages this one replaces. Raises `UnencodableData` when the data has no such key."""
        if self.conflate_by is None:
            return ""
        try:
            if callable(self.conflate_by):
                return str(self.conflate_by(data))
            if isinstance(data, Mapping):
                return str(data[self.conflate_by])
            return str(getattr(data, self.conflate_by))
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise UnencodableData(f"conflate_by={self.conflate_by!r} finds no key in the data: {error!r}") from error


DEFAULT_OPTIONS: Final = TopicOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedOptions(TopicOptions):
    """The options of a typed topic, with its messages."""

    messages: MessageSet[Any]  # type: ignore[misc]  # of each one, where others have none at all


class DeclaredTopics:
    """Topics that are declared with a pattern of their own. `typed.Topics` adds their messages."""

    def __init__(self, pattern: TopicPattern, options: TopicOptions) -> None:
        self.pattern = pattern
        self.options = options

    def bind(self, hub: Any) -> None:
        """A hub was made with them."""


class TopicTable:
    """Options by topic: declared topics first, then an exact name, then patterns (`*` stands for any characters) in the
    order given."""

    def __init__(
        self, given: Mapping[str, TopicOptions] | Iterable[DeclaredTopics | Mapping[str, TopicOptions]]
    ) -> None:
        """Raises `InvalidTopic` for a pattern that no topic could match, TypeError for options of another type,
        RegistrationError for topics that are declared twice."""
        self.declared: tuple[DeclaredTopics, ...]
        self.declared, options = _sorted_out(given)
        for pattern, one in options.items():
            if not isinstance(one, TopicOptions):
                given = type(one).__name__
                raise TypeError(f"topics[{pattern!r}]: expected TopicOptions(history=…), say; got {given}")
        options = {check_topic(pattern): one for pattern, one in options.items()}
        for pattern in options:
            self._check(pattern)
        self._exact = {name: one for name, one in options.items() if "*" not in name}
        self._pattern_names = frozenset(name for name in options if "*" in name)
        self._patterns = [(_pattern(name), one) for name, one in options.items() if "*" in name]
        # Bounded, so that topics nobody uses leave nothing behind; per instance, so that a hub is collectable.
        self._find = lru_cache(maxsize=1024)(self._search)

    def _check(self, pattern: str) -> None:
        """That the options of this pattern are of use."""
        for declared in self.declared:
            if declared.pattern.matches(pattern):
                raise RegistrationError(f"topics[{pattern!r}]: Topics({declared.pattern.text!r}) has its options")
        if _BRACES.search(pattern) and "*" not in pattern:
            text = (
                f"topics[{pattern!r}] is the options of this one topic: the wildcard of a pattern is *, and a pattern "
                "with placeholders is Topics(...)"
            )
            warnings.warn(text, RegistrationWarning, stacklevel=4)

    def find(self, topic: str) -> tuple[str, TopicOptions]:
        """The topic as an exact str, and its options. Raises `InvalidTopic`."""
        try:
            return self._find(topic)
        except TypeError:
            # Not hashable, so not a name either.
            check_topic(topic)
            raise

    def _search(self, topic: str) -> tuple[str, TopicOptions]:
        topic = check_topic(topic)
        if topic in self._pattern_names:
            text = f"{topic!r} is used as a topic, and is a pattern of Hub(topics=): use the whole name of one topic"
            warnings.warn(text, RegistrationWarning, stacklevel=4)
        for one in self.declared:
            if one.pattern.matches(topic):
                return topic, one.options
        exact = self._exact.get(topic)
        if exact is not None:
            return topic, exact
        return topic, next((one for pattern, one in self._patterns if pattern.fullmatch(topic)), DEFAULT_OPTIONS)


def _sorted_out(given: Any) -> tuple[tuple[DeclaredTopics, ...], dict[str, TopicOptions]]:
    """The argument of `Hub(topics=)`: a dict, or a list of typed topics and dicts."""
    if isinstance(given, Mapping):
        return (), dict(given)
    if isinstance(given, str | DeclaredTopics) or not isinstance(given, Iterable):
        raise TypeError(
            "topics: expected a dict of TopicOptions by pattern, or a list of Topics (and such dicts), "
            f"got {type(given).__name__}"
        )
    declared: list[DeclaredTopics] = []
    options: dict[str, TopicOptions] = {}
    for one in given:
        if isinstance(one, Mapping):
            options.update(one)
        elif isinstance(one, DeclaredTopics):
            for other in declared:
                if other.pattern.meets(one.pattern):
                    raise RegistrationError(
                        f"topics: Topics({other.pattern.text!r}) and Topics({one.pattern.text!r}) have names in common"
                    )
            declared.append(one)
        else:
            raise TypeError(f"topics: expected Topics, or a dict of TopicOptions by pattern, got {one!r}")
    return tuple(declared), options


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in name.split("*")))
