"""picows: callbacks, no message reassembly, no compression."""

import logging
import sys

import uvloop
from picows import WSListener, WSMsgType, ws_create_server

logging.disable(logging.CRITICAL)
connections = set()


class Echo(WSListener):
    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close()
            transport.disconnect()
        else:
            self.answer(transport, frame.get_payload_as_bytes())

    def answer(self, transport, payload):
        transport.send(WSMsgType.TEXT, payload)


class Chat(Echo):
    def on_ws_connected(self, transport):
        connections.add(transport)

    def on_ws_disconnected(self, transport):
        connections.discard(transport)

    def answer(self, transport, payload):
        for connection in connections:
            connection.send(WSMsgType.TEXT, payload)


async def main() -> None:
    def listener(request):
        return Chat() if request.path == b"/chat" else Echo()

    server = await ws_create_server(listener, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


uvloop.run(main())
