"""Middleware for tests."""

from __future__ import annotations

from antiphon.types import ASGIApp, Message, Receive, Scope, Send


class Wraps:
    """Sees every message, and changes none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def hand_on(message: Message) -> None:
            await send(message)

        await self._app(scope, receive, hand_on)
