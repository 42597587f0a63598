"""A health endpoint for load balancers and orchestrators: is this process fit to take connections?"""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from antiphon.hub import Hub
from antiphon.types import ASGIApp

from .reading import read_only


def healthz_app(*hubs: Hub) -> ASGIApp:
    """An ASGI app to mount: 200 while every hub has its backend, else 503; the body says which has not.

    Asks nobody over the network: a backend that is away is known from its broken connection. The URLs in the body carry
    no passwords. `app.mount("/healthz", healthz_app(app.hub))`
    """

    return read_only(lambda _: _answer(hubs))


def _answer(hubs: tuple[Hub, ...]) -> Response:
    stats = [hub.stats() for hub in hubs]
    healthy = all(one.connected for one in stats)
    body = {
        "status": "ok" if healthy else "unavailable",
        "hubs": [{"backend": one.backend, "connected": one.connected} for one in stats],
    }
    return JSONResponse(body, status_code=200 if healthy else 503, headers={"Cache-Control": "no-store"})
