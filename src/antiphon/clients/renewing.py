"""A client's new tokens while it is connected: asked for when the server says that the old one expires.

Part of `runtime_py()`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from .attempts import ANSWER_WITHIN, Attempts
from .waiting import RemoteError

LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries to renew."""
MOST_LEFT: Final = 3600.0
"""Seconds that a server is believed."""
renewal_logger: Final = logging.getLogger("antiphon.client")


class Renewing:
    """Sends new tokens as `auth`, with the client's `request`. One at a time, in a task that ends with `stop`."""

    def __init__(self, attempts: Attempts, request: Callable[..., Awaitable[Any]]) -> None:
        self._attempts = attempts
        self._request = request
        self._task: asyncio.Task[None] | None = None

    def begin(self, seconds: Any) -> None:
        """The token expires in so many seconds, says the server."""
        if self._attempts.has_tokens and (self._task is None or self._task.done()):
            left = max(0.0, min(seconds, MOST_LEFT)) if isinstance(seconds, int | float) else 0.0
            self._task = asyncio.create_task(self._renew(left))

    def stop(self) -> list[asyncio.Task[None]]:
        """The connection is over. Returns the tasks to cancel and wait for."""
        task, self._task = self._task, None
        return [] if task is None else [task]

    async def _renew(self, seconds: float) -> None:
        """Tries again as long as the old token lasts. Then the server closes with 3000."""
        pause, until = 1.0, time.monotonic() + seconds
        while True:
            try:
                token = await self._attempts.token()
                if token is not None:
                    await self._request("auth", {"token": token}, timeout=ANSWER_WITHIN, queue=False)
                return
            except RemoteError as error:
                if error.code == "unknown_type":
                    return
                renewal_logger.warning("a new token was not taken: %s", error)
            except Exception as error:  # any exception of token(): the next may be better
                renewal_logger.warning("a new token could not be had: %s", str(error) or type(error).__name__)
            if not time.monotonic() + pause < until:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
