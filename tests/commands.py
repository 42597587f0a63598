"""The command `antiphon` as a user runs it: in a process of its own, with its output kept.

async with run("examples/text_echo.py") as server:
    async with connect(f"{server.url}/echo") as client: ...
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import forkserver
from tests.patience import PATIENCE

from .serving import ServedProcess, serve_process

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
ANTIPHON = (sys.executable, "-W", "error", "-m", "antiphon")


@contextlib.asynccontextmanager
async def run(
    target: str | Path, *args: str, command: Sequence[str] = ("run",), app_dir: Path | None = None
) -> AsyncGenerator[ServedProcess]:
    """`antiphon run target` on a free port. At the end its log must hold no traceback."""
    async with serve_process(str(target), *args, app_dir=app_dir, command=(*ANTIPHON, *command)) as server:
        yield server
    assert "Traceback" not in server.log, server.log


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str


async def antiphon(
    *args: str,
    stdin: str | None = "",
    open_until: str = "",
    timeout: float = PATIENCE,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> Finished:
    """Run a command to its end with `stdin` piped in, and left open until `open_until` has come out."""
    process = await forkserver.create_subprocess_exec(
        *ANTIPHON,
        *args,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env={**os.environ, **(env or {})},
    )
    try:
        async with asyncio.timeout(timeout):
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write((stdin or "").encode())
            begin = await process.stdout.readexactly(len(open_until.encode()))
            stdout, stderr = await process.communicate(b"")
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Finished(process.returncode, (begin + stdout).decode(), stderr.decode())
