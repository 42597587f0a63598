"""The decorators that apps and routers share."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar, Unpack

from antiphon.messages import Channel

from .channel import ChannelTold
from .errors import a_path
from .http import RouteOptions
from .route import Told

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class RouteMethods:
    """The methods that `APIRouter` and `App` share. Each registers on `self._registrar`, and decorators return the
    function."""

    @property
    def _registrar(self) -> RouteMethods:
        """The router, which has methods of its own in place of those called `add_...`."""
        raise NotImplementedError

    def add_api_websocket_route(
        self, path: str, endpoint: Callable[..., Any], name: str | None = None, **told: Unpack[Told]
    ) -> None:
        """`websocket()` without a decorator."""
        self._registrar.add_api_websocket_route(path, endpoint, name, **told)

    def add_channel(
        self,
        path: str,
        function: Callable[..., Any] | None = None,
        name: str | None = None,
        **told: Unpack[ChannelTold],
    ) -> Channel:
        """`channel()` without a decorator. Without a function, nothing runs when a client connects."""
        return self._registrar.add_channel(path, function, name, **told)

    def add_websocket_route(self, path: str, endpoint: Callable[..., Any], name: str | None = None) -> None:
        """`websocket_route()` without a decorator."""
        self._registrar.add_websocket_route(path, endpoint, name)

    def add_api_route(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        methods: Collection[str] | None = None,
        **options: Unpack[RouteOptions],
    ) -> None:
        """`api_route()` without a decorator."""
        self._registrar.add_api_route(path, endpoint, methods=methods, **options)

    def add_route(
        self,
        path: str,
        endpoint: Callable[..., Any],
        methods: Collection[str] | None = None,
        name: str | None = None,
        include_in_schema: bool = True,
    ) -> None:
        """`route()` without a decorator."""
        self._registrar.add_route(path, endpoint, methods, name, include_in_schema)

    def add_event_handler(self, event_type: str, func: Callable[[], Any]) -> None:
        """Call `func` at "startup" or "shutdown". Any other type is a ValueError."""
        self._registrar.add_event_handler(event_type, func)

    def websocket(self, path: str, name: str | None = None, **told: Unpack[Told]) -> Callable[[Endpoint], Endpoint]:
        """Serve WebSocket connections to `path` with the decorated function, with dependency injection.

        `name`: the function's without one. `dependencies` run before those of its parameters. `receives` and `sends`
        are the types of its messages, for documents alone. `origins`: which pages may connect (`SAME`, patterns in a
        list, `Origins`). `denials`: how others are refused. Where they are left out, the router or the app says.
        `rates` bound the messages of a connection, `connects` the handshakes of an address. Those of the app and of
        routers hold too. Raises RegistrationError for an endpoint that can never be served: no path, no `async`, a
        parameter that cannot be filled.
        """
        router = self._registrar
        a_path(path)

        def register(endpoint: Endpoint) -> Endpoint:
            router.add_api_websocket_route(path, endpoint, name, **told)
            return endpoint

        return register

    def channel(
        self, path: str, name: str | None = None, **told: Unpack[ChannelTold]
    ) -> Callable[[Callable[..., Any]], Channel]:
        """Serve typed messages at `path`. The decorated function is called for each connection, and `@chat.on` handles
        its messages.

        `name`: the function's without one. `dependencies` run once per connection. `sends`: a union of message classes
        that the channel sends besides those that its `Caller`s name. `options`: its wire and limits. `subprotocol`:
        serve only clients that offer it, and agree on it. `origins`, `denials`, `rates`, `connects`: as of
        `websocket`. The default of `denials` is `Denials.CLOSE`. Raises RegistrationError for a channel that can never
        be served.
        """
        router = self._registrar
        a_path(path)

        def register(function: Callable[..., Any]) -> Channel:
            return router.add_channel(path, function, name, **told)

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

        Raises RegistrationError for an endpoint that can never be served, TypeError for an unknown option.
        """
        router = self._registrar
        a_path(path)

        def register(endpoint: Endpoint) -> Endpoint:
            router.add_api_route(path, endpoint, methods=methods, **options)
            return endpoint

        return register

    def get(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Endpoint], Endpoint]:
        """Serve GET requests to `path`. `options` are FastAPI's."""
        return self.api_route(path, methods=("GET",), **options)

    def put(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Endpoint], Endpoint]:
        """Serve PUT requests to `path`. `options` are FastAPI's."""
        return self.api_route(path, methods=("PUT",), **options)

    def post(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Endpoint], Endpoint]:
        """Serve POST requests to `path`. `options` are FastAPI's."""
        return self.api_route(path, methods=("POST",), **options)

    def delete(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Endpoint], Endpoint]:
        """Serve DELETE requests to `path`. `options` are FastAPI's."""
        return self.api_route(path, methods=("DELETE",), **options)

    def options(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Endpoint], Endpoint]:
        """Serve OPTIONS requests to `path`. `options` are FastAPI's."""
        return self.api_route(path, methods=("OPTIONS",), **options)

    def head(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Endpoint], Endpoint]:
        """Serve HEAD requests to `path`. `options` are FastAPI's."""
        return self.api_route(path, methods=("HEAD",), **options)

    def patch(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Endpoint], Endpoint]:
        """Serve PATCH requests to `path`. `options` are FastAPI's."""
        return self.api_route(path, methods=("PATCH",), **options)

    def trace(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Endpoint], Endpoint]:
        """Serve TRACE requests to `path`. `options` are FastAPI's."""
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
