"""The chat room's server: rooms are topics of the hub, people are its presence, what was said is its history.

Everything here is antiphon's public API. The page in `static/` gets the hub's own events and resumes by position. Names
are what people say they are, but nobody can take another's place: a browser keeps a secret cookie, and others see only
what is derived from it. A chat with more to protect would ask for credentials (docs/security.md).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from pathlib import Path as Folder
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

from antiphon import (
    SAME,
    App,
    Cookie,
    Depends,
    FileResponse,
    Hub,
    Path,
    Position,
    Query,
    Request,
    TopicOptions,
    WebSocket,
)
from antiphon.clients import javascript
from antiphon.gate import Rate
from antiphon.hub import Framing
from antiphon.middleware import Middleware
from antiphon.staticfiles import StaticFiles

from .headers import SecurityHeaders

STATIC: Final = Folder(__file__).parent / "static"
REMEMBERED: Final = 200
DAY: Final = 86_400.0
YEAR: Final = 365 * 86_400
COOKIE: Final = "antiphon-demo"
HEARTBEAT: Final = 5.0
GRACE: Final = 5.0  # longer than the two seconds in which a stop sends one after the other away
BURST, PER_SECOND = 8, 1.5  # how fast a person may speak
SPEAKING: Final = Rate(f"{PER_SECOND}/second", burst=BURST)
HINTING: Final = Rate("0.5/second", burst=2)  # that somebody types
FRIENDS: Final = os.environ.get("ANTIPHON_DEMO_FRIENDS")  # where others reach us, as `antiphon demo` found out

RoomName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=32)]
PersonName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=32, pattern=r"^[^\p{Cc}\p{Zl}\p{Zp}]+$"),
]
MessageId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{24}$")]


class Say(BaseModel):
    type: Literal["say"]
    id: MessageId
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


class Typing(BaseModel):
    type: Literal["typing"]


INCOMING: Final = TypeAdapter[Say | Typing](Annotated[Say | Typing, Field(discriminator="type")])

app: App = App(
    hub=Hub(
        heartbeat=HEARTBEAT,
        topics={
            "room/*": TopicOptions(
                history=REMEMBERED, ttl=DAY, presence=True, presence_grace=GRACE, framing=Framing.EVENT
            ),
            "typing/*": TopicOptions(framing=Framing.EVENT),
        },
    ),
    middleware=[Middleware(SecurityHeaders)],
)
app.add_route("/antiphon.js", javascript)
app.mount("/static", StaticFiles(directory=STATIC), name="static")


@app.get("/")
async def page(request: Request, secret: Annotated[str | None, Cookie(alias=COOKIE)] = None) -> FileResponse:
    response = FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})
    if secret is None:
        https = request.url.scheme == "https"
        response.set_cookie(COOKIE, secrets.token_hex(16), max_age=YEAR, httponly=True, samesite="lax", secure=https)
    return response


@app.get("/rooms")
async def rooms(hub: Hub, names: Annotated[list[RoomName], Query(alias="room", max_length=20)]) -> dict[str, int]:
    """How many people are in each of these rooms."""
    return {name: await hub.presence_count(f"room/{name}") for name in names}


def public_id(secret: Annotated[str | None, Cookie(alias=COOKIE)] = None) -> str:
    """Who this is for everybody: one person in all tabs of a browser, and nothing to come in with."""
    return hashlib.sha256((secret or secrets.token_hex(16)).encode()).hexdigest()[:24]


@app.websocket("/ws/{room}", origins=SAME)  # other sites' pages must not chat in the name of their visitors
async def chat(
    websocket: WebSocket,
    hub: Hub,
    room: Annotated[RoomName, Path()],
    person: Annotated[str, Depends(public_id)],
    name: Annotated[PersonName, Query()],
    since: Position | None = None,
) -> None:
    await websocket.accept()
    pace = {"burst": BURST, "per_second": PER_SECOND}  # the page keeps to it, so that nothing is refused
    await websocket.send_json({"type": "you", "id": person, "pace": pace, "address": FRIENDS})
    here, typing = f"room/{room}", f"typing/{room}"
    async with (
        hub.join(typing, websocket),
        hub.join(here, websocket, since=since, history=REMEMBERED, user=person, presence={"name": name}),
    ):
        async for text in websocket.iter_text():
            try:
                message = INCOMING.validate_json(text)
            except ValidationError:
                await websocket.close(1008, "that is not a message of this chat")
                return
            if isinstance(message, Typing):
                if not HINTING.allow(websocket):
                    continue
                await hub.publish(typing, {"from": person, "name": name}, exclude=websocket)
            elif SPEAKING.allow(websocket):
                said = {"id": message.id, "from": person, "name": name, "text": message.text}
                await hub.publish(here, {**said, "at": int(time.time() * 1000)})
            else:
                await websocket.send_json({"type": "refused", "id": message.id, "why": "too fast, not sent"})
