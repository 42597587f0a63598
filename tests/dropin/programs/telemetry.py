# ruff: noqa: T201
# mypy: ignore-errors
# Written as users write: printing, and without return annotations.
import asyncio
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI, WebSocket, WebSocketDisconnect
from fastapi.encoders import jsonable_encoder
from fastapi.websockets import WebSocketState
from pydantic import BaseModel, ValidationError


class Command(BaseModel):
    action: str
    amount: int = 1


@asynccontextmanager
async def lifespan(app: FastAPI):
    print("up", flush=True)
    yield {"factor": 2}
    print("down", flush=True)


async def session():
    print("session opened", flush=True)
    try:
        yield "session"
    finally:
        print("session closed", flush=True)


router = APIRouter(prefix="/live", dependencies=[Depends(session)])


@router.websocket("/ticks")
async def ticks(websocket: WebSocket):
    await websocket.accept()
    number = 0
    while True:
        await websocket.send_json({"tick": number})
        number += 1
        await asyncio.sleep(0.01)


@router.websocket("/flood")
async def flood(websocket: WebSocket):
    await websocket.accept()
    try:
        while True:
            await websocket.send_bytes(bytes(65536))
    except WebSocketDisconnect:
        print("flood ended", flush=True)


@router.websocket("/commands")
async def commands(websocket: WebSocket):
    await websocket.accept()
    try:
        async for data in websocket.iter_json():
            try:
                command = Command(**data)
            except ValidationError as error:
                await websocket.send_json({"errors": jsonable_encoder(error.errors(include_url=False))})
                continue
            await websocket.send_json({"done": command.action, "amount": command.amount * websocket.state.factor})
    finally:
        print("commands over", websocket.client_state is WebSocketState.DISCONNECTED, flush=True)


@router.websocket("/both")
async def both(websocket: WebSocket):
    await websocket.accept()

    async def produce():
        while True:
            await websocket.send_text("tick")
            await asyncio.sleep(0.01)

    async def consume():
        async for text in websocket.iter_text():
            await websocket.send_text(f"got {text}")
        raise WebSocketDisconnect(1000)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(produce())
        tasks.create_task(consume())


app = FastAPI(lifespan=lifespan)
app.include_router(router)
