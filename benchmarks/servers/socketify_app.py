"""socketify (uWebSockets) with its native publish."""

import sys

from socketify import App, CompressOptions

options = {"compression": CompressOptions.DISABLED, "max_payload_length": 16 * 1024 * 1024, "idle_timeout": 60}


def on_echo(ws, message, opcode):
    ws.send(message, opcode)


def on_open(ws):
    ws.subscribe("chat")


def on_chat(ws, message, opcode):
    ws.publish("chat", message, opcode)
    ws.send(message, opcode)


app = App()
app.ws("/echo", {**options, "message": on_echo})
app.ws("/chat", {**options, "open": on_open, "message": on_chat})
app.listen(int(sys.argv[1]))
app.run()
