"""A health endpoint for load balancers and orchestrators: is this process fit to take connections?"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.responses import JSONResponse, Response

from antiphon.hub import Hub
from antiphon.resource import Resource

from .reading import ReadOnly

__all__ = [
    "healthz_app",
]

PATIENCE: Final = 0.5
"""Seconds a probe waits for a hub to start, half of Kubernetes's default. The start goes on without it."""


def healthz_app(*hubs: Hub) -> Resource:
    """An ASGI app: 200 while every hub has its backend, else 503. The body says which has not.

    `app.add_route("/healthz", healthz_app(app.hub))`, in an app of ours, of Starlette or of FastAPI. Asks nobody over
    the network: a backend that is away is known from its broken connection. Only a hub that nobody has used yet (of a
    mounted app) is started. The URLs in the body carry no passwords.

        from antiphon.observability.healthz import healthz_app

        app.add_route("/livez", healthz_app())  # this process answers
        app.add_route("/healthz", healthz_app(app.hub))  # and it reaches its backend
    """

    return ReadOnly(lambda _: _answer(hubs))


async def _answer(hubs: tuple[Hub, ...]) -> Response:
    connected = await asyncio.gather(*(hub.awake(PATIENCE) for hub in hubs))
    body = {
        "status": "ok" if all(connected) else "unavailable",
        "hubs": [{"backend": hub.url, "connected": one} for hub, one in zip(hubs, connected, strict=True)],
    }
    return JSONResponse(body, status_code=200 if all(connected) else 503, headers={"Cache-Control": "no-store"})
