"""A channel with handlers as a section of a document: its requests, answers, errors and events."""

from __future__ import annotations

from typing import Any

from antiphon import tags
from antiphon.dependencies import topics_of
from antiphon.messages.errors import CODES, MessageError
from antiphon.messages.shape import AnswerKind, ChannelShape, HandlerShape, Incoming, RenewalShape
from antiphon.messages.typecodec import Codec, codec_of

from . import payloads
from .draft07 import Schema
from .payloads import WireNames
from .schemas import Mode
from .section import Section
from .topics import author_examples, doc_of, events_of, heartbeat

ERROR = "error"
END = "end"


class ChannelSection:
    """Adds the content of a shape to a section."""

    def __init__(self, section: Section, shape: ChannelShape) -> None:
        self._section = section
        self._shape = shape
        self._names = WireNames(shape.wire.tag, shape.wire.ref, shape.wire.content)
        handlers = [*shape.handlers, *filter(None, (shape.bytes_handler, shape.fallback))]
        self._errors = {error.code: error for handler in handlers for error in handler.errors}

    def add(self) -> None:
        """All of it."""
        shape, section = self._shape, self._section
        shown = {"code": "internal", "message": CODES["internal"]}
        error = section.message(
            ERROR,
            self._error(),
            ref=self._names.ref,
            description="What went wrong.",
            examples=[shown if self._names.content is None else {self._names.content: shown}],
        )
        for handler in shape.handlers:
            self._handler(handler, error)
        if shape.bytes_handler is not None:
            self._binary(shape.bytes_handler)
        if shape.fallback is not None:
            self._fallback(shape.fallback, error)
        if shape.renewal is not None:
            self._renewal(shape.renewal, error)
        if shape.handlers:
            text = "Give up a request: a stream ends, the answer of anything else is not waited for."
            payload = payloads.envelope("cancel", self._names)
            key = section.message("cancel", payload, ref=self._names.ref, description=text)
            section.operation("cancel", "receive", [key], description=text, extension={"answer": "none"})
        sends = [*shape.sends, *([] if shape.renewal is None else [shape.renewal.event])]
        events = [self._event(one) for one in sends] + events_of(section, topics_of(shape.plan))
        if shape.heartbeat is not None:
            events.append(heartbeat(section) if self._names == WireNames() else self._event(shape.heartbeat))
        section.operation("events", "send", [*events, error])

    def _schema(self, codec: Codec, mode: Mode) -> Schema:
        adapter = getattr(codec, "adapter", None)
        if adapter is None:
            return {}
        return self._section.schemas.of(_key(codec.annotation), adapter, mode)

    def _renewal(self, renewal: RenewalShape, error: str) -> None:
        tag = renewal.incoming.tag
        schema = self._schema(renewal.incoming.codec, "validation")  # type: ignore[arg-type]  # it has one
        fields = schema if self._names.content else self._section.schemas.resolved(schema)
        text = doc_of(tags.bare(renewal.incoming.codec.annotation))  # type: ignore[union-attr]
        request = self._section.message(
            f"{tag}.request",
            payloads.message([tag], fields, self._names),
            name=tag,
            description=text,
            ref=self._names.ref,
            extension=self._named(schema),
        )
        data = {self._names.content or "data": self._schema(renewal.reply, "serialization")}
        reply = [self._answer(f"{tag}.reply", "reply", data), error]
        self._section.operation(
            tag, "receive", [request], reply=reply, description=text, extension={"answer": AnswerKind.VALUE.value}
        )

    def _handler(self, handler: HandlerShape, error: str) -> None:
        messages = [self._request(one, handler) for one in handler.messages]
        name = handler.messages[0].tag if len(messages) == 1 else handler.name
        self._operation(name, handler, messages, error)

    def _operation(self, name: str, handler: HandlerShape, messages: list[str], error: str) -> None:
        answer = "value" if handler.answer is AnswerKind.EVENT else handler.answer.value
        extension: dict[str, Any] = {"answer": answer}
        if handler.deprecated:
            extension["deprecated"] = True
        reply = [*self._answers(name, handler), *(self._declared(name, one) for one in handler.errors), error]
        self._section.operation(
            name, "receive", messages, reply=reply, description=handler.description, extension=extension
        )

    def _request(self, incoming: Incoming, handler: HandlerShape) -> str:
        schemas = self._section.schemas
        schema = None if incoming.codec is None else self._schema(incoming.codec, "validation")
        fields = None if schema is None else schema if self._names.content else schemas.resolved(schema)
        payload = payloads.message(
            [incoming.tag],
            fields,
            self._names,
            ref=handler.answer is AnswerKind.STREAM,
            deprecated=handler.deprecated,
        )
        kind = None if incoming.codec is None else tags.bare(incoming.codec.annotation)
        return self._section.message(
            f"{incoming.tag}.request",
            payload,
            name=incoming.tag,
            description=doc_of(kind) or handler.description,
            ref=self._names.ref,
            examples=self._examples(incoming.codec, "validation"),
            extension=self._named(schema),
        )

    def _examples(self, codec: Codec | None, mode: Mode) -> list[Any]:
        adapter = getattr(codec, "adapter", None)
        if codec is None or adapter is None or self._names.content is not None:
            return []
        return author_examples(tags.bare(codec.annotation), adapter, mode)

    def _named(self, schema: Schema | None) -> dict[str, Any]:
        name = None if schema is None else self._section.schemas.name(schema)
        return {} if name is None else {"schema": name}

    def _answers(self, name: str, handler: HandlerShape) -> list[str]:
        data = None if handler.reply is None else self._schema(handler.reply, "serialization")
        part = self._names.content or "data"
        parts = {} if data is None else {part: data}
        if handler.answer is not AnswerKind.STREAM:
            return [self._answer(f"{name}.reply", "reply", parts)]
        end = self._section.message(END, payloads.envelope("end", self._names), ref=self._names.ref)
        return [self._answer(f"{name}.item", "item", parts), end]

    def _answer(self, key: str, tag: str, parts: dict[str, Schema]) -> str:
        payload = payloads.envelope(tag, self._names, parts=parts)
        return self._section.message(key, payload, ref=self._names.ref)

    def _declared(self, name: str, kind: type[MessageError]) -> str:
        schema = self._schema(codec_of(kind, kind.__qualname__), "serialization")
        fields = self._section.schemas.resolved(schema)
        payload = payloads.error(
            self._names,
            payloads.tag_of([kind.code]),
            {"type": "string"},
            schema if fields.get("properties") else None,
            demanded=True,
        )
        return self._section.message(
            f"{name}.error.{kind.code}",
            payload,
            ref=self._names.ref,
            description=doc_of(kind),
            extension={"code": kind.code, **self._named(schema)},
        )

    def _error(self) -> Schema:
        """Every other error: so that a frame is one message and no other."""
        code: Schema = {"type": "string"}
        if self._errors:
            code["not"] = {"enum": sorted(self._errors)}
        return payloads.error(self._names, code, {"type": "string"}, payloads.FAULTS, demanded=False)

    def _event(self, outgoing: Any) -> str:
        schema = self._schema(outgoing.codec, "serialization")
        kind = tags.bare(outgoing.codec.annotation)
        fields = schema if self._names.content else self._section.schemas.resolved(schema)
        payload = payloads.message(outgoing.tags, fields, self._names)
        return self._section.message(
            outgoing.tag,
            payload,
            description=doc_of(kind),
            examples=self._examples(outgoing.codec, "serialization"),
            extension=self._named(schema),
        )

    def _binary(self, handler: HandlerShape) -> None:
        text = handler.description or "A binary message."
        payload = {"type": "string", "format": "binary"}
        key = self._section.message("bytes", payload, content_type="application/octet-stream", description=text)
        self._section.operation("bytes", "receive", [key], description=text, extension={"answer": "none"})

    def _fallback(self, handler: HandlerShape, error: str) -> None:
        own = {"cancel"} if self._shape.renewal is None else {"cancel", self._shape.renewal.incoming.tag}
        known = sorted({one.tag for other in self._shape.handlers for one in other.messages} | own)
        properties = {self._names.tag: {"type": "string", "not": {"enum": known}}, self._names.ref: payloads.REF}
        payload = {"type": "object", "properties": properties, "required": [self._names.tag]}
        key = self._section.message("fallback", payload, ref=self._names.ref, description="Any other message.")
        self._operation("fallback", handler, [key], error)


def _key(annotation: Any) -> Any:
    """The key of a type in a document: the type itself, unless its metadata cannot be hashed."""
    try:
        hash(annotation)
    except TypeError:
        return id(annotation)
    return annotation
