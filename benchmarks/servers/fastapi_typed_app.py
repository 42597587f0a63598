"""The typed echo as people write it with FastAPI: validation by hand."""

from typing import Literal

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import BaseModel


class Say(BaseModel):
    type: Literal["say"] = "say"
    text: str
    number: int
    name: str


app = FastAPI()


@app.websocket("/typed")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            message = Say.model_validate_json(await websocket.receive_text())
            await websocket.send_text(message.model_dump_json())
    except WebSocketDisconnect:
        pass
