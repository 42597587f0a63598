"""One router's routes as they appear inside another: with a prefix, behind more dependencies, and live.

Routes added to the included router later appear too. The copies are built once per set of routes: matching compares the
included router's list with the one they were built from.
"""

from __future__ import annotations

import copy
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from starlette.datastructures import URLPath
from starlette.routing import BaseRoute, Host, Match, Mount, NoMatchFound, Route, Router, compile_path
from starlette.routing import WebSocketRoute as StarletteWebSocketRoute
from starlette.staticfiles import StaticFiles

from antiphon.dependencies.inspection import describe
from antiphon.dependencies.params import Depends
from antiphon.gate.limits import Limits
from antiphon.gate.terms import NO_TERMS, Terms
from antiphon.messages import ChannelOptions
from antiphon.types import Receive, Scope, Send

from .channel import ChannelRoute
from .context import OverridesProvider
from .errors import RoutingError
from .http import APIRoute
from .route import APIWebSocketRoute, WebSocketRoute

SELECTED_KEY = "antiphon.selected"
"""The route that `matches` found, for a foreign router that calls `handle` next."""


class Includable(Protocol):
    """The interface of an included router: `APIRouter`, as seen from below."""

    routes: list[BaseRoute]

    def included_routers(self) -> Iterator[Includable]:
        """The routers included in it, at any depth."""

    @property
    def has_own_lifespan(self) -> bool:
        """`own_lifespan` would run something of the user's."""

    def own_lifespan(self, app: Any) -> AbstractAsyncContextManager[Any]:
        """Its lifespan without those of the routers it includes."""


class IncludedRouter(BaseRoute):
    """A router included in another. It is a route itself, so that it keeps its place among its neighbours.

    For example:

        live = APIRouter()
        app.include_router(live, prefix="/live")
        included = [route for route in app.routes if type(route).__name__ == "IncludedRouter"]
    """

    def __init__(
        self,
        router: Includable,
        *,
        prefix: str,
        dependencies: Sequence[Depends],
        provider: OverridesProvider | None,
        options: dict[str, Any],
        channel_options: ChannelOptions | None = None,
        terms: Terms = NO_TERMS,
    ) -> None:
        self.router = router
        self.prefix = prefix
        self.dependencies: list[Depends] = list(dependencies)
        self.provider = provider
        self.options = options
        self.channel_options = channel_options
        self.terms = terms
        self._source: list[BaseRoute] = []
        self._effective: list[BaseRoute] = []

    @property
    def routes(self) -> list[BaseRoute]:
        """The included routes as they are served here."""
        source = self.router.routes
        if source != self._source:
            effective = [route for original in source if (route := self._included(original)) is not None]
            self._source, self._effective = list(source), effective
        return self._effective

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """The first full match among the included routes, else the first partial one."""
        match, child_scope, route = select(self.routes, scope)
        if route is not None:
            child_scope[SELECTED_KEY] = route
        return match, child_scope

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Handle with the route that `matches` selected."""
        route: BaseRoute = scope.pop(SELECTED_KEY)
        return route.handle(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """The URL of an included route."""
        for route in self.routes:
            try:
                return route.url_path_for(name, **path_params)
            except NoMatchFound:
                pass
        raise NoMatchFound(name, path_params)

    def __repr__(self) -> str:
        return f"IncludedRouter(prefix={self.prefix!r}, routes={self.routes!r})"

    def _included(self, route: BaseRoute) -> BaseRoute | None:
        if isinstance(route, IncludedRouter):
            return IncludedRouter(
                route.router,
                prefix=self.prefix + route.prefix,
                dependencies=[*self.dependencies, *route.dependencies],
                provider=self.provider or route.provider,
                options=self.options | route.options,
                channel_options=route.channel_options or self.channel_options,
                terms=route.terms.within(self.terms),
            )
        around = (self.prefix, self.dependencies, self.provider)
        if isinstance(route, APIWebSocketRoute):
            return route.included(*around, self.terms, self.channel_options)
        if isinstance(route, APIRoute):
            return route.included(*around, self.options)
        if isinstance(route, WebSocketRoute):
            return route.included(self.prefix, self.terms)
        return self._foreign(route)

    def _foreign(self, route: BaseRoute) -> BaseRoute | None:
        """Starlette's own routes, moved below the prefix; dependencies do not reach into them."""
        if not self.prefix:
            return route
        if isinstance(route, Host):
            app = Router(routes=[Mount(self.prefix, app=route.app)])
            return Host(route.host, app=app, name=route.name)
        if isinstance(route, Mount):
            return _moved(route, self.prefix + route.path, "/{path:path}")
        if isinstance(route, Route | StarletteWebSocketRoute):
            return _moved(route, self.prefix + route.path)
        raise TypeError(
            f"a route of type {type(route).__qualname__} cannot be included with a prefix: mount it instead"
        )


def _moved(route: Any, path: str, rest: str = "") -> BaseRoute:
    moved: Any = copy.copy(route)
    moved.path = path
    moved.path_regex, moved.path_format, moved.param_convertors = compile_path(path + rest)
    return moved  # type: ignore[no-any-return]


def select(routes: Sequence[BaseRoute], scope: Scope) -> tuple[Match, Scope, BaseRoute | None]:
    """The first route that matches fully, else the first that does so but for its method; included ones are opened.

    Returns the match, the additions to the scope, and the route itself, never the router that includes it.
    """
    partial: tuple[Match, Scope, BaseRoute | None] = (Match.NONE, {}, None)
    for candidate in routes:
        if scope["type"] == "websocket" and is_static(candidate):
            continue
        if isinstance(candidate, IncludedRouter):
            match, child_scope, route = select(candidate.routes, scope)
        else:
            match, child_scope = candidate.matches(scope)
            route = candidate
        if match is Match.FULL:
            return match, child_scope, route
        if match is Match.PARTIAL and partial[2] is None:
            partial = (match, child_scope, route)
    return partial


def is_static(route: BaseRoute) -> bool:
    """Whether it serves files, which are no WebSockets: Starlette's `StaticFiles` would raise an AssertionError."""
    return isinstance(route, Mount) and isinstance(route._base_app, StaticFiles)


def flatten(routes: Sequence[BaseRoute]) -> Iterator[BaseRoute]:
    """Every route that is served, with included ones in place of their routers."""
    for route in routes:
        if isinstance(route, IncludedRouter):
            yield from flatten(route.routes)
        else:
            yield route


def check_plain_routes(routes: Sequence[BaseRoute], limits: Limits) -> None:
    """Raise RegistrationError for a route, made before its router, that cannot apply these limits."""
    for route in flatten(routes):
        if isinstance(route, StarletteWebSocketRoute) and not isinstance(route, ChannelRoute):
            limits.check_plain(describe(route.endpoint))


def check_paths(routes: Sequence[BaseRoute]) -> None:
    """Raise RoutingError for a route that has no path, and is to get no prefix either."""
    for route in flatten(routes):
        if getattr(route, "path", None) == "" and isinstance(route, APIRoute | APIWebSocketRoute | WebSocketRoute):
            raise RoutingError(f"Prefix and path cannot be both empty (endpoint {route.name})")
