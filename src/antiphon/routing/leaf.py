"""A route to one resource: at its path with or without slashes behind it, and nothing below it."""

from __future__ import annotations

from typing import Any

from starlette._utils import get_route_path
from starlette.routing import Match, Route

from antiphon.types import Scope


def is_leaf(app: Any) -> bool:
    """An ASGI app that says of itself that it is one resource, such as a health check."""
    return getattr(app, "is_leaf", False) is True


class LeafRoute(Route):
    """Never redirects: probes take a redirect for a success."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As Starlette's, for the path without the slashes at its end."""
        path = get_route_path(scope) if scope["type"] == "http" else ""
        more = len(path) - max(1, len(path.rstrip("/")))
        if more > 0:
            scope = {**scope, "path": scope["path"][:-more]}
        return super().matches(scope)
