"""Making connections to one Redis: the options in its URL, and ours that differ from redis-py's defaults."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ...errors import UnknownBackend
from ..base import redact

POOL: Final = 16
"""Connections for requests, at most; hearing, publishing and presence have one each besides."""


class Dialer:
    """Makes the connections of one backend. Raises UnknownBackend for a URL that redis-py cannot use."""

    def __init__(self, url: str, timeout: float) -> None:
        """`timeout`: seconds, for connecting, and for a free connection of the pool."""
        self._timeout = timeout
        self._options = _read_url(url)
        self.database: int = int(self._options.get("db", 0))
        try:
            self.connection()
        except (TypeError, ValueError) as error:
            raise UnknownBackend(f"redis cannot use {redact(url)!r}: {error}") from None

    def client(self) -> Redis:
        """A client with a pool of its own, for requests."""
        pool = BlockingConnectionPool(max_connections=POOL, timeout=self._timeout, **self._all_options())
        return Redis(connection_pool=pool)

    def connection(self) -> AbstractConnection:
        """One outside of the pool. It may be silent for as long as nothing happens."""
        options = self._all_options() | {"socket_timeout": None}
        connection: AbstractConnection = options.pop("connection_class", Connection)(**options)
        return connection

    def _all_options(self) -> dict[str, Any]:
        return {
            # every wait in here has a timeout of ours around it; theirs would cost a task per command
            "socket_timeout": None,
            "socket_connect_timeout": self._timeout,
            **self._options,
            # redis-py must not repeat a publish on its own, and the form of push messages depends on the protocol
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "decode_responses": False,
        }


def _read_url(url: str) -> dict[str, Any]:
    where = urlsplit(url) if url.startswith("unix:") else None
    if where is not None and (len(where.path) < 2 or where.netloc.rpartition("@")[2]):
        # redis-py leaves out what stands before the first slash
        raise UnknownBackend(f"expected unix://[user:password@]/path/to/redis.sock[?db=N]; got {redact(url)!r}")
    try:
        options = dict(parse_url(url))
        number = unquote(urlsplit(url).path).strip("/")
        if where is None and number and not number.isdecimal():  # redis-py would take database 0
            raise ValueError(f"the database is a number, not {redact(number)!r}")
        return options
    except ValueError as error:
        # urllib's message may contain a part of the password.
        why = "is the password percent-encoded?" if "@" in url else str(error)
        raise UnknownBackend(f"expected redis://[user:password@]host[:port][/db]; got {redact(url)!r}: {why}") from None
