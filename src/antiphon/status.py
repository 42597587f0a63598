"""HTTP and WebSocket status codes under the names FastAPI users know (`WS_1008_POLICY_VIOLATION`, …)."""

from starlette.status import *  # noqa: F403  the whole table, which Starlette keeps up to date
