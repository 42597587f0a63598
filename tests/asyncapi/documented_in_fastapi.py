"""The program of docs/asyncapi.md for an app of FastAPI, and other parts that go into one in the same way. mypy checks
it."""

from __future__ import annotations

from fastapi import FastAPI

from antiphon import APIRouter, Hub
from antiphon.asyncapi import asyncapi_app
from antiphon.clients import javascript
from antiphon.observability.healthz import healthz_app
from antiphon.observability.prometheus import metrics_app

router = APIRouter()
app = FastAPI(title="Games")
app.mount("/live", router)
app.add_route("/asyncapi.json", asyncapi_app(app))

app.add_route("/antiphon.js", javascript)
app.add_route("/healthz", healthz_app(Hub()))
app.add_route("/metrics", metrics_app(Hub()))
