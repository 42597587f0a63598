"""Turns middleware's answer to a WebSocket, in the endpoint's place, into an ending that every server understands.

Stands between the user's middleware and the server. Knows nothing of routes: messages that pass the middleware pass
here.
"""

from __future__ import annotations

import logging
from typing import Final

from antiphon.status import WS_1000_NORMAL_CLOSURE
from antiphon.types import Message, Scope, Send

from .endpoint import describe, quietly

logger: Final = logging.getLogger("antiphon")

ANSWER_KEY: Final = "antiphon.middleware_answer"
"""The `MiddlewareAnswer` of the innermost app whose middleware this connection has entered."""

_REFUSALS: Final = frozenset({"http.response.start", "websocket.http.response.start", "websocket.close"})
_HTTP: Final = frozenset({"http.response.start", "http.response.body"})


class MiddlewareAnswer:
    """One connection on its way through the middleware of an app."""

    __slots__ = ("_answered", "_original", "_passed", "_scope", "send")

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._original = send
        self._passed = False
        self._answered = False
        self.send: Final[Send] = self._send  # bound once, so that `leave` knows it again

    def leave(self, send: Send) -> Send:
        """The connection is through: the server's own `send`, unless middleware has put one of its own before it."""
        self._passed = True
        return self._original if send is self.send else send

    async def close(self) -> None:
        """The middleware has returned: nobody may be left without an answer (a 403, as for an endpoint)."""
        if self._passed or self._answered:
            return
        logger.warning(
            "middleware returned without an answer for %s: answered with 403. Call the app, or send a response",
            describe(self._scope),
        )
        await quietly(self._original({"type": "websocket.close", "code": WS_1000_NORMAL_CLOSURE}))

    async def _send(self, message: Message) -> None:
        """An HTTP response becomes a denial response, or where the server knows none a close before accept: a 403."""
        kind = message["type"]
        if not self._passed and not self._answered and kind in _REFUSALS:
            logger.info("%s refused: %d, by middleware", describe(self._scope), message.get("status", 403))
        if kind in _HTTP:
            kind = f"websocket.{kind}"
            message = {**message, "type": kind}
        if kind.startswith("websocket.http.") and "websocket.http.response" not in (
            self._scope.get("extensions") or ()
        ):
            if self._answered:
                return
            message = {"type": "websocket.close", "code": WS_1000_NORMAL_CLOSURE}
        self._answered = True
        await self._original(message)
