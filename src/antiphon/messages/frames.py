"""The frames of a channel as text: writing its own, and reading the envelope of incoming ones.

README.md has the table. Pure: no connection, no handlers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pydantic_core import SchemaValidator, ValidationError, core_schema, from_json

from antiphon.connection import codec
from antiphon.connection.typed import readable_ref
from antiphon.exceptions import InvalidJSON, InvalidMessage

from .errors import INVALID_JSON, Fault, MessageError, failure, misfit
from .options import Wire
from .shape import Incoming, Strip
from .typecodec import codec_of, inner_json

Ref = int | str

LONGEST_REF: Final = 64
"""Characters: a ref is a number or a name, and it is kept while its request is in progress."""

_MOST: Final = 2**63 - 1


class Unreadable(Exception):
    """No message can be made of the incoming text."""

    def __init__(self, fault: Fault, ref: Ref | None = None) -> None:
        super().__init__(fault.code)
        self.fault = fault
        self.ref = ref


class Frames:
    """Reads and writes the frames of one wire."""

    __slots__ = ("_ack", "_content", "_end", "_error", "_item", "_reply", "_wire", "read")

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._content = wire.content or "data"
        self.read: Callable[..., Any] = _envelope(wire).validate_json
        """Tag, ref and (nested) content of a message, as a dict. Raises ValidationError. `look_closer` says why."""
        data = f",{_key(self._content)}"
        self._ack, self._reply = self._head("reply"), data
        self._item = self._head("item")
        self._end = self._head("end")
        self._error = self._head("error")

    def _head(self, tag: str) -> str:
        return f"{{{_key(self._wire.tag)}{codec.encode_json(tag)},{_key(self._wire.ref)}"

    # Writing

    def reply(self, ref: Ref, data: str) -> str:
        """The answer to a request. `data` is JSON."""
        return f"{self._ack}{ref if type(ref) is int else _text(ref)}{self._reply}{data}}}"

    def ack(self, ref: Ref) -> str:
        """The answer without data."""
        return f"{self._ack}{_text(ref)}}}"

    def item(self, ref: Ref, data: str) -> str:
        """One of a stream. `data` is JSON."""
        return f"{self._item}{_text(ref)}{self._reply}{data}}}"

    def end(self, ref: Ref) -> str:
        """The end of a stream."""
        return f"{self._end}{_text(ref)}}}"

    def error(self, fault: Fault, ref: Ref | None) -> str:
        """An error frame."""
        detail = None if fault.detail is None else codec.encode_json(fault.detail)
        return self._error_of(fault.code, fault.message, detail, ref)

    def declared_error(self, error: MessageError, ref: Ref | None) -> str:
        """An error of the application's, its fields as detail."""
        detail = codec_of(type(error), type(error).__qualname__).encode(error)
        return self._error_of(error.code, str(error), None if detail == "{}" else detail, ref)

    def _error_of(self, code: str, message: str, detail: str | None, ref: Ref | None) -> str:
        fields = f'"code":{codec.encode_json(code)},"message":{codec.encode_json(message)}'
        if detail is not None:
            fields += f',"detail":{detail}'
        head = f"{{{_key(self._wire.tag)}{codec.encode_json('error')}" if ref is None else f"{self._error}{_text(ref)}"
        if self._wire.content is not None:
            fields = f"{_key(self._wire.content)}{{{fields}}}"
        return codec.escaped(f"{head},{fields}}}")

    # Reading

    def look_closer(self, data: str, error: ValidationError) -> tuple[str, Ref | None, dict[str, Any]]:
        """Tag, ref and the whole of a message that the quick parser did not take (lone surrogates).

        Raises Unreadable for text that is no message, with its ref where that can be read.
        """
        try:
            value = codec.decode_json(data)
        except InvalidJSON as exc:
            message = f"{exc.msg}, line {exc.lineno} column {exc.colno}"
            raise Unreadable(misfit(failure((), "json_invalid", message))) from None
        if not isinstance(value, dict):
            raise Unreadable(misfit(failure((), "dict_type", "Input should be an object")))
        tag, ref = value.get(self._wire.tag), value.get(self._wire.ref)
        readable = readable_ref(ref)
        if ref is not None and readable is None:
            expected = f"Input should be an integer of 64 bits, or a string of at most {LONGEST_REF} characters"
            raise Unreadable(misfit(failure((self._wire.ref,), "ref_type", expected)))
        if "recursion limit" in str(error.errors(include_url=False, include_input=False)[0].get("ctx", "")):
            raise Unreadable(Fault(INVALID_JSON, "the message is nested too deeply"), readable)
        if self._wire.tag not in value:
            raise Unreadable(misfit(failure((self._wire.tag,), "missing", "Field required")), readable)
        if not isinstance(tag, str):
            raise Unreadable(misfit(failure((self._wire.tag,), "string_type", "Input should be a string")), readable)
        return tag, readable, value

    def own(self, incoming: Incoming, value: dict[str, Any]) -> Any:
        """The message itself in the decoded whole: without the channel's keys, or the nested part."""
        if self._wire.content is not None:
            return value.get(self._wire.content, {})
        without = {Strip.NOTHING: (), Strip.REF: (self._wire.ref,), Strip.BOTH: (self._wire.tag, self._wire.ref)}
        return {key: item for key, item in value.items() if key not in without[incoming.strip]}

    def validated(self, incoming: Incoming, data: str, found: dict[str, Any]) -> Any:
        """The message, from its text and its envelope. Raises ValidationError."""
        if incoming.codec is None:
            return None
        if self._wire.content is not None:
            return incoming.codec.validate(inner_json(found.get(self._wire.content, {})))
        if incoming.strip is Strip.NOTHING:
            return incoming.codec.validate(data)
        return incoming.codec.validate(inner_json(self.own(incoming, from_json(data))))

    def validated_slowly(self, incoming: Incoming, value: dict[str, Any]) -> Any:
        """The message, from the decoded whole. Raises InvalidMessage."""
        if incoming.codec is None:
            return None
        own = self.own(incoming, value)
        try:
            return incoming.codec.validate_value(own)
        except RecursionError:
            raise InvalidMessage([{"type": "json_invalid", "loc": (), "msg": "nested too deeply"}]) from None


def _envelope(wire: Wire) -> SchemaValidator:
    ref = core_schema.nullable_schema(
        core_schema.union_schema(
            [
                core_schema.int_schema(strict=True, ge=-_MOST, le=_MOST),
                core_schema.str_schema(strict=True, max_length=LONGEST_REF),
            ],
            mode="left_to_right",
        )
    )
    fields = {
        wire.tag: core_schema.typed_dict_field(core_schema.str_schema(strict=True), required=True),
        wire.ref: core_schema.typed_dict_field(ref, required=False),
    }
    if wire.content is not None:
        fields[wire.content] = core_schema.typed_dict_field(core_schema.any_schema(), required=False)
    return SchemaValidator(core_schema.typed_dict_schema(fields, extra_behavior="ignore"))


def _key(name: str) -> str:
    return f"{codec.encode_json(name)}:"


def _text(ref: Ref) -> str:
    return str(ref) if type(ref) is int else codec.encode_json(ref)
