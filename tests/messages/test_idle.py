"""The memory of a quiet connection of a channel."""

from __future__ import annotations

import gc
import weakref

from pydantic import BaseModel

from antiphon import App
from antiphon.testing import Server


class Blob(BaseModel):
    text: str


async def test_an_idle_connection_keeps_nothing_of_its_last_message() -> None:
    app, seen = App(), list[weakref.ref[Blob]]()
    chat = app.add_channel("/")

    @chat.on
    async def blob(message: Blob) -> Blob:
        seen.append(weakref.ref(message))
        return message

    async with Server(app) as server, server.channel("/") as ann:
        for _ in range(2):
            await ann.request(Blob(text="x" * 100_000), Blob)
            gc.collect()
        assert [one() for one in seen] == [None, None]
