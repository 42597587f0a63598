"""The permissions of an identity: a dependency that admits only users with these scopes (RFC 6749 §3.3)."""

from __future__ import annotations

import re
from typing import ClassVar, Final

from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import HTTPConnection

from antiphon.identity import Identity

from .challenge import InsufficientScope, refusal

SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""A scope as RFC 6749 §3.3 has it: characters that fit between the quotes of a challenge."""


class requires:
    """A dependency that demands `scopes` of the connection's identity: `Depends(requires("orders:write"))`.

        @app.websocket("/orders", dependencies=[Depends(jwt), Depends(requires("orders:write"))])
        async def orders(websocket: WebSocket, who: Identity) -> None: ...

    It stands behind the scheme that identifies the user, and gives the identity. A scope that is missing: 403 with
    `WWW-Authenticate: Bearer error="insufficient_scope"`. After accept it is Close 3003, and below a channel's handler
    the answer "forbidden" to that message. Raises TypeError and ValueError for names that are no scopes.
    """

    is_called_as_dependency: ClassVar[bool] = True
    """Its objects are the dependencies. The class itself checks nobody."""

    def __init__(self, *scopes: str) -> None:
        if not scopes:
            raise TypeError('requires() takes at least one scope, as requires("orders:write")')
        for scope in scopes:
            if not isinstance(scope, str):
                raise TypeError(f'requires() takes scopes one by one, as requires("read", "write"); got {scope!r}')
            if not SCOPE.fullmatch(scope):
                raise ValueError(
                    f"{scope!r} is no scope (RFC 6749 §3.3): name each by itself, without spaces or quotes"
                )
        self.scopes: tuple[str, ...] = scopes

    async def __call__(self, connection: HTTPConnection, identity: Identity) -> Identity:
        """The identity, which has the scopes."""
        try:
            check_scopes(identity, self.scopes)
        except StarletteHTTPException as error:
            raise refusal(connection, error) from None
        return identity

    def __repr__(self) -> str:
        return f"requires({', '.join(map(repr, self.scopes))})"


def check_scopes(identity: Identity, demanded: tuple[str, ...]) -> None:
    """Raises `InsufficientScope` unless the identity has all scopes."""
    missing = [scope for scope in demanded if scope not in identity.scopes]
    if missing:
        raise InsufficientScope(missing, demanded)
