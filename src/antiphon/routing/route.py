"""WebSocket routes: a path, an endpoint, and how to call it.

Matching and URL building are Starlette's (`WebSocketRoute`); running the endpoint is `endpoint.py`'s.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from starlette.convertors import Convertor
from starlette.middleware import Middleware
from starlette.routing import Match, compile_path, get_name
from starlette.routing import WebSocketRoute as StarletteWebSocketRoute

from antiphon.connection.denials import Denials
from antiphon.dependencies import Kind, analyze
from antiphon.dependencies.inspection import describe, unpartial
from antiphon.dependencies.params import Depends
from antiphon.dependencies.plan import Plan
from antiphon.gate.door import OPEN, Door, Gated
from antiphon.gate.limits import NO_LIMITS, Limits
from antiphon.gate.origins import OriginsLike
from antiphon.gate.rates import Rate
from antiphon.types import ASGIApp, Receive, Scope, Send

from . import endpoint as runner
from .context import OverridesProvider
from .errors import check_endpoint, check_injectable, check_messages, check_path


class Lets(Gated, total=False):
    """Who may come in and how much a route lets in, beside what the app and its routers say."""

    rates: Sequence[Rate] | None
    """Of the messages of each connection."""
    connects: Rate | None
    """Of the handshakes of an address."""


class Told(Lets, total=False):
    """What a route says of its messages, for documents: their types, unions of them as a rule; and what it lets in."""

    receives: Any
    """From the client."""
    sends: Any
    """To it."""


class WebSocketRoute(StarletteWebSocketRoute):
    """A path and an `endpoint(websocket)` without dependency injection, or a `WebSocketEndpoint` class.

    Takes the place of Starlette's, and ends connections by the close matrix. `middleware` is wrapped around this route
    only. `name` (else the endpoint's) is what `url_path_for` finds it by. `limits` are how much it lets in.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        name: str | None = None,
        middleware: Sequence[Middleware] | None = None,
        limits: Limits = NO_LIMITS,
    ) -> None:
        check_path(path, endpoint)
        limits.check_plain(describe(endpoint))
        super().__init__(path, endpoint, name=name)
        self.middleware: list[Middleware] = list(middleware or ())
        self.door: Door = OPEN
        """What is said of who may come in."""
        run = runner.run_session if _is_function(endpoint) else runner.run_asgi
        self.limits: Limits = limits
        self.app: ASGIApp = functools.partial(run, endpoint, limits)
        for factory, args, kwargs in reversed(self.middleware):
            self.app = factory(self.app, *args, **kwargs)

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Run the endpoint; the coroutine is its runner's own, no frame lies between."""
        if not self.door.lets_in(scope):
            return runner.refuse_origin(scope, receive, send)
        running: Coroutine[Any, Any, None] = self.app(scope, receive, send)  # type: ignore[assignment]
        return running

    def included(self, prefix: str, limits: Limits = NO_LIMITS, door: Door = OPEN) -> WebSocketRoute:
        """This route as it appears below `prefix`, within the `limits` and behind the `door` of what includes it."""
        route = type(self)(
            prefix + self.path,
            self.endpoint,
            name=self.name,
            middleware=self.middleware,
            limits=limits + self.limits,
        )
        route.door = self.door.within(door)
        return route


class APIWebSocketRoute(StarletteWebSocketRoute):
    """A path and an endpoint with dependency injection (FastAPI's `APIWebSocketRoute`).

    The signature is analysed here, once; what can never work raises a `RegistrationError`. Works in any Starlette
    router: `Starlette(routes=[APIWebSocketRoute("/ws", endpoint)])`. `dependencies` run before those of the parameters,
    and their values are dropped. `origins` and `denials` say which pages may connect, and how others are refused;
    None: as the app or router around. `rates` bound the messages of each connection, `connects` the handshakes of an
    address, beside the `limits` of what the route is in. `receives` and `sends` are the types of its messages, for
    documents. `name` (else the endpoint's) is what `url_path_for` finds it by. Overrides come from
    `dependency_overrides_provider`, else from the app around.
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
        origins: OriginsLike | None = None,
        denials: Denials | None = None,
        rates: Sequence[Rate] | None = None,
        connects: Rate | None = None,
        limits: Limits = NO_LIMITS,
    ) -> None:
        check_path(path, endpoint)
        check_injectable(endpoint)
        self.limits: Limits = limits + Limits(rates, connects)
        """Those of the app and of routers, and its own."""
        self.check(endpoint)
        for declared in (receives, sends):
            check_messages(declared, endpoint)
        self.receives: Any = receives
        """The type of the messages from the client, for documents; None: not told."""
        self.sends: Any = sends
        """The type of the messages to it."""
        self.door: Door = Door(origins, denials)
        """What is said of who may come in."""
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
        """Raise RegistrationError for what cannot be an endpoint."""
        check_endpoint(endpoint)
        self.limits.check_plain(describe(endpoint))

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
        """Run the endpoint; the coroutine is its runner's own, no frame lies between."""
        if not self.door.lets_in(scope):
            return runner.refuse_origin(scope, receive, send)
        provider = self.dependency_overrides_provider
        return runner.run(self.endpoint, self.plan, scope, receive, send, provider, self.limits)

    def included(
        self,
        prefix: str,
        dependencies: Sequence[Depends],
        provider: OverridesProvider | None,
        limits: Limits = NO_LIMITS,
        door: Door = OPEN,
    ) -> APIWebSocketRoute:
        """This route as it appears below `prefix`, behind `dependencies`, `limits` and `door` of what includes it."""
        route = type(self)(
            prefix + self.path,
            self.endpoint,
            name=self.name,
            dependencies=[*dependencies, *self.dependencies],
            dependency_overrides_provider=self.dependency_overrides_provider or provider,
            receives=self.receives,
            sends=self.sends,
            limits=limits + self.limits,
        )
        route.own_path = self.own_path
        route.door = self.door.within(door)
        return route


def _is_function(endpoint: Callable[..., Any]) -> bool:
    function = unpartial(endpoint)
    return inspect.isfunction(function) or inspect.ismethod(function)
