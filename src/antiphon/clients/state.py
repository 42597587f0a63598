"""Where a client stands.

Part of `runtime_py()`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientState:
    """Where a client stands, by its `name`. A new object at each change.

    For example:

        from antiphon.clients.runtime import Client, ClientState

        def show(state: ClientState) -> None:
            print(state.name, state.attempt)

        Client("ws://localhost:8000/rooms/tea").watch(show)
    """

    name: Literal["connecting", "open", "waiting", "closed", "unauthorized"]
    """The last two are for good. `unauthorized` means that a new token did not help (Close 3000, HTTP 401)."""
    attempt: int = 0
    """How many connections were lost in a row."""
    silent: bool = False
    """Open, but nothing came for suspiciously long."""
    until: float = 0.0
    """Waiting: when the next attempt is, by `time.time()`."""
    code: int = 0
    """Waiting, closed: the close code, 1006 for a link that was lost, or the HTTP status that refused the
    handshake."""
    reason: str = ""
    """The server's words with it."""

    @property
    def is_final(self) -> bool:
        """Whether there will be no other."""
        return self.name in ("closed", "unauthorized")
