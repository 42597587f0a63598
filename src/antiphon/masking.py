"""Removes secrets from logs: query parameters by their names, tokens among subprotocols, headers that hold some.

Part of the vocabulary: knows nothing of ours. Every line of an access log, of the engine or of others, passes here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_plus

MASK: Final = "***"

_SECRET_NAMES: Final = (
    "token access_token id_token refresh_token auth_token session_token csrf_token xsrf_token",
    "ticket jwt bearer authorization auth credential credentials assertion samlresponse",
    "key api_key apikey access_key private_key secret_key x_api_key app_key",
    "password passwd pwd pass passphrase pin otp",
    "secret client_secret signature sig x_amz_signature x_amz_security_token x_amz_credential",
    "session session_id sessionid sid cookie set_cookie code code_verifier",
)
SECRET_NAMES: Final = frozenset(name for line in _SECRET_NAMES for name in line.split())
"""Names of parameters whose values are masked; case, `-` for `_` and percent-encoding make no difference."""

_PARAMETER: Final = re.compile(r"""(?:^|(?<=[?&;'"\n]))(?P<name>[^\s?&;=#'"<>(){}]{1,200})=(?P<value>[^\s&;#'"<>]*)""")
_SEPARATORS: Final = re.compile(r"[?&;/]")
_HEADER: Final = re.compile(
    r"""(?P<before>\b(?:(?:proxy-)?authorization|(?:set-)?cookie|x-(?:[a-z]+-){0,3}(?:key|token|secret))\b['"]?\s*[:,]\s*(?:b(?=['"]))?['"]?)"""
    r"""(?P<value>[^'"\r\n]+)""",
    re.IGNORECASE,
)
_OFFERS: Final = re.compile(r"""(?P<before>\bbearer['"]?\s*,\s*['"]?)(?P<value>[^\s,'"\])]+)""", re.IGNORECASE)
_KUBERNETES: Final = "base64url.bearer.authorization.k8s.io."
_KUBERNETES_TOKEN: Final = re.compile(rf"(?P<before>{re.escape(_KUBERNETES)})(?P<value>[^\s,'\"\])]+)", re.IGNORECASE)
_JWT: Final = re.compile(r"(?P<before>)(?P<value>\beyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*){1,3})", re.ASCII)


def plain_name(name: str) -> str:
    """A parameter's name as it is compared: decoded, in lower case, `_` for `-`, without the brackets of a list."""
    decoded = name
    for _ in range(3):  # encoded twice is decoded twice by somebody
        once = unquote_plus(decoded)
        if once == decoded:
            break
        decoded = once
    return _SEPARATORS.split(decoded)[-1].strip().lower().replace("-", "_").partition("[")[0]


_declared: Final[set[str]] = set()
"""Further plain names: those from which schemes of this process read credentials."""


def keep_secret(name: str) -> None:
    """Mask the values of parameters of this name from now on: a scheme reads credentials from it."""
    _declared.add(plain_name(name))
    _is_listed.cache_clear()


@lru_cache(maxsize=1024)
def _is_listed(name: str) -> bool:
    plain = plain_name(name)
    return plain in SECRET_NAMES or plain in _declared


def is_secret(name: str, more: Collection[str] = ()) -> bool:
    """Whether the value of a parameter of this name is masked. `more` are further plain names."""
    return _is_listed(name) or (bool(more) and plain_name(name) in more)


def masked_query(text: str, more: Collection[str] = ()) -> str:
    """A query, or a line that has one in it, with `***` for the values of secret parameters."""
    if "=" not in text:
        return text

    def hide(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        hidden = value and (is_secret(name, more) or _has_secret_inside(value, more))
        return f"{name}={MASK}" if hidden else match[0]

    return _PARAMETER.sub(hide, text)


def _has_secret_inside(value: str, more: Collection[str]) -> bool:
    """Whether a value is an address with a secret in its own query, as that of `next=`."""
    if "%3" not in value:
        return False
    inside = unquote_plus(unquote_plus(value))
    return masked_query(inside, more) != inside


def masked(text: str, more: Collection[str] = ()) -> str:
    """A line of a log without secret parameters, `Authorization`, cookies, tokens among subprotocols, and JWTs."""
    low = text.lower()
    if "authorization" in low or "cookie" in low or "x-" in low:
        text = _HEADER.sub(_hide, text)
    if "bearer" in low:
        text = _KUBERNETES_TOKEN.sub(_hide, _OFFERS.sub(_hide, text))
    if "eyj" in low:
        text = _JWT.sub(_hide, text)
    return masked_query(text, more)


_hide: Final[Callable[[re.Match[str]], str]] = lambda match: f"{match['before']}{MASK}"  # noqa: E731


def is_token_list_head(subprotocol: str) -> bool:
    """Whether the subprotocol offered next is a token."""
    return subprotocol.lower() == "bearer"


def is_token_protocol(subprotocol: str) -> bool:
    """Whether an offered subprotocol holds a token itself."""
    return subprotocol.lower().startswith(_KUBERNETES) or _JWT.search(subprotocol) is not None


def masked_subprotocols(offered: Iterable[str]) -> list[str]:
    """Offered subprotocols, as a log may show them."""
    shown, before = [], ""
    for one in offered:
        secret = is_token_protocol(one) or is_token_list_head(before)
        shown.append(MASK if secret else one)
        before = one
    return shown
