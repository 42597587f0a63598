"""One HTTP GET whose time and bytes are bounded as a whole, and that never blocks the event loop.

The standard library bounds each read only: a peer that drips holds its thread for as long as it likes. Knows nothing of
the content. No redirects, no proxies, no cookies, no compression.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

import httptools

from antiphon.shown import shown

HEAD_BYTES: Final = 65536
"""Bytes of a response around its body, at most."""

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class NotFetched(Exception):
    """No usable answer. Says why in one line."""


def check_url(url: object, *, plain_http: bool) -> SplitResult:
    """The address, if it can be fetched. Raises TypeError, ValueError."""
    if not isinstance(url, str):
        raise TypeError(f"expected the address of a JWKS, a str, got {url!r}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{shown(url)!r} is no address: {error}") from None
    if parts.scheme not in ("https", "http") or not parts.hostname or port == 0 or not url.isprintable() or " " in url:
        raise ValueError(f"expected an address, as https://issuer.example/.well-known/jwks.json, got {shown(url)!r}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the address of a JWKS holds no user or password: give JWKS(fetch=) a function that has them")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK and not plain_http:
        raise ValueError(
            f"keys from {shown(url)!r} could be anybody's: use https or, in a network of yours, "
            "JWKS(url, plain_http=True)"
        )
    return parts


async def fetched(parts: SplitResult, *, timeout: float, max_bytes: int) -> bytes:
    """The body of a 200, at most `max_bytes` of it, within `timeout` seconds in all. Raises `NotFetched`."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout):
            context = await asyncio.to_thread(ssl.create_default_context) if parts.scheme == "https" else None
            port = parts.port or (443 if context is not None else 80)
            reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context)
            writer.write(_request(parts))
            return await _body(reader, max_bytes)
    except TimeoutError:
        raise NotFetched(f"no whole answer within {timeout:g} s") from None
    except (OSError, ValueError, httptools.HttpParserError) as error:  # UnicodeError of an invalid name, too
        raise NotFetched(f"{type(error).__name__}: {shown(error, 200)}") from None
    finally:
        if writer is not None:
            writer.transport.abort()


def _request(parts: SplitResult) -> bytes:
    target = quote(parts.path or "/", safe="%/:@!$&'()*+,;=~") + (
        f"?{quote(parts.query, safe='%/:@!$&()*+,;=~?')}" if parts.query else ""
    )
    name = parts.hostname or ""
    host = f"[{name}]" if ":" in name else name.encode("idna").decode()
    host = host if parts.port is None else f"{host}:{parts.port}"
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        "Accept: application/json",
        "Accept-Encoding: identity",
        "User-Agent: antiphon",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def _body(reader: asyncio.StreamReader, max_bytes: int) -> bytes:
    answer = _Answer(max_bytes)
    parser = httptools.HttpResponseParser(answer)
    answer.parser = parser
    taken = 0
    while not answer.complete:
        data = await reader.read(HEAD_BYTES)
        taken += len(data)
        if not data:
            if not answer.ends_with_the_connection:
                raise NotFetched("the answer was cut off")
            break
        if taken > max_bytes + HEAD_BYTES:
            raise NotFetched(f"the answer has more than {max_bytes} bytes")
        try:
            parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, NotFetched):
                raise error.__context__ from None
            raise
    return bytes(answer.body)


class _Answer:
    """The callbacks of httptools for a response."""

    parser: httptools.HttpResponseParser

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._headers: dict[bytes, bytes] = {}
        self._begun = False
        self.body = bytearray()
        self.complete = False

    @property
    def ends_with_the_connection(self) -> bool:
        """Whether the body has no other end (RFC 9112 §6.3)."""
        return self._begun and not {b"content-length", b"transfer-encoding"} & self._headers.keys()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if 100 <= status < 200 and status != 101:  # the answer is still to come (RFC 9110 §15.2)
            self._headers.clear()
            return
        if 300 <= status < 400:
            target = shown(self._headers.get(b"location", b""), 200)
            raise NotFetched(f"HTTP {status}, a redirect to '{target}', which is not followed: name the last address")
        if status != 200:
            raise NotFetched(f"HTTP {status}")
        if self._headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise NotFetched("the answer is compressed, and was asked not to be")
        self._begun = True

    def on_body(self, data: bytes) -> None:
        if len(self.body) + len(data) > self._max_bytes:
            raise NotFetched(f"the answer has more than {self._max_bytes} bytes")
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = self._begun
