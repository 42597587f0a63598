"""The interface that FastAPI's `include_router` expects of a router, so that it can include one of ours.

FastAPI (0.163 and later) keeps an included router as it is and puts the additions of the inclusion into
`scope["fastapi"]`. This is the one place that knows those names. Without them (older releases) mounting is the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from starlette.routing import BaseRoute, Match

from antiphon.types import Receive, Scope, Send

from .include import Includable, IncludedRouter


class FastAPIInclude:
    """The methods of FastAPI's router that its `include_router` and its matching use."""

    _low_priority_routes: tuple[BaseRoute, ...] = ()
    # Limits for FastAPI's parsing of bodies. Ours has none: middleware is the place for them.
    max_body_size: int | None = None
    form_limits: Mapping[str, int] = MappingProxyType({})

    def _contains_router(self, router: object, seen: set[int] | None = None) -> bool:
        return False  # a FastAPI router is never included in one of ours

    def _get_routes_version(self, seen: set[int] | None = None) -> int:
        # FastAPI caches its copies of our routes by this number. Our lists carry none.
        return hash(tuple(map(id, cast(Includable, self).routes)))

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match as included in the FastAPI router that asks."""
        return self._as_included(_host(scope)).matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the route that `matches` has found."""
        included = self._as_included(_host(scope))
        _, child_scope = included.matches(scope)
        scope.update(child_scope)
        await included.handle(scope, receive, send)

    def _as_included(self, host: Any) -> IncludedRouter:
        """This router as FastAPI's record of an inclusion has it: with its prefix, behind its dependencies."""
        inclusions: dict[int, tuple[Any, IncludedRouter]] = self.__dict__.setdefault("_inclusions", {})
        if id(host) not in inclusions:
            context = host.include_context
            included = IncludedRouter(
                cast(Includable, self),
                prefix=context.prefix,
                dependencies=context.dependencies,
                provider=context.dependency_overrides_provider,
                options={},
            )
            inclusions[id(host)] = host, included  # the host is held, so its id stays its own
        return inclusions[id(host)][1]


def _host(scope: Scope) -> Any:
    return scope["fastapi"]["included_router"]


def included_routes(host: BaseRoute) -> Sequence[BaseRoute] | None:
    """The routes of a router that FastAPI includes, with prefix and dependencies. None for any other route of its apps.

    Routers that FastAPI's own routers include are among them as further records. FastAPI's endpoints stay as they are.
    """
    router = getattr(host, "original_router", None)
    if isinstance(router, FastAPIInclude):
        return router._as_included(host).routes
    candidates = getattr(host, "effective_candidates", None)
    if candidates is None:
        return None
    found = (getattr(one, "starlette_route", None) or one for one in candidates())
    return [one for one in found if isinstance(one, BaseRoute)]
