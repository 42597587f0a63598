"""An issuer of keys on a real socket, which answers as a test wants: well, late, wrongly or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from antiphon.gate import JWKS, JWT

from .tokens import jwk

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def document(*kids: str, algorithm: str = "ES256") -> bytes:
    """A JWKS with a key for each name."""
    return json.dumps({"keys": [jwk(algorithm, kid, kid) for kid in kids]}).encode()


def response(body: bytes, status: str = "200 OK", headers: Sequence[str] = (), length: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", *headers]
    lines += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([*lines, "", ""]).encode() + body


class Issuer:
    """Counts who asks, and answers with `answer`: bytes, or a function that writes as it likes."""

    def __init__(self) -> None:
        self.answer: bytes | Answer = response(document("a"))
        self.requests: list[bytes] = []
        self.port = 0
        self.open = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self._scheme = "http"

    @property
    def url(self) -> str:
        return f"{self._scheme}://localhost:{self.port}/keys?tenant=1"

    def jwt(self, **numbers: Any) -> JWT:
        """A scheme on these keys."""
        return JWT(keys=JWKS(self.url, **numbers), algorithms=["ES256"])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            if callable(self.answer):
                await self.answer(writer)
            else:
                writer.write(self.answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.tasks.discard(task)
            self.open -= 1
            writer.close()


@contextlib.asynccontextmanager
async def issuer(context: ssl.SSLContext | None = None) -> AsyncGenerator[Issuer]:
    made = Issuer()
    server = await asyncio.start_server(made._serve, "localhost", 0, ssl=context)
    made.port = server.sockets[0].getsockname()[1]
    if len({one.getsockname()[1] for one in server.sockets}) > 1:  # ::1 and 127.0.0.1 got ports of their own
        server.close()
        server = await asyncio.start_server(made._serve, "127.0.0.1", 0, ssl=context)
        made.port = server.sockets[0].getsockname()[1]
    made._scheme = "https" if context is not None else "http"
    try:
        yield made
    finally:
        server.close()
        for task in made.tasks:
            task.cancel()
        await asyncio.gather(*made.tasks, return_exceptions=True)
