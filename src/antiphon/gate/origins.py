"""The origins whose pages may connect: the parts of an `Origin`, our own, and the admitted others.

Pure: no log, no answer, no app. `door.py` applies it. Sources: RFC 6454 (origins), RFC 6455 §10.2, the URL standard.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import idna

LONGEST: Final = 512
"""Characters of an origin: a name in DNS has 253 at most."""

_HTTP: Final[Mapping[str, str]] = {"ws": "http", "wss": "https"}
_DEFAULT_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}
# Both cases are spelled out: to ignore case in a class of a million characters takes 10 ms of every start.
_SCHEME: Final = r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.\-]*)"
_HOST: Final = r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\x00-\x20\x7f-\U0010ffff\"#%*,/:<>?@\[\\\]^`{|}]*)"
_PORT: Final = r"(?::(?P<port>0|[1-9][0-9]{0,4}))?"
_ORIGIN: Final = re.compile(rf"{_SCHEME}://{_HOST}{_PORT}", re.ASCII)
_AUTHORITY: Final = re.compile(rf"{_HOST}(?::(?P<port>[0-9]{{0,5}}))?", re.ASCII)
_PATTERN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.\-]*)://(?P<any>\*\.)?(?P<host>\[[0-9a-f:.]+\]|[^\[\]:/?#@*\\\s]*)(?::(?P<port>\*|[0-9]+))?",
    re.IGNORECASE,
)
_ATTACHED: Final = ("basic", "digest", "negotiate", "ntlm")
"""Schemes of `Authorization` that browsers send by themselves, once somebody has logged in."""


class Site(NamedTuple):
    """The scheme, host and port of a page. The port is None where the scheme has no default one and none is named."""

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        usual = self.port is None or _DEFAULT_PORTS.get(self.scheme) == self.port
        return f"{self.scheme}://{self.host}" if usual else f"{self.scheme}://{self.host}:{self.port}"


def read_origin(text: str) -> Site | None:
    """The site that an `Origin` header names. None for `null` and for an invalid origin."""
    return _read_origin(text) if len(text) <= LONGEST else None


def read_host(scheme: str, host: str) -> Site | None:
    """The site that a request of this scheme (`ws`, `wss`) to this `Host` is for. None for an invalid host."""
    return _read_host(scheme, host) if len(host) <= LONGEST else None


@lru_cache(maxsize=1024)
def _read_origin(text: str) -> Site | None:
    match = _ORIGIN.fullmatch(text)
    return None if match is None else _site(match["scheme"].lower(), match["host"], match["port"])


@lru_cache(maxsize=1024)
def _read_host(scheme: str, host: str) -> Site | None:
    match = _AUTHORITY.fullmatch(host)
    return None if match is None else _site(_HTTP.get(scheme, scheme), match["host"], match["port"] or None)


def _site(scheme: str, host: str, port: str | None) -> Site | None:
    number = _DEFAULT_PORTS.get(scheme) if port is None else int(port)
    if number is not None and number > 65535:
        return None
    if not host and scheme in _DEFAULT_PORTS:
        return None
    if host.startswith("["):
        try:
            host = f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
        except ValueError:
            return None
    return Site(scheme, host.lower(), number)


class Foreign(enum.Enum):
    """The treatment of a page of another site that is not listed.

    For example:

        app = App(origins=Origins(allowed=["https://app.example"], foreign=Foreign.WITHOUT_CREDENTIALS))
    """

    REFUSE = "refuse"
    WITHOUT_CREDENTIALS = "without-credentials"
    """It comes in like any client, unless its browser sent credentials by itself: cookies, a login of HTTP's own
    (`Authorization: Basic`, `Digest`, `Negotiate`), a TLS client certificate."""


class _Wild(NamedTuple):
    """A pattern with a star."""

    scheme: str
    host: str
    below: bool
    port: int | None
    any_port: bool

    def matches(self, site: Site) -> bool:
        if site.scheme != self.scheme or not (self.any_port or site.port == self.port):
            return False
        if not self.below:
            return site.host == self.host
        return site.host.endswith("." + self.host) and not site.host.startswith(".")


@dataclass(frozen=True, kw_only=True)
class Origins:
    """Which pages may connect: ours, those listed, and others as `foreign` says.

        App(origins=["https://app.example", "https://*.example.org"])      # the same as
        App(origins=Origins(allowed=["https://app.example", "https://*.example.org"]))

    Ours has the scheme, the host and the port at which the client reached the server. Raises ValueError and TypeError
    for bad patterns, and says what to write.
    """

    allowed: Sequence[str] = ()
    """Patterns. `https://app.example`: with a port where it is not the scheme's own. `https://*.example.org`: every
    name below, at any depth. `http://localhost:*`: any port. `null`: pages without an origin of their own (sandboxed
    frames, files). `*`: all."""
    foreign: Foreign = Foreign.REFUSE
    """The treatment of the others."""
    required: bool = False
    """Whether who sends no `Origin`, which is no browser, is refused too."""

    _all: bool = field(init=False, repr=False, compare=False)
    _null: bool = field(init=False, repr=False, compare=False)
    _exact: frozenset[Site] = field(init=False, repr=False, compare=False)
    _wild: tuple[_Wild, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises TypeError, ValueError."""
        allowed = self.allowed
        if isinstance(allowed, str):
            raise TypeError(f"origins are a list of patterns: write [{allowed!r}]")
        if isinstance(allowed, bytes) or not isinstance(allowed, Iterable):
            raise TypeError(f"origins are SAME, or a list of patterns such as ['https://app.example'], not {allowed!r}")
        if not isinstance(self.required, bool):
            raise TypeError(f"Origins(required=) takes True or False, not {self.required!r}")
        if not isinstance(self.foreign, Foreign):
            raise TypeError(
                f"Origins(foreign=) takes Foreign.REFUSE or Foreign.WITHOUT_CREDENTIALS, not {self.foreign!r}"
            )
        patterns = tuple(allowed)
        read = [_read_pattern(one) for one in patterns if one not in ("*", "null")]
        object.__setattr__(self, "allowed", patterns)
        object.__setattr__(self, "_all", "*" in patterns)
        object.__setattr__(self, "_null", "null" in patterns)
        object.__setattr__(self, "_exact", frozenset(one for one in read if isinstance(one, Site)))
        object.__setattr__(self, "_wild", tuple(one for one in read if isinstance(one, _Wild)))

    def lists(self, origin: str) -> bool:
        """Whether a pattern matches this value of an `Origin` header."""
        if self._all or (origin == "null" and self._null):
            return True
        site = read_origin(origin)
        return site is not None and (site in self._exact or any(one.matches(site) for one in self._wild))

    def __str__(self) -> str:
        return ", ".join(["ours", *self.allowed])


OriginsLike: TypeAlias = Origins | Sequence[str]
"""The values of `origins=`: `SAME`, patterns in a list, or `Origins`."""

SAME: Final = Origins()
"""Only our own pages may connect, and clients that are no browsers."""

DEFAULT: Final = Origins(foreign=Foreign.WITHOUT_CREDENTIALS)
"""The default: no page of another site may use the credentials that a browser has of its visitor."""


def as_origins(value: OriginsLike) -> Origins:
    """The value of `origins=` as `Origins`. Raises TypeError and ValueError, which say what to write."""
    if isinstance(value, Origins):
        return value
    if isinstance(value, str) and value.lower() == "same":
        raise TypeError("origins: write SAME (from antiphon import SAME), without quotation marks")
    return Origins(allowed=value)


def _read_pattern(text: object) -> Site | _Wild:
    if isinstance(text, Origins):
        raise TypeError("origins: our own pages may always connect: leave SAME out of the list")
    if not isinstance(text, str):
        raise TypeError(f"an origin is a str such as 'https://app.example', not {text!r}")
    match = _PATTERN.fullmatch(text)
    if match is None or match["scheme"].lower() in _HTTP:
        raise ValueError(_what_is_wrong(text))
    scheme, port, host = match["scheme"].lower(), match["port"], match["host"]
    below, any_port = match["any"] is not None, port == "*"
    if not host and (below or scheme in _DEFAULT_PORTS):
        raise ValueError(_what_is_wrong(text))
    site = _site(scheme, _in_ascii(host, text), None if any_port else port)
    if site is None or read_origin(str(site)) != site:
        raise ValueError(f"origin {text!r}: a browser never writes this host, or the port is not one of 0 to 65535")
    return _Wild(*site[:2], below, site.port, any_port) if below or any_port else site


def _in_ascii(host: str, text: str) -> str:
    """A host as browsers write it in `Origin`: punycode (UTS #46)."""
    if host.isascii():
        return host
    try:
        return idna.encode(host, uts46=True, transitional=False).decode()
    except idna.IDNAError as error:
        raise ValueError(f"origin {text!r}: no such host ({error})") from None


def _what_is_wrong(text: str) -> str:
    """The fault of a pattern, and its correction."""
    if len(several := re.split(r"[,\s]+", text.strip(" ,"))) > 1 and all("://" in one for one in several):
        return f"origin {text!r} is several: write {several!r}"
    scheme, separator, rest = text.partition("://")
    if not separator:
        plain = "http" if re.match(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:|/|$)", text) else "https"
        example = f"{plain}://{text.rstrip('/')}" if text else "https://app.example"
        return f"origin {text!r} has no scheme: write {example!r}"
    if scheme.lower() in _HTTP:
        return f"origin {text!r}: a page's address begins with http or https: write '{_HTTP[scheme.lower()]}://{rest}'"
    host = re.split(r"[/?#\\]", rest)[0]
    if host != rest and host and "*" not in host and "@" not in host:
        return f"origin {text!r} has a path, and origins have none: write '{scheme}://{host}'"
    if "@" in rest:
        return f"origin {text!r} names a user, and origins do not: write '{scheme}://{host.rpartition('@')[2]}'"
    if "*" in rest:
        return (
            f"origin {text!r}: a star stands for whole names in front, as in 'https://*.example.org', for the port, as "
            "in 'http://localhost:*', or alone, '*', for every origin"
        )
    return f"origin {text!r} is none: write it as a browser does, 'https://app.example' or 'https://app.example:8443'"


# ---------------------------------------------------------------- a handshake


class Arrival(NamedTuple):
    """The parts of a handshake that count."""

    origin: str | None
    """As it came. None where none came. Two headers of that name count as an invalid origin."""
    ours: Site | None
    """The site at which the client reached us. None where its `Host` is invalid."""
    brings: str
    """The credentials that a browser may have sent by itself, in a word. Empty for none."""


def read_arrival(scope: Mapping[str, Any]) -> Arrival:
    """Take it from an ASGI scope."""
    origins, hosts, brings = [], [], ""
    for name, value in scope["headers"]:
        if name == b"origin":
            origins.append(value.decode("latin-1").strip(" \t"))
        elif name == b"host":
            hosts.append(value.decode("latin-1").strip(" \t"))
        elif name == b"cookie" and value.strip():
            brings = "cookies"
        elif name == b"authorization" and value.decode("latin-1").lower().lstrip().startswith(_ATTACHED):
            brings = brings or "a login of HTTP's own"
    if not brings and _has_certificate(scope):
        brings = "a TLS client certificate"
    ours = read_host(scope.get("scheme", "ws"), hosts[0]) if len(hosts) == 1 else None
    return Arrival(", ".join(origins) if origins else None, ours, brings)


def _has_certificate(scope: Mapping[str, Any]) -> bool:
    """ASGI's TLS extension."""
    tls = (scope.get("extensions") or {}).get("tls") or {}
    return bool(tls.get("client_cert_chain") or tls.get("client_cert_name"))


def is_welcome(origins: Origins, arrival: Arrival) -> bool:
    """Whether these origins let a handshake in."""
    if arrival.origin is None:
        return not origins.required
    if origins.foreign is Foreign.WITHOUT_CREDENTIALS and not arrival.brings:
        return True
    if arrival.ours is not None and read_origin(arrival.origin) == arrival.ours:
        return True
    return origins.lists(arrival.origin)
