"""The states of one connection: the server's own, before it is open, and behind those the phases of `wire/closing.py`.

One line of numbers for both, so that either twin compares them quickly: states below OPEN have not been open.
README.md has it in words. Knows nothing else.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

from antiphon.wire import Phase, closing


class Opening(enum.IntEnum):
    """How far a connection is that is not open (RFC 6455 §4.2)."""

    HANDSHAKE = -3
    """The request is on its way."""
    WAITING_APP = -2
    """The app has it, and has not answered."""
    DENYING = -1
    """The answer is an HTTP response."""


State: TypeAlias = Opening | Phase

MOVES: Final[Mapping[int, frozenset[State]]] = MappingProxyType(
    {
        Opening.HANDSHAKE: frozenset({Opening.WAITING_APP, Opening.DENYING, Phase.GONE}),
        Opening.WAITING_APP: frozenset({Opening.DENYING, Phase.OPEN, Phase.GONE}),
        Opening.DENYING: frozenset({Phase.GONE}),
        **{phase: frozenset(move.phase for move in moves.values()) for phase, moves in closing.TRANSITIONS.items()},
    }
)


def state_of(number: int) -> State:
    """The state with that number."""
    return Phase(number) if number >= Phase.OPEN else Opening(number)


class HasState(Protocol):
    """`backend.Pipe` is one."""

    state: int


def move(connection: HasState, state: State) -> None:
    """Enter a state before the connection is open, or open it. `closing` tells how it goes on from there."""
    assert state in MOVES[connection.state], f"{state_of(connection.state).name} -> {state.name}"
    connection.state = state


APP_MAY_SEND: Final[Mapping[int, frozenset[str]]] = MappingProxyType(
    {
        Opening.HANDSHAKE: frozenset(),
        Opening.WAITING_APP: frozenset({"websocket.accept", "websocket.close", "websocket.http.response.start"}),
        Opening.DENYING: frozenset({"websocket.http.response.body"}),
        Phase.OPEN: frozenset({"websocket.send", "websocket.close"}),
    }
)
"""ASGI WebSocket spec 2.5: the messages that `send` takes. In states missing here the connection is over."""
