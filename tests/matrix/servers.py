"""The servers every row of the close matrix runs on, and what each of them cannot do: one table."""

from __future__ import annotations

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
    keeps_reason: bool = True
    """The reason of a Close reaches the peer."""
    tells_shutdown: bool = True
    """A stopping server ends its connections with 1012."""
    refuses_unoffered: bool = True


SERVERS = [
    *(ServerUnderTest(name=f"uvicorn-{ws}", run=partial(serve, ws=ws)) for ws in UVICORN_PROTOCOLS),
    ServerUnderTest(name="hypercorn", run=serve_hypercorn, tells_shutdown=False),
]
