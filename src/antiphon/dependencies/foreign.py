"""Recognises the markers and classes of an installed FastAPI by their names, never importing it.

A class counts as FastAPI's when one of its bases is defined under the module and name given here, so that subclasses
count too. Owns only the recognition: `plan.py` has the meaning of markers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from antiphon.hub import Hub

from .params import Depends, File, Location, Param, Security, SecurityBase, SecurityScopes

_LOCATIONS: Final = {
    ("fastapi.params", "Path"): Location.PATH,
    ("fastapi.params", "Query"): Location.QUERY,
    ("fastapi.params", "Header"): Location.HEADER,
    ("fastapi.params", "Cookie"): Location.COOKIE,
    ("fastapi.params", "Form"): Location.FORM,
    ("fastapi.params", "Body"): Location.BODY,
    ("fastapi.params", "Param"): Location.QUERY,
}
_FILES: Final = frozenset({("fastapi.params", "File")})
_DEPENDS: Final = frozenset({("fastapi.params", "Depends")})
_SECURITY_BASE: Final = frozenset({("fastapi.security.base", "SecurityBase")})
_SECURITY_SCOPES: Final = frozenset({("fastapi.security.oauth2", "SecurityScopes")})


def _names(cls: type) -> list[tuple[str, str]]:
    return [(base.__module__, base.__qualname__) for base in cls.__mro__]


def location_of(marker: object) -> Location | None:
    """Where this marker reads from. None for anything that is not such a marker."""
    if isinstance(marker, Param):
        return marker.location or Location.QUERY
    return next((_LOCATIONS[name] for name in _names(type(marker)) if name in _LOCATIONS), None)


def is_file(marker: object) -> bool:
    return isinstance(marker, File) or not _FILES.isdisjoint(_names(type(marker)))


def as_depends(marker: Any) -> Depends | None:
    """The marker as our `Depends` or `Security`. None for anything else."""
    if isinstance(marker, Depends):
        return marker
    if _DEPENDS.isdisjoint(_names(type(marker))):
        return None
    # Attributes that older versions of FastAPI lack are None.
    life = getattr(marker, "scope", None)
    limits: dict[str, Any] = {name: getattr(marker, name, None) for name in ("max_concurrency", "_concurrency")}
    if hasattr(marker, "scopes"):
        return Security(marker.dependency, marker.use_cache, life, marker.scopes, **limits)
    return Depends(marker.dependency, marker.use_cache, life, **limits)


def is_security_scheme(call: object) -> bool:
    return isinstance(call, SecurityBase) or not _SECURITY_BASE.isdisjoint(_names(type(call)))


def is_security_scopes(annotation: type) -> bool:
    return issubclass(annotation, SecurityScopes) or not _SECURITY_SCOPES.isdisjoint(_names(annotation))


def resources_in(state: Any) -> Mapping[type, object]:
    """The `state` of another framework's app, for parameters that annotate a class of ours: its `hub`."""
    hub = getattr(state, "hub", None)
    return {Hub: hub} if isinstance(hub, Hub) else {}
