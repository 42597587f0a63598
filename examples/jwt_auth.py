"""A signed token (JWT) in every way in which a page or a program can send it, checked before anybody is let in.

Needs PyJWT: pip install "antiphon[jwt]"

antiphon run examples/jwt_auth.py
TOKEN=$(curl -s -X POST "localhost:8000/login?user=ada&password=analytical" | tr -d '"')
antiphon connect ws://localhost:8000/me --token "$TOKEN"

In the page's console: new WebSocket("ws://localhost:8000/me", ["bearer", token])
"""

import secrets
import time
from typing import Annotated

import jwt as pyjwt

from antiphon import App, Depends, HTTPException, Query, WebSocket
from antiphon.gate import FIRST_MESSAGE, HEADER, JWT, SUBPROTOCOL, Identity, requires

app = App()
SECRET = secrets.token_urlsafe(32)  # of one process; yours comes from where secrets are kept
PASSWORDS = {"ada": "analytical", "bob": "builder"}
SCOPES = {"ada": "orders:read orders:write", "bob": "orders:read"}
ISSUED_FOR = 15 * 60

jwt = JWT(SECRET, algorithms=["HS256"], audience="orders", sources=[HEADER, SUBPROTOCOL, FIRST_MESSAGE(timeout=5)])


@app.post("/login")
async def login(user: Annotated[str, Query()], password: Annotated[str, Query()]) -> str:
    """A token for users who know the password. (Send passwords in a form. A query is for trying this out.)"""
    if not secrets.compare_digest(PASSWORDS.get(user, secrets.token_hex()).encode(), password.encode()):
        raise HTTPException(403, "who are you?")
    now = int(time.time())
    claims = {"sub": user, "aud": "orders", "iat": now, "exp": now + ISSUED_FOR, "scope": SCOPES[user]}
    return pyjwt.encode(claims, SECRET, "HS256")


@app.websocket("/me", dependencies=[Depends(jwt)])
async def me(websocket: WebSocket, who: Identity) -> None:
    await websocket.accept()
    await websocket.send_json({"user": who.user, "may": sorted(who.scopes)})


@app.websocket("/orders", dependencies=[Depends(jwt), Depends(requires("orders:write"))])
async def orders(websocket: WebSocket) -> None:
    """Only for writers. Others are refused with 403, or with Close 3003 when their token came as a message."""
    await websocket.accept()
    await websocket.send_text("your order, please")
