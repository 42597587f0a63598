"""Errors as messages: those that an application declares (`MessageError`), and the codes of a channel's own.

Knows the text of an exception for the client, and nothing of the writing of frames.
"""

from __future__ import annotations

import dataclasses
import http
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, dataclass_transform

from pydantic_core import to_jsonable_python
from starlette.exceptions import HTTPException

from antiphon.connection.typed import REPLY_DETAILS
from antiphon.exceptions import InvalidMessage, RegistrationError, TryAgainLater
from antiphon.tags import snake_case

INVALID_JSON: Final = "invalid_json"
UNKNOWN_TYPE: Final = "unknown_type"
INVALID: Final = "invalid"
TOO_BIG: Final = "too_big"
UNEXPECTED_BINARY: Final = "unexpected_binary"
REF_REQUIRED: Final = "ref_required"
DUPLICATE_REF: Final = "duplicate_ref"
BUSY: Final = "busy"
RATE_LIMITED: Final = "rate_limited"
TIMEOUT: Final = "timeout"
CANCELLED: Final = "cancelled"
INTERNAL: Final = "internal"

CODES: Final[Mapping[str, str]] = {
    INVALID_JSON: "the message is not JSON",
    UNKNOWN_TYPE: "no message of this type is taken here",
    INVALID: "the message does not fit",
    TOO_BIG: "the message is too big",
    UNEXPECTED_BINARY: "binary messages are not taken here",
    REF_REQUIRED: "this message needs a ref: its answer is a stream",
    DUPLICATE_REF: "a request with this ref is still in progress",
    BUSY: "too many streams at a time",
    RATE_LIMITED: "too fast",
    TIMEOUT: "the request took too long",
    CANCELLED: "the request was cancelled",
    INTERNAL: "something went wrong",
}
"""A channel's own codes, with their messages."""

FAULTS: Final[Mapping[str, int]] = {
    INVALID_JSON: 1007,
    UNKNOWN_TYPE: 1008,
    INVALID: 1008,
    TOO_BIG: 1009,
    UNEXPECTED_BINARY: 1003,
    REF_REQUIRED: 1008,
    DUPLICATE_REF: 1008,
    RATE_LIMITED: 1008,
}
"""The close codes of `OnInvalid.CLOSE` for errors that are the client's mistake and count towards `invalid_limit`."""

LONGEST_TEXT: Final = 200
"""Characters of one text in an error: pydantic's message may hold a key that the client made up."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The content of an error frame."""

    code: str
    message: str
    detail: Any = None


@dataclass_transform(kw_only_default=True)
class MessageError(Exception):
    """Base of the errors that a handler answers with. A subclass has typed fields, as a dataclass has:

        class Muted(MessageError):
            \"\"\"You may not write in this room for now.\"\"\"
            seconds: int

        raise Muted(seconds=30)

    The client gets its code (the class's name in snake case, or `class Muted(MessageError, code="muted")`), the first
    line of its docstring as message, and the fields as detail. `@chat.on(errors=[Muted])` documents it. Raises
    RegistrationError for a code that is one of the channel's own.
    """

    code: ClassVar[str] = "error"

    def __init_subclass__(cls, code: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if code is not None or "code" not in vars(cls):
            cls.code = snake_case(cls.__name__) if code is None else code
        if not isinstance(cls.code, str) or not cls.code or not cls.code.isprintable():
            raise RegistrationError(f"{cls.__qualname__}: a code is printable text, not {cls.code!r}")
        if cls.code in CODES:
            raise RegistrationError(
                f"{cls.__qualname__}: {cls.code!r} is a code of the channel's own; give another one"
            )
        dataclasses.dataclass(kw_only=True, eq=False, repr=False)(cls)

    def __init__(self, *said: object) -> None:
        """For those who raise the base itself: the `__init__` of a subclass takes its fields. Raises TypeError."""
        raise TypeError(
            "MessageError is a base, and a subclass is raised: `class Muted(MessageError)` with fields; "
            "for a text alone, HTTPException(409, text)"
        )

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring. Without one the code, spelt out."""
        own = cls.__dict__.get("__doc__")
        text = inspect.cleandoc(own) if own and not own.startswith(f"{cls.__name__}(") else ""
        return text.partition("\n")[0] or cls.code.replace("_", " ")

    def __str__(self) -> str:
        return self.summary()


def is_error_class(value: object) -> bool:
    """Whether it is a subclass of `MessageError`, other than that itself."""
    return isinstance(value, type) and issubclass(value, MessageError) and value is not MessageError


def fault_of(error: BaseException) -> Fault | None:
    """The client's view of an exception. None for an unexpected one.

    `MessageError` is not here: its fields are written by its own codec.
    """
    if isinstance(error, HTTPException):
        detail = error.detail
        phrase = _phrase(error.status_code)
        if isinstance(detail, str):
            return Fault(_code(phrase), detail)
        return Fault(_code(phrase), phrase, to_jsonable_python(detail, fallback=str))
    if isinstance(error, TryAgainLater):
        return Fault(_code(_phrase(503)), "try again later")
    return None


def cause_of(error: BaseException) -> BaseException:
    """The one exception in a task group's `ExceptionGroup`; any other as it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return f"HTTP {status}"


def _code(phrase: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", phrase.replace("'", "").lower()).strip("_")


def misfit(invalid: InvalidMessage) -> Fault:
    """The error for a message that does not fit its type: at most five failures, and nothing of the input."""
    errors = invalid.errors()
    code = INVALID_JSON if errors[0]["type"] == "json_invalid" else INVALID
    detail = [_failure(error) for error in errors[:REPLY_DETAILS]]
    where = ".".join(map(str, detail[0]["loc"]))
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    message = f"{where}: {detail[0]['msg']}{more}" if where else f"{detail[0]['msg']}{more}"
    return Fault(code, message, detail)


def failure(loc: Sequence[str | int], kind: str, msg: str) -> InvalidMessage:
    """One failure, found by us, as pydantic would tell of it."""
    return InvalidMessage([{"type": kind, "loc": tuple(loc), "msg": msg}])


def _failure(error: Mapping[str, Any]) -> dict[str, Any]:
    if error["type"] == "union_tag_invalid":  # pydantic says which tag came
        return {"loc": _cut_loc(error["loc"]), "type": error["type"], "msg": "Input tag is none of those expected"}
    return {"loc": _cut_loc(error["loc"]), "type": error["type"], "msg": _cut(error["msg"])}


def _cut_loc(loc: Sequence[Any]) -> list[Any]:
    return [part if isinstance(part, int) else _cut(str(part)) for part in loc[:20]]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
