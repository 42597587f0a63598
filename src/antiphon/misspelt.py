"""Names that a package does not have: the module that has them, or the name that was meant. Imports nothing of ours.

Everything here runs when an import or an attribute has failed already, and reads the sources: it imports none of them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent
PUBLIC: Final = (
    "antiphon",
    "antiphon.gate",
    "antiphon.testclient",
    "antiphon.testing",
    "antiphon.security",
    "antiphon.hub",
    "antiphon.server",
    "antiphon.connection",
    "antiphon.messages",
    "antiphon.asyncapi",
    "antiphon.clients",
    "antiphon.clients.runtime",
    "antiphon.observability.prometheus",
    "antiphon.observability.healthz",
    "antiphon.routing",
    "antiphon.endpoints",
    "antiphon.exceptions",
    "antiphon.events",
    "antiphon.hub.events",
    "antiphon.hub.backends",
    "antiphon.hub.backends.relay",
    "antiphon.types",
    "antiphon.testing.hub_contract",
    "antiphon.responses",
    "antiphon.requests",
    "antiphon.background",
    "antiphon.concurrency",
    "antiphon.datastructures",
    "antiphon.encoders",
    "antiphon.staticfiles",
    "antiphon.templating",
    "antiphon.websockets",
    "antiphon.middleware",
    "antiphon.status",
)
"""The public modules, those first from which users import most."""
FASTAPIS: Final = "antiphon.fastapi"
"""Has FastAPI's class for applications; every other name of FastAPI's is ours, too."""
ALIKE: Final = 0.8
"""From 0 to 1: `Websocket` and `WebSocket` are, `Room` and `Form` are not."""
IMPORTING: Final = "<frozen importlib._bootstrap>"
"""The file of the interpreter's function that looks for the names of `from package import name`."""


def missing(package: str, name: str, asked_in: str) -> AttributeError | ImportError:
    """The error for a name that is not there. `asked_in` is the file of the code that asked for it.

    An import gets an ImportError: of an AttributeError, Python would show nothing. Everything else, `hasattr` too, gets
    an AttributeError.
    """
    advice = "" if name.startswith("_") else found(package, name)
    if advice and asked_in == IMPORTING:
        return ImportError(f"cannot import name {name!r} from {package!r}: {advice}", name=name)
    return AttributeError(f"module {package!r} has no attribute {name!r}" + (advice and f": {advice}"))


def found(package: str, name: str) -> str:
    """The sentence with the correct name. Empty when nothing is like it."""
    names = {module: public_names(module) for module in PUBLIC} | {FASTAPIS: ["FastAPI"]}
    for module, there in names.items():
        if name in there:
            return f"write from {module} import {name}"
    for module in (package, *PUBLIC):
        if meant := closest(name, names.get(module, ())):
            return f"did you mean {meant}?" if module == package else f"did you mean from {module} import {meant}?"
    return ""


def closest(name: str, names: Iterable[str]) -> str:
    """The one that is most like it, in any case. Empty when none is."""
    spelled = {one.lower(): one for one in names}
    like = get_close_matches(name.lower(), spelled, 1, ALIKE)
    return spelled[like[0]] if like else ""


def public_names(module: str) -> list[str]:
    """`__all__` of one of our modules, as its source has it. Empty where it is computed, or no source is at hand."""
    path = ROOT.joinpath(*module.split(".")[1:])
    try:
        tree = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_bytes())
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                return list(ast.literal_eval(node.value))
    except (OSError, ValueError):
        pass
    return []
