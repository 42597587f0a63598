"""Names of topics with placeholders, `room/{room}`: filled, matched, compared. Pure; knows no options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from antiphon.exceptions import RegistrationError

from .errors import InvalidTopicName

RESERVED: Final = "hub"
"""No placeholder: the name of the argument that says which hub is meant."""

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")


class TopicPattern:
    """A name with placeholders, each of which stands for one or more characters other than `/`.

    So the name of one topic never reaches into those of another pattern: `room/{a}` is never `room/{b}/log`.
    """

    def __init__(self, text: str) -> None:
        """Raises RegistrationError for an invalid pattern."""
        if not isinstance(text, str):
            raise RegistrationError(f"Topics takes a pattern such as 'room/{{room}}', got {text!r}")
        self.text = text
        self._parts: list[str] = _PLACEHOLDER.split(text)
        self.placeholders: tuple[str, ...] = tuple(self._parts[1::2])
        literal = "".join(self._parts[::2])
        fault = None
        if "{" in literal or "}" in literal or "*" in literal:
            fault = "a placeholder is a name in braces, as in room/{room}, and there is no other wildcard"
        elif not all(name.isidentifier() for name in self.placeholders):
            fault = "a placeholder is a name, as in {room}"
        elif len(set(self.placeholders)) < len(self.placeholders):
            fault = "each placeholder stands in it once"
        elif RESERVED in self.placeholders:
            fault = f"{RESERVED!r} is no name for a placeholder: it is the argument that says which hub is meant"
        elif "" in self._parts[2:-1:2]:
            fault = "something has to stand between two placeholders"
        if fault is not None:
            raise RegistrationError(f"Topics({text!r}): {fault}")
        self._regex = re.compile("".join(_as_regex(self._parts)), re.DOTALL)

    def fill(self, values: Mapping[str, object]) -> str:
        """The name with these values. Raises TypeError for too few or too many, `InvalidTopicName` for a value that is
        empty or holds a `/`."""
        if values.keys() != set(self.placeholders):
            wanted = ", ".join(f"{name}=" for name in self.placeholders) or "no placeholder"
            given = ", ".join(f"{name}=" for name in values) or "none"
            raise TypeError(f"Topics({self.text!r}) takes {wanted}, got {given}")
        parts = list(self._parts)
        for index, name in enumerate(self.placeholders):
            value = values[name]
            text = str.__str__(value) if isinstance(value, str) else str(value)
            if not text or "/" in text:
                raise InvalidTopicName(text, f"expected one character or more for {name} in {self.text!r}, and no /")
            parts[2 * index + 1] = text
        return "".join(parts)

    def matches(self, topic: str) -> bool:
        """Whether the topic is one of these."""
        return self._regex.fullmatch(topic) is not None

    def meets(self, other: TopicPattern) -> bool:
        """Whether some name is one of both."""
        ours, theirs = self.text.split("/"), other.text.split("/")
        return len(ours) == len(theirs) and all(map(_segments_meet, ours, theirs))


def _as_regex(parts: list[str]) -> list[str]:
    return ["[^/]+" if index % 2 else re.escape(part) for index, part in enumerate(parts)]


def _segments_meet(one: str, other: str) -> bool:
    """Whether two parts between slashes have a value in common; of two with placeholders: by how they begin and end."""
    ours, theirs = _PLACEHOLDER.split(one), _PLACEHOLDER.split(other)
    if len(ours) == 1 or len(theirs) == 1:
        fixed, parts = (one, theirs) if len(ours) == 1 else (other, ours)
        return re.fullmatch("".join(_as_regex(parts)), fixed, re.DOTALL) is not None
    begins = ours[0].startswith(theirs[0]) or theirs[0].startswith(ours[0])
    return begins and (ours[-1].endswith(theirs[-1]) or theirs[-1].endswith(ours[-1]))
