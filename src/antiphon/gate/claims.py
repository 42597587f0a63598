"""From a signed token to its identity. PyJWT verifies. Here are the demands on it, and the words for its errors.

Verification runs in the event loop, once for a connection. Most algorithms take no longer than the way to a thread and
back, and the slowest curve takes a millisecond (benchmarks/jwt_micro.py). Threads that anybody can fill would be one
more queue to bound. Needs PyJWT (the extra `jwt`).
"""

from __future__ import annotations

import binascii
import json
import math
from base64 import urlsafe_b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, Final

import jwt

from antiphon.events import Refusal
from antiphon.identity import Identity, checked_identity
from antiphon.shown import shown

from .challenge import InvalidToken
from .keys import SignatureHeader, VerifyingKey

USUAL: Final = 256
"""Characters of a remembered text: a header (an algorithm and the name of a key), the scopes of a signed token."""

NO_SCOPES: Final[frozenset[str]] = frozenset()
LATEST: Final = 10**11
"""Unix seconds, in the year 5138: beyond it somebody has written milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The demands on a token."""

    algorithms: tuple[str, ...]
    audience: tuple[str, ...] | None
    issuer: tuple[str, ...] | None
    leeway: float
    required: tuple[str, ...]
    user_claim: str
    scopes_claim: str


def header_reader(algorithms: tuple[str, ...]) -> Callable[[str], SignatureHeader]:
    """A reader for the header of a token (RFC 7515 §4). It raises `InvalidToken`, also for an algorithm other than
    these.

    Those of one issuer are alike, and remembered (benchmarks/jwt_micro.py).
    """
    usual = lru_cache(maxsize=64)(partial(_header, algorithms=algorithms))

    def header_of(token: str) -> SignatureHeader:
        if token.count(".") != 2:
            raise InvalidToken(f"the token has {token.count('.') + 1} parts, and a signed JWT has three")
        encoded = token[: token.index(".")]
        return usual(encoded) if len(encoded) <= USUAL else _header(encoded, algorithms)

    return header_of


def _header(encoded: str, algorithms: tuple[str, ...]) -> SignatureHeader:
    try:
        header = json.loads(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        raise InvalidToken("the header of the token is no JSON in base64url") from None
    if not isinstance(header, dict):
        raise InvalidToken("the header of the token is no JSON object")
    if "crit" in header or "b64" in header:
        raise InvalidToken("crit: the token has extensions that must be understood, and none is (RFC 7515 §4.1.11)")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        remedy = "add it, if the issuer signs so"
        if str(algorithm).lower() == "none":
            remedy = "nobody signed this token, so anybody may have written it"
        told = shown(algorithm, 20)
        raise InvalidToken(f"alg: {told!r} is not among the algorithms {', '.join(algorithms)}; {remedy}")
    if not (kid is None or isinstance(kid, str)):
        raise InvalidToken("kid: the name of the key is no str")
    return SignatureHeader(algorithm, kid)


class ClaimsReader:
    """Verifies tokens, and reads them."""

    def __init__(self, expected: Expected) -> None:
        self._expected: Final = expected
        self._required: Final = [*dict.fromkeys([*expected.required, expected.user_claim])]
        # The rules for a subject and a session are below: PyJWT's versions differ over them.
        verifier = jwt.PyJWT({"require": self._required, "verify_sub": False, "verify_jti": False})
        self._decode: Final = verifier.decode_complete

    def verified(self, token: str, header: SignatureHeader, keys: Sequence[VerifyingKey]) -> Identity:
        """The identity of a token that one of the keys has signed. Raises `InvalidToken`."""
        expected = self._expected
        for key in keys:
            try:
                decoded = self._decode(
                    token,
                    key.value,
                    [header.algorithm],
                    audience=expected.audience,
                    issuer=expected.issuer,
                    leeway=expected.leeway,
                )
                return self._identity(decoded["payload"])
            except jwt.InvalidSignatureError:
                continue
            except jwt.PyJWTError as error:
                expired = isinstance(error, jwt.ExpiredSignatureError)
                reason = Refusal.TOKEN_EXPIRED if expired else Refusal.TOKEN_INVALID
                raise InvalidToken(self._said_of(error), reason=reason) from None
            except (ValueError, TypeError, OverflowError, RecursionError) as error:
                raise InvalidToken(f"the token is malformed ({type(error).__name__})") from None
        if keys:
            raise InvalidToken(
                "the signature is not that of a key we know; give JWT() the issuer's key, if the token is genuine"
            )
        raise InvalidToken(
            f"kid: no key for {header.algorithm} {_of_name(header.kid)}; "
            "give JWT() the issuer's key, if the token is genuine"
        )

    def _identity(self, claims: dict[str, Any]) -> Identity:
        value = claims.get
        expires_at, issued_at = value("exp"), value("iat")
        if not (type(expires_at) is int and 0 <= expires_at < LATEST):
            check_seconds("exp", expires_at)
        if not (type(issued_at) is int and 0 <= issued_at < LATEST):
            check_seconds("iat", issued_at)
        if "nbf" in claims:
            check_seconds("nbf", value("nbf"))
        session = value("sid")
        if session is None:
            session = value("jti")
        if not (session is None or isinstance(session, str)):
            raise InvalidToken("sid, jti: expected a str")
        expected = self._expected
        scopes, user = value(expected.scopes_claim), value(expected.user_claim)
        return checked_identity(
            user if type(user) is str and user and user.isascii() else _user(user, expected.user_claim),
            session,
            issued_at,
            # The token is taken until then, and so the connection lasts until then.
            None if expires_at is None else expires_at + expected.leeway,
            NO_SCOPES if scopes is None else _scopes(scopes, expected.scopes_claim),
            MappingProxyType(claims),
        )

    def _said_of(self, error: jwt.PyJWTError) -> str:
        """The claim and the reason, in words of ours: PyJWT's may contain the peer's input."""
        match error:
            case jwt.ExpiredSignatureError():
                return "exp: the token has expired; log in again, or refresh it in time"
            case jwt.ImmatureSignatureError():
                claim = "iat" if "(iat)" in str(error) else "nbf"
                return (
                    f"{claim}: the token is not valid yet; a leeway= makes up for clocks that differ, and not for "
                    "milliseconds"
                )
            case jwt.MissingRequiredClaimError():
                return f"{error.claim}: the token does not have it; its issuer has to write it"
            case jwt.InvalidAudienceError():
                audience = self._expected.audience
                if audience is None:
                    return "aud: the token is for a certain audience, and JWT(audience=) names none"
                return f"aud: the token is not for {' or '.join(audience)}; ask the issuer for one that is"
            case jwt.InvalidIssuerError():
                return (
                    f"iss: the token is not from {' or '.join(self._expected.issuer or ())}; "
                    "name its issuer in JWT(issuer=), if you trust it"
                )
            case jwt.InvalidIssuedAtError():
                return "iat: expected a number of Unix seconds"
        return f"the token is no signed JWT ({shown(error, 80)})"


def _of_name(kid: str | None) -> str:
    return "is known" if kid is None else f"has the name '{shown(kid, 64)}'"


def _user(user: object, name: str) -> str:
    if isinstance(user, int) and not isinstance(user, bool):
        return str(user)  # a database's number, which many issuers write as it is
    if not isinstance(user, str) or not user:
        raise InvalidToken(f"{name}: expected a str that is not empty")
    try:
        user.encode()
    except UnicodeEncodeError:  # JSON may write one half of a pair, which no message or backend takes
        raise InvalidToken(f"{name}: expected characters of Unicode, got a lone surrogate") from None
    return user


def check_seconds(name: str, at: object) -> None:
    """Raise `InvalidToken` for a value that is no NumericDate (RFC 7519 §2). None is no claim."""
    if at is None:
        return
    if isinstance(at, bool) or not isinstance(at, int | float) or not math.isfinite(at):
        raise InvalidToken(f"{name}: expected a number of Unix seconds")
    if not 0 <= at < LATEST:
        raise InvalidToken(f"{name}: expected Unix seconds; this is another number, perhaps milliseconds")


def _scopes(scopes: object, name: str) -> frozenset[str]:
    """One str with spaces between (RFC 8693 §4.2), or a list of names."""
    if isinstance(scopes, str):
        return _of_words(scopes) if len(scopes) <= USUAL else frozenset(scopes.split())
    if isinstance(scopes, list) and all(isinstance(scope, str) for scope in scopes):
        return frozenset(scopes)
    raise InvalidToken(f"{name}: expected names with spaces between, or a list of them")


@lru_cache(maxsize=64)
def _of_words(scopes: str) -> frozenset[str]:
    return frozenset(scopes.split())
