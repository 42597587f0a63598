"""Runs a plan for one connection, and ends the dependencies that it started.

Owns the order of running, the collecting of errors and the teardown. The plan has the steps, `values.py` reads the
values, and the router turns the endpoint's end into a close.

Teardown is shielded from cancel scopes around it (anyio's; FastAPI does the same). When it begins because the
connection was cancelled it has `TEARDOWN_SECONDS` in all: the canceller waits for it, and nobody may wait for ever.
Otherwise it takes the time it needs. A bare `task.cancel()` during the teardown is an order to stop and interrupts the
running generator. The others are still left.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from types import TracebackType
from typing import Any, Final, Protocol, Self

import anyio
import anyio.lowlevel
from pydantic_core import PydanticUndefined
from starlette.background import BackgroundTasks
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from antiphon.exceptions import HTTPException, MissingResourceError, ParameterErrors
from antiphon.identity import IDENTITY_KEY, Identity

from .identities import identity_for
from .inspection import GENERATORS, CallKind
from .lifetimes import AsyncLife, Life, LimitLife, SyncLife, raise_as_is
from .params import LifeScope, Location
from .plan import Injected, Injection, Plan, Step, overridden
from .values import Errors

logger: Final = logging.getLogger("antiphon.dependencies")

TEARDOWN_SECONDS: Final = 30.0
"""Time for the teardown of a cancelled connection: long enough for a slow commit, shorter than the patience of process
managers."""

_FAILED: Final = object()
_NOTHING: Final[Mapping[Any, Any]] = {}


def solve(
    plan: Plan,
    connection: HTTPConnection,
    *,
    overrides: Mapping[Callable[..., Any], Callable[..., Any]] = _NOTHING,
    resources: Mapping[type, object] = _NOTHING,
) -> Solved:
    """Enter the result with `async with` to run the dependencies; leave it to tear them down.

    Raises ParameterErrors with all errors of all parameters, and the exceptions of dependencies. On leaving, an
    exception from the block is raised at each `yield`, last dependency first, those of scope "function" before those of
    scope "request". A dependency that swallows it ends it. An exception that keeps the block from starting is raised
    even when a dependency swallows it.
    """
    return Solved(overridden(plan, overrides) if overrides else plan, connection, resources)


class Returning(Protocol):
    """A step, as far as it is called."""

    @property
    def call(self) -> Callable[..., Any]: ...

    @property
    def kind(self) -> CallKind: ...


class Solved:
    """A plan's results for one connection, and the generators to end with it."""

    __slots__ = (
        "_connection",
        "_lives",
        "_plan",
        "_resources",
        "_results",
        "_scope",
        "background",
        "response",
        "values",
    )

    def __init__(self, plan: Plan, connection: HTTPConnection, resources: Mapping[type, object]) -> None:
        self._plan = plan
        self._connection = connection
        self._resources = resources
        self._results: list[Any] = []
        self._lives: list[tuple[LifeScope, Life]] = []
        self._scope: anyio.CancelScope | None = None
        self.values: dict[str, Any] = {}
        """The endpoint's keyword arguments."""
        self.background: BackgroundTasks | None = None
        """Tasks to run after the response or the close. None when nobody asked for them."""
        self.response: Response | None = None
        """Where dependencies put headers, cookies and, when not None, `status_code` for the response. None when nobody
        asked for it."""

    async def __aenter__(self) -> Self:
        plan = self._plan
        if plan.connection_only is not None:
            self.values[plan.connection_only] = self._connection
            return self
        if plan.has_generators:
            # Entered before the first generator: a dependency may open cancel scopes of its own, and they have to nest.
            self._scope = anyio.CancelScope()
            self._scope.__enter__()
        try:
            await self._run()
        except BaseException as error:
            await self._abandon(error)
            raise
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._scope is None and self._plan.body is not Location.FORM:
            return False
        remaining = await self._end(error)
        if remaining is not None and remaining is not error:
            raise_as_is(remaining)
        return remaining is None and error is not None

    def function_scope(self) -> _FunctionScope:
        """Leave this block to end the dependencies of scope "function" early: before the response is sent."""
        return _FunctionScope(self)

    async def _run(self) -> None:
        errors: Errors = []
        wanted_by: list[str] = []
        body = await self._read_body() if self._plan.body is not None else PydanticUndefined
        for step in self._plan.steps:
            values = self._collect(step, body, errors, wanted_by)
            self._results.append(_FAILED if values is None else await self._call(step, values))
            if step.identifies and isinstance(identity := self._results[-1], Identity):
                await self._admit(step, identity)
        values = self._collect(self._plan.endpoint, body, errors, wanted_by)
        if values is None:
            failed = ParameterErrors(
                errors, body=None if body is PydanticUndefined else body, endpoint=self._plan.endpoint.label
            )
            own = self._plan.endpoint.label
            failed.wanted_by = tuple("" if name == own else name for name in wanted_by)
            raise failed
        self.values = values

    async def _admit(self, step: Step, identity: Identity) -> None:
        """A test's override gives an identity that nobody has admitted."""
        if IDENTITY_KEY not in self._connection.scope:
            if step.admits is not None:
                await step.admits(self._connection, identity)
            self._connection.scope.setdefault(IDENTITY_KEY, identity)

    def _collect(self, step: Step, body: Any, errors: Errors, wanted_by: list[str]) -> dict[str, Any] | None:
        """The step's keyword arguments; None, with `errors` longer, and as much `wanted_by`, when one is missing or
        invalid."""
        results = self._results
        before = len(errors)
        values = {name: results[index] for name, index in step.inputs}
        for reader in step.readers:
            reader.read(self._source(reader.location, body), values, errors)
            if len(errors) > len(wanted_by):
                wanted_by += [reader.wanted_by] * (len(errors) - len(wanted_by))
        if len(errors) > before or any(results[index] is _FAILED for index in step.needs):
            return None
        for injection in step.injections:
            self._inject(injection, step, values)
        return values

    def _source(self, location: Location, body: Any) -> Any:
        match location:
            case Location.QUERY:
                return self._connection.query_params
            case Location.PATH:
                return self._connection.path_params
            case Location.HEADER:
                return self._connection.headers
            case Location.COOKIE:
                return self._connection.cookies
            case Location.BODY | Location.FORM:
                return body

    def _inject(self, injection: Injection, step: Step, values: dict[str, Any]) -> None:
        match injection.what:
            case Injected.CONNECTION:
                values[injection.name] = self._connection
            case Injected.BACKGROUND:
                if self.background is None:
                    self.background = BackgroundTasks()
                values[injection.name] = self.background
            case Injected.RESPONSE:
                values[injection.name] = self._draft()
            case Injected.SECURITY_SCOPES:
                values[injection.name] = injection.annotation(scopes=list(step.oauth_scopes))
            case Injected.DEFAULT:
                values[injection.name] = injection.default
            case Injected.IDENTITY:
                where = f"{step.label}: parameter {injection.name!r}"
                known = any(one.identifies for one in self._plan.steps)
                values[injection.name] = identity_for(
                    self._connection, where, injection.default, somebody_identifies=known
                )
            case Injected.RESOURCE:
                self._inject_resource(injection, step, values)

    def _draft(self) -> Response:
        if self.response is None:
            self.response = Response()
            del self.response.headers["content-length"]
            self.response.status_code = None  # type: ignore[assignment]  # "not set", as in FastAPI
        return self.response

    def _inject_resource(self, injection: Injection, step: Step, values: dict[str, Any]) -> None:
        for known, resource in self._resources.items():
            if issubclass(injection.annotation, known):
                values[injection.name] = resource
                return
        if injection.default is inspect.Parameter.empty:
            raise MissingResourceError(
                f"{step.label}: parameter {injection.name!r} is a {injection.annotation.__name__}, "
                f"and this application has none: `app.state.{injection.annotation.__name__.lower()} = "
                f"{injection.annotation.__name__}(...)` gives it one"
            )
        values[injection.name] = injection.default

    async def _call(self, step: Step, values: dict[str, Any]) -> Any:
        if step.kind in GENERATORS:
            return await self._enter(step, values)
        if step.limit is None:
            return await returned_by(step, values)
        async with step.limit.get_semaphore():
            return await returned_by(step, values)

    async def _enter(self, step: Step, values: dict[str, Any]) -> Any:
        if step.limit is not None:
            place = LimitLife(step.limit)
            self._lives.append((step.life, place))
            await place.enter()
        life = (AsyncLife if step.kind is CallKind.ASYNC_GENERATOR else SyncLife)(step.label, step.call, values)
        self._lives.append((step.life, life))
        return await life.enter()

    async def _read_body(self) -> Any:
        assert isinstance(self._connection, Request), "only HTTP plans read a body"
        try:
            if self._plan.body is Location.FORM:
                return await _with_contents(await self._connection.form(), self._plan.contents)
            body = await self._connection.body()
            if not body:
                return PydanticUndefined
            return await self._connection.json() if _is_json(self._connection) else body
        except json.JSONDecodeError as error:
            raise ParameterErrors([_json_invalid(error)], body=error.doc, endpoint=self._plan.endpoint.label) from error
        except (UnicodeDecodeError, RecursionError, MultiPartException) as error:
            raise HTTPException(400, "There was an error parsing the body") from error

    async def leave_function_scope(self, error: BaseException | None) -> bool:
        """End the dependencies of scope "function". True when one of them swallowed `error`."""
        if self._scope is None:
            return False
        self._protect(self._scope, error)
        remaining = await self._leave(error, ("function",))
        self._scope.shield = False
        if remaining is not None and remaining is not error:
            raise_as_is(remaining)
        return remaining is None and error is not None

    async def _abandon(self, error: BaseException) -> None:
        """End the dependencies entered before `error` came. `error` itself goes on, even if a dependency swallows
        it."""
        remaining = await self._end(error)
        if remaining is not None and remaining is not error:
            raise_as_is(remaining)

    async def _end(self, error: BaseException | None) -> BaseException | None:
        """Tear everything down and close the cancel scope. Returns the exception that is left afterwards."""
        if self._plan.body is Location.FORM and isinstance(self._connection, Request):
            await self._connection.close()
        if (scope := self._scope) is None:
            return error
        self._scope = None
        self._protect(scope, error)
        remaining = await self._leave(error, ("function", "request"))
        scope.__exit__(type(remaining) if remaining else None, remaining, None)
        if scope.cancel_called and isinstance(remaining, anyio.get_cancelled_exc_class()):
            logger.error("a cancelled connection's teardown was cut off after %s s", TEARDOWN_SECONDS)
            remaining = error
        if remaining is None and self._plan.has_async_generators:
            try:
                # A dependency's task group may have swallowed the cancellation while it was shielded.
                await anyio.lowlevel.checkpoint_if_cancelled()
            except anyio.get_cancelled_exc_class() as cancelled:
                return cancelled
        return remaining

    @staticmethod
    def _protect(scope: anyio.CancelScope, error: BaseException | None) -> None:
        cancelled = (
            isinstance(error, anyio.get_cancelled_exc_class()) or anyio.current_effective_deadline() == -math.inf
        )
        scope.shield = True
        if cancelled:
            scope.deadline = min(scope.deadline, anyio.current_time() + TEARDOWN_SECONDS)

    async def _leave(self, error: BaseException | None, order: tuple[LifeScope, ...]) -> BaseException | None:
        for scope in order:
            mine = [life for life_scope, life in self._lives if life_scope == scope]
            self._lives = [entry for entry in self._lives if entry[0] != scope]
            for life in reversed(mine):
                try:
                    if await life.leave(error):
                        error = None
                except BaseException as raised:
                    error = raised
        return error


class _FunctionScope:
    """The part of a `Solved` block that dependencies of scope "function" live for."""

    __slots__ = ("_solved",)

    def __init__(self, solved: Solved) -> None:
        self._solved = solved

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return await self._solved.leave_function_scope(error)


async def returned_by(step: Returning, values: dict[str, Any]) -> Any:
    """The result of a callable without `yield`. A sync one runs in the thread pool."""
    if step.kind is CallKind.ASYNC:
        return await step.call(**values)
    if step.kind is CallKind.IN_LINE:
        return step.call(**values)
    return await run_in_threadpool(step.call, **values)


async def _with_contents(form: FormData, wanted: frozenset[str]) -> FormData:
    """The form with the content of files in place of the files, under the keys that want it so."""
    if not wanted:
        return form
    items: list[tuple[str, Any]] = form.multi_items()
    for index, (key, value) in enumerate(items):
        if key in wanted and isinstance(value, UploadFile):
            items[index] = key, await value.read()
    return FormData(items)


def _is_json(request: Request) -> bool:
    parsed = EmailMessage()
    parsed["content-type"] = request.headers.get("content-type", "")
    subtype = parsed.get_content_subtype()
    return parsed.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))


def _json_invalid(error: json.JSONDecodeError) -> dict[str, Any]:
    return {
        "type": "json_invalid",
        "loc": ("body", error.pos),
        "msg": "JSON decode error",
        "input": {},
        "ctx": {"error": error.msg},
    }
