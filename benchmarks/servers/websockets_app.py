"""The `websockets` library on uvloop, with its own broadcast."""

import asyncio
import sys

import uvloop
from websockets.asyncio.server import broadcast, serve

connections = set()
COMPRESSION = "deflate" if len(sys.argv) > 2 else None


async def handler(ws):
    connections.add(ws)
    chat = ws.request.path == "/chat"
    try:
        async for message in ws:
            if chat:
                broadcast(connections, message)
            else:
                await ws.send(message)
    finally:
        connections.discard(ws)


async def main() -> None:
    async with serve(handler, "127.0.0.1", int(sys.argv[1]), compression=COMPRESSION):
        await asyncio.Future()


uvloop.run(main())
