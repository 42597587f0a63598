"""A bearer token, wherever it comes from, as a security dependency: the base of all that say who somebody is by one."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Sequence
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import HTTPConnection

from antiphon.dependencies.inspection import CallKind, call_kind
from antiphon.events import Refusal
from antiphon.exceptions import HTTPException
from antiphon.identity import Identity
from antiphon.security import HTTPBearer, SecurityScopes
from antiphon.shown import shown

from .admission import Verify, admit
from .challenge import InvalidToken, MissingToken, refusal
from .scopes import check_scopes
from .sources import COOKIE, FIRST_KEY, FIRST_MESSAGE, HEADER, LONGEST_TOKEN, QUERY, SUBPROTOCOL, TokenSource

Verifier: TypeAlias = Callable[[str], Awaitable[Identity | None] | Identity | None]
"""From a token to its identity, sync (run in the thread pool) or async. None, or `InvalidToken`: a bad token."""

FOUND_KEY: Final = "antiphon.found"
"""Key in the scope: the result of each scheme for this connection, so that it looks once."""

VISIBLE: Final = bytes(range(0x21, 0x7F))
"""Of ASCII: deleting them all takes half the time of asking whether others are there (benchmarks/jwt_micro.py)."""


class WebSocketBearer(HTTPBearer):
    """A bearer token from where a browser can put it, as a dependency for WebSockets and requests.

        async def by_session(token: str) -> Identity | None:
            user = sessions.get(token)
            return None if user is None else Identity(user=user)

        session = WebSocketBearer([COOKIE("session"), SUBPROTOCOL], verify=by_session)

        @app.websocket("/me", dependencies=[Depends(session)])
        async def me(websocket: WebSocket, who: Identity) -> None: ...

    `sources` say where to look, in order. The first token found counts. Without `verify` it gives the token, a str.
    With it, it gives the `Identity` that `verify(token)` returns, which from then on is the connection's:
    `websocket.identity`, every parameter annotated `Identity`, the hub's user. `verify` may be async. A sync one runs
    in the thread pool. For a bad token it returns None or raises `InvalidToken`. Scopes that `Security(…, scopes=[…])`
    demands have to be among the identity's.

    No token: 401, or None with `auto_error=False`. A token that is not good, or has more than `longest` characters:
    401. A scope that is missing: 403. After accept these are Close 3000 and 3003. `scheme_name` (else the class's
    name), `description` and `bearerFormat` ("JWT") are for documents. Raises TypeError and ValueError for arguments
    that cannot work.
    """

    is_called_as_dependency: ClassVar[bool] = True
    """Its objects are the dependencies. The class itself checks nobody."""

    is_identifying: bool = False
    """Whether it gives an `Identity`. Then parameters annotated so have one behind it."""

    def __init__(
        self,
        sources: Sequence[TokenSource] = (HEADER, SUBPROTOCOL),
        verify: Verifier | None = None,
        *,
        auto_error: bool = True,
        longest: int = LONGEST_TOKEN,
        scheme_name: str | None = None,
        description: str | None = None,
        bearerFormat: str | None = None,  # FastAPI's and OpenAPI's spelling
    ) -> None:
        self.sources: tuple[TokenSource, ...] = _checked_sources(sources)
        if description is None:
            description = f"A token {_places(self.sources)}."
        super().__init__(
            bearerFormat=bearerFormat, scheme_name=scheme_name, description=description, auto_error=auto_error
        )
        if len(self.sources) == 1 and isinstance(only := self.sources[0], COOKIE | QUERY):
            self.model.name, self.model.place = only.name, "cookie" if isinstance(only, COOKIE) else "query"
        if isinstance(longest, bool) or not isinstance(longest, int) or longest < 1:
            raise ValueError(f"{type(self).__name__}(longest): expected a number of characters, got {longest!r}")
        self.longest: int = longest
        self.verify: Verify | None = None
        """From a token to its identity, for renewals of the connection."""
        if verify is not None:
            self.verify = self._verifying(verify)
            self.is_identifying = True

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The signature of a call, with FastAPI's class for scopes where there is one: it knows no other."""
            if name != "__signature__":
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            theirs = sys.modules.get("fastapi.security")
            kinds = {"connection": HTTPConnection, "scopes": getattr(theirs, "SecurityScopes", SecurityScopes)}
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            return inspect.Signature([inspect.Parameter(name, kind, annotation=kinds[name]) for name in kinds])

    async def __call__(  # type: ignore[override]  # it gives something else than its base
        self, connection: HTTPConnection, scopes: SecurityScopes | None = None
    ) -> Identity | str | None:
        """The identity or, without `verify`, the token. None for no token with `auto_error=False`."""
        try:
            found = await self._found(connection)
            if found is None:
                if self.auto_error:
                    missing = self.make_not_authenticated_error()
                    if isinstance(missing, MissingToken) and FIRST_KEY in connection.scope:
                        missing.reason = Refusal.TOKEN_LATE
                    raise missing
                return None
            if isinstance(found, Identity) and scopes is not None:
                check_scopes(found, tuple(scopes.scopes))
        except StarletteHTTPException as error:
            raise refusal(connection, error) from error.__cause__
        return found

    async def admit(self, connection: HTTPConnection, identity: Identity) -> Identity:
        """Admit an identity that a test's override has found. As `admit` of the gate does."""
        return await admit(connection, identity, self.verify)

    def make_not_authenticated_error(self) -> HTTPException:
        """The exception for a connection without a token."""
        return MissingToken(f"no token: one is expected {_places(self.sources)}")

    async def _found(self, connection: HTTPConnection) -> Identity | str | None:
        """The result for the connection's token, looked up once for all dependencies."""
        kept: dict[WebSocketBearer, Identity | str | None] = connection.scope.setdefault(FOUND_KEY, _Kept())
        if self not in kept:
            token = await self._token(connection)
            kept[self] = None if token is None else await self._identified(connection, token)
        return kept[self]

    async def _token(self, connection: HTTPConnection) -> str | None:
        if SUBPROTOCOL in self.sources:
            _hide(connection)
        for source in self.sources:
            token = await source.receive(connection, self.longest)
            if token is not None:
                self._check_shape(token)
                return token
        return None

    def _check_shape(self, token: str) -> None:
        """Raises `InvalidToken` for a token that needs no closer look."""
        if len(token) > self.longest:
            raise InvalidToken(f"the token has {len(token)} characters, and {self.longest} are the most")
        if not (token and token.isascii()) or token.encode().translate(None, VISIBLE):
            raise InvalidToken("the token is empty, or has characters that no token has (RFC 6750 §2.1)")

    async def _identified(self, connection: HTTPConnection, token: str) -> Identity | str:
        if self.verify is None:
            return token
        return await admit(connection, await self.verify(token), self.verify)

    def _verifying(self, verify: Verifier) -> Verify:
        """The user's function as `admission.Verify`: async, and certain to give an identity."""
        if not callable(verify):
            raise TypeError(f"{type(self).__name__}(verify): expected a function of a token, got {verify!r}")
        is_async = call_kind(verify) is CallKind.ASYNC

        async def verified(token: str) -> Identity:
            self._check_shape(token)
            try:
                found: Any = verify(token) if is_async else await run_in_threadpool(verify, token)
                if type(found) is CoroutineType or inspect.isawaitable(found):
                    found = await found
            except StarletteHTTPException as error:
                raise _challenging(error) from None
            if found is None:
                raise InvalidToken("verify() knows no such token; log in again for a new one")
            if not isinstance(found, Identity):
                raise TypeError(
                    f"verify() of {self.scheme_name} gives an Identity, or None, and gave a {type(found).__name__}: "
                    "return Identity(user=...)"
                )
            return found

        return verified


class _Kept(dict[WebSocketBearer, Identity | str | None]):
    """In a scope, which somebody may print: tokens are not shown."""

    def __repr__(self) -> str:
        return f"<{len(self)}>"


def _challenging(error: StarletteHTTPException) -> StarletteHTTPException:
    """A 401 of the user's with the challenge that RFC 9110 §11.6.1 demands."""
    named = {name.lower() for name in error.headers or ()}
    if error.status_code != 401 or "www-authenticate" in named:
        return error
    challenged = InvalidToken(shown(error.detail), detail=str(error.detail))
    challenged.headers = {**(error.headers or {}), **(challenged.headers or {})}
    return challenged


def _places(sources: Sequence[TokenSource]) -> str:
    *others, last = (source.described for source in sources)
    return f"{', '.join(others)} or {last}" if others else last


def _hide(connection: HTTPConnection) -> None:
    """Take the token out of the subprotocols even where another source has one."""
    try:
        SUBPROTOCOL.find(connection)
    except InvalidToken:
        pass  # told in its turn


def _checked_sources(sources: object) -> tuple[TokenSource, ...]:
    if isinstance(sources, TokenSource):
        raise TypeError(f"sources: expected several, as [HEADER, SUBPROTOCOL]; a single one is [{sources!r}]")
    found = tuple(sources) if isinstance(sources, Sequence) else ()
    if not found:
        raise TypeError(f"sources: expected at least one, as [HEADER, SUBPROTOCOL], got {sources!r}")
    for source in found:
        if not isinstance(source, TokenSource):
            if isinstance(source, type) and issubclass(source, TokenSource):
                made = {QUERY: 'QUERY("token")', COOKIE: 'COOKIE("session")'}.get(source, f"{source.__name__}()")
                raise TypeError(f"sources: {source.__name__} is a class: write {made}")
            raise TypeError(f'sources: expected HEADER, SUBPROTOCOL, COOKIE("name"), …, got {source!r}')
    first = [place for place, source in enumerate(found) if isinstance(source, FIRST_MESSAGE)]
    if first and first != [len(found) - 1]:
        raise ValueError("sources: FIRST_MESSAGE() stands once, and last: it waits for a message, the others only look")
    return found
