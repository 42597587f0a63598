"""Origins, each with its admission: one table for all servers, and for the rules alone.

Every site in it differs from ours, `http://ours.example:PORT` or a name that a test takes.
"""

from __future__ import annotations

from typing import NamedTuple

LISTED = [
    "https://app.example",
    "https://*.example.org",
    "http://localhost:*",
    "https://dev.example:8443",
    "https://bücher.example",
    "https://*.wild.example:9000",
    "http://[2001:db8:0:0::1]:8080",
    "http://[::1]",
    "http://192.0.2.7",
    "chrome-extension://abcdefghijklmnop",
]


class Case(NamedTuple):
    origin: str | bytes
    listed: bool
    """Whether it comes in where `LISTED` is."""
    ours: bool = False


OURS = "http://ours.example:{port}"

CASES = [
    # ours, and near misses
    Case(OURS, True, True),
    Case("HTTP://OURS.EXAMPLE:{port}", True, True),
    Case("http://Ours.Example:{port}", True, True),
    Case("https://ours.example:{port}", False),
    Case("http://ours.example", False),
    Case("http://ours.example:80", False),
    Case("http://ours.example:{other}", False),
    Case("http://ours.example:0{port}", False),
    Case("http://ours.example:{port}/", False),
    Case("http://ours.example:{port}/chat", False),
    Case("http://ours.example:{port}?", False),
    Case("http://ours.example:{port}#", False),
    Case("http://ours.example.:{port}", False),
    Case("http://ours.example:{port}.", False),
    Case("http://www.ours.example:{port}", False),
    Case("http://ours.example.evil.test:{port}", False),
    Case("http://evil-ours.example:{port}", False),
    Case("http://ours.example@evil.test:{port}", False),
    Case("http://evil.test@ours.example:{port}", False),
    Case("http://user:password@ours.example:{port}", False),
    Case("http://ours.example:{port}@evil.test", False),
    Case("http://ours.example\\@evil.test:{port}", False),
    Case("http://ours%2eexample:{port}", False),
    Case("http://ours.example%00.evil.test:{port}", False),
    Case("http:ours.example:{port}", False),
    Case("http:/ours.example:{port}", False),
    Case("http:///ours.example:{port}", False),
    Case("//ours.example:{port}", False),
    Case("ours.example:{port}", False),
    Case("ws://ours.example:{port}", False),
    Case("javascript://ours.example:{port}", False),
    Case("http://ours.example:{port} http://evil.test", False),
    Case("http://ours.example:{port}, http://evil.test", False),
    Case("http://ours.example:{port},null", False),
    Case("http://оurs.example:{port}".encode(), False),  # a Cyrillic o
    Case("http://xn--urs-hcd.example:{port}", False),
    Case(b"http://ours.example\xff:{port}", False),
    # invalid origins
    Case("", False),
    Case("null", False),
    Case("NULL", False),
    Case("*", False),
    Case("http://", False),
    Case("http://*", False),
    Case("http://*.example.org", False),
    Case("http://[", False),
    Case("http://[]", False),
    Case("http://[::1", False),
    Case("http://[::g]", False),
    Case("http://:80", False),
    Case("http://ours.example:", False),
    Case("http://ours.example:port", False),
    Case("http://ours.example:-1", False),
    Case("http://ours.example:65536", False),
    Case("http://ours.example:999999999999", False),
    Case("http://ours example", False),
    Case("about:blank", False),
    Case("data:text/html,x", False),
    Case("file://", False),
    Case("https://" + "a" * 5000 + ".example.org", False),
    # listed: exactly
    Case("https://app.example", True),
    Case("https://app.example:443", True),
    Case("HTTPS://APP.EXAMPLE", True),
    Case("http://app.example", False),
    Case("https://app.example:8443", False),
    Case("https://app.example.", False),
    Case("https://www.app.example", False),
    Case("https://app.example.evil.test", False),
    Case("https://app-example", False),
    Case("https://appxexample", False),
    Case("https://dev.example:8443", True),
    Case("https://dev.example", False),
    # names below
    Case("https://a.example.org", True),
    Case("https://a.b.example.org", True),
    Case("https://A.Example.ORG:443", True),
    Case("https://example.org", False),
    Case("https://evil-example.org", False),
    Case("https://evilexample.org", False),
    Case("https://example.org.evil.test", False),
    Case("https://a.example.org.", False),
    Case("https://a.example.org:8443", False),
    Case("http://a.example.org", False),
    Case("https://.example.org", False),
    Case("https://a.wild.example:9000", True),
    Case("https://a.wild.example", False),
    Case("https://wild.example:9000", False),
    # any port
    Case("http://localhost", True),
    Case("http://localhost:3000", True),
    Case("https://localhost:3000", False),
    Case("http://localhost.evil.test:3000", False),
    Case("http://127.0.0.1:3000", False),
    # other scripts, addresses, schemes
    Case("https://xn--bcher-kva.example", True),
    Case("https://XN--BCHER-KVA.example", True),
    Case("https://bücher.example".encode(), False),  # no browser writes it so
    Case("https://bucher.example", False),
    Case("http://[2001:db8::1]:8080", True),
    Case("http://[2001:DB8:0::0:1]:8080", True),
    Case("http://[2001:db8::1]", False),
    Case("http://[2001:db8::2]:8080", False),
    Case("http://[::1]", True),
    Case("http://[0:0:0:0:0:0:0:1]:80", True),
    Case("http://[::ffff:127.0.0.1]", False),
    Case("http://192.0.2.7", True),
    Case("http://192.0.2.70", False),
    Case("http://0xc0.0.2.7", False),
    Case("chrome-extension://abcdefghijklmnop", True),
    Case("chrome-extension://ponmlkjihgfedcba", False),
]


def written(case: Case, port: int) -> bytes:
    """The header's value on a server at this port."""
    text = case.origin if isinstance(case.origin, bytes) else case.origin.encode()
    return text.replace(b"{port}", b"%d" % port).replace(b"{other}", b"%d" % (port - 1))
