"""The identity of a connection's user, its expiry and its permissions: vocabulary of the gate, hub and channels.

Knows nothing of tokens, tickets or other proofs of an identity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final, NoReturn

__all__ = ["Identity"]

MILLISECONDS: Final = 1.5e12
"""From here on Unix seconds are meant as milliseconds: as those they are of 2017 and later, as seconds of 49503."""

IDENTITY_KEY: Final = "antiphon.identity"
"""Key in the scope under which the `Identity` of a connection stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Somebody whose credentials were verified.

        Identity(user="ann", scopes=frozenset({"orders:read"}), expires_at=time.time() + 300)

    `JWT`, `Tickets` and every `verify` of a `WebSocketBearer` give one. `websocket.identity` has it, and so does every
    parameter that is annotated with it. Raises TypeError and ValueError for fields of another type.
    """

    user: str
    """The name: a JWT's `sub`. The hub's default user."""
    session: str | None = None
    """Which login of the user: a JWT's `sid`, else its `jti`. None where nothing tells logins apart."""
    issued_at: float | None = None
    """Unix seconds (UTC): a JWT's `iat`. `hub.revoke(issued_before=...)` asks for it."""
    expires_at: float | None = None
    """Unix seconds (UTC): a JWT's `exp`. The connection is closed with 3000 when it has passed. None: never."""
    scopes: frozenset[str] = frozenset()
    """The rights (RFC 6749 §3.3) that `requires` asks for."""
    claims: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), repr=False, compare=False)
    """All claims of the token, unchanged. Not shown: they may be private."""

    def __post_init__(self) -> None:
        """Raises TypeError, ValueError."""
        if not isinstance(self.user, str) or not (self.session is None or isinstance(self.session, str)):
            raise TypeError(f"an Identity's user and session are a str; got {self.user!r} and {self.session!r}")
        if not self.user:
            raise ValueError("an Identity needs a user; an empty one is nobody's")
        for name in ("issued_at", "expires_at"):
            at = getattr(self, name)
            if at is not None and (isinstance(at, bool) or not isinstance(at, int | float) or at != at):
                raise TypeError(f"an Identity's {name} is a number of Unix seconds, or None; got {at!r}")
            if at is not None and MILLISECONDS <= at < math.inf:
                raise ValueError(
                    f"an Identity's {name} is in Unix seconds, and {at!r} are milliseconds: divide by 1000"
                )
        if isinstance(self.scopes, str):
            raise TypeError(f"an Identity's scopes are a set of names; got the str {self.scopes!r}: split it")
        object.__setattr__(self, "scopes", frozenset(self.scopes))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> NoReturn:
        """Nobody is somebody because a body or a query says so: pydantic never makes an identity."""
        raise TypeError(
            "an Identity is never read from a peer's data: annotate it in a route of antiphon's App or APIRouter, "
            "or take it from a scheme, Depends(jwt)"
        )


_new: Final = object.__new__
_setters: Final = [getattr(Identity, field.name).__set__ for field in fields(Identity)]
_set_user, _set_session, _set_issued_at, _set_expires_at, _set_scopes, _set_claims = _setters


def checked_identity(
    user: str,
    session: str | None,
    issued_at: float | None,
    expires_at: float | None,
    scopes: frozenset[str],
    claims: Mapping[str, Any],
) -> Identity:
    """One of values that the caller has checked, in an eighth of the time (benchmarks/jwt_micro.py).

    In the order of the fields: by name would cost as much again.
    """
    identity = _new(Identity)
    _set_user(identity, user)
    _set_session(identity, session)
    _set_issued_at(identity, issued_at)
    _set_expires_at(identity, expires_at)
    _set_scopes(identity, scopes)
    _set_claims(identity, claims)
    return identity
