"""Tools for tests: clients on the real engine in one loop, a clock that jumps, and the contract of hub backends.

`antiphon.testclient` is the synchronous client in FastAPI's style. `hub_contract` needs pytest and is imported by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from antiphon.lazily import lazily

if TYPE_CHECKING:
    from antiphon.clients.waiting import RemoteError

    from .channel import ChannelPeer
    from .client import ConnectionEnded, HandshakeRefused, Peer, Server
    from .clock import VirtualTimeLoop, virtual_time
    from .expectation import ReceiveTimeout

__all__ = [
    "ChannelPeer",
    "ConnectionEnded",
    "HandshakeRefused",
    "Peer",
    "ReceiveTimeout",
    "RemoteError",
    "Server",
    "VirtualTimeLoop",
    "virtual_time",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "antiphon.clients.waiting": ("RemoteError",),
            ".channel": ("ChannelPeer",),
            ".client": ("ConnectionEnded", "HandshakeRefused", "Peer", "Server"),
            ".clock": ("VirtualTimeLoop", "virtual_time"),
            ".expectation": ("ReceiveTimeout",),
        },
    )
