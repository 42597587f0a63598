"""What a check of one connection comes to: when to look again, a frame to send, an end. Knows of nobody who checks."""

from __future__ import annotations

import logging
from typing import NamedTuple

from antiphon.events import Event


class Abort(NamedTuple):
    """Why a connection is aborted."""

    what: str
    """For the log."""
    event: Event | None
    """For the observers."""
    level: int = logging.INFO


class Verdict(NamedTuple):
    """What a check comes to."""

    due: float | None = None
    """When to check again; None: not before something happens."""
    frame: bytes | None = None
    """To send now."""
    ending: Abort | None = None
    """Abort the connection."""
