"""A route to one resource: at its path with or without a slash behind it, and nothing below it."""

from __future__ import annotations

from typing import Any

from starlette._utils import get_route_path
from starlette.routing import Match, Route

from antiphon.types import Scope


def is_leaf(app: Any) -> bool:
    """An ASGI app that says of itself that it is one resource, such as a health check."""
    return getattr(app, "is_leaf", False) is True


class LeafRoute(Route):
    """Never redirects: who probes a path takes a redirect for a success."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As Starlette's, for the path without its last slash."""
        path = get_route_path(scope) if scope["type"] == "http" else ""
        if path != "/" and path.endswith("/"):
            scope = {**scope, "path": scope["path"][:-1]}
        return super().matches(scope)
