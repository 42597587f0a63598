"""The messages of typed topics that a socket has joined, in a document."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from antiphon.hub import Framing, Topics
from antiphon.tagged import TAG, Tagged

from . import payloads
from .payloads import WireNames
from .schemas import Mode
from .section import Section

logger: Final = logging.getLogger("antiphon")


def author_examples(kind: Any, adapter: TypeAdapter[Any], mode: Mode) -> list[Any]:
    """The class's own examples that fit it, those of outgoing messages with all their fields."""
    config = getattr(kind, "model_config", None) or getattr(kind, "__pydantic_config__", None) or {}
    extra = config.get("json_schema_extra")
    given = list(extra.get("examples") or ()) if isinstance(extra, dict) else []
    found = []
    for one in given:
        try:
            value = adapter.validate_python(one)
            found.append(one if mode == "validation" else adapter.dump_python(value, mode="json", by_alias=True))
        except (ValidationError, PydanticSerializationError):
            logger.warning("an example of %s does not fit it, and is left out of the document: %r", kind, one)
    return found


def doc_of(kind: Any) -> str:
    """The docstring of a class, if it was written for it: dataclasses and models make one up."""
    kind = getattr(kind, "__origin__", None) or kind
    own = vars(kind).get("__doc__") if isinstance(kind, type) else None
    if not own or own.startswith(f"{kind.__name__}("):
        return ""
    return inspect.cleandoc(own)


def events_of(section: Section, topics: Iterable[Topics[Any]]) -> list[str]:
    """Add the messages of topics. Returns their keys."""
    keys: list[str] = []
    for one in dict.fromkeys(topics):
        keys += [_message(section, tagged, one) for tagged in one.messages.types]
        if one.options.presence:
            keys.append(
                section.message("presence_diff", payloads.presence_diff(), description="Who came and who went.")
            )
        lost = "Messages may have been missed that cannot be had any more: load the state again."
        keys.append(section.message("resync", payloads.resync(), description=lost))
        if one.options.framing is Framing.EVENT:
            keys.append(
                section.message("joined", payloads.joined(), description="First of all: where the topic stands.")
            )
            keys.append(heartbeat(section))
    return keys


def heartbeat(section: Section) -> str:
    """Add the event that the hub sends, and a channel of the usual wire. Returns its key."""
    alive = "The link is alive: sent in an interval that `joined` or its first one tells."
    return section.message("heartbeat", payloads.heartbeat(), description=alive)


def _message(section: Section, tagged: Tagged, topics: Topics[Any]) -> str:
    schemas = section.schemas
    schema = schemas.of(tagged.kind, tagged.adapter, "serialization")
    payload = payloads.message(tagged.tags, schemas.resolved(schema), WireNames(TAG))
    extension: dict[str, Any] = {"topic": topics.pattern.text}
    if name := schemas.name(schema):
        extension["schema"] = name
    examples = author_examples(tagged.kind, tagged.adapter, "serialization")
    if topics.options.framing is Framing.EVENT:
        payload = payloads.event(payload)
        extension["framing"] = "event"
        examples = []
    return section.message(
        tagged.tag, payload, name=tagged.tag, description=doc_of(tagged.kind), examples=examples, extension=extension
    )
