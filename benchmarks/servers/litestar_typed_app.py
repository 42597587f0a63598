"""The typed echo as a listener of Litestar, with the DTO without which it validates nothing."""

from litestar import Litestar, websocket_listener
from litestar.plugins.pydantic import PydanticDTO
from pydantic import BaseModel


class Say(BaseModel):
    type: str
    text: str
    number: int
    name: str


@websocket_listener("/typed", dto=PydanticDTO[Say], return_dto=PydanticDTO[Say])
async def say(data: Say) -> Say:
    return data


app = Litestar([say])
