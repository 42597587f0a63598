"""The refusal of a handshake by other code than its endpoint: its messages, and the task that sends them.

Knows no reasons. `denials.py` chooses the form of the refusal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Final

from antiphon.types import ANSWER_KEY, Scope, Send

from .denials import offered_subprotocols, subprotocol_to_answer

logger: Final = logging.getLogger("antiphon")


async def refuse_readably(scope: Scope, send: Send, code: int, reason: str) -> None:
    """Accept, and close with a code and a reason that a page can read."""
    answer = scope.get(ANSWER_KEY) or subprotocol_to_answer(offered_subprotocols(scope))
    await send({"type": "websocket.accept", "subprotocol": answer, "headers": []})
    await send({"type": "websocket.close", "code": code, "reason": reason})


def begin(ending: Awaitable[None]) -> asyncio.Task[None]:
    """Do it beside the endpoint. That the connection has ended before is no error."""
    return asyncio.get_running_loop().create_task(_quietly(ending), name="antiphon.refusing")


async def _quietly(ending: Awaitable[None]) -> None:
    try:
        await ending
    except Exception as exc:
        logger.debug("the connection had ended before its Close: %r", exc)
