"""Tells observers that the gate has refused a connection, on every server.

Knows the reason, never the user: refusals are counted by reason alone.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from antiphon.dependencies.foreign import resources_in
from antiphon.events import AccessRefused, Observer, Observers, Refusal
from antiphon.hub import Hub
from antiphon.types import APP_KEY, OBSERVERS_EXTENSION, Scope

logger: Final = logging.getLogger("antiphon")


def note_refusal(scope: Scope, reason: Refusal) -> None:
    """Tell the server's observers and the app's hub's that the connection of this scope was refused something.

    Each hears of it once, also where it observes both. Called in the connection's event loop. Never raises.

        from antiphon.events import Refusal

        async def open_hours(websocket: WebSocket) -> None:
            note_refusal(websocket.scope, Refusal.SCOPE)
            raise HTTPException(403, "we open at nine")
    """
    event = AccessRefused(path=scope.get("path", ""), reason=reason)
    for observer in observers_of(scope):
        try:
            observer(event)
        except Exception:
            logger.exception("an observer failed on %r", event)


def observers_of(scope: Scope) -> Observers:
    """The observers of this connection's events."""
    found: list[Observer] = list((scope.get("extensions") or {}).get(OBSERVERS_EXTENSION, ()))
    app: Any = scope.get(APP_KEY)
    resources = app.resources if app is not None else resources_in(getattr(scope.get("app"), "state", None))
    hub: Any = resources.get(Hub)
    if hub is not None and hub.observer is not None:
        found.append(hub.observer)
    return Observers(*found)
