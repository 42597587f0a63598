"""The router: finds the route for a scope, includes other routers, and carries their prefix and dependencies.

Lifespan, mounting and URL building rest on Starlette's `Router`. For WebSockets nothing here stays on the stack: routes
are found by plain calls, and the coroutine that runs the endpoint is the one handed back.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar, Unpack

from starlette._utils import get_route_path
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Router

from antiphon.dependencies.inspection import describe
from antiphon.dependencies.params import Depends
from antiphon.gate.limits import Limits
from antiphon.gate.rates import Rate
from antiphon.messages import Channel, ChannelOptions
from antiphon.shown import shown
from antiphon.types import ASGIApp, Receive, Scope, Send

from . import elsewhere
from . import lifespan as lifespans
from .channel import ChannelRoute, blueprint_of
from .context import OverridesProvider
from .endpoint import refuse_unknown
from .errors import RoutingError, a_path, check_endpoint, check_prefix, warn_of_missing_path_parameters
from .fastapi_include import FastAPIInclude
from .http import APIRoute, Documentation, RouteOptions, check_keywords
from .include import Includable, IncludedRouter, check_paths, flatten, select
from .leaf import LeafRoute, is_leaf
from .near_misses import no_route
from .route import APIWebSocketRoute, Lets, Told, WebSocketRoute
from .suspects import warn_of_suspects, warn_of_unreachable

logger: Final = logging.getLogger("antiphon")

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class RouteMethods:
    """The decorators that `APIRouter` and `App` share; each registers on `self._registrar` and returns the function."""

    @property
    def _registrar(self) -> APIRouter:
        raise NotImplementedError

    def websocket(
        self, path: str, name: str | None = None, *, dependencies: Sequence[Any] | None = None, **told: Unpack[Told]
    ) -> Callable[[Endpoint], Endpoint]:
        """Serve WebSocket connections to `path` with the decorated function, with dependency injection.

        `receives` and `sends` are the types of its messages: documents tell of them, and nothing else changes.
        `rates` bound the messages of a connection, `connects` the handshakes; those of the app and of routers hold too.
        Raises RegistrationError for what can never be served: no path, no `async`, a parameter that cannot be filled.
        """
        router = self._registrar
        a_path(path)

        def register(endpoint: Endpoint) -> Endpoint:
            router.add_api_websocket_route(path, endpoint, name, dependencies=dependencies, **told)
            return endpoint

        return register

    def channel(
        self,
        path: str,
        name: str | None = None,
        *,
        dependencies: Sequence[Any] | None = None,
        sends: Any = None,
        options: ChannelOptions | None = None,
        subprotocol: str | None = None,
        **lets: Unpack[Lets],
    ) -> Callable[[Callable[..., Any]], Channel]:
        """Serve typed messages at `path`; the decorated function is called for each connection, and `@chat.on` handles
        its messages.

        `name`: the function's without one. `dependencies` run once per connection. `sends`: a union of message classes
        that the channel sends besides those that its `Caller`s name. `options`: its wire and limits. `subprotocol`:
        serve only who offers it, and agree on it. `rates` bound the messages of a connection, `connects` the
        handshakes; those of the app and of routers hold too. Raises RegistrationError for what can never be served.
        """
        router = self._registrar
        a_path(path)

        def register(function: Callable[..., Any]) -> Channel:
            return router.add_channel(
                path,
                function,
                name,
                dependencies=dependencies,
                sends=sends,
                options=options,
                subprotocol=subprotocol,
                **lets,
            )

        return register

    def websocket_route(self, path: str, name: str | None = None) -> Callable[[Endpoint], Endpoint]:
        """Serve WebSocket connections with a plain `endpoint(websocket)` or a `WebSocketEndpoint` class.

        Errors as `websocket`.
        """
        router = self._registrar
        a_path(path)

        def register(endpoint: Endpoint) -> Endpoint:
            router.add_websocket_route(path, endpoint, name)
            return endpoint

        return register

    def route(
        self,
        path: str,
        methods: Collection[str] | None = None,
        name: str | None = None,
        include_in_schema: bool = True,
    ) -> Callable[[Endpoint], Endpoint]:
        """Serve HTTP requests with a plain `endpoint(request) -> Response`, as Starlette does."""
        router = self._registrar
        a_path(path)

        def register(endpoint: Endpoint) -> Endpoint:
            router.add_route(path, endpoint, methods, name, include_in_schema)
            return endpoint

        return register

    def api_route(
        self, path: str, *, methods: Collection[str] | None = None, **options: Unpack[RouteOptions]
    ) -> Callable[[Endpoint], Endpoint]:
        """Serve HTTP requests of these methods (GET by default) with dependency injection.

        Raises RegistrationError for what can never be served, TypeError for an option it does not know.
        """
        router = self._registrar
        a_path(path)

        def register(endpoint: Endpoint) -> Endpoint:
            router.add_api_route(path, endpoint, methods=methods, **options)
            return endpoint

        return register

    def get(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Endpoint], Endpoint]:
        """Serve GET requests to `path`; `options` are FastAPI's."""
        return self.api_route(path, methods=("GET",), **options)

    def put(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Endpoint], Endpoint]:
        """Serve PUT requests to `path`; `options` are FastAPI's."""
        return self.api_route(path, methods=("PUT",), **options)

    def post(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Endpoint], Endpoint]:
        """Serve POST requests to `path`; `options` are FastAPI's."""
        return self.api_route(path, methods=("POST",), **options)

    def delete(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Endpoint], Endpoint]:
        """Serve DELETE requests to `path`; `options` are FastAPI's."""
        return self.api_route(path, methods=("DELETE",), **options)

    def options(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Endpoint], Endpoint]:
        """Serve OPTIONS requests to `path`; `options` are FastAPI's."""
        return self.api_route(path, methods=("OPTIONS",), **options)

    def head(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Endpoint], Endpoint]:
        """Serve HEAD requests to `path`; `options` are FastAPI's."""
        return self.api_route(path, methods=("HEAD",), **options)

    def patch(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Endpoint], Endpoint]:
        """Serve PATCH requests to `path`; `options` are FastAPI's."""
        return self.api_route(path, methods=("PATCH",), **options)

    def trace(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Endpoint], Endpoint]:
        """Serve TRACE requests to `path`; `options` are FastAPI's."""
        return self.api_route(path, methods=("TRACE",), **options)

    def on_event(self, event_type: str) -> Callable[[Endpoint], Endpoint]:
        """Call the decorated function at "startup" or "shutdown" (any other type is a ValueError).

        `lifespan=` is the better way.
        """
        router = self._registrar

        def register(handler: Endpoint) -> Endpoint:
            router.add_event_handler(event_type, handler)
            return handler

        return register


class APIRouter(RouteMethods, FastAPIInclude, Router):
    """A group of routes with a common prefix and common dependencies (FastAPI's `APIRouter`); an ASGI app as well.

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
        **documentation: Unpack[Documentation],
    ) -> None:
        """All keywords but the last three are FastAPI's.

        `prefix`: of every path, "/chat". `dependencies`: run for every route, before its own. `routes`: routes that
        exist already. `redirect_slashes`: an HTTP path that only lacks or has a slash at its end is redirected.
        `default`: the ASGI app for what no route matches. `default_response_class`, `route_class`: for the companion
        HTTP routes. `dependency_overrides_provider`: the object whose `dependency_overrides` hold here, an `App`.
        `on_startup`, `on_shutdown`: functions without parameters; `lifespan(app)`: an async context manager, in their
        place. `channel_options`: the wire and the limits of channels that have none of their own. `rates`: of messages
        to its routes, `connects`: of handshakes, beside those of the app and of the route. Raises TypeError and
        ValueError for keywords and values that are none, RegistrationError for a rate that cannot work.
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
        self.limits: Limits = Limits(rates, connects)
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
        *,
        dependencies: Sequence[Any] | None = None,
        **told: Unpack[Told],
    ) -> None:
        """What `websocket()` does, without a decorator."""
        route = APIWebSocketRoute(
            self.prefix + a_path(path),
            endpoint,
            name=name,
            dependencies=[*self.dependencies, *(dependencies or ())],
            dependency_overrides_provider=self.dependency_overrides_provider,
            limits=self.limits,
            **told,
        )
        route.own_path = path
        self._register(route)

    def add_channel(
        self,
        path: str,
        function: Callable[..., Any] | None = None,
        name: str | None = None,
        *,
        dependencies: Sequence[Any] | None = None,
        sends: Any = None,
        options: ChannelOptions | None = None,
        subprotocol: str | None = None,
        **lets: Unpack[Lets],
    ) -> Channel:
        """What `channel()` does, without a decorator; without a function, nothing runs when a client connects."""
        route = ChannelRoute(
            self.prefix + a_path(path),
            Channel(
                blueprint_of(
                    self.prefix + path,
                    function,
                    name,
                    dependencies=[*self.dependencies, *(dependencies or ())],
                    sends=sends,
                    options=options or self.channel_options,
                    subprotocol=subprotocol,
                )
            ),
            dependencies=[*self.dependencies, *(dependencies or ())],
            dependency_overrides_provider=self.dependency_overrides_provider,
            limits=self.limits,
            **lets,
        )
        route.own_path = path
        self._register(route)
        return route.channel

    def add_websocket_route(self, path: str, endpoint: Callable[..., Any], name: str | None = None) -> None:
        """What `websocket_route()` does. Neither prefix nor dependencies apply, as in FastAPI; rates do."""
        check_endpoint(endpoint)
        self.routes.append(WebSocketRoute(path, endpoint, name=name, limits=self.limits + Limits()))

    def add_api_route(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        methods: Collection[str] | None = None,
        **options: Unpack[RouteOptions],
    ) -> None:
        """What `api_route()` does, without a decorator."""
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
        """Call `func` at "startup" or "shutdown"; any other type is a ValueError."""
        handlers = {"startup": self.on_startup, "shutdown": self.on_shutdown}.get(event_type)
        if handlers is None:
            raise ValueError(f"event_type must be 'startup' or 'shutdown', got {event_type!r}")
        handlers.append(func)

    def include_router(
        self,
        router: APIRouter,
        *,
        prefix: str = "",
        dependencies: Sequence[Any] | None = None,
        default_response_class: type[Response] | None = None,
        **documentation: Unpack[Documentation],
    ) -> None:
        """Serve the routes of `router` here too, below `prefix` and behind `dependencies`; also those added later.

        Raises RoutingError for a malformed prefix, for a cycle, and for a route whose path would be empty; TypeError
        for what is no APIRouter.
        """
        check_keywords(documentation, Documentation, "include_router")
        check_prefix(prefix)
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
        response_class = default_response_class or self.default_response_class
        included = IncludedRouter(
            router,
            prefix=self.prefix + prefix,
            dependencies=[*self.dependencies, *(dependencies or ())],
            provider=self.dependency_overrides_provider,
            options={} if response_class is None else {"response_class": response_class},
            channel_options=self.channel_options,
            limits=self.limits,
        )
        included.routes  # noqa: B018  built now, so that a dependency that cannot work is an error here
        self._register(included)

    def mount(self, path: str, app: ASGIApp, name: str | None = None) -> None:
        """Hand everything below `path` to another ASGI app. Raises RoutingError for what is no path or no app."""
        if not isinstance(path, str) or not callable(app):
            raise RoutingError(f"mount takes a path and an ASGI app, got {path!r} and {app!r}")
        if path and not path.startswith("/"):
            raise RoutingError(f"A path must start with '/', got {path!r} for {describe(app)}")
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
        """What `route()` does, without a decorator."""
        if is_leaf(endpoint):
            self.mount(path, endpoint, name)
        else:
            super().add_route(path, endpoint, methods, name, include_in_schema)

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
        """The same; Starlette's name for it."""
        await self.dispatch(scope, receive, send)

    def dispatch(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """What serves this scope, ready to be awaited."""
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
            return route.handle(scope, receive, send)
        if kind == "http" and self.redirect_slashes:
            redirect = elsewhere.redirect(self.routes, scope)
            if redirect is not None:
                return redirect(scope, receive, send)
        return self.default(scope, receive, send)

    async def not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 404 (a WebSocket on a server without denial responses: 403), or 426 where only a WebSocket is served.

        What a path without a route may have meant goes into the log.
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
            logger.info("%s %s: %s", scope["method"], shown(scope["path"]), elsewhere.NO_HANDSHAKE)
            error = elsewhere.upgrade_required()
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

    __hash__ = object.__hash__  # two routers are never one, whatever Starlette's `__eq__` makes of their routes

    def __eq__(self, other: object) -> bool:
        return self is other
