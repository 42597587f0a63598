"""The chat room's server: rooms are topics of the hub, people are its presence, past messages are its history.

Everything here is antiphon's public API. The page in `static/` imports the client that the app makes of its channel.
People choose their names freely, but nobody can take another's place: a browser keeps a secret cookie, and others see
only a digest of it. A chat with more to protect would ask for credentials (docs/security.md).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, StringConstraints

from antiphon import (
    SAME,
    App,
    Caller,
    Cookie,
    Depends,
    FileResponse,
    Framing,
    Hub,
    Position,
    Query,
    Request,
    Topic,
    Topics,
    WebSocket,
)
from antiphon.gate import Rate
from antiphon.middleware import Middleware
from antiphon.staticfiles import StaticFiles

from .headers import SecurityHeaders

STATIC: Final = Path(__file__).parent / "static"
REMEMBERED: Final = 200
YEAR: Final = 365 * 86_400
COOKIE: Final = "antiphon-demo"
GRACE: Final = 5.0  # longer than the two seconds in which a stop sends one after the other away
HINTING: Final = Rate("0.5/second", burst=2)  # that somebody types
FRIENDS: Final = os.environ.get("ANTIPHON_DEMO_FRIENDS")  # where others reach us, as `antiphon demo` found out

RoomName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=32)]
PRINTABLE: Final = r"^[^\p{Cc}\p{Zl}\p{Zp}]+$"
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=32, pattern=PRINTABLE)]


class Say(BaseModel):
    """Say something to everybody in the room. The id is yours: one message keeps it when it is sent again."""

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{24}$")]
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


class Typing(BaseModel):
    person: str
    name: str


class Said(Say, Typing):
    at: int


class You(BaseModel):
    """Your public id, and the address for friends if the page's own works on this machine only."""

    id: str
    address: str | None


rooms: Topics[Said] = Topics(
    "room/{room}", Said, history=REMEMBERED, ttl=86_400.0, presence=True, presence_grace=GRACE, framing=Framing.EVENT
)
hints: Topics[Typing] = Topics("typing/{room}", Typing, framing=Framing.EVENT)
app: App = App(hub=Hub(heartbeat=5.0, topics=[rooms, hints]), middleware=[Middleware(SecurityHeaders)])
app.mount("/static", StaticFiles(directory=STATIC), name="static")


@app.get("/")
async def page(request: Request, secret: Annotated[str | None, Cookie(alias=COOKIE)] = None) -> FileResponse:
    response = FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})
    if secret is None:
        https = request.url.scheme == "https"
        response.set_cookie(COOKIE, secrets.token_hex(16), max_age=YEAR, httponly=True, samesite="lax", secure=https)
    return response


@app.get("/rooms")
async def count(names: Annotated[list[RoomName], Query(alias="room", max_length=20)]) -> dict[str, int]:
    """How many people are in each of these rooms."""
    return {name: await rooms(room=name).presence_count() for name in names}


def public_id(secret: Annotated[str | None, Cookie(alias=COOKIE)] = None) -> str:
    """The public id: the same in all tabs of a browser, and useless as a credential."""
    return hashlib.sha256((secret or secrets.token_hex(16)).encode()).hexdigest()[:24]


Person = Annotated[str, Depends(public_id)]
Room = Annotated[Topic[Said], Depends(rooms)]
Hints = Annotated[Topic[Typing], Depends(hints)]


@app.channel("/ws/{room}", origins=SAME)  # other sites' pages must not chat in the name of their visitors
async def chat(
    websocket: WebSocket,
    caller: Caller[You],
    room: RoomName,
    name: Name,
    person: Person,
    here: Room,
    typed: Hints,
    since: Position | None = None,
) -> AsyncIterator[None]:
    """One room of the chat."""
    await websocket.accept()
    await caller.send(You(id=person, address=FRIENDS))
    you = {"name": name}
    async with typed.join(websocket), here.join(websocket, since=since, history=REMEMBERED, user=person, presence=you):
        yield


@chat.on(rate=Rate("1.5/second", burst=8))  # faster speakers wait for the answer
async def say(message: Say, here: Room, person: Person, name: Name) -> None:
    at = int(time.time() * 1000)
    await here.publish(Said(id=message.id, text=message.text, person=person, name=name, at=at))


@chat.on("typing")
async def hint(websocket: WebSocket, typed: Hints, person: Person, name: Name) -> None:
    if HINTING.allow(websocket):
        await typed.publish(Typing(person=person, name=name), exclude=websocket)
