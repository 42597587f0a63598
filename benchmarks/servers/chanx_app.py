"""The typed echo as a consumer of chanx. Its messages have an action and a payload."""

from typing import Any, Literal

from chanx.core.decorators import ws_handler
from chanx.fast_channels.websocket import AsyncJsonWebsocketConsumer
from chanx.messages.base import BaseMessage
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.routing import WebSocketRoute


class Payload(BaseModel):
    text: str
    number: int
    name: str


class Say(BaseMessage):
    action: Literal["say"] = "say"
    payload: Payload


class Said(BaseMessage):
    action: Literal["said"] = "said"
    payload: Payload


class Echo(AsyncJsonWebsocketConsumer):
    send_completion = False
    camelize = False
    log_websocket_message = False

    @ws_handler
    async def say(self, message: Say) -> Said:
        return Said(payload=message.payload)


class Consumer:
    """An ASGI application that Starlette's route does not take for an endpoint with a `WebSocket`."""

    def __init__(self) -> None:
        self._app = Echo.as_asgi()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


app = FastAPI(routes=[WebSocketRoute("/typed", Consumer())])
