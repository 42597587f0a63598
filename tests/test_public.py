"""The public API is declared: its names are frozen in public_names.txt, and each has a docstring."""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import re
import types
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import antiphon
from antiphon.types import Sink
from tests.public_names import FASTAPIS, FROZEN, MODULES, ROOT, public_names


def test_the_public_names_are_these_and_no_others() -> None:
    assert public_names() == FROZEN.read_text().split(), "if that is meant: python -m tests.public_names"


@pytest.mark.parametrize("module", MODULES)
def test_a_public_module_says_what_it_is_and_what_of_it_is_public(module: str) -> None:
    found = importlib.import_module(module)
    assert found.__doc__
    assert len(found.__all__) == len(set(found.__all__))
    assert not [name for name in found.__all__ if name.startswith("_") and name != "__version__"]


@pytest.mark.parametrize("module", MODULES)
def test_a_star_import_gives_all_public_names(module: str) -> None:
    given: dict[str, object] = {}
    exec(f"from {module} import *", given)
    assert set(importlib.import_module(module).__all__) <= set(given)


def test_the_version_is_that_of_the_installed_package() -> None:
    assert antiphon.__version__ == version("antiphon")


# ---------------------------------------------------------------- an editor's view


def _objects() -> Iterator[tuple[str, object]]:
    """Each public object of ours once, by its first public name."""
    seen: set[int] = set()
    for name in public_names():
        module, _, attribute = name.rpartition(".")
        value = getattr(importlib.import_module(module), attribute)
        ours = (getattr(value, "__module__", None) or "").startswith("antiphon")
        if ours and isinstance(value, type | types.FunctionType) and id(value) not in seen:
            seen.add(id(value))
            yield name, value


OBJECTS = dict(_objects())
CLASSES = {name: value for name, value in OBJECTS.items() if isinstance(value, type)}

SAID_BY_THE_SPECIFICATION = {"scope", "receive", "send"}
"""ASGI's three."""


MADE_BY_ANTIPHON = {
    "IncludedRouter": "`include_router`",
    "Membership": "`hub.join`",
    "Subscription": "`hub.subscribe`",
    "HTTPProtocol": "uvicorn",
    "WebSocketProtocol": "uvicorn",
    "ConnectionEnded": "`Peer.receive`",
    "HandshakeRefused": "`Server.connect`",
    "Peer": "`Server.connect`",
    "WebSocketDenialResponse": "`TestClient.websocket_connect`",
    "WebSocketTestSession": "`TestClient.websocket_connect`",
}
"""Classes that users get and do not make, and their makers."""

CONSTRUCTED = {
    name: value
    for name, value in CLASSES.items()
    if not issubclass(value, enum.Enum) and value.__name__ not in MADE_BY_ANTIPHON
}


def _said(value: type) -> str:
    """The documentation of a class and its parameters: its docstring, and those below its fields."""
    texts = []
    for base in value.__mro__:
        if base.__module__.startswith("antiphon"):
            texts += [base.__doc__ or "", getattr(vars(base).get("__init__"), "__doc__", "") or ""]
            source = inspect.getsource(base)
            texts += re.findall(r'^ +(\w+): [^\n]*\n +"""', source, re.M)
    return "\n".join(texts)


def _parameters(value: object) -> list[str]:
    try:
        parameters = inspect.signature(value).parameters.values()  # type: ignore[arg-type]
    except ValueError:
        return []
    return [one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]


def test_a_public_name_says_what_it_is() -> None:
    assert [name for name, value in OBJECTS.items() if not value.__doc__] == []
    by_dataclasses = [
        name for name, value in OBJECTS.items() if (value.__doc__ or "").startswith(f"{name.rpartition('.')[2]}(")
    ]
    assert by_dataclasses == [], "what dataclasses write by themselves"


def test_an_editor_shows_what_a_constructor_takes() -> None:
    untold = []
    for name, value in CONSTRUCTED.items():
        said = _said(value)
        untold += [
            f"{name}({parameter})"
            for parameter in _parameters(value)
            if parameter not in SAID_BY_THE_SPECIFICATION and not re.search(rf"\b{parameter}\b", said)
        ]
    assert untold == []


def test_every_public_method_says_what_it_does() -> None:
    silent = []
    for name, value in CLASSES.items():
        for attribute, member in vars(value).items():
            function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            told = attribute in vars(Sink) or attribute[0] == "_" or attribute.startswith("test_")
            if isinstance(function, types.FunctionType) and not told and not inspect.getdoc(getattr(value, attribute)):
                silent.append(f"{name}.{attribute}")
    assert silent == []


# ---------------------------------------------------------------- names in documents

SHOWN = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", *sorted((ROOT / "examples").rglob("*.py"))]


def _python_in(path: Path) -> Iterator[ast.Module]:
    text = path.read_text()
    for source in [text] if path.suffix == ".py" else re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        try:
            yield ast.parse(source)
        except SyntaxError:
            continue  # cut short for readers; such lines hold no imports


def test_documents_and_examples_import_public_names_only() -> None:
    internal = []
    for path in SHOWN:
        for node in (node for tree in _python_in(path) for node in ast.walk(tree)):
            if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != "antiphon":
                continue
            module = node.module or ""
            if module.removeprefix("antiphon.").split(".")[0] in FASTAPIS:
                continue
            public = importlib.import_module(module).__all__ if module in MODULES else []
            place = path.relative_to(ROOT)
            internal += [f"{place}: {module}.{alias.name}" for alias in node.names if alias.name not in public]
    assert internal == []
