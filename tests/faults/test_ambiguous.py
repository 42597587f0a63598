"""Requests that two parsers may read in two ways: the bytes behind one never count as a request of their own."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

from antiphon.server.uvicorn import HTTPProtocol
from tests.server.raw import connect, serving

BEHIND: Final = b"GET /smuggled HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
GET: Final = b"GET /ws HTTP/1.1"
CHUNKED: Final = b"Transfer-Encoding: chunked"
NO_CHUNKS: Final = b"0\r\n\r\n"
SIZE: Final = b"Content-Length: %d" % len(BEHIND)


def ask(*headers: bytes, line: bytes = GET, host: tuple[bytes, ...] = (b"Host: h",)) -> bytes:
    upgrade = (b"Upgrade: websocket", b"Connection: Upgrade")
    handshake = (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13")
    return b"\r\n".join((line, *host, *upgrade, *handshake, *headers)) + b"\r\n\r\n"


ANSWERS: Final[dict[int, dict[str, bytes]]] = {
    400: {
        "two lengths": ask(b"Content-Length: 0", SIZE),
        "a length twice": ask(b"Content-Length: 0", b"Content-Length: 0"),
        "a list of lengths": ask(b"Content-Length: 0, 0"),
        "a length with a sign": ask(b"Content-Length: +0"),
        "a negative length": ask(b"Content-Length: -1"),
        "a length in hexadecimal": ask(b"Content-Length: 0x0"),
        "a space behind a header's name": ask(b"Content-Length : 0"),
        "a length beyond all integers": ask(b"Content-Length: 99999999999999999999999"),
        "an empty length": ask(b"Content-Length:"),
        "a body": ask(SIZE),
        "a length, then chunks": ask(SIZE, CHUNKED) + NO_CHUNKS,
        "chunks, then a length": ask(CHUNKED, b"Content-Length: 5") + NO_CHUNKS,
        "chunks": ask(CHUNKED) + NO_CHUNKS,
        "a coding that is none": ask(b"Transfer-Encoding: identity"),
        "a coding that is unknown": ask(b"Transfer-Encoding: xchunked"),
        "a coding behind the chunks": ask(b"Transfer-Encoding: chunked, identity"),
        "two codings": ask(b"Transfer-Encoding: identity", CHUNKED) + NO_CHUNKS,
        "a tab before the coding": ask(b"Transfer-Encoding:\tchunked") + NO_CHUNKS,
        "a vertical tab before the coding": ask(b"Transfer-Encoding: \x0bchunked") + NO_CHUNKS,
        "a space before the coding's colon": ask(b"Transfer-Encoding : chunked") + NO_CHUNKS,
        "an extension of a chunk with a line feed": ask(CHUNKED) + b"0;a=\nb\r\n\r\n",
        "a chunk's size with 0x": ask(CHUNKED) + b"0x0\r\n\r\n",
        "a chunk's size beyond all integers": ask(CHUNKED) + b"fffffffffffffffff\r\n\r\n",
        "a folded header": ask(b"X: a\r\n b"),
        "a folded coding": ask(b"Transfer-Encoding:\r\n chunked") + NO_CHUNKS,
        "a fold before all headers": ask().replace(b"\r\nHost", b"\r\n X: y\r\nHost"),
        "a NUL in a value": ask(b"X: a\0b"),
        "a NUL in a name": ask(b"X\0Y: b"),
        "a NUL in the path": ask(line=b"GET /w\0s HTTP/1.1"),
        "a bare CR": ask(b"X: a\rb"),
        "a bare LF": ask(b"X: a\nY: b"),
        "lines ended by LF": ask().replace(b"\r\n", b"\n"),
        "lines ended by CR": ask().replace(b"\r\n", b"\r"),
        "a header without a name": ask(b": b"),
        "a header without a colon": ask(b"novalue"),
        "a control character in a value": ask(b"X: \x01"),
        "DEL in a name": ask(b"X\x7f: a"),
        "two hosts": ask(host=(b"Host: h", b"Host: other")),
        "no host": ask(host=()),
        "a host with a path": ask(host=(b"Host: h/../x@y",)),
        "a list of hosts": ask(host=(b"Host: a, b",)),
        "a version in lower case": ask(line=b"GET /ws http/1.1"),
        "a version with two digits": ask(line=b"GET /ws HTTP/1.10"),
        "two spaces": ask(line=b"GET  /ws  HTTP/1.1"),
        "tabs": ask(line=b"GET\t/ws\tHTTP/1.1"),
        "a space in the path": ask(line=b"GET /w s HTTP/1.1"),
        "a target without a slash": ask(line=b"GET ws HTTP/1.1"),
        "a URL without a host": ask(line=b"GET http:///ws HTTP/1.1"),
        "an asterisk": ask(line=b"GET * HTTP/1.1"),
        "a method in lower case": ask(line=b"get /ws HTTP/1.1"),
        "two keys": ask(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        "two origins": ask(b"Origin: http://a", b"Origin: http://b"),
    },
    405: {
        "CONNECT": ask(line=b"CONNECT h:80 HTTP/1.1"),
        "OPTIONS": ask(line=b"OPTIONS * HTTP/1.1"),
    },
    505: {
        "1.0": ask(line=b"GET /ws HTTP/1.0"),
        "2.0": ask(line=b"GET /ws HTTP/2.0"),
    },
    101: {
        "a length of 0": ask(b"Content-Length: 0"),
        "an expectation": ask(b"Expect: 100-continue", b"Content-Length: 0"),
        "a URL": ask(line=b"GET http://h/ws HTTP/1.1"),
        "1.2": ask(line=b"GET /ws HTTP/1.2"),
    },
}


async def test_what_stands_behind_an_ambiguous_handshake_is_no_request(caplog: Any) -> None:
    """Where it becomes a WebSocket, the bytes behind it are a frame that breaks the protocol."""
    paths: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    found: dict[int, dict[str, bytes]] = {}
    async with serving(app, http=HTTPProtocol, lifespan="off") as served:
        for requests in ANSWERS.values():
            for name, request in requests.items():
                async with connect(served.port) as raw:
                    await raw.send(request + BEHIND)
                    answers = re.findall(rb"HTTP/1\.1 (\d{3}) ", await raw.read_all())
                assert len(answers) == 1, f"{name}: {answers}"
                found.setdefault(int(answers[0]), {})[name] = request
        await asyncio.sleep(0)
    assert {status: sorted(names) for status, names in found.items()} == {
        status: sorted(names) for status, names in ANSWERS.items()
    }
    assert set(paths) == {"/ws"}
    assert "Traceback" not in caplog.text
