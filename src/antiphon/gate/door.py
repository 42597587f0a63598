"""The terms of admission of the app, a router and a route, the nearest first, and the check of a handshake by them.

A `Door` is made when a route is registered, and costs a connection without an `Origin` one look at its headers.
"""

from __future__ import annotations

import logging
import weakref
from typing import Any, Final

from antiphon.connection.denials import Denials, refuse_with_close
from antiphon.events import Refusal
from antiphon.exceptions import RegistrationError
from antiphon.shown import shown
from antiphon.types import Scope

from .cors import trust_of
from .notices import Notices
from .origins import (
    DEFAULT,
    LONGEST,
    Arrival,
    Foreign,
    Origins,
    OriginsLike,
    Site,
    as_origins,
    is_welcome,
    read_arrival,
    read_origin,
)
from .refusals import note_refusal

logger: Final = logging.getLogger("antiphon")

OUTER_APPS_KEY: Final = "antiphon.outer_apps"
"""Key in the scope: the apps that this one is mounted in, whose middleware the handshake has passed."""

CHECKED_KEY: Final = "antiphon.origin_checked"
"""Key in the scope: set by `OriginMiddleware`, so that the default of a route within does not judge once more."""

REASON: Final = "this origin may not connect"
"""All that the peer learns."""


class Door:
    """A route's terms of admission. `within` adds those around it. Raises RegistrationError."""

    __slots__ = ("denials", "origins")

    def __init__(self, origins: OriginsLike | None = None, denials: Denials | None = None) -> None:
        try:
            self.origins: Origins | None = None if origins is None else as_origins(origins)
        except (TypeError, ValueError) as error:
            raise RegistrationError(str(error)) from None
        if denials is not None and not isinstance(denials, Denials):
            raise RegistrationError(f"denials is Denials.HTTP or Denials.CLOSE, not {denials!r}")
        self.denials: Denials | None = denials

    def within(self, outer: Door) -> Door:
        """This door within `outer`, whose terms hold where this one has none."""
        return Door(self.origins if self.origins is not None else outer.origins, self.denials or outer.denials)

    def lets_in(self, scope: Scope, denials: Denials | None = None) -> bool:
        """Whether a handshake may go on. A refusal was logged and reported. From here on the scope says how it is
        refused. `denials` holds where the terms name none.
        """
        if (self.denials or denials) is Denials.CLOSE:
            refuse_with_close(scope)
        origins = self.origins
        for name, _ in scope["headers"]:
            if name == b"origin":
                break
        else:
            if origins is None or not origins.required:
                return True
        return check_origin(origins, scope)


OPEN: Final = Door()
"""Nothing is said."""


def check_origin(origins: Origins | None, scope: Scope, *more_apps: Any) -> bool:
    """Whether these origins, or the default, let a handshake in. Where not, that is logged and told to observers."""
    arrival = read_arrival(scope)
    if is_welcome(origins or DEFAULT, arrival):
        return True
    apps = [_known_of(app) for app in (scope.get("app"), *scope.get(OUTER_APPS_KEY, ()), *more_apps) if app is not None]
    trusted: list[str] = []
    if origins is None:
        if CHECKED_KEY in scope or any(app.trust.includes(arrival.origin or "") for app in apps):
            return True
        trusted = [str(app.trust) for app in apps if str(app.trust)]
    notices = apps[0].notices if apps else _NOBODYS.notices
    path = shown(scope.get("path", ""))
    notices.warn((arrival.origin or "")[:LONGEST], lambda: explanation(path, arrival, origins, ", ".join(trusted)))
    note_refusal(scope, Refusal.ORIGIN)
    return False


class _Known:
    """The kept part of an app."""

    def __init__(self, app: Any, notices: Notices | None = None) -> None:
        self.trust: Final = trust_of([app])
        self.notices: Final = notices or Notices(logger)


_KNOWN: Final[weakref.WeakKeyDictionary[Any, _Known]] = weakref.WeakKeyDictionary()
_NOBODYS: Final = _Known(None)


def _known_of(app: Any) -> _Known:
    """Made once: an app whose middleware has run gets no more of it."""
    try:
        known = _KNOWN.get(app)
        if known is None:
            known = _KNOWN[app] = _Known(app)
    except TypeError:  # an app that cannot be hashed or referred to weakly
        return _Known(app, _NOBODYS.notices)
    return known


def explanation(path: str, arrival: Arrival, origins: Origins | None, trusted: str) -> str:
    """The line that ends the search: the origin that came, those allowed, and the option to set."""
    ours = str(arrival.ours) if arrival.ours is not None else "an address that its Host does not tell"
    option = "origins= of the App, router, route or OriginMiddleware"
    if arrival.origin is None:
        return f"{path} refused: no Origin came, and {option} demands one. Without required=True this client comes in"
    origin = shown(arrival.origin, 200)
    allowed = f"ours, {ours}"
    listed = ", ".join(origins.allowed) if origins is not None else trusted
    if listed:
        allowed += f", and {shown(listed)}"
    if origins is None or origins.foreign is Foreign.WITHOUT_CREDENTIALS:
        what = f"a page of {origin} came with {arrival.brings}, which only these may use"
    else:
        what = f"a page of {origin}; allowed are"
    return f"{path} refused: {what}: {allowed}. {_remedy(origin, arrival.ours, option)}"


def _remedy(origin: str, ours: Site | None, option: str) -> str:
    site = read_origin(origin)
    if site is None and origin != "null":
        return "That is no origin, and no browser sends it"
    advice = f'If that page may connect: {option}, origins=["{origin}"]'
    if origin == "null":
        return f"{advice}; null is a sandboxed frame or a file"
    if site is not None and ours is not None and site.host == ours.host:
        return (
            "The host is the same: behind a proxy, let it pass on the browser's `Host` with its port, and "
            f"X-Forwarded-Proto from an address that the server trusts (docs/server.md). {advice}"
        )
    return advice
