"""A health endpoint for load balancers and orchestrators: is this process fit to take connections?"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from antiphon.hub import Hub
from antiphon.types import ASGIApp, Receive, Scope, Send


def healthz_app(*hubs: Hub) -> ASGIApp:
    """An ASGI app to mount: 200 while every hub has its backend, else 503; the body says which has not.

    Asks nobody over the network: a backend that is away is known from its broken connection. The URLs in the body carry
    no passwords. `app.mount("/healthz", healthz_app(app.hub))`
    """

    async def healthz(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"expected an http scope, got {scope['type']}: mount this app, do not run it alone")
        await _answer(Request(scope, receive), hubs)(scope, receive, send)

    return healthz


def _answer(request: Request, hubs: tuple[Hub, ...]) -> Response:
    if request.method not in ("GET", "HEAD"):
        return Response(status_code=405, headers={"Allow": "GET, HEAD"})
    stats = [hub.stats() for hub in hubs]
    healthy = all(one.connected for one in stats)
    body = {
        "status": "ok" if healthy else "unavailable",
        "hubs": [{"backend": one.backend, "connected": one.connected} for one in stats],
    }
    return JSONResponse(body, status_code=200 if healthy else 503, headers={"Cache-Control": "no-store"})
