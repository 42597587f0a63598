"""The servers every row of the close matrix runs on, and their limitations: one table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.serving import UVICORN_PROTOCOLS, Served, serve, serve_hypercorn


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUnderTest:
    """A way to serve an app, and the gaps of the server (docs/servers.md explains each)."""

    name: str
    run: Callable[[Any], AbstractAsyncContextManager[Served]]
    tells_shutdown: bool = True
    """A stopping server ends its connections with 1012."""
    stops_quietly: bool = True
    """Endpoints that a stop cancels leave nothing in the log."""
    stops_with_clients: bool = True
    """It stops while clients are connected, instead of waiting for them to leave."""
    tells_close_code: bool = True
    """The endpoint learns the code of the peer's Close."""


SERVERS = [
    ServerUnderTest(name="antiphon", run=partial(serve, ws="antiphon.server:WebSocketProtocol")),
    *(ServerUnderTest(name=f"uvicorn-{ws}", run=partial(serve, ws=ws)) for ws in UVICORN_PROTOCOLS),
    ServerUnderTest(
        name="hypercorn",
        run=serve_hypercorn,
        tells_shutdown=False,
        stops_quietly=False,
        # It awaits asyncio's Server.wait_closed(), which from 3.12 on waits for every connection.
        stops_with_clients=sys.version_info < (3, 12),
        tells_close_code=False,
    ),
]
