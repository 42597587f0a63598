"""Our echo servers as processes of their own, with the twin and the compression to test."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from tests.serving import HOST
from tests.spawned import spawned


@contextlib.asynccontextmanager
async def serving(*, engine: str = "server", deflate: str = "default", pure: bool = False) -> AsyncGenerator[str]:
    """The URL of an echo server that lives as long as the block (`serve.py` explains the words)."""
    async with spawned("tests.conformance.serve", "--engine", engine, "--deflate", deflate, pure=pure) as (port, _):
        yield f"ws://{HOST}:{port}/"
