"""The application: wires routes, middleware, exception handlers, lifespan and the hub. The only part that knows all.

For a WebSocket the way is `App.__call__` -> the user's middleware, if any -> the endpoint's runner: Starlette's error
middleware wraps HTTP only, and `receive` and `send` are handed through untouched.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypedDict, TypeVar, Unpack

from starlette.datastructures import State, URLPath
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.responses import Response
from starlette.routing import BaseRoute, Router

from .asyncapi.serving import LastResort, current_text, document_of
from .clients.served_module import ClientModule
from .connection import ConnectionOptions
from .connection.denials import Denials
from .connection.raw import OPTIONS_KEY
from .exceptions import ParameterErrors
from .gate.door import OUTER_APPS_KEY
from .gate.origins import OriginsLike
from .gate.rates import Rate
from .gate.terms import TERMS_KEY
from .hub import Hub, HubError
from .messages import ChannelOptions
from .routing import APIRouter
from .routing import endpoint as endpoints
from .routing.context import APP_KEY, HANDLERS_KEY
from .routing.default_handlers import http_exception_handler, request_validation_exception_handler
from .routing.handlers import ExceptionHandler, HandlerKey, HandlerTables, check_key, split
from .routing.http import Inclusion, check_keywords
from .routing.methods import RouteMethods
from .routing.middleware_answer import ANSWER_KEY, MiddlewareAnswer
from .types import ASGIApp, Message, Receive, Scope, Send

logger: Final = logging.getLogger("antiphon")

Function = TypeVar("Function", bound=Callable[..., Any])

DEFAULT_ASYNCAPI_URL: Final = "/asyncapi.json"
DEFAULT_CONSOLE_URL: Final = "/asyncapi"
DEFAULT_CLIENT_URL: Final = "/asyncapi/client.js"


class OpenAPI(TypedDict, total=False):
    """Keywords of `FastAPI()` that only shape its OpenAPI pages: accepted and not used."""

    title: str
    summary: str | None
    description: str
    version: str
    openapi_url: str | None
    openapi_tags: Any
    servers: Any
    docs_url: str | None
    redoc_url: str | None
    swagger_ui_oauth2_redirect_url: str | None
    swagger_ui_init_oauth: Any
    swagger_ui_parameters: Any
    terms_of_service: str | None
    contact: Any
    license_info: Any
    root_path_in_servers: bool
    responses: Any
    callbacks: Any
    webhooks: Any
    deprecated: bool | None
    include_in_schema: bool
    generate_unique_id_function: Any
    separate_input_output_schemas: bool
    openapi_external_docs: Any
    strict_content_type: bool


class _AppsHub:
    """The hub of an app, made when it is first asked for, which starts and stops with the app's lifespan."""

    def __init__(self, hub: Hub | None) -> None:
        self._hub = hub
        self._failure: HubError | None = None

    def get(self) -> Hub:
        if self._hub is None:
            self._hub = Hub()
        return self._hub

    def around(self, lifespan: Callable[[Any], AbstractAsyncContextManager[Any]]) -> Callable[[Any], Any]:
        """A lifespan that starts the hub before `lifespan` and stops it behind."""

        @contextlib.asynccontextmanager
        async def with_hub(app: Any) -> AsyncIterator[Any]:
            self._failure = None
            try:
                await self.get().start()
            except HubError as error:
                self._failure = error
                raise
            try:
                async with lifespan(app) as state:
                    yield state
            finally:
                await self.get().stop()

        return with_hub

    def telling(self, send: Send) -> Send:
        """A server logs one line when the hub cannot start: a traceback through frameworks says less."""

        async def tell(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and self._failure is not None:
                message = {**message, "message": f"the app cannot start without its hub: {self._failure}"}
            await send(message)

        return tell


class _Layers:
    """A scope's way to the router: the user's middleware, and for HTTP the error handlers."""

    def __init__(self, router: APIRouter) -> None:
        self._router = router
        self._http_errors: ExceptionMiddleware | None = None
        self.chain: ASGIApp = self._innermost
        """The middleware, and the router."""
        self.serve: ASGIApp = router.dispatch
        """The same for a WebSocket: without middleware, the router at once."""
        self.tables: HandlerTables = ({}, {})
        """The user's error handlers, by class and by status."""
        self.last_handler: ExceptionHandler | None = None
        """Of errors that nothing else handles."""

    def wrap(self, middleware: Sequence[Middleware]) -> None:
        self.chain = self._innermost
        for factory, args, kwargs in reversed(middleware):
            self.chain = factory(self.chain, *args, **kwargs)
        if middleware:
            self.serve = self._through_middleware

    def load_handlers(self, handlers: Mapping[Any, ExceptionHandler], *, debug: bool) -> ASGIApp:
        """Take these error handlers from now on. Returns the whole stack for HTTP."""
        by_class, by_status, self.last_handler = split(handlers)
        stock: dict[Any, ExceptionHandler] = {
            StarletteHTTPException: http_exception_handler,
            ParameterErrors: request_validation_exception_handler,
        }
        self.tables = by_class, by_status
        self._http_errors = ExceptionMiddleware(self._router, handlers={**stock, **by_class, **by_status}, debug=debug)
        return ServerErrorMiddleware(self.chain, handler=self.last_handler, debug=debug)

    async def _through_middleware(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[ANSWER_KEY] = answered = MiddlewareAnswer(scope, send)
        await self.chain(scope, receive, answered.send)
        await answered.close()

    async def _innermost(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            assert self._http_errors is not None, "built together with the stack that leads here"
            await self._http_errors(scope, receive, send)
            return
        answered: MiddlewareAnswer | None = scope.get(ANSWER_KEY)
        await self._router.dispatch(scope, receive, send if answered is None else answered.leave(send))


class App(RouteMethods):
    """An ASGI application for WebSockets, with companion HTTP routes (FastAPI's `FastAPI`).

        app = App()

        @app.websocket("/echo/{name}")
        async def echo(websocket: WebSocket, name: str) -> None:
            await websocket.accept()
            async for text in websocket.iter_text():
                await websocket.send_text(f"{name}: {text}")

    `routes` are routes that exist already. `middleware` is a list of Starlette's `Middleware(factory, ...)`, the first
    outermost. `dependencies` run before everything else, for every route. `exception_handlers` maps exception classes
    or HTTP statuses to `handler(connection, exc)`. `lifespan(app)` is an async context manager. The mapping it yields
    becomes `websocket.state`. `debug` shows tracebacks in HTTP 500 responses, never to WebSockets. FastAPI's keywords
    about OpenAPI are accepted and not used. `app.metadata` holds them. `on_startup` and `on_shutdown` are functions
    without parameters, for apps without a `lifespan`. `default_response_class` and `redirect_slashes` are for HTTP
    routes. `root_path` is the prefix that a proxy has cut off. `hub` starts and stops with the lifespan, or where
    nobody runs that (the app is mounted) at its first use. Without one, `app.hub` makes it. `connection_options` are
    the limits of a connection on servers other than antiphon's own. `channel_options` are the wire and the limits of
    channels that have none of their own. `rates` bound the messages of each connection, beside those of its router and
    its route. `connects` bounds the handshakes of an address. `origins` says which pages may connect: `SAME`, patterns
    in a list, or `Origins`. None refuses pages of other sites that come with cookies or other automatic credentials,
    unless a `CORSMiddleware` of the app trusts them. `denials` says how handshakes are refused. `asyncapi_url` is the
    path of the AsyncAPI document, behind all routes: a route of yours there goes first, and an app that documents no
    messages, or has `openapi_url=None`, has none. None: no document. `console_url` is the path of its console. None:
    no page. `client_url` is that of the JavaScript client of the app's channels, and of its types beside it. None: no
    client. Both need the document. Raises TypeError for an unknown keyword and for a value of another type.
    """

    def __init__(
        self,
        *,
        debug: bool = False,
        routes: Sequence[BaseRoute] | None = None,
        middleware: Sequence[Middleware] | None = None,
        exception_handlers: Mapping[Any, ExceptionHandler] | None = None,
        lifespan: Any = None,
        dependencies: Sequence[Any] | None = None,
        on_startup: Sequence[Callable[[], Any]] | None = None,
        on_shutdown: Sequence[Callable[[], Any]] | None = None,
        default_response_class: type[Response] | None = None,
        redirect_slashes: bool = True,
        root_path: str = "",
        hub: Hub | None = None,
        connection_options: ConnectionOptions | None = None,
        channel_options: ChannelOptions | None = None,
        rates: Sequence[Rate] | None = None,
        connects: Rate | None = None,
        origins: OriginsLike | None = None,
        denials: Denials | None = None,
        asyncapi_url: str | None = DEFAULT_ASYNCAPI_URL,
        console_url: str | None = DEFAULT_CONSOLE_URL,
        client_url: str | None = DEFAULT_CLIENT_URL,
        **metadata: Unpack[OpenAPI],
    ) -> None:
        check_keywords(metadata, OpenAPI, "App")
        _check("hub", hub, Hub, "a Hub, as in Hub('redis://localhost')")
        _check("channel_options", channel_options, ChannelOptions, "ChannelOptions(...)")
        _check("connection_options", connection_options, ConnectionOptions, "ConnectionOptions(...)")
        _check_layers(middleware or (), exception_handlers or ())
        self.debug = debug
        self.root_path = root_path
        self.connection_options = connection_options
        self.metadata = metadata
        self.state: State = State()
        self.dependency_overrides: dict[Callable[..., Any], Callable[..., Any]] = {}
        self.exception_handlers: dict[Any, ExceptionHandler] = dict(exception_handlers or {})
        self.user_middleware: list[Middleware] = list(middleware or ())
        self.middleware_stack: ASGIApp | None = None
        self.router: APIRouter = APIRouter(
            routes=routes,
            redirect_slashes=redirect_slashes,
            default_response_class=default_response_class,
            dependencies=dependencies,
            dependency_overrides_provider=self,
            on_startup=on_startup,
            on_shutdown=on_shutdown,
            lifespan=lifespan,
            channel_options=channel_options,
            rates=rates,
            connects=connects,
            origins=origins,
            denials=denials,
        )
        self.router.default = _documents(self, asyncapi_url, console_url, client_url)
        self._hub = _AppsHub(hub)
        self.router.lifespan_context = self._hub.around(self.router.lifespan_context)
        self._layers = _Layers(self.router)

    @property
    def _registrar(self) -> APIRouter:
        return self.router

    @property
    def title(self) -> str:
        """The `title` given, as FastAPI's attribute."""
        return self.metadata.get("title", "Antiphon")

    @property
    def version(self) -> str:
        """The `version` given, as FastAPI's attribute."""
        return self.metadata.get("version", "0.1.0")

    @property
    def description(self) -> str:
        """The `description` given, as FastAPI's attribute."""
        return self.metadata.get("description", "")

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes in the order in which they are tried."""
        return self.router.routes

    @property
    def hub(self) -> Hub:
        """The app's hub. Endpoints get it by annotating a parameter with `Hub`.

        Without `hub=` it serves all workers that `antiphon run` or `antiphon relay` started, else this process.
        """
        return self._hub.get()

    @property
    def resources(self) -> Mapping[type, object]:
        """The objects that endpoints get by annotating a class."""
        return {Hub: self.hub}

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """The path of the route with this name. Raises NoMatchFound."""
        return self.router.url_path_for(name, **path_params)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        stack = self._enter(scope)
        if scope["type"] == "http":
            await stack(scope, receive, send)
            return
        if scope["type"] == "lifespan":
            await self._layers.chain(scope, receive, self._hub.telling(send))
            return
        try:
            await self._layers.serve(scope, receive, send)
            await endpoints.settle(scope)  # for denials by middleware and by mounted apps
        except Exception as error:
            if scope["type"] != "websocket":
                raise
            await endpoints.answer_unhandled(error, scope, receive, send, self._layers.last_handler)

    def _enter(self, scope: Scope) -> ASGIApp:
        """Put this app's keys into the scope. Returns the stack for HTTP.

        No part of `__call__`, whose frame each connection keeps (benchmarks: idle).
        """
        if self.root_path:
            scope["root_path"] = self.root_path
        stack = self.middleware_stack or self._start(scope)
        if "app" in scope:
            scope[OUTER_APPS_KEY] = (scope["app"], *scope.get(OUTER_APPS_KEY, ()))
        scope["app"] = scope[APP_KEY] = self
        if scope["type"] == "websocket":
            scope[HANDLERS_KEY] = self._layers.tables
            scope.pop(TERMS_KEY, None)  # those of the app around this one
            if self.connection_options is not None:
                scope[OPTIONS_KEY] = self.connection_options
        return stack

    def add_route(
        self,
        path: str,
        route: Callable[..., Any],
        methods: Collection[str] | None = None,
        name: str | None = None,
        include_in_schema: bool = True,
    ) -> None:
        """`route()` without a decorator."""
        self.router.add_route(path, route, methods, name, include_in_schema)

    def include_router(
        self,
        router: APIRouter,
        *,
        prefix: str = "",
        **included: Unpack[Inclusion],
    ) -> None:
        """Serve the routes of `router`, below `prefix` and behind `dependencies`. See `APIRouter.include_router`."""
        self.router.include_router(router, prefix=prefix, **included)

    def mount(self, path: str, app: ASGIApp, name: str | None = None) -> None:
        """Hand everything below `path` to another ASGI app, a whole FastAPI app included. Errors as the router's."""
        self.router.mount(path, app=app, name=name)

    def host(self, host: str, app: ASGIApp, name: str | None = None) -> None:
        """Hand everything for this host name to another ASGI app."""
        self.router.host(host, app=app, name=name)

    def add_middleware(self, middleware_class: Callable[..., ASGIApp], *args: Any, **kwargs: Any) -> None:
        """Wrap the app into ASGI middleware. The last one added is the outermost. It sees WebSockets as well.

        Raises RuntimeError once the app has started, TypeError for an object that cannot be called.
        """
        if self.middleware_stack is not None:
            raise RuntimeError("Cannot add middleware after an application has started")
        if not callable(middleware_class) or _is_app(middleware_class):
            raise TypeError(f"add_middleware takes a class, called with the app, got {middleware_class!r}")
        self.user_middleware.insert(0, Middleware(middleware_class, *args, **kwargs))

    def middleware(self, middleware_type: str) -> Callable[[Function], Function]:
        """Register `async def function(request, call_next) -> Response` for HTTP requests.

        The only type is "http". Another one is a ValueError. Errors as `add_middleware`.
        """
        if middleware_type != "http":
            raise ValueError(f'middleware_type must be "http", got {middleware_type!r}; use add_middleware for others')

        def register(function: Function) -> Function:
            self.add_middleware(BaseHTTPMiddleware, dispatch=function)
            return function

        return register

    def add_exception_handler(self, exc_class_or_status_code: HandlerKey, handler: ExceptionHandler) -> None:
        """Call `handler(connection, exc)` for this exception class and its subclasses, or for this HTTP status.

        Raises TypeError for a key that is neither.
        """
        check_key(exc_class_or_status_code)
        self.exception_handlers[exc_class_or_status_code] = handler
        if self.middleware_stack is not None:
            self._load_handlers()

    def exception_handler(self, exc_class_or_status_code: HandlerKey) -> Callable[[Function], Function]:
        """`add_exception_handler` as a decorator."""
        check_key(exc_class_or_status_code)

        def register(handler: Function) -> Function:
            self.add_exception_handler(exc_class_or_status_code, handler)
            return handler

        return register

    def _start(self, scope: Scope) -> ASGIApp:
        """With the first scope: build the final stack of middleware. Returns the stack for HTTP."""
        self.router.warn_of_missed_lifespan(scope)
        self._layers.wrap(self.user_middleware)
        return self._load_handlers()

    def _load_handlers(self) -> ASGIApp:
        self.middleware_stack = self._layers.load_handlers(self.exception_handlers, debug=self.debug)
        return self.middleware_stack


def _documents(app: App, asyncapi_url: str | None, console_url: str | None, client_url: str | None) -> ASGIApp:
    """The app for paths without a route: the document, unless all documents are turned off as FastAPI's programs do
    it."""
    if app.metadata.get("openapi_url", "") is None:
        asyncapi_url = None
    document = document_of(app)
    pages = LastResort(document, app.router.default, asyncapi_url, console_url)
    if asyncapi_url is None or client_url is None:
        return pages
    return ClientModule(client_url, functools.partial(current_text, document), pages)


def _check_layers(middleware: Sequence[Middleware], handlers: Collection[Any]) -> None:
    for layer in middleware:
        _check("middleware", layer, Middleware, "Middleware(factory, ...) in a list")
    for key in handlers:
        check_key(key)


def _is_app(middleware: object) -> bool:
    """Whether it is made already: an app, or a middleware around one. A factory of middleware is no coroutine
    function."""
    if isinstance(middleware, type) or inspect.isroutine(middleware):
        return False
    return isinstance(middleware, App | Router) or inspect.iscoroutinefunction(type(middleware).__call__)


def _check(name: str, value: object, kind: type, expected: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"App({name}=) takes {expected}, got {value!r}")
