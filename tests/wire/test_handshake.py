"""The opening handshake: RFC 6455 §4, RFC 9112."""

from __future__ import annotations

import base64

import pytest

from antiphon.wire import handshake
from antiphon.wire.errors import HandshakeError
from antiphon.wire.handshake import (
    accept_key,
    accept_response,
    build_request,
    check_response,
    parse_request,
    parse_response,
    refuse_response,
    subprotocols,
    validate,
)

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="

GOOD = [
    "GET /chat?room=1 HTTP/1.1",
    "Host: example.com:8080",
    "Upgrade: websocket",
    "Connection: Upgrade",
    f"Sec-WebSocket-Key: {KEY.decode()}",
    "Sec-WebSocket-Version: 13",
]


def head(lines: list[str], *more: str) -> bytes:
    return "\r\n".join([*lines, *more, "", ""]).encode("latin-1")


def without(name: str) -> list[str]:
    return [line for line in GOOD if not line.startswith(name + ":")]


def read_request(data: bytes) -> bytes:
    request = parse_request(data)
    assert request is not None, "the head is not complete"
    return validate(request)


def read_response(data: bytes, offered: list[str]) -> str | None:
    response = parse_response(data)
    assert response is not None, "the head is not complete"
    return check_response(response, KEY, offered)


def refused(data: bytes) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        read_request(data)
    return caught.value


def test_a_correct_handshake_gives_its_key() -> None:
    data = head(GOOD, "Origin: https://example.com", "Cookie: a=b;  c=d ")
    request = parse_request(data + b"\x81\x80frames")
    assert request is not None
    assert validate(request) == KEY
    assert (request.method, request.target) == ("GET", b"/chat?room=1")
    assert request.consumed == len(data)
    assert request.values(b"cookie") == [b"a=b;  c=d"]


def test_the_rfc_s_example_is_accepted_with_its_key() -> None:
    """RFC 6455 §1.3."""
    assert accept_key(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_an_incomplete_head_asks_for_more_at_every_byte() -> None:
    data = head(GOOD)
    for size in range(len(data)):
        assert parse_request(data[:size]) is None
    assert parse_request(bytearray(data)) is not None


@pytest.mark.parametrize(
    "lines",
    [
        [*without("Connection"), "Connection: keep-alive, Upgrade"],
        [*without("Connection"), "connection: keep-alive", "CONNECTION: upgrade"],
        [*without("Upgrade"), "Upgrade: WebSocket"],
        [*without("Upgrade"), "Upgrade: h2c, websocket"],
        [*without("Host"), "Host: [::1]:80"],
        [*GOOD, "Content-Length: 0"],
        [*GOOD, "X-Empty:"],
        [*GOOD, "X-Latin: caf\xe9"],
    ],
)
def test_what_http_allows_is_accepted(lines: list[str]) -> None:
    request = parse_request(head(lines))
    assert request is not None
    assert validate(request) == KEY


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(head(["POST / HTTP/1.1", *GOOD[1:]]), 405, id="method §4.2.1"),
        pytest.param(head(["GET / HTTP/1.0", *GOOD[1:]]), 505, id="HTTP/1.0 §4.2.1"),
        pytest.param(head(["GET / HTTP/2.0", *GOOD[1:]]), 505, id="HTTP/2.0"),
        pytest.param(head(["GET  / HTTP/1.1", *GOOD[1:]]), 400, id="two spaces"),
        pytest.param(head(["GET /a b HTTP/1.1", *GOOD[1:]]), 400, id="space in the target"),
        pytest.param(head(["GET / http/1.1", *GOOD[1:]]), 400, id="lower-case http"),
        pytest.param(head(["GET /", *GOOD[1:]]), 400, id="HTTP/0.9"),
        pytest.param(head(["", *GOOD]), 400, id="empty line first"),
        pytest.param(head(without("Host")), 400, id="no Host"),
        pytest.param(head(GOOD, "Host: other"), 400, id="two Hosts"),
        pytest.param(head([*without("Host"), "Host: a/b"]), 400, id="Host with a path"),
        pytest.param(head([*without("Host"), "Host: user@example.com"]), 400, id="Host with a user"),
        pytest.param(head(without("Upgrade")), 426, id="no Upgrade"),
        pytest.param(head([*without("Upgrade"), "Upgrade: h2c"]), 426, id="another Upgrade"),
        pytest.param(head([*without("Upgrade"), "Upgrade: web socket"]), 426, id="Upgrade is no token"),
        pytest.param(head(without("Connection")), 426, id="no Connection"),
        pytest.param(head([*without("Connection"), "Connection: keep-alive"]), 426, id="Connection without upgrade"),
        pytest.param(head([*without("Connection"), "Connection: not-upgrade"]), 426, id="part of a token"),
        pytest.param(head(without("Sec-WebSocket-Version")), 426, id="no version §4.4"),
        pytest.param(head([*without("Sec-WebSocket-Version"), "Sec-WebSocket-Version: 8"]), 426, id="version 8 §4.4"),
        pytest.param(head([*without("Sec-WebSocket-Version"), "Sec-WebSocket-Version: 013"]), 426, id="version 013"),
        pytest.param(head(GOOD, "Sec-WebSocket-Version: 13"), 400, id="two versions"),
        pytest.param(head(without("Sec-WebSocket-Key")), 400, id="no key"),
        pytest.param(head(GOOD, f"Sec-WebSocket-Key: {KEY.decode()}"), 400, id="two keys §4.1"),
        pytest.param(head([*without("Sec-WebSocket-Key"), "Sec-WebSocket-Key: abc"]), 400, id="key is no base64"),
        pytest.param(
            head([*without("Sec-WebSocket-Key"), "Sec-WebSocket-Key: " + base64.b64encode(b"x" * 15).decode()]),
            400,
            id="key of 15 bytes",
        ),
        pytest.param(
            head([*without("Sec-WebSocket-Key"), "Sec-WebSocket-Key: " + base64.b64encode(b"x" * 17).decode()]),
            400,
            id="key of 17 bytes",
        ),
        pytest.param(head(GOOD, "Origin: a", "Origin: b"), 400, id="two origins"),
        pytest.param(head(GOOD, "Content-Length: 5"), 400, id="a body"),
        pytest.param(head(GOOD, "Transfer-Encoding: chunked"), 400, id="a chunked body"),
        pytest.param(head(GOOD, "Sec-WebSocket-Protocol: a b"), 400, id="subprotocol is no token"),
        pytest.param(head(GOOD, "Sec-WebSocket-Protocol: a, a"), 400, id="subprotocol twice §4.1"),
        pytest.param(head(GOOD, "Sec-WebSocket-Protocol: "), 400, id="no subprotocol"),
        pytest.param(head(GOOD, "X-Folded: a", " b"), 400, id="folded line RFC 9112 §5.2"),
        pytest.param(head(GOOD, "X-Space : a"), 400, id="space before the colon RFC 9112 §5.1"),
        pytest.param(head(GOOD, "no colon"), 400, id="no colon"),
        pytest.param(head(GOOD, ": value"), 400, id="no name"),
        pytest.param(head(GOOD, "X-(bad): value"), 400, id="name is no token"),
        pytest.param(head(GOOD, "X-Nul: a\x00b"), 400, id="NUL"),
        pytest.param(head(GOOD, "X-Bell: a\x07b"), 400, id="control character"),
        pytest.param(head(GOOD, "X-Cr: a\rb"), 400, id="bare CR RFC 9112 §2.2"),
        pytest.param(head(GOOD, "X-Lf: a\nb: c"), 400, id="bare LF RFC 9112 §2.2"),
        pytest.param(head(GOOD).replace(b"\r\n", b"\n"), 400, id="bare LFs only"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01", 400, id="TLS"),
        pytest.param(head(GOOD, *[f"X-{i}: 1" for i in range(300)]), 431, id="too many headers"),
        pytest.param(head(GOOD, "X-Long: " + "x" * 70_000), 431, id="headers too long"),
        pytest.param(b"GET /" + b"x" * 70_000, 414, id="target too long"),
    ],
)
def test_a_wrong_handshake_is_refused_with_its_status(data: bytes, status: int) -> None:
    error = refused(data)
    assert error.status == status
    assert error.reason
    response = parse_response(refuse_response(error.status, error.headers, error.body))
    assert response is not None
    assert response.status == status


def test_a_refusal_of_the_version_names_ours() -> None:
    """RFC 6455 §4.4."""
    error = refused(head(without("Sec-WebSocket-Version"), "Sec-WebSocket-Version: 7"))
    assert (b"sec-websocket-version", b"13") in error.headers


def test_a_head_too_long_is_refused_before_it_is_complete() -> None:
    assert parse_request(head(GOOD), max_head=len(head(GOOD))) is not None
    with pytest.raises(HandshakeError) as caught:
        parse_request(head(GOOD), max_head=len(head(GOOD)) - 1)
    assert caught.value.status == 431


def test_subprotocols_keep_their_order_over_several_lines() -> None:
    request = parse_request(head(GOOD, "Sec-WebSocket-Protocol: b, a", "Sec-WebSocket-Protocol: c"))
    assert request is not None
    assert subprotocols(request) == ["b", "a", "c"]


def test_a_server_and_a_client_shake_hands() -> None:
    key = handshake.new_key()
    request = parse_request(
        build_request(
            "example.com", "/a?b=c", key, subprotocols=["x", "y"], extensions=b"e", headers=[(b"Cookie", b"a=b")]
        )
    )
    assert request is not None
    assert validate(request) == key
    assert request.target == b"/a?b=c"
    assert request.values(b"sec-websocket-extensions") == [b"e"]
    assert request.values(b"cookie") == [b"a=b"]
    data = accept_response(key, subprotocol="y", extensions=b"e", headers=[(b"Set-Cookie", b"s=1")])
    response = parse_response(data + b"\x81\x00")
    assert response is not None
    assert response.consumed == len(data)
    assert check_response(response, key, ["x", "y"]) == "y"
    assert response.values(b"set-cookie") == [b"s=1"]


def test_a_key_is_sixteen_random_bytes() -> None:
    assert handshake.new_key(b"the sample nonce") == KEY
    assert handshake.new_key() != handshake.new_key()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"X-A", b"a\r\nX-B: b"),
        (b"X-A", b"a\nb"),
        (b"X-A\r\nX-B", b"b"),
        (b"X A", b"b"),
        (b"", b"b"),
        (b"X-A", b"a\x00"),
        (b"X-A:", b"b"),
        (b"X-\xe9", b"b"),
    ],
)
def test_no_header_can_be_smuggled_into_what_we_send(name: bytes, value: bytes) -> None:
    with pytest.raises(ValueError, match="invalid header"):
        accept_response(KEY, headers=[(name, value)])
    with pytest.raises(ValueError, match="invalid header"):
        refuse_response(403, [(name, value)])
    with pytest.raises(ValueError, match="invalid header"):
        build_request("host", "/", KEY, headers=[(name, value)])


def test_the_handshake_s_own_headers_are_not_the_application_s() -> None:
    with pytest.raises(ValueError, match="belongs to the handshake"):
        accept_response(KEY, headers=[(b"Sec-WebSocket-Accept", b"x")])
    with pytest.raises(ValueError, match="belongs to the handshake"):
        build_request("host", "/", KEY, headers=[(b"host", b"other")])


def test_what_is_no_token_is_no_subprotocol() -> None:
    with pytest.raises(ValueError, match="not a token"):
        accept_response(KEY, subprotocol="a b")
    with pytest.raises(ValueError, match="not a token"):
        build_request("host", "/", KEY, subprotocols=["a,b"])


@pytest.mark.parametrize("target", ["", "a", "/a b", "/a\r\nb", "http://host/"])
def test_a_request_target_is_in_origin_form(target: str) -> None:
    with pytest.raises(ValueError, match="origin form"):
        build_request("host", target, KEY)


ANSWER = [
    "HTTP/1.1 101 Switching Protocols",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(ANSWER[:1] + ANSWER[2:], id="no Upgrade"),
        pytest.param(ANSWER[:2] + ANSWER[3:], id="no Connection"),
        pytest.param(ANSWER[:3], id="no Accept"),
        pytest.param([*ANSWER, ANSWER[3]], id="two Accepts"),
        pytest.param([*ANSWER[:3], "Sec-WebSocket-Accept: xxx"], id="wrong Accept"),
        pytest.param([*ANSWER, "Sec-WebSocket-Protocol: other"], id="a subprotocol not offered"),
        pytest.param([*ANSWER, "Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: a"], id="two subprotocols"),
        pytest.param(["HTTP/1.0 101 x", *ANSWER[1:]], id="HTTP/1.0"),
        pytest.param(["HTTP/1.1 1o1 x", *ANSWER[1:]], id="no status"),
        pytest.param([*ANSWER, "a b"], id="no header"),
    ],
)
def test_a_client_refuses_a_wrong_answer(lines: list[str]) -> None:
    with pytest.raises(HandshakeError) as caught:
        read_response(head(lines), ["a"])
    assert caught.value.status == 0


def test_a_client_learns_the_status_it_was_refused_with() -> None:
    response = parse_response(refuse_response(403, [(b"X-Why", b"so")], b"no", content_type=b"text/plain"))
    assert response is not None
    with pytest.raises(HandshakeError) as caught:
        check_response(response, KEY)
    assert caught.value.status == 403
    assert (b"x-why", b"so") in caught.value.headers
    assert response.values(b"content-length") == [b"2"]
    assert response.values(b"connection") == [b"close"]


def test_a_refusal_keeps_the_application_s_own_headers() -> None:
    data = refuse_response(599, [(b"Content-Length", b"7"), (b"Content-Type", b"a/b")], content_type=b"text/plain")
    assert data == b"HTTP/1.1 599 \r\nContent-Length: 7\r\nContent-Type: a/b\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("headers", [1, 2])
def test_more_subprotocols_than_anybody_offers_are_refused(headers: int) -> None:
    def asking(count: int) -> bytes:
        names = [f"protocol{number}" for number in range(count)]
        return head(GOOD, *(f"Sec-WebSocket-Protocol: {', '.join(names[start::headers])}" for start in range(headers)))

    request = parse_request(asking(128))
    assert request is not None
    assert len(subprotocols(request)) == 128
    error = refused(asking(129))
    assert (error.status, error.reason) == (400, "too many subprotocols")
