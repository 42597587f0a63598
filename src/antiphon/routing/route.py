"""WebSocket routes: a path, an endpoint, and how to call it.

Matching and URL building are Starlette's (`WebSocketRoute`); running the endpoint is `endpoint.py`'s.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Unpack

from starlette.convertors import Convertor
from starlette.middleware import Middleware
from starlette.routing import Match, compile_path, get_name
from starlette.routing import WebSocketRoute as StarletteWebSocketRoute

from antiphon.dependencies import Kind, analyze
from antiphon.dependencies.inspection import describe, unpartial
from antiphon.dependencies.params import Depends
from antiphon.dependencies.plan import Plan
from antiphon.gate.limits import Limits
from antiphon.gate.terms import NO_TERMS, Lets, Terms, terms_of
from antiphon.messages import ChannelOptions
from antiphon.types import ASGIApp, Receive, Scope, Send

from . import endpoint as runner
from .context import OverridesProvider
from .errors import check_endpoint, check_injectable, check_messages, check_path
from .http import check_keywords

if TYPE_CHECKING:
    from typing_extensions import TypeForm

PlainRunner: TypeAlias = Callable[[Callable[..., Any], Limits, Scope, Receive, Send], Coroutine[Any, Any, None]]


class Told(Lets, total=False):
    """The parameters of a route besides its path, endpoint and name."""

    dependencies: Sequence[Any] | None
    """Run before those of the endpoint's parameters."""
    receives: TypeForm[Any] | None
    """The type of the messages from the client, usually a union: for documents."""
    sends: TypeForm[Any] | None
    """The type of those to it."""


class WebSocketRoute(StarletteWebSocketRoute):
    """A path and an `endpoint(websocket)` without dependency injection, or a `WebSocketEndpoint` class.

    Takes the place of Starlette's, and ends connections by the close matrix. `middleware` is wrapped around this route
    only. `url_path_for` finds it by its `name`, else by the endpoint's. `terms` are those of the router that it is in.

        from antiphon.routing import WebSocketRoute

        async def echo(websocket: WebSocket) -> None:
            await websocket.accept()

        app = App(routes=[WebSocketRoute("/echo", echo)])
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        name: str | None = None,
        middleware: Sequence[Middleware] | None = None,
        terms: Terms = NO_TERMS,
    ) -> None:
        check_path(path, endpoint)
        terms.limits.check_plain(describe(endpoint))
        super().__init__(path, endpoint, name=name)
        self.middleware: list[Middleware] = list(middleware or ())
        self.terms: Terms = terms
        """The rules of admission, and the rates."""
        self._runner: PlainRunner = runner.run_session if _is_function(endpoint) else runner.run_asgi
        self.app: ASGIApp = self._run
        for factory, args, kwargs in reversed(self.middleware):
            self.app = factory(self.app, *args, **kwargs)

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Run the endpoint. The coroutine is its runner's own, no frame lies between."""
        if not self.terms.here(scope).door.lets_in(scope):
            return runner.refuse_origin(scope, receive, send)
        running: Coroutine[Any, Any, None] = self.app(scope, receive, send)  # type: ignore[assignment]
        return running

    def _run(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        return self._runner(self.endpoint, self.terms.here(scope).limits, scope, receive, send)

    def included(self, prefix: str, terms: Terms = NO_TERMS) -> WebSocketRoute:
        """This route as it appears below `prefix`, within the `terms` of the router that includes it."""
        return type(self)(
            prefix + self.path,
            self.endpoint,
            name=self.name,
            middleware=self.middleware,
            terms=self.terms.within(terms),
        )


class APIWebSocketRoute(StarletteWebSocketRoute):
    """A path and an endpoint with dependency injection (FastAPI's `APIWebSocketRoute`).

    The signature is analysed here, once. One that can never work raises a `RegistrationError`. Works in any Starlette
    router: `Starlette(routes=[APIWebSocketRoute("/ws", endpoint)])`. `dependencies` run before those of the
    parameters, and their values are dropped. `origins` and `denials` say which pages may connect, and how others are
    refused. None: as the app or router around. `rates` bound the messages of each connection, `connects` the
    handshakes of an address, beside those in the `terms` of the router around. `receives` and `sends` are the types of
    its messages, for documents. `url_path_for` finds it by its `name`, else by the endpoint's. Overrides come from
    `dependency_overrides_provider`, else from the app around.

        from antiphon.routing import APIWebSocketRoute

        async def echo(websocket: WebSocket, room: str) -> None:
            await websocket.accept()

        app = App(routes=[APIWebSocketRoute("/rooms/{room}", echo)])
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        name: str | None = None,
        dependencies: Sequence[Depends] | None = None,
        dependency_overrides_provider: OverridesProvider | None = None,
        receives: Any = None,
        sends: Any = None,
        terms: Terms = NO_TERMS,
        **lets: Unpack[Lets],
    ) -> None:
        check_keywords(lets, Lets, type(self).__name__)
        check_path(path, endpoint)
        check_injectable(endpoint)
        self.terms: Terms = terms_of(**lets).within(terms)
        """The rules of admission, and the rates."""
        self.check(endpoint)
        for declared in (receives, sends):
            check_messages(declared, endpoint)
        self.receives: Any = receives
        """The type of the messages from the client, for documents. None: not declared."""
        self.sends: Any = sends
        """The type of the messages to it."""
        self.path = path
        self.own_path = path
        """Without the prefixes of routers."""
        self.endpoint = endpoint
        self.name: str = get_name(endpoint) if name is None else name
        self.dependencies: list[Depends] = list(dependencies or ())
        self.dependency_overrides_provider = dependency_overrides_provider
        self.path_regex: re.Pattern[str]
        self.path_format: str
        self.param_convertors: dict[str, Convertor[Any]]
        self.path_regex, self.path_format, self.param_convertors = compile_path(path)
        self.plan: Plan = self.analyzed()
        self.app: ASGIApp = self.handle

    def check(self, endpoint: Callable[..., Any]) -> None:
        """Raise RegistrationError for an object that cannot be an endpoint."""
        check_endpoint(endpoint)
        self.terms.limits.check_plain(describe(endpoint))

    def analyzed(self) -> Plan:
        """The endpoint's plan at this path."""
        return analyze(self.endpoint, path=self.path_format, dependencies=self.dependencies, kind=Kind.WEBSOCKET)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As Starlette's, and names this route in `scope["route"]`."""
        match, child_scope = super().matches(scope)
        if match is not Match.NONE:
            child_scope["route"] = self
        return match, child_scope

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Run the endpoint. The coroutine is its runner's own, no frame lies between."""
        terms = self.terms.here(scope)
        if not terms.door.lets_in(scope):
            return runner.refuse_origin(scope, receive, send)
        provider = self.dependency_overrides_provider
        return runner.run(self.endpoint, self.plan, scope, receive, send, provider, terms.limits)

    def included(
        self,
        prefix: str,
        dependencies: Sequence[Depends],
        provider: OverridesProvider | None,
        terms: Terms = NO_TERMS,
        options: ChannelOptions | None = None,
    ) -> APIWebSocketRoute:
        """This route as it appears below `prefix`, behind `dependencies`, within the `terms` of the router that
        includes it.

        `options` are for a channel that has none.
        """
        route = self._copy(
            prefix + self.path,
            options,
            dependencies=[*dependencies, *self.dependencies],
            dependency_overrides_provider=self.dependency_overrides_provider or provider,
            terms=self.terms.within(terms),
        )
        route.own_path = self.own_path
        return route

    def _copy(self, path: str, options: ChannelOptions | None, **around: Any) -> APIWebSocketRoute:
        return type(self)(path, self.endpoint, name=self.name, receives=self.receives, sends=self.sends, **around)


_OURS: Final = (WebSocketRoute, APIWebSocketRoute)


def is_foreign(route: object) -> bool:
    """A WebSocket route of Starlette's or FastAPI's own, which knows nothing of terms."""
    return not isinstance(route, _OURS) and isinstance(route, StarletteWebSocketRoute)


def _is_function(endpoint: Callable[..., Any]) -> bool:
    function = unpartial(endpoint)
    return inspect.isfunction(function) or inspect.ismethod(function)
