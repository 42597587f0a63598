"""The refusal of a handshake: with an HTTP response, or so that the page's `onclose` can read why.

Pure. `WebSocket.close` uses it, and `routing/endpoint.py` for exceptions.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import Final

from antiphon.masking import is_token_list_head, is_token_protocol
from antiphon.status import (
    MAX_CLOSE_REASON,
    WS_1008_POLICY_VIOLATION,
    WS_1011_INTERNAL_ERROR,
    WS_1013_TRY_AGAIN_LATER,
    WS_3000_UNAUTHORIZED,
    WS_3003_FORBIDDEN,
    cut_reason,
)
from antiphon.types import Scope

DENIALS_KEY: Final = "antiphon.denials"
"""Key in the scope: the `Denials` of this connection, where they are not `HTTP`."""

_OFFERED_KEY: Final = "antiphon.offered"
"""Key in the scope: the subprotocols as the server told them."""


class Denials(enum.Enum):
    """How a dependency, validation, the endpoint or the gate refuses a handshake.

    For example:

        app = App(denials=Denials.CLOSE)  # a page reads why it was refused
    """

    HTTP = "http"
    """With an HTTP response: the connection never opens. A page gets Close 1006 and no reason, as browsers have it."""
    CLOSE = "close"
    """The handshake is accepted and closed at once, with a code and a reason that `onclose` and every client can read.
    Status 401 becomes 3000, 403 becomes 3003, 400 and 422 become 1008, 429 and 503 become 1013. Other 5xx become 1011,
    and the rest 4000 and the status (4404). A `WebSocketException` has its own code. Nothing else is sent, and nothing
    read."""


_CODES: Final = {
    400: WS_1008_POLICY_VIOLATION,
    401: WS_3000_UNAUTHORIZED,
    403: WS_3003_FORBIDDEN,
    422: WS_1008_POLICY_VIOLATION,
    429: WS_1013_TRY_AGAIN_LATER,
    503: WS_1013_TRY_AGAIN_LATER,
}
_SECONDS: Final = re.compile(r"[0-9]{1,6}")


def close_code_of(status: int) -> int:
    """The close code that stands for an HTTP status."""
    if status in _CODES:
        return _CODES[status]
    if status >= 500:
        return WS_1011_INTERNAL_ERROR
    return 4000 + status if status >= 300 else WS_1008_POLICY_VIOLATION


def close_reason_of(reason: str, retry_after: str | None) -> str:
    """As much of a reason as a Close frame holds, and the seconds of a `Retry-After` behind it, which are never cut."""
    if retry_after is None or not _SECONDS.fullmatch(retry_after):
        return cut_reason(reason)
    hint = f"retry-after={retry_after}"
    room = MAX_CLOSE_REASON - len(hint) - 2
    return f"{reason.encode('utf-8', 'replace')[:room].decode('utf-8', 'ignore')}; {hint}" if reason else hint


def refuse_with_close(scope: Scope) -> None:
    """From now on this connection is refused so that a page can read why."""
    scope[DENIALS_KEY] = Denials.CLOSE
    if scope.get("subprotocols"):
        scope[_OFFERED_KEY] = scope["subprotocols"]


def closes(scope: Scope) -> bool:
    """Whether this connection is refused so that a page can read why."""
    return scope.get(DENIALS_KEY) is Denials.CLOSE


def offered_subprotocols(scope: Scope) -> list[str]:
    """The client's offers, in its order, also where tokens were taken out of `scope["subprotocols"]`."""
    return list(scope.get(_OFFERED_KEY) or scope.get("subprotocols") or ())


def subprotocol_to_answer(offered: Sequence[str]) -> str | None:
    """The first offer that is no secret: a browser that offered some and gets none fails the connection with 1006.

    `bearer` may be answered. The next offer is a token.
    """
    before = ""
    for one in offered:
        if not is_token_protocol(one) and not is_token_list_head(before):
            return one
        before = one
    return None
