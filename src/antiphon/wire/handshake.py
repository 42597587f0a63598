"""The opening handshake on both sides (RFC 6455 §4; the message grammar of RFC 9112).

Owns the HTTP head as bytes, read strictly: an ambiguous head is refused. Knows nothing of sockets, time, or the
application's decision on a request.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from .errors import HandshakeError
from .extensions import is_token, parse_tokens

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
VERSION: Final = b"13"
MAX_HEAD: Final = 64 * 1024
"""Bytes of request line and headers: the limit of uvicorn and most proxies, cookies and tokens included."""
MAX_HEADERS: Final = 256
MAX_SUBPROTOCOLS: Final = 128
"""Far more than any client offers; thirty thousand fit into a head, and into every connection's memory."""

_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e\x80-\xff]+) HTTP/(\d)\.(\d)\r\n")
_ABSOLUTE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 (\d{3})(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")
_HEADERS: Final = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+")
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_HOST: Final = re.compile(rb"[\x21\x24-\x2e\x30-\x3b\x3d\x41-\x5b\x5d\x5f\x61-\x7a\x7e%]*")
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")
_SINGLE: Final = (b"host", b"sec-websocket-key", b"sec-websocket-version", b"content-length", b"origin")
_CHECKED: Final = frozenset((*_SINGLE, b"transfer-encoding", b"upgrade", b"connection", b"sec-websocket-protocol"))


@dataclass(frozen=True, slots=True)
class Request:
    """A client's HTTP head. Header names are lower case, values stripped."""

    method: str
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    consumed: int
    """Bytes of the input that the head took. WebSocket frames follow."""

    def values(self, name: bytes) -> list[bytes]:
        """All values of the header `name` (lower case), in order."""
        return [value for key, value in self.headers if key == name]


@dataclass(frozen=True, slots=True)
class Response:
    """A server's HTTP head. Header names are lower case, values stripped."""

    status: int
    reason: str
    headers: Sequence[tuple[bytes, bytes]]
    consumed: int

    def values(self, name: bytes) -> list[bytes]:
        """All values of the header `name` (lower case), in order."""
        return [value for key, value in self.headers if key == name]


# ---------------------------------------------------------------- server


def parse_request(data: bytes | bytearray, *, max_head: int = MAX_HEAD) -> Request | None:
    """The request at the start of `data`. None while its head is incomplete.

    Raises HandshakeError: 400 for bytes that are not HTTP, 414 and 431 for excessive length, 505 for a version other
    than 1.1. Noise at its start, lines ended by a bare LF, and too much are refused without waiting for the head's end.
    """
    head = _head(data, max_head, too_long=431)
    if head is None:
        return None
    match = _REQUEST_LINE.match(head)
    if match is None:
        raise _malformed(head, "malformed request line")
    method, target, major, minor = match.groups()
    if major != b"1" or minor == b"0":  # RFC 6455 §4.1: at least 1.1; 2 and 3 have another handshake
        raise HandshakeError(505, "WebSocket handshakes need HTTP/1.1")
    return Request(method.decode(), target, _headers(head, match.end()), len(head) + 2)


def validate(request: Request) -> bytes:
    """The Sec-WebSocket-Key of a request that is a correct opening handshake (RFC 6455 §4.2.1).

    Raises HandshakeError with the status, headers and reason to answer with.
    """
    if request.method != "GET":
        raise HandshakeError(405, "a WebSocket handshake is a GET request", [(b"allow", b"GET")])
    if not request.target.startswith(b"/") and not _ABSOLUTE.match(request.target):  # RFC 9112 §3.2
        raise HandshakeError(400, "the request target is neither a path nor a URL")
    values = _collected(request.headers)
    for name in _SINGLE:
        if name in values and len(values[name]) > 1:
            raise HandshakeError(400, f"repeated {name.decode().title()} header")
    host = values.get(b"host")
    if host is None or not _HOST.fullmatch(host[0]):
        raise HandshakeError(400, "missing or malformed Host header")
    if b"transfer-encoding" in values or values.get(b"content-length", [b"0"]) != [b"0"]:
        raise HandshakeError(400, "a WebSocket handshake has no body")
    _require_upgrade(values, 426, [(b"upgrade", b"websocket"), (b"connection", b"Upgrade")])
    if values.get(b"sec-websocket-version") != [VERSION]:
        raise HandshakeError(426, "the WebSocket version is 13", [(b"sec-websocket-version", VERSION)])  # §4.4
    key = values.get(b"sec-websocket-key")
    if key is None:
        raise HandshakeError(400, "missing Sec-WebSocket-Key header")
    if not _KEY.fullmatch(key[0]):
        raise HandshakeError(400, "Sec-WebSocket-Key is not 16 bytes in base64")
    if b"sec-websocket-protocol" in values:
        subprotocols(request)
    return key[0]


def _collected(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    """The values of the headers that a handshake is judged by."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in _CHECKED:
            if name in values:
                values[name].append(value)
            else:
                values[name] = [value]
    return values


def subprotocols(request: Request) -> list[str]:
    """The client's offers, in order of preference. HandshakeError 400 for a violation of RFC 6455 §4.1."""
    values = request.values(b"sec-websocket-protocol")
    if not values:
        return []
    if sum(value.count(b",") for value in values) + len(values) > MAX_SUBPROTOCOLS:
        raise HandshakeError(400, "too many subprotocols")
    offered = parse_tokens(values)
    if not offered or len(set(offered)) != len(offered):
        raise HandshakeError(400, "malformed Sec-WebSocket-Protocol header")
    return offered


def accept_key(key: bytes) -> bytes:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 §4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())


def accept_response(
    key: bytes,
    *,
    subprotocol: str | None = None,
    extensions: bytes | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
    lines: bytes = b"",
) -> bytes:
    """The 101 response that opens the connection.

    `headers` are the application's. `lines` are others from `header_lines`, which go before them. Raises ValueError for
    a name or value that HTTP does not allow, and for headers that are the handshake's own.
    """
    parts = [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        accept_key(key),
    ]
    if subprotocol is not None:
        if not is_token(subprotocol):
            raise ValueError(f"subprotocol {subprotocol!r} is not a token (RFC 6455 §4.2.2)")
        parts.append(b"\r\nSec-WebSocket-Protocol: " + subprotocol.encode())
    if extensions is not None:
        parts.append(b"\r\nSec-WebSocket-Extensions: " + extensions)
    parts += (lines, header_lines(headers), b"\r\n\r\n")
    return b"".join(parts)


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers beside the handshake's own, each behind a line break. Raises ValueError, as `accept_response`."""
    lines = []
    for name, value in headers:
        if name.lower() in _OWN:
            raise ValueError(f"header {name.decode('latin-1')} belongs to the handshake")
        lines.append(b"\r\n" + header_line(name, value))
    return b"".join(lines)


def refuse_response(
    status: int, headers: Iterable[tuple[bytes, bytes]] = (), body: bytes = b"", *, content_type: bytes | None = None
) -> bytes:
    """A whole response that turns a client away. The TCP connection is to be closed behind it."""
    try:
        phrase = HTTPStatus(status).phrase.encode()
    except ValueError:
        phrase = b""
    lines = [b"HTTP/1.1 %d %s" % (status, phrase)]
    names = set()
    for name, value in headers:
        names.add(name.lower())
        lines.append(header_line(name, value))
    if content_type is not None and b"content-type" not in names:
        lines.append(b"Content-Type: " + content_type)
    if b"content-length" not in names:
        lines.append(b"Content-Length: %d" % len(body))
    if b"connection" not in names:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def header_line(name: bytes, value: bytes) -> bytes:
    """One header as it goes on the wire. Raises ValueError for characters that HTTP does not allow: no header is ever
    split."""
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError(f"invalid header {name + b': ' + value!r} (RFC 9110 §5.1, §5.5)")
    return name + b": " + value


# ---------------------------------------------------------------- client


def new_key(random: bytes | None = None) -> bytes:
    """A Sec-WebSocket-Key: 16 bytes (random ones when none are given) in base64 (RFC 6455 §4.1)."""
    return base64.b64encode(os.urandom(16) if random is None else random)


def build_request(
    host: str,
    target: str,
    key: bytes,
    *,
    subprotocols: Sequence[str] = (),
    extensions: bytes | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """A client's opening handshake. `host` is the Host header's value, `target` the path and query, already quoted."""
    encoded = target.encode("ascii")
    if not re.fullmatch(rb"/[\x21-\x7e]*", encoded):
        raise ValueError(f"{target!r} is not a request target in origin form (RFC 9112 §3.2.1)")
    lines = [
        b"GET " + encoded + b" HTTP/1.1",
        header_line(b"Host", host.encode("ascii")),
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Key: " + key,
        b"Sec-WebSocket-Version: " + VERSION,
    ]
    if subprotocols:
        for subprotocol in subprotocols:
            if not is_token(subprotocol):
                raise ValueError(f"subprotocol {subprotocol!r} is not a token (RFC 6455 §4.1)")
        lines.append(b"Sec-WebSocket-Protocol: " + ", ".join(subprotocols).encode())
    if extensions is not None:
        lines.append(b"Sec-WebSocket-Extensions: " + extensions)
    for name, value in headers:
        if name.lower() in _OWN or name.lower() == b"host":
            raise ValueError(f"header {name.decode('latin-1')} belongs to the handshake")
        lines.append(header_line(name, value))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def parse_response(data: bytes | bytearray, *, max_head: int = MAX_HEAD) -> Response | None:
    """The response at the start of `data`. None while its head is incomplete. Raises HandshakeError with status 0."""
    head = _head(data, max_head, too_long=0)
    if head is None:
        return None
    try:
        match = _STATUS_LINE.match(head)
        if match is None:
            raise _malformed(head, "the server did not answer with HTTP/1.1")
        headers = _headers(head, match.end())
    except HandshakeError as error:
        raise HandshakeError(0, error.reason) from None
    return Response(int(match[1]), (match[2] or b"").decode("latin-1"), headers, len(head) + 2)


def check_response(response: Response, key: bytes, offered: Sequence[str] = ()) -> str | None:
    """The subprotocol the server chose, when it opened the connection (RFC 6455 §4.1).

    Raises HandshakeError: with the response's status when that is not 101, with 0 when a 101 is not a correct one. The
    extensions are for `deflate.accept` to check.
    """
    if response.status != 101:
        raise HandshakeError(response.status, response.reason or "refused", response.headers)
    _require_upgrade(_collected(response.headers), 0, ())
    accepted = response.values(b"sec-websocket-accept")
    if len(accepted) != 1 or not hmac.compare_digest(accepted[0], accept_key(key)):
        raise HandshakeError(0, "the server's Sec-WebSocket-Accept does not answer our key")
    chosen = response.values(b"sec-websocket-protocol")
    if not chosen:
        return None
    if len(chosen) > 1 or chosen[0].decode("latin-1") not in offered:
        raise HandshakeError(0, "the server chose a subprotocol that was not offered")
    return chosen[0].decode()


# ---------------------------------------------------------------- both


_OWN: Final = frozenset(
    (
        b"upgrade",
        b"connection",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-protocol",
        b"sec-websocket-key",
        b"sec-websocket-version",
    )
)


def _head(data: bytes | bytearray, max_head: int, *, too_long: int) -> bytes | None:
    """A complete head up to the empty line that ends it, each of its lines ended by CR LF."""
    end = data.find(b"\r\n\r\n", 0, max_head)
    if end < 0:
        _check_beginning(data, max_head, too_long)
        return None
    return bytes(data[: end + 2])


def _check_beginning(data: bytes | bytearray, max_head: int, too_long: int) -> None:
    """Whether more is worth waiting for. Quick: it is asked for each byte of a head that comes byte by byte."""
    if len(data) >= max_head:
        long_line = too_long and b"\r\n" not in data
        raise HandshakeError(414 if long_line else too_long, "the HTTP head is too long")
    malformed = 400 if too_long else 0
    if data and not 0x20 < data[0] < 0x7F:  # TLS, or noise
        raise HandshakeError(malformed, "malformed HTTP head")
    if data.endswith(b"\n") and not data.endswith(b"\r\n"):  # its end will never look like one
        raise HandshakeError(malformed, "bare LF in the HTTP head")


_BARE: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n|\x00")


def _malformed(head: bytes, otherwise: str) -> HandshakeError:
    if _BARE.search(head):  # RFC 9112 §2.2 would let a reader guess; a proxy may guess differently
        return HandshakeError(400, "bare CR, LF or NUL in the HTTP head")
    return HandshakeError(400, otherwise)


def _headers(head: bytes, start: int) -> list[tuple[bytes, bytes]]:
    """The headers from `start` on, judged by one expression for all (benchmarks: connect)."""
    if not _HEADERS.fullmatch(head, start):  # a space before the colon and folded lines (RFC 9112 §5.1, §5.2) too
        raise _malformed(head, "malformed header line")
    lines = head[start:].split(b"\r\n")
    lines.pop()
    if len(lines) > MAX_HEADERS:
        raise HandshakeError(431, "too many headers")
    headers = []
    for line in lines:
        name, _, value = line.partition(b":")
        headers.append((name.lower(), value.strip(b" \t")))
    return headers


def _require_upgrade(values: dict[bytes, list[bytes]], status: int, answer: Sequence[tuple[bytes, bytes]]) -> None:
    """RFC 6455 §4.2.1 points 3 and 4, §4.1 for responses: both headers are lists compared without case."""
    if not _lists(values.get(b"upgrade"), b"websocket"):
        raise HandshakeError(status, "the Upgrade header does not ask for websocket", answer)
    if not _lists(values.get(b"connection"), b"upgrade"):
        raise HandshakeError(status, "the Connection header does not hold upgrade", answer)


def _lists(values: list[bytes] | None, token: bytes) -> bool:
    if values is None:
        return False
    if len(values) == 1 and values[0].lower() == token:
        return True
    return token.decode() in [other.lower() for other in parse_tokens(values) or ()]
