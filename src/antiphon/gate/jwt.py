"""`JWT`: signed tokens as a security dependency, on PyJWT."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from antiphon.identity import Identity

from .admission import Verify
from .bearer import Verifier, WebSocketBearer
from .jwks import JWKS
from .sources import HEADER, LONGEST_TOKEN, SUBPROTOCOL, TokenSource

LONGEST_LEEWAY: Final = 3600.0


class JWT(WebSocketBearer):
    """A signed JSON Web Token (RFC 7519) as a dependency for WebSockets and requests: gives the `Identity` it is for.

        jwt = JWT(SECRET, algorithms=["HS256"], audience="live", sources=[HEADER, COOKIE("session")])

        @app.websocket("/live", dependencies=[Depends(jwt)])
        async def live(websocket: WebSocket, who: Identity) -> None: ...

    Exactly one of `key`, `keys` and `jwks_url` names the keys that verify. A `key` is a PEM, a secret, a JWK (a dict)
    or a key of cryptography. `keys` are a list of them, a dict of them by `kid`, a JWKS document, or a `JWKS`.
    `jwks_url` is the address at which the issuer publishes them. Each key verifies only the `algorithms` of its own
    kind, even if a token names another. Secrets are never fetched.

    `audience` and `issuer` (one or several) are the values that `aud` and `iss` must have. A token with an `aud` needs
    an `audience`. `required` are claims that must be there, `exp` unless you say otherwise. `leeway` is how many
    seconds clocks may differ. It is added to `exp` and the life of the connection. `user_claim` names the user
    (`Identity.user`), `scopes_claim` the scopes: names with spaces between, or a list. The session is `sid`, else
    `jti`.

    A bad token is one line in the log, which names the claim, and 401 with `WWW-Authenticate: Bearer
    error="invalid_token"`, or Close 3000. `sources`, `auto_error`, `longest`, `scheme_name` and `description` as of
    `WebSocketBearer`. Needs `pip install "antiphon[jwt]"`, else it raises ModuleNotFoundError. Raises TypeError and
    ValueError for arguments that cannot work, such as a key that fits none of the `algorithms`.

        jwt = JWT(jwks_url="https://issuer.example/.well-known/jwks.json", algorithms=["RS256"], audience="chat")
    """

    def __init__(
        self,
        key: Any = None,
        *,
        keys: Any = None,
        jwks_url: str | None = None,
        algorithms: Sequence[str],
        audience: str | Iterable[str] | None = None,
        issuer: str | Iterable[str] | None = None,
        leeway: float = 10.0,
        required: Sequence[str] = ("exp",),
        user_claim: str = "sub",
        scopes_claim: str = "scope",
        sources: Sequence[TokenSource] = (HEADER, SUBPROTOCOL),
        auto_error: bool = True,
        longest: int = LONGEST_TOKEN,
        scheme_name: str | None = None,
        description: str | None = None,
    ) -> None:
        try:
            from .claims import ClaimsReader, Expected, header_reader
            from .keys import PUBLIC, KeyRing, check_algorithms, ring_of
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f'JWT needs the package {error.name!r}: pip install "antiphon[jwt]"', name=error.name
            ) from error
        names = check_algorithms(algorithms)
        self._keys: KeyRing | JWKS
        found = _the_one(key=key, keys=keys, jwks_url=jwks_url)
        if jwks_url is not None or isinstance(found, JWKS):
            if secrets := sorted(set(names) - PUBLIC):
                raise ValueError(
                    f"algorithms: {', '.join(secrets)} verify with a secret, and published keys are not secret"
                )
            self._keys = found if isinstance(found, JWKS) else JWKS(found)
        else:
            self._keys = ring_of(found, names)
        self._header_of = header_reader(names)
        self._claims = ClaimsReader(
            Expected(
                algorithms=names,
                audience=_names("audience", audience),
                issuer=_names("issuer", issuer),
                leeway=_leeway(leeway),
                required=_names("required", required) or (),
                user_claim=_claim("user_claim", user_claim),
                scopes_claim=_claim("scopes_claim", scopes_claim),
            )
        )
        super().__init__(
            sources,
            _nobody,
            auto_error=auto_error,
            longest=longest,
            scheme_name=scheme_name,
            description=description,
            bearerFormat="JWT",
        )

    def _verifying(self, verify: Verifier) -> Verify:
        # All objects for a token are local variables: the scheme's own attributes are slow to read, for it has a
        # `__getattr__` (benchmarks/jwt_micro.py).
        check_shape, header_of, verified, keys = self._check_shape, self._header_of, self._claims.verified, self._keys
        published = keys if isinstance(keys, JWKS) else None
        at_hand = keys.at_hand if isinstance(keys, JWKS) else keys.candidates

        async def identity_of(token: str) -> Identity:
            check_shape(token)
            header = header_of(token)
            found = at_hand(header)
            if not found and published is not None:
                found = await published.candidates(header)
            return verified(token, header, found)

        return identity_of


def _nobody(token: str) -> None:
    """In place of a `verify` of the user's, which a JWT does not need."""


def _the_one(**given: Any) -> Any:
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) != 1:
        raise TypeError(f"JWT: expected exactly one of {', '.join(given)}; got {' and '.join(named) or 'none'}")
    (found,) = named.values()
    if "key" in named:
        several = isinstance(found, Sequence) and not isinstance(found, str | bytes)
        if several or isinstance(found, JWKS):
            raise TypeError("JWT(key): expected one key; several are JWT(keys=...)")
        if isinstance(found, Mapping) and "kty" not in found:
            raise TypeError("JWT(key): a dict is a JWK, with its kty; several keys are JWT(keys=...)")
    return found


def _names(what: str, given: object) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = (given,) if isinstance(given, str) and what != "required" else given
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"JWT({what}=): expected names, got {given!r}")
    found = tuple(names)
    if not all(isinstance(name, str) and name for name in found) or (not found and what != "required"):
        raise TypeError(f"JWT({what}=): expected names that are not empty, got {given!r}")
    return found


def _claim(what: str, name: object) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError(f"JWT({what}=): expected the name of a claim, got {name!r}")
    return name


def _leeway(seconds: object) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or math.isnan(seconds):
        raise TypeError(f"JWT(leeway=): expected seconds, got {seconds!r}")
    if not 0 <= seconds <= LONGEST_LEEWAY:
        raise ValueError(f"JWT(leeway=): expected 0 to {LONGEST_LEEWAY:.0f} s, got {seconds!r}")
    return float(seconds)
