"""Servers in processes of their own that say where they listen, and live until their standard input ends.

`spawned` is the test's end. In the process `serve` runs uvicorn, and `say` and `told_to_stop` do it for anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import uvicorn

from tests import forkserver
from tests.patience import PATIENCE


@contextlib.asynccontextmanager
async def spawned(
    module: str, *args: str, pure: bool, env: Mapping[str, str] | None = None
) -> AsyncGenerator[tuple[int, int]]:
    """Port and process id of `python -m module *args`, which lives as long as the block."""
    process = await forkserver.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", module, *args),
        env={**os.environ, **(env or {}), **({"ANTIPHON_PURE": "1"} if pure else {})},
        cwd=Path(__file__).parent.parent,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
        if not line:
            raise RuntimeError(f"{module} did not start")
        yield int(line), process.pid
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise


async def serve(config: uvicorn.Config) -> None:
    """Run uvicorn on the port it takes, until told to stop."""
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn offers nothing to wait for
        await asyncio.sleep(0.01)
    say(server.servers[0].sockets[0].getsockname()[1])
    await told_to_stop()
    server.should_exit = True
    await running


def say(port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


async def told_to_stop() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
