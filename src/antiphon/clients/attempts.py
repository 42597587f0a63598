"""A client's attempts to connect: address and token, the wait between two of them, which end is the last.

Part of `runtime_py()`.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

DELAYS: Final = (0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 8.0, 15.0)
"""Seconds: the longest waits before the first attempts in a row, of which the last holds for all others."""
MOST_RETRY_AFTER: Final = 300.0
STEADY_AFTER: Final = 5.0
"""Seconds: a connection that lasted as long was a good one, and the next loss is a first one."""
ANSWER_WITHIN: Final = 10.0
"""Seconds from the attempt, the token included, to an open connection."""
TOKEN_WITHIN: Final = 9.0
"""Seconds of them for the token."""
NO_TOKEN: Final = "the token did not come"
LARGEST: Final = 16 << 20
"""Bytes of one message from the server."""
FINAL: Final = (1000, 1008, 3003)
RENEWABLE: Final = 3000
"""A new token may help, once."""
REFUSED: Final = (400, 401, 403, 404, 405, 410, 426)
"""HTTP statuses after which another attempt is no use; 401 and 403 get a second one where a token is asked for."""

Token = Callable[[], Awaitable[str | None] | str | None]
TokenVia = Literal["header", "query", "subprotocol", "message"]
Address = str | Callable[[], Awaitable[str] | str]


class UnusableOptions(Exception):
    """An attempt that fails for a reason of the program's own, so another one is no use."""


class Attempts:
    """All that a client needs to connect once more. `failures` is how often in a row that went wrong."""

    def __init__(
        self,
        address: Address,
        token: Token | None,
        token_parameter: str | None,
        token_via: TokenVia | None,
        headers: Mapping[str, str],
        retry: tuple[int, ...],
        options: Mapping[str, Any],
    ) -> None:
        if not isinstance(address, str) and not callable(address):
            raise TypeError(f"expected an address such as wss://example.org/chat, got {address!r}")
        if token is not None and not callable(token):
            raise TypeError(f"token is a function that returns one, not a {type(token).__name__}: token=lambda: ...")
        self.failures: int = 0
        self._address = absolute(address) if isinstance(address, str) else address
        self._token = token
        self._via = token_via or ("header" if token_parameter is None else "query")
        if self._via not in ("header", "query", "subprotocol", "message"):
            raise ValueError(f"token_via is header, query, subprotocol or message, not {token_via!r}")
        self._token_parameter = token_parameter or "token"
        self._headers = dict(headers)
        self._retry = retry
        self._options: dict[str, Any] = {"max_size": LARGEST, "close_timeout": 1, **options}
        self._refusals = 0
        self._unauthorized = False
        """Closed with 3000, and no message since."""

    async def connect(self, query: Mapping[str, str]) -> tuple[ClientConnection, str | None]:
        """The connection, and the token that is to be its first message. Raises the cause of a failure, InvalidStatus
        for a refusal, UnusableOptions for options that cannot work."""
        async with asyncio.timeout(ANSWER_WITHIN):
            url = self._address if isinstance(self._address, str) else absolute(await _settled(self._address))
            token, via = await self.token(), self._via
            headers, options = dict(self._headers), dict(self._options)
            if token is not None and via == "header":
                headers["Authorization"] = f"Bearer {token}"
            elif token is not None and via == "query":
                query = {**query, self._token_parameter: token}
            elif token is not None and via == "subprotocol":
                options["subprotocols"] = ["bearer", token, *(options.get("subprotocols") or ())]
            try:
                connection = await connect(
                    _with_query(url, query),
                    additional_headers=headers,
                    ping_interval=None,
                    open_timeout=None,
                    **options,
                )
            except (TypeError, ImportError) as error:  # an option that nobody knows; a proxy without its package
                raise UnusableOptions(str(error)) from error
        self._refusals = 0
        return connection, token if via == "message" else None

    @property
    def has_tokens(self) -> bool:
        """Whether there is somebody to ask for one."""
        return self._token is not None

    async def token(self) -> str | None:
        """A new one, in time. Raises TimeoutError, and the exceptions of the function."""
        if self._token is None:
            return None
        limit = asyncio.timeout(TOKEN_WITHIN)
        try:
            async with limit:
                token = await _settled(self._token)
        except TimeoutError:
            if limit.expired():
                raise TimeoutError(NO_TOKEN) from None
            raise
        return None if token is None else str(token)

    def lasted(self, seconds: float) -> None:
        """A connection ended."""
        if seconds >= STEADY_AFTER:
            self.failures = 0
            self._unauthorized = False

    def heard(self) -> None:
        """A message came that is no error: the token was taken."""
        self._unauthorized = False

    def is_unauthorized(self, code: int) -> bool:
        """Whether this close code says so for the second time in a row: a new token did not help."""
        again = code == RENEWABLE and self._unauthorized
        self._unauthorized = self._unauthorized or code == RENEWABLE
        return again

    def is_final(self, code: int) -> bool:
        """Whether this close code means no."""
        return code in FINAL or (code >= 4000 and code not in self._retry)

    def is_refusal(self, status: int) -> bool:
        """Whether this HTTP status does."""
        if status in (401, 403) and self._token is not None:
            self._refusals += 1
            return self._refusals > 1  # the next token may be a better one
        return status in REFUSED

    def delay(self, error: InvalidStatus | None = None) -> float:
        """Seconds to the next attempt, with full jitter: everybody lost the server at once."""
        longest = DELAYS[min(self.failures, len(DELAYS) - 1)]
        self.failures += 1
        return random.random() * longest + (0.0 if error is None else _retry_after(error))


def absolute(address: str) -> str:
    """Raises ValueError for an invalid address of a server."""
    parts = urlsplit(address)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    try:
        is_usable = scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port above 65535, or one that is no number
        is_usable = False
    if not is_usable:
        raise ValueError(f"expected an address such as wss://example.org/chat, got {address!r}")
    return urlunsplit(parts._replace(scheme=scheme, fragment=""))


def _with_query(url: str, more: Mapping[str, str]) -> str:
    parts = urlsplit(url)
    given = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in more]
    return urlunsplit(parts._replace(query=urlencode([*given, *more.items()])))


async def _settled(function: Callable[[], Any]) -> Any:
    value = function()
    return await value if inspect.isawaitable(value) else value


def _retry_after(error: InvalidStatus) -> float:
    try:
        return min(MOST_RETRY_AFTER, max(0.0, float(error.response.headers.get("Retry-After", 0))))
    except ValueError:  # a date: the jitter will do
        return 0.0
