"""Security schemes among the dependencies of a route, as AsyncAPI names them. FastAPI's are known by name, too."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from antiphon.dependencies import foreign
from antiphon.dependencies.inspection import unwrapped

_KEYS: Final = {"APIKeyQuery": "query", "APIKeyHeader": "header", "APIKeyCookie": "cookie"}
_URLS: Final = ("authorizationUrl", "tokenUrl", "refreshUrl")


def schemes(steps: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """The security schemes of a plan's steps, by name, with their OAuth2 scopes."""
    found: dict[str, dict[str, Any]] = {}
    for step in steps:
        scheme = unwrapped(step.call)
        if foreign.is_security_scheme(scheme):
            name = str(getattr(scheme, "scheme_name", None) or type(scheme).__name__)
            made = _described(scheme, getattr(step, "oauth_scopes", ()))
            while name in found and found[name] != made:
                name += "_"
            found[name] = made
    return found


def _described(scheme: Any, scopes: Iterable[str]) -> dict[str, Any]:
    model = scheme.model
    made = _typed({cls.__name__ for cls in type(scheme).__mro__}, model, list(scopes))
    description = getattr(model, "description", None) or made.get("description")
    return {**made, "description": inspect.cleandoc(description)} if description else made


def _typed(names: set[str], model: Any, scopes: list[str]) -> dict[str, Any]:
    if (place := getattr(model, "place", None)) is not None:  # a bearer token that has one place, and no header's
        return {"type": "httpApiKey", "name": model.name, "in": place}
    for name, place in _KEYS.items():
        if name in names:
            return {"type": "httpApiKey", "name": model.name, "in": place}
    if "OpenIdConnect" in names:
        return _connected(str(getattr(model, "openIdConnectUrl", "")), scopes)
    if "OAuth2" in names:
        return _authorized(_flows(getattr(model, "flows", None)), scopes)
    made = {"type": "http", "scheme": str(getattr(model, "scheme", "bearer")).lower()}
    bearer_format = getattr(model, "bearerFormat", None)
    return {**made, "bearerFormat": bearer_format} if bearer_format else made


def _connected(url: str, scopes: list[str]) -> dict[str, Any]:
    if not urlsplit(url).scheme:
        return _bearer(f"OpenID Connect, {url}")
    return {"type": "openIdConnect", "openIdConnectUrl": url, **({"scopes": scopes} if scopes else {})}


def _authorized(flows: dict[str, dict[str, Any]], scopes: list[str]) -> dict[str, Any]:
    urls = [str(flow[name]) for flow in flows.values() for name in _URLS if flow.get(name)]
    if not flows or not all(urlsplit(url).scheme for url in urls):
        # The format knows absolute addresses only, and we do not know our own.
        return _bearer(f"OAuth2, {', '.join(urls)}" if urls else "OAuth2")
    made = {
        name: {
            **{key: str(flow[key]) for key in _URLS if flow.get(key)},
            "availableScopes": dict(flow.get("scopes") or {}),
        }
        for name, flow in flows.items()
    }
    return {"type": "oauth2", "flows": made, **({"scopes": scopes} if scopes else {})}


def _bearer(description: str) -> dict[str, Any]:
    return {"type": "http", "scheme": "bearer", "description": description}


def _flows(flows: Any) -> dict[str, dict[str, Any]]:
    """A mapping of ours, or FastAPI's model."""
    found = flows if isinstance(flows, Mapping) else flows.model_dump(exclude_none=True) if flows is not None else {}
    return {str(name): dict(flow) for name, flow in found.items() if flow}
