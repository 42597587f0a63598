"""Tokens that live for four seconds, and a connection that lives on: the client renews its token by itself.

antiphon run examples/renewed_token.py
open http://localhost:8000/

The tokens here are random, and kept in a table; those of yours are signed, or looked up where your logins are.
"""

import time
from secrets import token_urlsafe
from typing import Annotated

from antiphon import App, ChannelOptions, Depends, HTTPException, WebSocket, WebSocketException, status
from antiphon.gate import Identity, admit
from antiphon.responses import HTMLResponse, PlainTextResponse

LIFE = 4.0
PAGE = """<!doctype html><title>renewed</title><pre></pre><script type="module">
  import { Clock } from "/asyncapi/client.js";
  const token = async () => (await fetch("/token", { method: "POST" })).text();   // asked for whenever one is needed
  const clock = await Clock.connect("", {}, { token });
  const say = (text) => document.querySelector("pre").append(text + "\\n");
  clock.watch(({ name, code }) => say(code ? `${name} ${code}` : name));
  clock.on("auth_expiring", ({ expires_in }) => say(`a new token, please, within ${expires_in} s`));
  setInterval(async () => say(`another ${(await clock.left()).toFixed(1)} s`), 1000);
</script>"""

app = App()
tokens: dict[str, Identity] = {}


@app.get("/")
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE)


@app.post("/token")
async def new_token() -> PlainTextResponse:
    """For logged-in users. Here that is everybody, as Ann."""
    now = time.time()
    for old in [token for token, identity in tokens.items() if (identity.expires_at or now) <= now]:
        del tokens[old]
    token = token_urlsafe()
    tokens[token] = Identity(user="ann", expires_at=now + LIFE)
    return PlainTextResponse(token)


async def verify(token: str) -> Identity:
    """The identity of a token, when somebody connects and whenever they renew."""
    if token not in tokens:
        raise HTTPException(401, "this token is not good")
    return tokens[token]


async def somebody(websocket: WebSocket, token: str = "") -> Identity:
    try:
        return await admit(websocket, await verify(token), verify)
    except HTTPException as refused:
        await websocket.accept()  # so that a page sees the code, and comes back with a new token
        raise WebSocketException(status.WS_3000_UNAUTHORIZED, refused.detail) from None


clock = app.add_channel("/clock", name="clock", options=ChannelOptions(auth=True, auth_expiring=1.5))


@clock.on("left")
async def left(identity: Annotated[Identity, Depends(somebody, scope="connection")]) -> float:
    """Seconds that the token of the handshake lasts: below zero, and still here."""
    return (identity.expires_at or 0) - time.time()
