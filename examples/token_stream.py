"""Tokens of a language model as a stream: who asks gets them one by one, and may cancel. The model here is a loop.

antiphon run examples/token_stream.py
printf '%s\\n' '{"type": "ask", "ref": 1, "prompt": "a b c"}' | antiphon connect ws://localhost:8000/model

A page needs no library and no build step (docs/clients.md):

    import { Model } from "/asyncapi/client.js";
    const model = await Model.connect();
    for await (const token of model.ask({ prompt: "a b c" })) output.append(token);    // `break` cancels
"""

import asyncio
from collections.abc import AsyncIterator

from pydantic import BaseModel

from antiphon import App, MessageError

app = App()
model = app.add_channel("/model")


class Ask(BaseModel):
    """Ask the model."""

    prompt: str


class NothingAsked(MessageError):
    """The prompt has no words."""


@model.on(errors=[NothingAsked])
async def ask(message: Ask) -> AsyncIterator[str]:
    """One token after the other, until the answer is complete or nobody wants it any more."""
    words = message.prompt.split()
    if not words:
        raise NothingAsked
    try:
        for word in words:
            await asyncio.sleep(0.02)  # the model thinks
            yield f"{word} "
    finally:
        print("the model is free again")  # also when the client cancels or is gone
