"""The router: finds the route for a scope, includes other routers, and carries their prefix and dependencies.

Lifespan, mounting and URL building rest on Starlette's `Router`. For WebSockets nothing here stays on the stack: routes
are found by plain calls, and the coroutine that runs the endpoint is the one handed back.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Unpack

from starlette._utils import get_route_path
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Router

from antiphon.connection.denials import Denials
from antiphon.dependencies.inspection import describe
from antiphon.dependencies.params import Depends
from antiphon.gate.origins import OriginsLike
from antiphon.gate.rates import Rate
from antiphon.gate.terms import NO_TERMS, TERMS_KEY, Terms, terms_of
from antiphon.messages import Channel, ChannelOptions, MessageRouter
from antiphon.types import ASGIApp, Receive, Scope, Send

from . import elsewhere
from . import lifespan as lifespans
from .channel import ChannelRoute, ChannelTold, blueprint_of
from .context import OverridesProvider
from .endpoint import refuse_origin, refuse_unknown, run_asgi
from .errors import RoutingError, a_path, check_endpoint, check_prefix, warn_of_missing_path_parameters
from .fastapi_include import FastAPIInclude
from .http import APIRoute, Documentation, Inclusion, RouteOptions, check_keywords
from .include import Includable, IncludedRouter, check_paths, check_plain_routes, flatten, select
from .leaf import LeafRoute, is_leaf
from .methods import RouteMethods
from .near_misses import no_route
from .route import APIWebSocketRoute, Told, WebSocketRoute, is_foreign
from .suspects import warn_of_suspects, warn_of_unreachable

logger: Final = logging.getLogger("antiphon")


class APIRouter(RouteMethods, FastAPIInclude, Router):
    """A group of routes with a common prefix and common dependencies (FastAPI's `APIRouter`). An ASGI app as well.

        rooms = APIRouter(prefix="/rooms", dependencies=[Depends(jwt)])

        @rooms.websocket("/{room}")
        async def enter(websocket: WebSocket, room: str) -> None: ...

        app.include_router(rooms)

    Keywords that only describe routes in OpenAPI are accepted and not used.
    """

    def __init__(
        self,
        *,
        prefix: str = "",
        dependencies: Sequence[Any] | None = None,
        default_response_class: type[Response] | None = None,
        routes: Sequence[BaseRoute] | None = None,
        redirect_slashes: bool = True,
        default: ASGIApp | None = None,
        dependency_overrides_provider: OverridesProvider | None = None,
        route_class: type[APIRoute] = APIRoute,
        on_startup: Sequence[Callable[[], Any]] | None = None,
        on_shutdown: Sequence[Callable[[], Any]] | None = None,
        lifespan: Any = None,
        channel_options: ChannelOptions | None = None,
        rates: Sequence[Rate] | None = None,
        connects: Rate | None = None,
        origins: OriginsLike | None = None,
        denials: Denials | None = None,
        **documentation: Unpack[Documentation],
    ) -> None:
        """All keywords but the last are FastAPI's, and those of antiphon's gate.

        `prefix`: of every path, "/chat". `dependencies`: run for every route, before its own. `routes`: routes that
        exist already. `redirect_slashes`: an HTTP path that only lacks or has a slash at its end is redirected.
        `default`: the ASGI app for scopes that no route matches. `default_response_class`, `route_class`: for the
        companion HTTP routes. `dependency_overrides_provider`: the object whose `dependency_overrides` hold here, an
        `App`. `on_startup`, `on_shutdown`: functions without parameters. `lifespan(app)`: an async context manager, in
        their place. `channel_options`: the wire and the limits of channels that have none of their own. `rates`: of
        messages to its routes, `connects`: of handshakes, beside those of the app and of the route. `origins`: which
        pages may connect (`SAME`, patterns in a list, `Origins`), `denials`: how others are refused, both for routes
        that say nothing of it. Raises TypeError, ValueError and RegistrationError for bad keywords and values.
        """
        check_keywords(documentation, Documentation, "APIRouter")
        check_prefix(prefix)
        super().__init__(routes=routes, redirect_slashes=redirect_slashes, default=default)
        self.prefix = prefix
        self.dependencies: list[Depends] = list(dependencies or ())
        self.default_response_class = default_response_class
        self.dependency_overrides_provider = dependency_overrides_provider
        self.route_class = route_class
        self.channel_options = channel_options
        self.terms: Terms = terms_of(rates=rates, connects=connects, origins=origins, denials=denials)
        """The rules of admission, and the rates."""
        check_plain_routes(self.routes, self.terms.limits)
        self.on_startup: list[Callable[[], Any]] = list(on_startup or ())
        self.on_shutdown: list[Callable[[], Any]] = list(on_shutdown or ())
        self.documentation = documentation
        self._lifespan = lifespans.normalize(lifespan)
        self._lifespan_settled = False
        self.lifespan_context: lifespans.Lifespan = self._whole_lifespan

    @property
    def _registrar(self) -> APIRouter:
        return self

    def add_api_websocket_route(
        self,
        path: str,
        endpoint: Callable[..., Any],
        name: str | None = None,
        **told: Unpack[Told],
    ) -> None:
        """`websocket()` without a decorator."""
        check_keywords(told, Told, "websocket")
        told["dependencies"] = [*self.dependencies, *(told.get("dependencies") or ())]
        route = APIWebSocketRoute(
            self.prefix + a_path(path),
            endpoint,
            name=name,
            dependency_overrides_provider=self.dependency_overrides_provider,
            terms=self.terms,
            **told,
        )
        route.own_path = path
        self._register(route)

    def add_channel(
        self,
        path: str,
        function: Callable[..., Any] | None = None,
        name: str | None = None,
        **told: Unpack[ChannelTold],
    ) -> Channel:
        """`channel()` without a decorator. Without a function, nothing runs when a client connects."""
        check_keywords(told, ChannelTold, "channel")
        own = told.get("options")
        told["options"] = own or self.channel_options
        told["dependencies"] = [*self.dependencies, *(told.get("dependencies") or ())]
        blueprint, lets = blueprint_of(self.prefix + a_path(path), function, name, **told)
        route = ChannelRoute(
            blueprint.path,
            Channel(blueprint),
            dependencies=blueprint.dependencies,
            dependency_overrides_provider=self.dependency_overrides_provider,
            terms=terms_of(denials=own.denials if own is not None else None).within(self.terms),
            **lets,
        )
        route.own_path = path
        self._register(route)
        return route.channel

    def add_websocket_route(self, path: str, endpoint: Callable[..., Any], name: str | None = None) -> None:
        """`websocket_route()` without a decorator. Neither prefix nor dependencies apply, as in FastAPI. The gate
        does."""
        check_endpoint(endpoint)
        self.routes.append(WebSocketRoute(path, endpoint, name=name, terms=self.terms))

    def add_api_route(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        methods: Collection[str] | None = None,
        **options: Unpack[RouteOptions],
    ) -> None:
        """`api_route()` without a decorator."""
        options["dependencies"] = [*self.dependencies, *(options.get("dependencies") or ())]
        options["response_class"] = options.get("response_class") or self.default_response_class
        self._register(
            self.route_class(
                self.prefix + a_path(path),
                endpoint,
                methods=methods,
                dependency_overrides_provider=self.dependency_overrides_provider,
                **options,
            )
        )

    def add_event_handler(self, event_type: str, func: Callable[[], Any]) -> None:
        """Call `func` at "startup" or "shutdown". Any other type is a ValueError."""
        handlers = {"startup": self.on_startup, "shutdown": self.on_shutdown}.get(event_type)
        if handlers is None:
            raise ValueError(f"event_type must be 'startup' or 'shutdown', got {event_type!r}")
        handlers.append(func)

    def include_router(
        self,
        router: APIRouter,
        *,
        prefix: str = "",
        **included: Unpack[Inclusion],
    ) -> None:
        """Serve the routes of `router` here too, below `prefix` and behind `dependencies`, and those added later.

        Raises RoutingError for a malformed prefix, for a cycle, and for a route whose path would be empty. Raises
        TypeError for an object that is no APIRouter.
        """
        check_keywords(included, Inclusion, "include_router")
        check_prefix(prefix)
        if isinstance(router, MessageRouter):
            raise TypeError("a MessageRouter holds the handlers of a channel: chat.include(router)")
        if not isinstance(router, APIRouter):
            raise TypeError(
                f"include_router takes an APIRouter of antiphon, not {describe(type(router))}; "
                "any other ASGI app can be mounted: mount(path, app)"
            )
        if router is self:
            raise RoutingError(
                "Cannot include the same APIRouter instance into itself. Did you mean to include a different router?"
            )
        if self in router.included_routers():
            raise RoutingError(
                "Cannot include an APIRouter instance that already includes this router. "
                "Did you mean to include a different router?"
            )
        if not prefix:
            check_paths(router.routes)
        response_class = included.get("default_response_class") or self.default_response_class
        route = IncludedRouter(
            router,
            prefix=self.prefix + prefix,
            dependencies=[*self.dependencies, *(included.get("dependencies") or ())],
            provider=self.dependency_overrides_provider,
            options={} if response_class is None else {"response_class": response_class},
            channel_options=self.channel_options,
            terms=self.terms,
        )
        route.routes  # noqa: B018  built now, so that a dependency that cannot work is an error here
        self._register(route)

    def mount(self, path: str, app: ASGIApp, name: str | None = None) -> None:
        """Hand everything below `path` to another ASGI app. Raises RoutingError for a bad path or an object that is no
        app."""
        if not isinstance(path, str) or not callable(app):
            raise RoutingError(f"mount takes a path and an ASGI app, got {path!r} and {app!r}")
        if path and not path.startswith("/"):
            raise RoutingError(f"A path must start with '/', got {path!r} for {describe(app)}")
        if isinstance(app, Router):
            check_plain_routes(app.routes, self.terms.limits)
        if is_leaf(app):
            self.routes.append(LeafRoute(path or "/", app, name=name))
        else:
            super().mount(path, app, name)

    def add_route(
        self,
        path: str,
        endpoint: Callable[..., Any],
        methods: Collection[str] | None = None,
        name: str | None = None,
        include_in_schema: bool = True,
    ) -> None:
        """`route()` without a decorator."""
        if is_leaf(endpoint):
            self.mount(path, endpoint, name)
        else:
            Router.add_route(self, path, endpoint, methods, name, include_in_schema)

    def _register(self, route: BaseRoute) -> None:
        earlier = list(self.routes)
        self.routes.append(route)
        if self.dependency_overrides_provider is None:
            # No app's own router: prefix and dependencies may still come.
            if isinstance(route, APIWebSocketRoute):
                warn_of_unreachable(route, earlier)
            return
        for final in flatten([route]):
            if isinstance(final, ChannelRoute):
                warn_of_unreachable(final, earlier)  # the rest is known when all handlers are
                continue
            if isinstance(final, APIRoute | APIWebSocketRoute):
                warn_of_missing_path_parameters(final.plan)
            if isinstance(final, APIWebSocketRoute):
                warn_of_suspects(final, earlier)

    def included_routers(self) -> Iterator[Includable]:
        """The routers included here, at any depth."""
        for route in self.routes:
            if isinstance(route, IncludedRouter):
                yield route.router
                yield from route.router.included_routers()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as an ASGI app: on its own, or mounted."""
        if not self._lifespan_settled:
            self.warn_of_missed_lifespan(scope)
        await self.dispatch(scope, receive, send)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The same. Starlette's name for it."""
        await self.dispatch(scope, receive, send)

    def dispatch(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """The call that serves this scope, ready to be awaited."""
        kind = scope["type"]
        if kind == "lifespan":
            scope.setdefault("router", self)
            return self.lifespan(scope, receive, send)
        if "router" not in scope:
            scope["router"] = self
        _, child_scope, route = select(self.routes, scope)
        if route is not None:
            scope["route"] = route
            scope.update(child_scope)
            if kind == "websocket" and (self.terms is not NO_TERMS or is_foreign(route)):
                return _serve(route, self.terms.here(scope), scope, receive, send)
            return route.handle(scope, receive, send)
        if kind == "http" and self.redirect_slashes:
            redirect = elsewhere.redirect(self.routes, scope)
            if redirect is not None:
                return redirect(scope, receive, send)
        return self.default(scope, receive, send)

    async def not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 404 (a WebSocket on a server without denial responses: 403), or 426 where only a WebSocket is served.

        The log suggests the paths that a path without a route may have meant.
        """
        if scope["type"] == "websocket":
            if logger.isEnabledFor(logging.INFO):
                logger.info("%s", no_route(self.routes, scope, get_route_path(scope)))
            await refuse_unknown(scope, receive, send)
            return
        error = StarletteHTTPException(404)
        if (
            scope["method"] in ("GET", "HEAD")
            and scope["http_version"].startswith("1.")
            and elsewhere.as_websocket(self.routes, scope)
        ):
            error = elsewhere.upgrade_required(scope)
        if "app" in scope:
            raise error
        await PlainTextResponse(error.detail, error.status_code, error.headers)(scope, receive, send)

    def warn_of_missed_lifespan(self, scope: Scope) -> None:
        """With the first scope that is served: log that nobody has entered a lifespan that there is."""
        if self._lifespan_settled or scope["type"] == "lifespan":
            return
        self._lifespan_settled = True
        if any(router.has_own_lifespan for router in [self, *self.included_routers()]):
            of_an_app = self.dependency_overrides_provider is not None
            entering = "mounted.router.lifespan_context(mounted)" if of_an_app else "router.lifespan_context(app)"
            lifespans.warn_of_missed(scope, entering)

    def _whole_lifespan(self, app: Any) -> AbstractAsyncContextManager[Any]:
        self._lifespan_settled = True
        return lifespans.merged(router.own_lifespan(app) for router in dict.fromkeys([self, *self.included_routers()]))

    @property
    def has_own_lifespan(self) -> bool:
        """`own_lifespan` would run something of the user's."""
        return self._lifespan is not None or bool(self.on_startup or self.on_shutdown)

    def own_lifespan(self, app: Any) -> AbstractAsyncContextManager[Any]:
        """The lifespan of this router without those it includes: `lifespan=`, else `on_startup` and `on_shutdown`."""
        if self._lifespan is not None:
            return self._lifespan(app)
        return lifespans.events(self.on_startup, self.on_shutdown)

    __hash__ = object.__hash__  # two routers are never equal, though Starlette's `__eq__` compares their routes

    def __eq__(self, other: object) -> bool:
        return self is other


def _serve(route: BaseRoute, terms: Terms, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    """Routes of ours look for the terms in the scope, and keep them; for those made elsewhere that is done here."""
    if terms is not NO_TERMS:
        scope[TERMS_KEY] = terms
    if not is_foreign(route):
        return route.handle(scope, receive, send)
    if not terms.door.lets_in(scope):
        return refuse_origin(scope, receive, send)
    if terms.limits:
        return run_asgi(route.handle, terms.limits, scope, receive, send)
    return route.handle(scope, receive, send)
