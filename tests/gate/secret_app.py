"""An app that gets secrets in every place, and fails on them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from antiphon import App, Cookie, Header, WebSocket


def no_good(value: str) -> str:
    raise ValueError(f"{value!r} is no token")


def application() -> App:
    app = App()

    @app.get("/page")
    async def page() -> str:
        return "page"

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept("nonsense")

    @app.websocket("/checked")
    async def checked(
        websocket: WebSocket,
        token: Annotated[str, AfterValidator(no_good)],
        x_api_key: Annotated[str, Header(), AfterValidator(no_good)],
        session: Annotated[str, Cookie(), AfterValidator(no_good)],
    ) -> None: ...

    return app


app = application()
