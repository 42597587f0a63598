"""aiohttp on uvloop."""

import sys

import uvloop
from aiohttp import web

connections = set()
COMPRESS = len(sys.argv) > 2


async def echo(request):
    ws = web.WebSocketResponse(compress=COMPRESS)
    await ws.prepare(request)
    async for message in ws:
        await ws.send_str(message.data)
    return ws


async def chat(request):
    ws = web.WebSocketResponse(compress=COMPRESS)
    await ws.prepare(request)
    connections.add(ws)
    async for message in ws:
        for connection in connections:
            await connection.send_str(message.data)
    connections.discard(ws)
    return ws


app = web.Application()
app.add_routes([web.get("/echo", echo), web.get("/chat", chat)])
uvloop.install()
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
