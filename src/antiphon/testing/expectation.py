"""The message that a test waits for, and the error when it does not come. No I/O, no clock."""

from __future__ import annotations

import inspect
import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

Wanted: TypeAlias = str | type | Callable[[Any], object]
"""The `type` of a JSON object, a class, or a function that says whether a message is the one."""

MOST_SHOWN: Final = 10
"""Messages that an error shows: the newest, for those are next to the missing one."""

NO_MATCH: Final = (LookupError, TypeError, AttributeError, ValueError)
"""Exceptions of a function for a message of an unknown shape: it is not the one. The error mentions it."""

MOST_CHARACTERS: Final = 200
"""Of one message in an error."""


class ReceiveTimeout(TimeoutError):
    """No message came in time. The connection and the application are still there.

    For example:

        def test_silence(client: TestClient) -> None:
            with client.websocket_connect("/echo") as session:
                try:
                    session.receive_text(timeout=0.1)
                except ReceiveTimeout as silence:
                    print(silence)
    """


class Expectation:
    """One wait for one message."""

    def __init__(self, wanted: Wanted) -> None:
        if not isinstance(wanted, str) and (not callable(wanted) or inspect.iscoroutinefunction(wanted)):
            raise TypeError(f"expected the type of an event, a class or a plain function; got {wanted!r}")
        self._wanted = wanted
        self._came: deque[Any] = deque(maxlen=MOST_SHOWN)
        self._count = 0
        self._trouble: Exception | None = None
        self.value: Any = None
        """The message that was looked at last, as its JSON value where it is an object or array."""

    def meets(self, message: str | bytes) -> bool:
        """Whether this is the one."""
        self.value = value = read(message)
        if self.wants(value):
            return True
        self._came.append(value)
        self._count += 1
        return False

    def not_within(self, seconds: float) -> str:
        """The error of a wait that was too long."""
        return f"{self} did not come within {seconds:g} s; {self._what_came()}"

    def not_before_the_end(self) -> str:
        """The note on a connection that ended first."""
        return f"{self} did not come before the end; {self._what_came()}"

    def __str__(self) -> str:
        if isinstance(self._wanted, str):
            return f'a message of type "{self._wanted}"'
        if isinstance(self._wanted, type):
            return f"a message that is a {self._wanted.__name__}"
        code = getattr(self._wanted, "__code__", None)
        if code is None:
            return f"a message for {self._wanted!r}"
        return f"a message for {self._wanted.__name__} ({code.co_filename}:{code.co_firstlineno})"

    def wants(self, value: Any) -> bool:
        """Whether this value is the one. Nothing is kept of it."""
        if isinstance(self._wanted, str):
            return isinstance(value, dict) and value.get("type") == self._wanted
        if isinstance(self._wanted, type):
            return isinstance(value, self._wanted)
        try:
            return bool(self._wanted(value))
        except NO_MATCH as error:
            self._trouble = error
            return False

    def _what_came(self) -> str:
        said = show(self._came, self._count)
        if self._trouble is not None:
            said += f"; the function raised {self._trouble!r} for one of them, which counts as no"
        return said


def read(message: str | bytes) -> Any:
    """A text that is a JSON object or array as its value, anything else as it is."""
    if isinstance(message, str) and message.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(message)
        except (ValueError, RecursionError):
            return message
    return message


def show(messages: Sequence[Any], count: int) -> str:
    """The newest of them, cut where they are long."""
    if not count:
        return "nothing came"
    left_out = f"{count} came, the last {len(messages)}" if count > len(messages) else f"{count} came"
    return f"{left_out}: " + ", ".join(_cut(message) for message in messages)


def _cut(message: Any) -> str:
    if isinstance(message, str | bytes):
        message = message[: MOST_CHARACTERS + 1]
    text = repr(message)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


def disturbed(wanted: float, after: float, what: str | Sequence[str | bytes]) -> str:
    """The error of a silence that was none."""
    told = what if isinstance(what, str) else show([read(message) for message in what[:MOST_SHOWN]], len(what))
    return f"expected nothing for {wanted:g} s, but after {round(after, 3):g} s {told}"


def check_seconds(name: str, value: float) -> None:
    """Raises TypeError, ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected seconds, got {value!r}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name}: expected seconds, 0 or more; got {value!r}")
