"""One channel of a document as it grows: its messages and the operations that name them.

Knows AsyncAPI's form, and nothing of routes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .draft07 import Schema
from .examples import examples_of
from .schemas import Schemas


class Section:
    """A channel's part of a document."""

    def __init__(self, key: str, address: str, schemas: Schemas) -> None:
        self.key = key
        self.schemas = schemas
        self.channel: dict[str, Any] = {"address": address}
        self.messages: dict[str, Any] = {}
        self.operations: dict[str, Any] = {}
        self.security: list[Any] = []
        """The security requirements of each operation."""

    def message(
        self,
        key: str,
        payload: Schema,
        *,
        name: str | None = None,
        description: str = "",
        examples: Sequence[Any] = (),
        content_type: str = "application/json",
        ref: str | None = None,
        extension: dict[str, Any] | None = None,
    ) -> str:
        """Add a message. Returns its key, which is another one where something else has that already.

        `ref`: the field that joins question and answer. `examples`: of the author's.
        """
        made: dict[str, Any] = {"name": name or key, "contentType": content_type, **told(description)}
        if ref is not None:
            made["correlationId"] = {"location": f"$message.payload#/{ref}"}
        if payload.get("type") == "object":
            payload = {"title": "".join(word[:1].upper() + word[1:] for word in re.split(r"\W|_", key)), **payload}
        made["payload"] = payload
        shown = examples_of(payload, examples, self.schemas) if content_type == "application/json" else []
        if shown:
            made["examples"] = [{"payload": one} for one in shown]
        if extension:
            made["x-antiphon"] = extension
        key = fit(key)
        while key in self.messages and self.messages[key]["payload"] != payload:
            key += "_"
        self.messages.setdefault(key, made)
        return key

    def operation(
        self,
        name: str,
        action: str,
        messages: Sequence[str],
        *,
        reply: Sequence[str] = (),
        description: str = "",
        extension: dict[str, Any] | None = None,
    ) -> None:
        """Add an operation of the application: `receive` is from a client, `send` to it."""
        channel = {"$ref": f"#/channels/{self.key}"}
        made: dict[str, Any] = {"action": action, "channel": channel, **told(description)}
        if self.security:
            made["security"] = self.security
        made["messages"] = self._refs(messages)
        if reply:
            made["reply"] = {"channel": channel, "messages": self._refs(reply)}
        if extension:
            made["x-antiphon"] = extension
        key = f"{self.key}.{fit(name)}"
        while key in self.operations:
            key += "_"
        self.operations[key] = made

    def _refs(self, keys: Sequence[str]) -> list[dict[str, str]]:
        return [{"$ref": f"#/channels/{self.key}/messages/{key}"} for key in dict.fromkeys(keys)]


def told(text: str) -> dict[str, str]:
    """A docstring as AsyncAPI has it: its first line, and the whole of it where there is more."""
    text = text.strip()
    if not text:
        return {}
    summary = text.partition("\n")[0]
    return {"summary": summary, **({"description": text} if text != summary else {})}


def fit(name: str) -> str:
    """The name as a key, which takes no spaces and no slashes."""
    return re.sub(r"[^\w.\-]+", "_", name, flags=re.ASCII) or "_"
