"""Parameters annotated `Identity`: the dependencies that can give one, their order, and the error where none does.

Knows the scope's key for an identity, and nothing of tokens or the code that puts an identity there.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

from starlette.requests import HTTPConnection

from antiphon.exceptions import MissingIdentity, RegistrationError
from antiphon.identity import IDENTITY_KEY, Identity
from antiphon.shown import shown

logger: Final = logging.getLogger("antiphon")


def is_identifying(call: object) -> bool:
    """Whether a dependency says of itself that it finds out who somebody is: schemes of the gate do."""
    return getattr(call, "is_identifying", False) is True


Admits: TypeAlias = Callable[[HTTPConnection, Identity], Awaitable[object]]
"""Makes the connection the identity's, or refuses it."""


def admitting(call: object) -> Admits | None:
    """The way such a dependency admits an identity that something else has found in its place."""
    admits: Admits | None = getattr(call, "admit", None) if is_identifying(call) else None
    return admits


def check_order(steps: Sequence[tuple[str, bool, str | None]]) -> None:
    """Raise RegistrationError for a step that is given an identity, by this parameter, before anybody can know it.

    Each step is its name, whether it finds out who somebody is, and the parameter that wants to know.
    """
    first = next((place for place, (_, identifies, _) in enumerate(steps) if identifies), None)
    for label, _, parameter in steps[:first] if first is not None else ():
        if parameter is not None:
            raise RegistrationError(
                f"{label}: parameter {parameter!r} is the Identity, which {steps[first or 0][0]} finds out, and that "
                "runs later: name it before in the signature or in dependencies=[...], or let this depend on it"
            )


def identity_for(connection: HTTPConnection, where: str, default: Any, *, somebody_identifies: bool) -> Any:
    """The connection's identity. Raises MissingIdentity where there is neither one nor a default."""
    identity: Identity | None = connection.scope.get(IDENTITY_KEY)
    if identity is not None:
        return identity
    if default is not inspect.Parameter.empty:
        return default
    note = f"{where} is the Identity, and there is none: {'no token came' if somebody_identifies else FORGOTTEN}"
    if connection.scope["type"] == "http":
        logger.log(
            logging.INFO if somebody_identifies else logging.WARNING,
            "%s %s refused: 401, %s",
            connection.scope.get("method", "HTTP"),
            shown(connection.scope.get("path", "")),
            shown(note),
        )
    raise MissingIdentity(note, is_mistake=not somebody_identifies)


FORGOTTEN: Final = (
    "no dependency of the route finds out who it is; dependencies=[Depends(scheme)] does, where scheme is a JWT, "
    "Tickets, or a WebSocketBearer with verify="
)
