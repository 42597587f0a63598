"""The terms of an app, a router or a route: the pages that may connect, the form of refusals, and the rates.

One object for all of it, so that code that includes a router or serves a route hands on one thing. `door.py` and
`limits.py` interpret the parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypedDict
from weakref import WeakKeyDictionary

from antiphon.connection.denials import Denials
from antiphon.types import Scope

from .door import OPEN, Door
from .limits import NO_LIMITS, Limits
from .origins import OriginsLike
from .rates import Rate

TERMS_KEY: Final = "antiphon.terms"
"""Key in the scope: the `Terms` of the app and of the routers that serve it, for routes that were made before them."""


class Lets(TypedDict, total=False):
    """The gate's parameters of apps, routers and routes."""

    origins: OriginsLike | None
    """The pages that may connect: `SAME`, patterns in a list, or `Origins`. None: as the surroundings say."""
    denials: Denials | None
    """The form of a refused handshake. None: as the surroundings say."""
    rates: Sequence[Rate] | None
    """Of the messages of each connection, beside the surroundings' own."""
    connects: Rate | None
    """Of the handshakes of an address, beside the surroundings' own."""


class Terms:
    """The terms given in one place or in several that lie within each other."""

    __slots__ = ("__weakref__", "_here", "door", "limits")

    def __init__(self, door: Door = OPEN, limits: Limits = NO_LIMITS) -> None:
        self.door: Door = door
        self.limits: Limits = limits
        self._here: WeakKeyDictionary[Terms, Terms] = WeakKeyDictionary()

    def within(self, outer: Terms) -> Terms:
        """These terms inside those of `outer`: of origins and denials the nearest holds, of rates all do."""
        if outer is NO_TERMS or outer is self:
            return self
        if self is NO_TERMS:
            return outer
        return Terms(self.door.within(outer.door), outer.limits + self.limits)

    def here(self, scope: Scope) -> Terms:
        """These within those of the app and the routers that serve this connection, whether or not they are in it."""
        outer: Terms | None = scope.get(TERMS_KEY)
        if outer is None:
            return self
        if self is NO_TERMS:
            return outer
        known = self._here.get(outer)
        if known is None:
            known = self._here[outer] = self.within(outer)
        return known


NO_TERMS: Final = Terms()
"""Nothing is said."""


def terms_of(
    *,
    origins: OriginsLike | None = None,
    denials: Denials | None = None,
    rates: Sequence[Rate] | None = None,
    connects: Rate | None = None,
) -> Terms:
    """The terms given in one place. Raises RegistrationError and TypeError for invalid ones."""
    if origins is None and denials is None and rates is None and connects is None:
        return NO_TERMS
    return Terms(Door(origins, denials), Limits(rates, connects))
