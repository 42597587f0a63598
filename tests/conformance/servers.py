"""Our echo servers as processes of their own, with the twin and the compression to test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator

from tests.patience import PATIENCE


@contextlib.asynccontextmanager
async def serving(*, engine: str = "server", deflate: str = "default", pure: bool = False) -> AsyncIterator[str]:
    """The URL of an echo server that lives as long as the block (`serve.py` says what the words mean)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.conformance.serve", "--engine", engine, "--deflate", deflate,
        env=os.environ | ({"ANTIPHON_PURE": "1"} if pure else {}),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
        if not line:
            raise RuntimeError(f"the {engine} echo server did not start")
        yield line.decode().strip()
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()
