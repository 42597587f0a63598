"""The sources of a token: the parts of a handshake that pages and programs can put one into, or the first message.

Knows nothing of a token's meaning. It takes away the parts of a token that endpoints must not see.
"""

from __future__ import annotations

import base64
import binascii
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final

import anyio
from starlette.requests import HTTPConnection

from antiphon.connection import WebSocket, WebSocketState
from antiphon.connection.denials import subprotocol_to_answer
from antiphon.masking import keep_secret
from antiphon.security import get_authorization_scheme_param
from antiphon.types import ACCEPTED_KEY, ANSWER_KEY, Scope

from .challenge import InvalidToken

__all__ = ["COOKIE", "FIRST_MESSAGE", "HEADER", "LONGEST_TOKEN", "QUERY", "SUBPROTOCOL", "TokenSource"]

LONGEST_TOKEN: Final = 8192
"""Characters: the limit for a header on most servers and proxies, and more than tokens of honest issuers have."""

BEARER: Final = "bearer"
KUBERNETES: Final = "base64url.bearer.authorization.k8s.io."
OFFER_KEY: Final = "antiphon.offer"
"""Key in the scope: the `_Offer`, once the subprotocols were looked at."""
FIRST_KEY: Final = "antiphon.first_message"
"""Key in the scope: the `_Kept` token of the first message, once it was read."""


class TokenSource(ABC):
    """A place where a token may be. `HEADER`, `SUBPROTOCOL`, `COOKIE(name)`, `QUERY(name)`, `FIRST_MESSAGE()`.

    For example:

        places: list[TokenSource] = [HEADER, SUBPROTOCOL, COOKIE("session")]
        logged_in = WebSocketBearer(places)
    """

    @property
    @abstractmethod
    def described(self) -> str:
        """Where it is, in words for documents: "in the header Authorization"."""

    @abstractmethod
    def find(self, connection: HTTPConnection) -> str | None:
        """The token, or None. Raises `InvalidToken` for something that was meant as one and is malformed.

        Called for each connection, before it is accepted.
        """

    async def receive(self, connection: HTTPConnection, longest: int) -> str | None:
        """`find` for a source that may take time."""
        return self.find(connection)


@dataclass(frozen=True, slots=True)
class _Header(TokenSource):
    @property
    def described(self) -> str:
        return "in the header Authorization (Bearer)"

    def find(self, connection: HTTPConnection) -> str | None:
        scheme, token = get_authorization_scheme_param(connection.headers.get("authorization"))
        return token if scheme.lower() == BEARER and token else None


@dataclass(frozen=True, slots=True)
class _Subprotocol(TokenSource):
    @property
    def described(self) -> str:
        return "as the bearer subprotocol"

    def find(self, connection: HTTPConnection) -> str | None:
        if connection.scope["type"] != "websocket":
            return None
        offer = connection.scope.get(OFFER_KEY)
        if offer is None:
            offer = connection.scope[OFFER_KEY] = _take_offer(connection)
        if offer.fault:
            raise InvalidToken(offer.fault)
        token: str | None = offer.token
        return token


HEADER: Final[TokenSource] = _Header()
"""`Authorization: Bearer <token>` (RFC 6750 §2.1): programs, and HTTP requests of pages. No browser's WebSocket."""

SUBPROTOCOL: Final[TokenSource] = _Subprotocol()
"""`new WebSocket(url, ["bearer", token])`, or Kubernetes' `base64url.bearer.authorization.k8s.io.<base64url(token)>`.

The endpoint sees neither token among the subprotocols and headers. An `accept()` that selects none answers `bearer`,
with Kubernetes' form the first other that is offered: there the page has to offer one more, or browsers end the
connection. The subprotocol behind `bearer` has to be a token of RFC 9110, which JWTs are. `/`, `=` and `:` are not
allowed there, and Kubernetes' form takes them.
"""


@dataclass(frozen=True, slots=True)
class COOKIE(TokenSource):
    """The cookie of this `name`. Browsers send it from pages of any site: let `origins` stand before it.

    For example:

        logged_in = WebSocketBearer([COOKIE("session")])
    """

    name: str

    def __post_init__(self) -> None:
        """Raises TypeError."""
        _check_name("COOKIE", self.name)

    @property
    def described(self) -> str:
        """Where it is, in words."""
        return f"in the cookie {self.name}"

    def find(self, connection: HTTPConnection) -> str | None:
        """The cookie's value."""
        return connection.cookies.get(self.name) or None


@dataclass(frozen=True, slots=True)
class QUERY(TokenSource):
    """The query parameter of this `name`. Addresses end up in logs and histories: for tokens that live seconds.

    antiphon's logs mask its values under any name.

        invited = WebSocketBearer([QUERY("invite")])
    """

    name: str

    def __post_init__(self) -> None:
        """Raises TypeError."""
        _check_name("QUERY", self.name)
        keep_secret(self.name)

    @property
    def described(self) -> str:
        """Where it is, in words."""
        return f"in the query parameter {self.name}"

    def find(self, connection: HTTPConnection) -> str | None:
        """The parameter's value."""
        return connection.query_params.get(self.name) or None


@dataclass(frozen=True, slots=True)
class FIRST_MESSAGE(TokenSource):
    """The first message: the token as text, or `{"type": "auth", "token": …}`. WebSockets only. Requests have none.

    Accepts the connection and waits for `timeout` seconds. A message that comes later, is binary, is larger than a
    token or is no token is answered with Close 3000. The endpoint's own `accept()` then does nothing. `subprotocol` is
    answered if the client offers it. None: the first of them that is no token. Stands last among the sources.

        logged_in = WebSocketBearer([FIRST_MESSAGE(timeout=5)])  # {"type": "auth", "token": "…"}
    """

    timeout: float = 10.0
    subprotocol: str | None = None

    def __post_init__(self) -> None:
        """Raises TypeError, ValueError."""
        if isinstance(self.timeout, bool) or not isinstance(self.timeout, int | float):
            raise TypeError(f"FIRST_MESSAGE(timeout): expected seconds, got {self.timeout!r}")
        if not 0 < self.timeout <= 3600:
            raise ValueError(f"FIRST_MESSAGE(timeout): expected more than 0 s, an hour at most; got {self.timeout!r}")
        if not (self.subprotocol is None or isinstance(self.subprotocol, str)):
            raise TypeError(f"FIRST_MESSAGE(subprotocol): expected a str, got {self.subprotocol!r}")

    @property
    def described(self) -> str:
        """Where it is, in words."""
        return "in the first message"

    def find(self, connection: HTTPConnection) -> str | None:
        """Nothing: a handshake has no message."""
        return None

    async def receive(self, connection: HTTPConnection, longest: int) -> str | None:
        """Accept, and read one message, once for a connection. Raises `InvalidToken`."""
        if connection.scope["type"] != "websocket":
            return None
        if (kept := connection.scope.get(FIRST_KEY)) is not None:
            return str(kept.token) if kept.token else None
        if not isinstance(connection, WebSocket):
            raise RuntimeError(
                "FIRST_MESSAGE needs the WebSocket of an antiphon route, whose accept() may follow: register the "
                f"endpoint with an antiphon App or APIRouter; this one has a {type(connection).__module__}.WebSocket"
            )
        await self._accept(connection)
        token = None
        try:
            with anyio.fail_after(self.timeout):
                token = _token_in(await connection.receive_payload(), longest)
        except TimeoutError:
            pass
        connection.scope[FIRST_KEY] = _Kept(token)
        return token

    async def _accept(self, websocket: WebSocket) -> None:
        if websocket.application_state is not WebSocketState.CONNECTING:
            return
        scope = websocket.scope
        offered = scope.get("subprotocols") or ()
        answer = self.subprotocol if self.subprotocol in offered else scope.get(ANSWER_KEY)
        if answer is None:
            answer = subprotocol_to_answer(offered)
        await websocket.accept(answer)
        scope[ACCEPTED_KEY] = answer or ""


@dataclass(frozen=True, slots=True, repr=False)
class _Kept:
    """A token in a scope that somebody may print: it is not shown."""

    token: str | None
    fault: str = ""


def _check_name(source: str, name: object) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f'{source}(name): expected a name, as {source}("token"), got {name!r}')


def _token_in(data: str | bytes, longest: int) -> str:
    """The token of a first message. Raises `InvalidToken`."""
    if not isinstance(data, str):
        raise InvalidToken("the first message is to be the token as text, and came binary")
    if len(data) > 2 * longest:  # of which some are the JSON around it
        raise InvalidToken(f"the first message has {len(data)} characters, and a token at most {longest}")
    if not data.lstrip().startswith("{"):
        return data.strip()
    try:
        message: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidToken("the first message is neither a token nor JSON") from None
    token = message.get("token")
    if message.get("type") != "auth" or not isinstance(token, str):
        raise InvalidToken('the first message is JSON, and not {"type": "auth", "token": "…"}')
    return token


def _take_offer(connection: HTTPConnection) -> _Kept:
    """Take the token out of the subprotocols that the client offers, and settle the answer of `accept()`."""
    scope = connection.scope
    offered = list(scope.get("subprotocols") or ())
    tokens, rest, answer = _sorted_out(offered)
    if not tokens:
        return _Kept(None)
    _replace_offered(scope, rest)
    if answer is None:
        answer = next(iter(rest), None)
    scope.setdefault(ANSWER_KEY, answer)
    if len(tokens) > 1:
        return _Kept(None, "the client offers several tokens as subprotocols")
    return _of_kubernetes(tokens[0]) if tokens[0].startswith(KUBERNETES) else _Kept(tokens[0])


def _sorted_out(offered: list[str]) -> tuple[list[str], list[str], str | None]:
    """The offers that hold a token, the others, and the `bearer` before a token."""
    tokens, rest, bearer = [], [], None
    previous = ""
    for name in offered:
        if name.startswith(KUBERNETES):
            tokens.append(name)
        elif previous.lower() == BEARER:
            tokens.append(name)
            bearer = previous
            name = ""
        else:
            rest.append(name)
        previous = name
    return tokens, rest, bearer


def _of_kubernetes(name: str) -> _Kept:
    encoded = name.removeprefix(KUBERNETES)
    try:
        token = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return _Kept(None, "the token in the subprotocol is no base64url")
    return _Kept(token) if token else _Kept(None, "the token in the subprotocol is empty")


def _replace_offered(scope: Scope, rest: list[str]) -> None:
    """Leave only `rest` among the offered subprotocols, in place: others hold the same lists."""
    if isinstance(scope["subprotocols"], list):
        scope["subprotocols"][:] = rest
    else:
        scope["subprotocols"] = rest
    name = b"sec-websocket-protocol"
    headers = [pair for pair in scope["headers"] if pair[0].lower() != name]
    if rest:
        headers.append((name, ", ".join(rest).encode("latin-1")))
    if isinstance(scope["headers"], list):
        scope["headers"][:] = headers
    else:
        scope["headers"] = headers
