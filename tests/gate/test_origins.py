"""Which pages may connect, by the rules alone. `test_origins_on_servers.py` has them over sockets."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.gate.origins import (
    DEFAULT,
    SAME,
    Foreign,
    Origins,
    as_origins,
    is_welcome,
    read_arrival,
    read_host,
    read_origin,
)

from .origin_table import CASES, LISTED, Case, written

PORT = 8000


def scope(
    *headers: tuple[bytes, bytes], host: bytes = b"ours.example:8000", scheme: str = "ws", **more: Any
) -> dict[str, Any]:
    return {"type": "websocket", "scheme": scheme, "headers": [(b"host", host), *headers], **more}


def welcome(origins: Origins, origin: bytes | None, *headers: tuple[bytes, bytes], **around: Any) -> bool:
    sent = [] if origin is None else [(b"origin", origin)]
    return is_welcome(origins, read_arrival(scope(*sent, *headers, **around)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case.origin)[:60])
def test_who_comes_in_by_the_table(case: Case) -> None:
    origin = written(case, PORT)
    assert welcome(Origins(allowed=LISTED), origin) is case.listed
    assert welcome(SAME, origin) is case.ours
    assert welcome(DEFAULT, origin)
    assert welcome(DEFAULT, origin, (b"cookie", b"a=b")) is case.ours
    assert welcome(Origins(allowed=["*"]), origin)


def test_the_table_is_as_long_as_promised() -> None:
    assert len({case.origin for case in CASES}) >= 60


@pytest.mark.parametrize(
    ("scheme", "host", "origin"),
    [
        ("ws", b"ours.example", b"http://ours.example"),
        ("ws", b"ours.example:80", b"http://ours.example"),
        ("wss", b"ours.example", b"https://ours.example"),
        ("wss", b"ours.example:443", b"https://ours.example"),
        ("wss", b"OURS.example:8443", b"https://ours.example:8443"),
        ("http", b"ours.example", b"http://ours.example"),
        ("wss", b"ours.example.", b"https://ours.example."),
        ("ws", b"[::1]:8000", b"http://[::1]:8000"),
        ("ws", b"ours.example:", b"http://ours.example"),
    ],
)
def test_ours_is_where_the_client_reached_us(scheme: str, host: bytes, origin: bytes) -> None:
    assert welcome(SAME, origin, host=host, scheme=scheme)


@pytest.mark.parametrize(
    "host", [b"", b"a b", b"user@ours.example", b"ours.example/x", b"ours.example:99999", b"[::", b"x" * 600]
)
def test_a_host_that_is_none_makes_nobody_ours(host: bytes) -> None:
    assert read_host("ws", host.decode()) is None
    assert not welcome(SAME, b"http://" + host, host=host)
    assert not welcome(SAME, b"http://ours.example", host=host)


def test_two_origins_or_two_hosts_are_nobodys() -> None:
    twice = (b"origin", b"http://ours.example:8000")
    assert not is_welcome(SAME, read_arrival(scope(twice, twice)))
    assert not is_welcome(SAME, read_arrival(scope(twice, (b"host", b"evil.test"))))
    assert is_welcome(SAME, read_arrival(scope(twice)))


CREDENTIALS = [
    (b"cookie", b"session=1"),
    (b"authorization", b"Basic dTpw"),
    (b"authorization", b"digest username=u"),
    (b"authorization", b"NEGOTIATE abc"),
]


@pytest.mark.parametrize("header", CREDENTIALS, ids=str)
def test_by_default_a_foreign_page_may_not_use_what_browsers_attach(header: tuple[bytes, bytes]) -> None:
    assert not welcome(DEFAULT, b"https://evil.test", header)
    assert welcome(DEFAULT, b"http://ours.example:8000", header)
    assert welcome(DEFAULT, None, header)


def test_a_certificate_is_such_a_credential() -> None:
    for tls in ({"client_cert_chain": ["-----BEGIN"]}, {"client_cert_name": "CN=ann"}):
        assert not welcome(DEFAULT, b"https://evil.test", extensions={"tls": tls})
    assert welcome(
        DEFAULT, b"https://evil.test", extensions={"tls": {"client_cert_chain": [], "client_cert_name": None}}
    )


@pytest.mark.parametrize(
    "header", [(b"authorization", b"Bearer abc"), (b"cookie", b" "), (b"x-api-key", b"k")], ids=str
)
def test_what_a_page_has_to_attach_itself_is_none(header: tuple[bytes, bytes]) -> None:
    assert welcome(DEFAULT, b"https://evil.test", header)


def test_null_comes_in_only_where_it_is_listed() -> None:
    assert welcome(Origins(allowed=["null"]), b"null")
    assert not welcome(Origins(allowed=["https://app.example"]), b"null")
    assert not welcome(SAME, b"null", host=b"null")


def test_no_origin_is_no_browser_unless_one_is_demanded() -> None:
    assert welcome(SAME, None)
    assert not welcome(Origins(required=True), None)
    assert not welcome(Origins(allowed=["*"], required=True), None)


def test_a_list_beside_the_default_lets_others_in_without_credentials() -> None:
    origins = Origins(allowed=["https://app.example"], foreign=Foreign.WITHOUT_CREDENTIALS)
    assert welcome(origins, b"https://evil.test")
    assert not welcome(origins, b"https://evil.test", CREDENTIALS[0])
    assert welcome(origins, b"https://app.example", CREDENTIALS[0])


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("app.example", "write 'https://app.example'"),
        ("https://app.example/", "write 'https://app.example'"),
        ("https://app.example/chat?x", "write 'https://app.example'"),
        ("wss://app.example:8443", "write 'https://app.example:8443'"),
        ("ws://app.example", "write 'http://app.example'"),
        ("https://user@app.example", "write 'https://app.example'"),
        ("https://*app.example", "'https://*.example.org'"),
        ("https://a.*.example", "'https://*.example.org'"),
        ("https://*", "alone, '*'"),
        ("https://app.example:99999", "port"),
        ("https://app.example:http", "as a browser does"),
        ("https://", "as a browser does"),
        ("https://[::g]", "as a browser does"),
        ("https://app%2eexample", "a browser never writes this host"),
        ("https://a b", "as a browser does"),
        ("", "write 'https://app.example'"),
        ("localhost:3000", "write 'http://localhost:3000'"),
        ("127.0.0.1:3000", "write 'http://127.0.0.1:3000'"),
        ("https://a.example, https://b.example:8443", "write ['https://a.example', 'https://b.example:8443']"),
        ("https://a.example https://b.example", "write ['https://a.example', 'https://b.example']"),
        ("https://xn--\u2603.example" + "a" * 300, "no such host"),
    ],
)
def test_a_pattern_that_is_none_says_what_to_write(pattern: str, says: str) -> None:
    with pytest.raises(ValueError, match="origin") as refused:
        Origins(allowed=[pattern])
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("https://app.example", r"write \['https://app.example'\]"),
        ("same", "write SAME"),
        ("SAME", "write SAME"),
        ([SAME, "https://app.example"], "leave SAME out of the list"),
        (5, "SAME, or a list"),
        (True, "SAME, or a list"),
        ([5], "an origin is a str"),
        ([b"https://app.example"], "an origin is a str"),
    ],
)
def test_what_is_no_list_of_patterns_says_what_to_write(value: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        as_origins(value)


def test_an_origin_is_shown_as_a_browser_writes_it() -> None:
    assert str(read_origin("HTTPS://App.Example:443")) == "https://app.example"
    assert str(read_origin("http://[0::1]:8000")) == "http://[::1]:8000"
    assert str(read_origin("tauri://localhost")) == "tauri://localhost"
