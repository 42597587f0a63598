"""The health endpoint."""

from __future__ import annotations

import httpx2 as httpx

from antiphon.hub import Hub
from antiphon.observability.healthz import healthz_app
from antiphon.types import ASGIApp


async def ask(app: ASGIApp, method: str = "GET") -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, "/healthz")


async def test_a_process_whose_hubs_have_their_backends_is_healthy() -> None:
    response = await ask(healthz_app(Hub()))
    assert response.status_code == 200
    assert response.json() == {"status": "ok", "hubs": [{"backend": "memory://", "connected": True}]}


async def test_a_process_whose_backend_is_away_is_not_and_shows_no_password() -> None:
    response = await ask(healthz_app(Hub(), Hub("redis://user:secret@example.org/0")))
    assert response.status_code == 503
    assert response.json()["hubs"][1] == {"backend": "redis://***@example.org/0", "connected": False}
    assert "secret" not in response.text


async def test_only_reading_is_allowed() -> None:
    app = healthz_app()
    assert (await ask(app, "HEAD")).status_code == 200
    assert (await ask(app, "DELETE")).status_code == 405
