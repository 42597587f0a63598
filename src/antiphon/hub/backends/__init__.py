"""Backends by URL scheme. Each module is imported when its scheme is first used.

The names that a third-party backend needs are public here.
"""

from __future__ import annotations

import importlib
import os
from typing import Final, cast

from ..environment import ENVIRONMENT
from ..errors import UnknownBackend
from ..records import Change, Entry, Keep, Page, Roster, Track
from .base import Backend, BackendConfig, BackendFactory, InProcessBackend, Listener, redact

__all__ = [
    "Backend",
    "BackendConfig",
    "BackendFactory",
    "Change",
    "Entry",
    "InProcessBackend",
    "Keep",
    "Listener",
    "Page",
    "Roster",
    "Track",
]

SCHEMES: Final[dict[str, tuple[str, str]]] = {
    "memory": ("memory", "MemoryBackend"),
    "relay": ("relay", "RelayBackend"),
    "redis": ("redis", "RedisBackend"),
    "rediss": ("redis", "RedisBackend"),
    "unix": ("redis", "RedisBackend"),
}


def default_url() -> str:
    """`relay://` in the workers of `antiphon run --workers`, where `memory://` would be as many hubs as there are
    workers. `memory://` elsewhere."""
    return "relay://" if os.environ.get(ENVIRONMENT) else "memory://"


def build(url: str, config: BackendConfig) -> Backend:
    """The backend for `url`, not yet connected. Raises `UnknownBackend`."""
    if not isinstance(url, str):
        raise UnknownBackend(f"expected a hub URL, got {type(url).__name__}")
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        expected = ", ".join(f"{name}://" for name in SCHEMES)
        raise UnknownBackend(f"expected a hub URL with one of {expected}; got {redact(url)!r}")
    module, name = SCHEMES[scheme]
    try:
        factory = cast(BackendFactory, getattr(importlib.import_module(f"{__name__}.{module}"), name))
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith(__name__):
            raise
        raise UnknownBackend(f"{scheme}:// needs the package {error.name!r}: pip install {error.name}") from error
    return factory(url, config)
