"""A bearer token through a security dependency: missing credentials are a 401 denial with WWW-Authenticate.

antiphon run examples/bearer.py
antiphon connect ws://localhost:8000/me --token ada-secret
"""

from typing import Annotated

from antiphon import App, Depends, HTTPException, WebSocket
from antiphon.security import HTTPAuthorizationCredentials, HTTPBearer

app = App()
USERS = {"ada-secret": "Ada", "bob-secret": "Bob"}
bearer = HTTPBearer()


def current_user(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> str:
    user = USERS.get(credentials.credentials)
    if user is None:
        raise HTTPException(403, "nobody has this token")
    return user


@app.websocket("/me")
async def me(websocket: WebSocket, user: Annotated[str, Depends(current_user)]) -> None:
    await websocket.accept()
    await websocket.send_text(f"hello {user}")
