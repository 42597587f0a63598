"""Companion HTTP routes: the same dependency injection, JSON out.

No part of OpenAPI: arguments that document a route in FastAPI are accepted and not used. For OpenAPI, mount a FastAPI
app.
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypedDict, Unpack

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route, compile_path, get_name

from antiphon.dependencies import Kind, Solved, analyze, solve
from antiphon.dependencies.inspection import CallKind, unpartial
from antiphon.dependencies.params import Depends
from antiphon.dependencies.plan import Plan
from antiphon.encoders import attributes_of
from antiphon.exceptions import (
    GeneratorError,
    ParameterErrors,
    PeerError,
    RegistrationError,
    RequestValidationError,
    ResponseValidationError,
    TryAgainLater,
)
from antiphon.misspelt import closest
from antiphon.shown import shown
from antiphon.types import ASGIApp, Message, Receive, Scope, Send

from . import handlers
from .context import APP_KEY, OverridesProvider, endpoint_of, overrides_of, resources_of
from .endings import BODILESS, Ending, ending_of
from .errors import check_path

logger: Final = logging.getLogger("antiphon")


class Documentation(TypedDict, total=False):
    """Keywords of FastAPI's that only describe a route in OpenAPI: accepted everywhere, used nowhere."""

    tags: Any
    summary: str | None
    description: str | None
    response_description: str
    responses: Any
    deprecated: bool | None
    operation_id: str | None
    include_in_schema: bool
    callbacks: Any
    openapi_extra: Any
    generate_unique_id_function: Any
    strict_content_type: bool


class Inclusion(Documentation, total=False):
    """Everything `include_router` takes besides a router and a prefix."""

    dependencies: Sequence[Any] | None
    default_response_class: type[Response] | None


class Dump(TypedDict, total=False):
    """How `response_model` writes a value, under FastAPI's names."""

    response_model_include: Any
    response_model_exclude: Any
    response_model_by_alias: bool
    response_model_exclude_unset: bool
    response_model_exclude_defaults: bool
    response_model_exclude_none: bool


class RouteOptions(Documentation, Dump, total=False):
    """Everything a route decorator takes besides its path."""

    response_model: Any
    status_code: int | None
    dependencies: Sequence[Any] | None
    response_class: type[Response] | None
    name: str | None


def check_keywords(given: Mapping[str, Any], known: type, where: str) -> None:
    """Raise TypeError, as Python would, for keywords that a `**options: Unpack[known]` does not name.

    The error suggests the closest of those and of the parameters of the function that asks.
    """
    if unknown := given.keys() - known.__annotations__.keys():
        asking = sys._getframe(1).f_code
        parameters = asking.co_varnames[: asking.co_argcount + asking.co_kwonlyargcount]
        name = min(unknown)
        if meant := closest(name, (*known.__annotations__, *parameters)):
            raise TypeError(f"{where} got an unexpected keyword argument {name!r}: did you mean {meant}=?")
        raise TypeError(f"{where} got an unexpected keyword argument {name!r}")


UNSET: Final[Any] = object()
"""`response_model` not given: the return annotation speaks."""


class APIRoute(Route):
    """A path, methods and an endpoint with dependency injection (FastAPI's `APIRoute`, without OpenAPI).

    The endpoint may be sync (it runs in the thread pool) or async. A `Response` it returns is sent as it is. Any other
    value becomes JSON, through `response_model` or the return annotation if there is one, as pydantic writes it. An
    object that pydantic does not know becomes a JSON object of its attributes. Overrides come from
    `dependency_overrides_provider`, else from the app around.

        from antiphon.routing import APIRoute

        async def read(number: int) -> int:
            return number

        app = App(routes=[APIRoute("/items/{number}", read, methods=["GET"])])
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        methods: Collection[str] | None = None,
        dependency_overrides_provider: OverridesProvider | None = None,
        **options: Unpack[RouteOptions],
    ) -> None:
        check_keywords(options, RouteOptions, f"the route {path!r}")
        check_path(path, endpoint)
        if hasattr(self, "get_route_handler"):
            raise RegistrationError(
                f"{type(self).__name__}.get_route_handler() would never be called: antiphon's routes build no "
                "handler. Use middleware or a dependency, or keep the route in a FastAPI app and mount it"
            )
        self.path = path
        self.endpoint = endpoint
        self.options = options
        name = options.get("name")
        self.name: str = get_name(endpoint) if name is None else name
        self.methods: set[str] = {method.upper() for method in methods or ("GET",)}
        self.status_code: int | None = options.get("status_code")
        self.response_class: type[Response] | None = options.get("response_class")
        self.dependencies: list[Depends] = list(options.get("dependencies") or ())
        self.dependency_overrides_provider = dependency_overrides_provider
        self.include_in_schema: bool = options.get("include_in_schema", True)
        self.tags: list[str] = list(options.get("tags") or ())
        self.path_regex: re.Pattern[str]
        self.path_format: str
        self.param_convertors: dict[str, Convertor[Any]]
        self.path_regex, self.path_format, self.param_convertors = compile_path(path)
        self.plan: Plan = analyze(endpoint, path=self.path_format, dependencies=self.dependencies, kind=Kind.HTTP)
        self.response_model: Any = _response_model(endpoint, options.get("response_model", UNSET))
        self._adapter = None if self.response_model is None else TypeAdapter(self.response_model)
        self._dump = _dump_options(options)
        self.app: ASGIApp = self._respond

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As Starlette's, and names this route in `scope["route"]`."""
        match, child_scope = super().matches(scope)
        if match is not Match.NONE:
            child_scope["route"] = self
        return match, child_scope

    def included(
        self,
        prefix: str,
        dependencies: Sequence[Depends],
        provider: OverridesProvider | None,
        options: dict[str, Any],
    ) -> APIRoute:
        """This route as it appears below `prefix`, behind the `dependencies` of the router that includes it."""
        merged: Any = {**options, **self.options, "dependencies": [*dependencies, *self.dependencies]}
        merged["response_class"] = self.response_class or options.get("response_class")
        return type(self)(
            prefix + self.path,
            self.endpoint,
            methods=self.methods,
            dependency_overrides_provider=self.dependency_overrides_provider or provider,
            **merged,
        )

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._solve_and_call(scope, receive, send)
        except ParameterErrors as errors:
            failure = _named(errors, scope)
            if APP_KEY not in scope and handlers.find(scope, failure) is None:
                await unprocessable(failure)(scope, receive, send)
                return
            raise failure from None
        except (PeerError, TryAgainLater) as error:
            if handlers.find(scope, error) is not None:
                raise
            raise refusal(error, scope) from error

    async def _solve_and_call(self, scope: Scope, receive: Receive, send: Send) -> None:
        request: Request = Request(scope, receive, send)
        overrides = overrides_of(scope, self.dependency_overrides_provider)
        response: Response | None = None
        async with solve(self.plan, request, overrides=overrides, resources=resources_of(scope)) as solved:
            async with solved.function_scope():
                if self.plan.endpoint.kind is CallKind.ASYNC:
                    result = await self.endpoint(**solved.values)
                else:
                    result = await run_in_threadpool(self.endpoint, **solved.values)
                response = self._response(result, solved)
            if response is not None and response.background is None:
                await response(scope, receive, send)
            elif response is not None:
                await _with_background(response, scope, receive, send)
        if response is None:
            raise GeneratorError(
                f"no response for {self.path}: a dependency with yield swallowed the exception; raise it again"
            )

    def _response(self, result: Any, solved: Solved) -> Response:
        if isinstance(result, Response):
            result.background = _chained(result.background, solved.background)
            return result
        status = getattr(solved.response, "status_code", None) or self.status_code
        response = self._render(result, status)
        response.background = solved.background
        if solved.response is not None:
            response.raw_headers.extend(
                header
                for header in solved.response.raw_headers
                if header[0] not in (b"content-length", b"content-type")
            )
        return response

    def _render(self, result: Any, status: int | None) -> Response:
        chosen: dict[str, Any] = {} if status is None else {"status_code": int(status)}
        if status is not None and (status in BODILESS or status < 200):
            return Response(**chosen)
        if self.response_class is None:
            return Response(self._json(result), media_type="application/json", **chosen)
        if issubclass(self.response_class, JSONResponse):
            return self.response_class(from_json(self._json(result)), **chosen)
        return self.response_class(result, **chosen)

    def _json(self, result: Any) -> bytes:
        if self._adapter is None:
            return to_json(result, by_alias=True, fallback=attributes_of)
        try:
            value = self._adapter.validate_python(result, from_attributes=True)
        except ValidationError as error:
            failures: Any = error.errors(include_url=False)
            raise ResponseValidationError(failures, body=result, endpoint=self.path) from error
        return self._adapter.dump_json(value, **self._dump)


def unprocessable(errors: ParameterErrors) -> Response:
    """The 422 response that FastAPI's clients know."""
    return Response(to_json({"detail": errors.errors()}, fallback=str), status_code=422, media_type="application/json")


async def _with_background(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Errors that are no bugs have no answer any more when a background task raises them, only a line in the log."""
    answered = False

    async def answer(message: Message) -> None:
        nonlocal answered
        await send(message)
        answered = message["type"] != "http.response.start" and not message.get("more_body", False)

    try:
        await response(scope, receive, answer)
    except (PeerError, TryAgainLater) as error:
        if not answered:
            raise
        ending = _ending(error)
        logger.log(ending.level, "background task of %s: %s", endpoint_of(scope, scope["method"]), shown(ending.note))


def refusal(error: PeerError | TryAgainLater, scope: Scope) -> StarletteHTTPException:
    """The answer for an error that is no bug, with a line in the log: 400 for data of the peer, else 503."""
    ending = _ending(error)
    logger.log(ending.level, "%s: %s", endpoint_of(scope, scope["method"]), shown(ending.note))
    return StarletteHTTPException(400 if isinstance(error, PeerError) else ending.status, ending.reason)


def _ending(error: PeerError | TryAgainLater) -> Ending:
    ending = ending_of(error)
    assert ending is not None, "the close matrix has a row for each of these"
    return ending


def _named(errors: ParameterErrors, scope: Scope) -> ParameterErrors:
    if type(errors) is not ParameterErrors:
        return errors
    return RequestValidationError(errors.errors(), body=errors.body, endpoint=endpoint_of(scope, scope["method"]))


def _response_model(endpoint: Callable[..., Any], given: Any) -> Any:
    if given is not UNSET:
        return given
    try:
        annotation = inspect.signature(unpartial(endpoint), eval_str=True).return_annotation
    except (NameError, TypeError, ValueError):
        return None
    if annotation in (inspect.Signature.empty, None, Any):
        return None
    if isinstance(annotation, type) and issubclass(annotation, Response):
        return None
    return annotation


def _dump_options(options: RouteOptions) -> dict[str, Any]:
    given: Any = options
    dump = {"by_alias": given.get("response_model_by_alias", True)}
    for word in ("include", "exclude", "exclude_unset", "exclude_defaults", "exclude_none"):
        if (value := given.get(f"response_model_{word}")) is not None:
            dump[word] = value
    return dump


def _chained(first: BackgroundTask | None, second: BackgroundTasks | None) -> BackgroundTask | None:
    """Both the response's own background task and those added by dependency injection."""
    if first is None or second is None or not second.tasks:
        return first or second
    return BackgroundTasks([first, *second.tasks])
