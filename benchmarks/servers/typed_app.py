"""A typed echo as a channel of antiphon."""

from pydantic import BaseModel

from antiphon import App


class Say(BaseModel):
    text: str
    number: int
    name: str


app = App()
channel = app.add_channel("/typed")


@channel.on
async def say(message: Say) -> Say:
    return message
