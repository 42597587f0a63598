"""Packages whose names are imported when they are first asked for (PEP 562). Imports the vocabulary only.

A command that talks to a server, a process that has only a hub: neither loads a framework for a name of a package.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

Homes: TypeAlias = Mapping[str, tuple[str, ...]]
"""Module, relative to the package, to the names that come from it."""


def lazily(package: str, homes: Homes) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package. Its modules are attributes, too, as if it had imported them."""
    home_of: Final = {name: home for home, names in homes.items() for name in names}
    namespace: Final = vars(sys.modules[package])

    def get(name: str) -> Any:
        home = home_of.get(name)
        if home is None:
            value = _module(package, name, sys._getframe(1).f_code.co_filename)
        else:
            value = getattr(importlib.import_module(home, package), name)
        namespace[name] = value
        return value

    def names() -> list[str]:
        return sorted({*namespace, *home_of})

    return get, names


def _module(package: str, name: str, asked_in: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    try:
        return importlib.import_module(f".{name}", package)
    except ModuleNotFoundError as error:
        if error.name != f"{package}.{name}":
            raise  # it is there, and needs something that is not
    from .misspelt import missing

    raise missing(package, name, asked_in)
