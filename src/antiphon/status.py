"""HTTP and WebSocket status codes under the names FastAPI users know (`WS_1008_POLICY_VIOLATION`, …).

And the rules for the content of a Close frame, common to the protocol, connections and the hub (RFC 6455 §5.5, §7.4).
"""

from typing import Final

import starlette.status
from starlette.status import *  # noqa: F403  the whole table, which Starlette keeps up to date

__all__ = ["MAX_CLOSE_REASON", "WS_3000_UNAUTHORIZED", "WS_3003_FORBIDDEN", "WS_3008_TIMEOUT"]
__all__ += starlette.status.__all__

WS_3000_UNAUTHORIZED: Final = 3000
"""No credentials, or none that are good any more: get new ones, and come back (IANA's registry of close codes)."""

WS_3003_FORBIDDEN: Final = 3003
"""The credentials are good and do not suffice: to come back with them is no use (IANA's registry)."""

WS_3008_TIMEOUT: Final = 3008
"""Something that was due did not come in time (IANA's registry)."""

MAX_CLOSE_REASON: Final = 123
"""Bytes: a control frame's 125 without the code."""


def may_close_with(code: int) -> bool:
    """Whether a Close frame may carry `code`: registered ones, and 3000 to 4999 (RFC 6455 §7.4.2, IANA's registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def check_close_code(code: object) -> int:
    """The code as a plain int. Raises TypeError for another type, ValueError for a code that may not go on the wire."""
    if not isinstance(code, int):
        raise TypeError(f"code: expected a close code, an int, got {type(code).__name__}")
    if not may_close_with(code):
        raise ValueError(f"close code {code} may not be sent: use 1000-1003, 1007-1014 or 3000-4999 (RFC 6455 §7.4)")
    return int(code)


def cut_reason(reason: str | None) -> str:
    """As much of the reason as a Close frame holds, cut between characters; "" for None. Raises TypeError."""
    if not reason:
        return ""
    if not isinstance(reason, str):
        raise TypeError(f"reason: expected a str, got {type(reason).__name__}")
    return reason.encode("utf-8", "replace")[:MAX_CLOSE_REASON].decode("utf-8", "ignore")
