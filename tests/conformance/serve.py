"""Echo servers for the conformance suite.

`python -m tests.conformance.serve --engine server|wire --deflate default|takeover|off` prints its URL and serves until
its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import cast

import uvicorn

from antiphon.server import ServerConfig, WebSocketProtocol
from antiphon.types import Receive, Scope, Send
from antiphon.wire import DeflateConfig
from tests.conformance.echo import Echo

MAX_MESSAGE = 16 << 20
DEFLATE = {
    "default": DeflateConfig(threshold=0),
    "takeover": DeflateConfig(server_no_context_takeover=False, client_no_context_takeover=False, threshold=0),
    "off": None,
}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """The same as an ASGI app."""
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


def tell(port: int) -> None:
    sys.stdout.write(f"ws://127.0.0.1:{port}/\n")
    sys.stdout.flush()


async def serve_wire(deflate: DeflateConfig | None) -> None:
    """The engine alone, under the smallest asyncio protocol there can be."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Echo(deflate, MAX_MESSAGE), "127.0.0.1", 0)
    tell(server.sockets[0].getsockname()[1])
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


async def serve_server(deflate: DeflateConfig | None) -> None:
    """The real thing, under uvicorn."""
    limits = ServerConfig(deflate=deflate, stop_window=0)
    config = uvicorn.Config(
        echo,
        ws=cast("type[asyncio.Protocol]", WebSocketProtocol.with_config(limits)),
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=deflate is not None,
        host="127.0.0.1",
        port=0,
        log_level="warning",
        lifespan="off",
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn offers nothing to wait for
        await asyncio.sleep(0.01)
    tell(server.servers[0].sockets[0].getsockname()[1])
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.should_exit = True
    await serving


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=["server", "wire"], default="server")
    parser.add_argument("--deflate", choices=DEFLATE, default="default")
    options = parser.parse_args()
    serve = serve_server if options.engine == "server" else serve_wire
    asyncio.run(serve(DEFLATE[options.deflate]))


if __name__ == "__main__":
    main()
