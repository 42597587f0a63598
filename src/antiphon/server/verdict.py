"""The result of a check of one connection: when to look again, a frame to send, an end. Knows none of the checks."""

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
    """The result of a check."""

    due: float | None = None
    """When to check again. None: not before something happens."""
    frame: bytes | None = None
    """To send now."""
    ending: Abort | None = None
    """Abort the connection."""
