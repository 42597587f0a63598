"""The ASGI scope of a WebSocket request (ASGI WebSocket spec 2.5), and header bytes shared between connections.

Thousands of idle connections hold their headers for as long as they live. Most of these are the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

from antiphon.masking import masked_query
from antiphon.types import Scope

ASGI_SPEC_VERSION: Final = "2.5"

_SHARED_VALUES_OF: Final = frozenset(
    (
        b"host",
        b"connection",
        b"pragma",
        b"cache-control",
        b"user-agent",
        b"upgrade",
        b"origin",
        b"sec-websocket-version",
        b"accept-encoding",
        b"accept-language",
        b"accept",
        b"sec-websocket-extensions",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"sec-fetch-site",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-port",
    )
)
_OWN_VALUES_OF: Final = (
    b"cookie",
    b"authorization",
    b"sec-websocket-key",
    b"referer",
    b"x-forwarded-for",
    b"x-real-ip",
    b"x-request-id",
    b"forwarded",
)
_COMMON_NAMES: Final = {name: name for name in (*_SHARED_VALUES_OF, *_OWN_VALUES_OF)}
_AS_IT_IS: Final = "".join(sign for sign in map(chr, range(0x21, 0x7F)) if sign != '"')
NO_DETAILS: Final[Mapping[str, Any]] = MappingProxyType({})
"""The details of an ASGI extension that has none: one object for all scopes."""

_MAX_SHARED: Final = 1024
_MAX_SHARED_SIZE: Final = 256


class SharedHeaders:
    """Gives equal headers one object. Never those that may hold a secret; bounded in number and size."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[bytes, bytes], tuple[bytes, bytes]] = {}

    def share(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """`headers` as a new list of shared pairs."""
        pairs = self._pairs
        result = []
        for pair in headers:
            known = pairs.get(pair)
            if known is None:
                name, value = pair
                known = (_COMMON_NAMES.get(name, name), value)
                if name in _SHARED_VALUES_OF and len(value) <= _MAX_SHARED_SIZE and len(pairs) < _MAX_SHARED:
                    pairs[known] = known
            result.append(known)
        return result


class SharedAddresses:
    """Gives connections in a row one object for the common parts of their addresses: ours, and the client's host, which
    behind a proxy is one for all."""

    def __init__(self) -> None:
        self._host = ""
        self._server: tuple[str, int | None] | None = None

    def share(
        self, client: tuple[str, int] | None, server: tuple[str, int | None] | None
    ) -> tuple[tuple[str, int] | None, tuple[str, int | None] | None]:
        """The scope's `client` and `server`, equal to those given."""
        if server != self._server:
            self._server = server
        if client is not None:
            if client[0] == self._host:
                client = (self._host, client[1])
            else:
                self._host = client[0]
        return client, self._server


class SplitTarget(NamedTuple):
    """A request's target as ASGI has it."""

    path: str
    raw_path: bytes
    query: bytes


class SharedTargets:
    """Gives connections to one path in a row one object for it. Never one with a query, which may hold a secret."""

    def __init__(self, root_path: str) -> None:
        self._root_path: Final = root_path
        self._last: tuple[bytes, SplitTarget] = (b"", SplitTarget("", b"", b""))

    def read(self, target: bytes) -> SplitTarget:
        """The path as uvicorn's HTTP protocols build it: `root_path` in front of `path` and `raw_path`."""
        last, known = self._last
        if target == last:
            return known
        read = _read_target(target, self._root_path)
        if not read.query:
            self._last = (target, read)
        return read


def _read_target(target: bytes, root_path: str) -> SplitTarget:
    raw_path, _, query = target.partition(b"?")
    if not raw_path.startswith(b"/"):
        raw_path = _origin_form(raw_path)
    path = raw_path.decode("latin-1")
    if "%" in path or not path.isascii():
        path = unquote(raw_path)
    if root_path:
        path = root_path + path
        raw_path = root_path.encode() + raw_path
    return SplitTarget(path, raw_path, query)


def build_scope(
    target: SplitTarget,
    headers: list[tuple[bytes, bytes]],
    subprotocols: list[str],
    *,
    asgi: dict[str, str],
    scheme: str,
    root_path: str,
    client: tuple[str, int] | None,
    server: tuple[str, int | None] | None,
    state: dict[str, Any],
    extensions: dict[str, Any],
) -> Scope:
    """The scope. Most connections share the objects of their common parts."""
    path, raw_path, query = target
    return {
        "type": "websocket",
        "asgi": asgi,
        "http_version": "1.1",
        "scheme": scheme,
        "path": path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": root_path,
        "headers": headers,
        "client": client,
        "server": server,
        "subprotocols": subprotocols,
        "state": state,
        "extensions": extensions,
    }


def path_of(target: bytes) -> str:
    """The decoded path alone, for a request that is refused before there is a scope."""
    return unquote(target.partition(b"?")[0])


def path_with_query(scope: Scope) -> str:
    """For log lines, as uvicorn writes it, without the values of secrets (`antiphon.masking`), and nothing in it that
    could end the quotes around it or the line."""
    path = quote(scope["path"])
    query: bytes = scope["query_string"]
    return masked_query(f"{path}?{quote(query, safe=_AS_IT_IS)}") if query else path


def _origin_form(target: bytes) -> bytes:
    """The path of a target in absolute form, which servers must accept (RFC 9112 §3.2.2)."""
    _, separator, rest = target.partition(b"://")
    if not separator:
        return target
    _, slash, path = rest.partition(b"/")
    return slash + path if slash else b"/"
