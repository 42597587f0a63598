"""The origins that an app trusts by its `CORSMiddleware`: they count where `origins=` is not given."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from starlette.middleware.cors import CORSMiddleware

from .origins import LONGEST


class Trust(NamedTuple):
    """The origins of one or several `CORSMiddleware`."""

    origins: frozenset[str] = frozenset()
    patterns: tuple[re.Pattern[str], ...] = ()
    everybody: bool = False
    """`*` together with `allow_credentials`. Without those, `*` trusts nobody with a visitor's credentials."""

    def includes(self, origin: str) -> bool:
        """Whether this value of an `Origin` header is trusted, by the middleware's own rules."""
        if self.everybody or origin in self.origins:
            return True
        return len(origin) <= LONGEST and any(one.fullmatch(origin) for one in self.patterns)

    def __str__(self) -> str:
        said = ["*"] if self.everybody else sorted(self.origins)
        return ", ".join([*said, *(f"/{one.pattern}/" for one in self.patterns)])


def trust_of(apps: Iterable[Any]) -> Trust:
    """The trust in the `user_middleware` of Starlette's, FastAPI's and our own apps."""
    origins: set[str] = set()
    patterns: list[re.Pattern[str]] = []
    everybody = False
    for app in apps:
        for given in getattr(app, "user_middleware", ()):
            said = _arguments(given)
            listed = said.get("allow_origins") or ()
            everybody = everybody or ("*" in listed and bool(said.get("allow_credentials")))
            origins.update(one for one in listed if isinstance(one, str) and one != "*")
            if said.get("allow_origin_regex"):
                patterns.append(re.compile(said["allow_origin_regex"]))
    return Trust(frozenset(origins), tuple(patterns), everybody)


def _arguments(given: Any) -> dict[str, Any]:
    """The arguments of a `Middleware(CORSMiddleware, ...)`. None for any other."""
    factory = getattr(given, "cls", None)
    if not (isinstance(factory, type) and issubclass(factory, CORSMiddleware)):
        return {}
    try:
        bound = inspect.signature(factory).bind_partial(None, *given.args, **given.kwargs)
    except TypeError:  # which it raises itself when the app starts
        return {}
    return {**bound.arguments, **bound.arguments.get("kwargs", {})}
