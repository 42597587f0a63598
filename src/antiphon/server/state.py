"""The life of one connection as a table (RFC 6455 §4.2, §7; README.md has it in words). Knows nothing else."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final


class State(enum.IntEnum):
    """How far a connection is. An int, so that both twins compare it quickly."""

    HANDSHAKE = 0
    WAITING_APP = 1
    OPEN = 2
    CLOSING_SENT = 3
    CLOSING_RCVD = 4
    DENYING = 5
    CLOSED = 6


TRANSITIONS: Final[Mapping[int, frozenset[int]]] = MappingProxyType(
    {
        State.HANDSHAKE: frozenset({State.WAITING_APP, State.DENYING, State.CLOSED}),
        State.WAITING_APP: frozenset({State.OPEN, State.DENYING, State.CLOSED}),
        State.OPEN: frozenset({State.CLOSING_SENT, State.CLOSING_RCVD, State.CLOSED}),
        State.CLOSING_SENT: frozenset({State.CLOSED}),
        State.CLOSING_RCVD: frozenset({State.CLOSED}),
        State.DENYING: frozenset({State.CLOSED}),
        State.CLOSED: frozenset(),
    }
)

APP_MAY_SEND: Final[Mapping[int, frozenset[str]]] = MappingProxyType(
    {
        State.HANDSHAKE: frozenset(),
        State.WAITING_APP: frozenset({"websocket.accept", "websocket.close", "websocket.http.response.start"}),
        State.OPEN: frozenset({"websocket.send", "websocket.close"}),
        State.DENYING: frozenset({"websocket.http.response.body"}),
    }
)
"""ASGI WebSocket spec 2.5: what `send` takes. In the states that are not here the connection is over."""
