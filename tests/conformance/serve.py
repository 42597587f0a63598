"""Echo servers for the conformance suite.

`python -m tests.conformance.serve --engine server|wire --deflate default|takeover|off` prints its port and serves until
its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import cast

import uvicorn

from antiphon.server import ServerConfig, WebSocketProtocol
from antiphon.wire import DeflateConfig
from tests.conformance.echo import Echo
from tests.server.raw import echo
from tests.serving import HOST
from tests.spawned import say, serve, told_to_stop

MAX_MESSAGE = 16 << 20
DEFLATE = {
    "default": DeflateConfig(threshold=0),
    "takeover": DeflateConfig(server_no_context_takeover=False, client_no_context_takeover=False, threshold=0),
    "off": None,
}


async def serve_wire(deflate: DeflateConfig | None) -> None:
    """The engine alone, under the smallest asyncio protocol there can be."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Echo(deflate, MAX_MESSAGE), HOST, 0)
    say(server.sockets[0].getsockname()[1])
    await told_to_stop()
    server.close()


async def serve_server(deflate: DeflateConfig | None) -> None:
    """The real thing, under uvicorn."""
    limits = ServerConfig(deflate=deflate, stop_window=0)
    config = uvicorn.Config(
        echo,
        ws=cast("type[asyncio.Protocol]", WebSocketProtocol.with_config(limits)),
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=deflate is not None,
        host=HOST,
        port=0,
        log_level="warning",
        lifespan="off",
    )
    await serve(config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=["server", "wire"], default="server")
    parser.add_argument("--deflate", choices=DEFLATE, default="default")
    options = parser.parse_args()
    engine = serve_server if options.engine == "server" else serve_wire
    asyncio.run(engine(DEFLATE[options.deflate]))


if __name__ == "__main__":
    main()
