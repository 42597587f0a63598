"""A live dashboard: measurements come in by HTTP POST, every open page shows them at once.

A page that reads slowly is not sent every value it missed but the newest one of each sensor (`CONFLATE`), and never
slows down the others.

antiphon run examples/dashboard.py
curl -X POST localhost:8000/measurements/boiler -H "Content-Type: application/json" -d '{"value": 81.5}'
"""

from pathlib import Path

from pydantic import BaseModel

from antiphon import App, FileResponse, Hub, Overflow, TopicOptions, WebSocket

NEWEST = TopicOptions(history=100, overflow=Overflow.CONFLATE, conflate_by="sensor", outbox_bytes=64 << 10)
app = App(hub=Hub(topics={"measurements": NEWEST}))


class Measurement(BaseModel):
    value: float


@app.post("/measurements/{sensor}", status_code=202)
async def measured(sensor: str, measurement: Measurement, hub: Hub) -> None:
    await hub.publish("measurements", {"sensor": sensor, "value": measurement.value})


@app.websocket("/live")
async def live(websocket: WebSocket, hub: Hub) -> None:
    await websocket.accept()
    async with hub.join("measurements", websocket, history=100):
        await websocket.wait_closed()


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("dashboard.html"))
