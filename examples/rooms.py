"""Rooms on the hub: history on entering, who is here, and the same with several workers or machines.

antiphon run examples/rooms.py --workers 2
antiphon connect "ws://localhost:8000/rooms/tea?name=ada"

A client that comes back with the position of its last message (`&since=OFFSET-EPOCH`) gets those that it missed.
"""

from antiphon import App, Hub, Position, TopicOptions, WebSocket
from antiphon.hub import Framing

app = App(hub=Hub(topics={"room/*": TopicOptions(history=100, presence=True, framing=Framing.EVENT)}))


@app.websocket("/rooms/{room}")
async def enter(websocket: WebSocket, hub: Hub, room: str, name: str, since: Position | None = None) -> None:
    await websocket.accept()
    topic = f"room/{room}"
    async with hub.join(topic, websocket, since=since, history=20, presence=name):
        async for text in websocket.iter_text():
            await hub.publish(topic, {"name": name, "text": text})


@app.get("/rooms/{room}")
async def who(hub: Hub, room: str) -> list[str]:
    return sorted(await hub.presence(f"room/{room}"))
