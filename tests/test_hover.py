"""The examples that an editor shows for a public name run, and each class and function has one."""

from __future__ import annotations

import ast
import asyncio
import builtins
import importlib
import inspect
import logging
import re
import textwrap
import time
import types
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Final

import pytest
from pydantic import BaseModel

import antiphon
import antiphon.asyncapi
import antiphon.gate
import antiphon.server
import antiphon.testclient
import antiphon.testing
from tests.public_names import public_names

MOST: Final = {
    "antiphon": [
        "App",
        "WebSocket",
        "APIRouter",
        "Hub",
        "Topics",
        "Topic",
        "TopicOptions",
        "Depends",
        "Path",
        "Query",
        "Header",
        "Cookie",
        "HTTPException",
        "WebSocketException",
        "WebSocketDisconnect",
        "Channel",
        "Caller",
        "MessageError",
        "MessageRouter",
        "ChannelOptions",
        "Position",
        "ServerConfig",
    ],
    "antiphon.gate": ["JWT", "WebSocketBearer", "Tickets", "Rate", "Quota", "Identity", "requires", "admit"],
    "antiphon.testclient": ["TestClient"],
    "antiphon.testing": ["Server", "virtual_time"],
    "antiphon.Hub": ["publish", "join", "send", "revoke"],
    "antiphon.WebSocket": ["accept", "close", "renew", "receive_as"],
}
"""By module or class."""

USED_MOST = [f"{home}.{name}" for home, names in MOST.items() for name in names]


def found(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:
        return getattr(found(module), attribute)


def examples(value: object) -> list[str]:
    """The indented blocks of a docstring."""
    blocks = re.findall(r"(?:^ {4}.*\n?|^\s*\n(?= {4}))+", inspect.getdoc(value) or "", re.MULTILINE)
    return [textwrap.dedent(block).strip("\n") for block in blocks]


def shown() -> Iterator[tuple[str, str]]:
    seen = set()
    for name in [*public_names(), *USED_MOST]:
        value = found(name)
        ours = isinstance(value, type | types.FunctionType) and (value.__module__ or "").startswith("antiphon")
        if ours and value not in seen:
            seen.add(value)
            for example in examples(value):
                yield name, example


class Said(BaseModel):
    name: str
    text: str


class Typing(BaseModel):
    name: str


class Say(BaseModel):
    text: str


class Hello(BaseModel):
    name: str


def names() -> dict[str, Any]:
    """The names that examples assume: the public ones, an app, a hub, and messages."""
    given: dict[str, Any] = {"asyncio": asyncio, "time": time, "Annotated": Annotated, "AsyncIterator": AsyncIterator}
    for module in (antiphon.asyncapi, antiphon.testing, antiphon.testclient, antiphon.server, antiphon.gate, antiphon):
        given |= {name: getattr(module, name) for name in module.__all__}
    given |= {one.__name__: one for one in (Said, Typing, Say, Hello)}
    jwt = antiphon.gate.JWT("x" * 32, algorithms=["HS256"], audience="live")
    hub = antiphon.Hub()
    rooms = antiphon.Topics("room/{room}", Said | Typing)
    app = antiphon.App(hub=antiphon.Hub(topics=[rooms]))
    given |= {"app": app, "hub": hub, "jwt": jwt, "rooms": rooms, "chat": app.add_channel("/chat"), "SECRET": "x" * 32}
    app.add_websocket_route("/echo", echo)
    others = {
        "logging": logging,
        "application": lambda: None,
        "fastapi_app": app,
        "router": app.router,
        "handler": logging.StreamHandler(),
    }
    return given | others | {"sessions": {}, "verify": None, "websocket": None, "returning": False}


async def echo(websocket: antiphon.WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())


@pytest.mark.parametrize(("name", "example"), list(shown()))
def test_the_example_of_a_name_runs(name: str, example: str) -> None:
    given = names()
    code = compile(example, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if code.co_flags & inspect.CO_COROUTINE:  # it takes a connection: its names at least are there
        assert set(code.co_names) <= {*given, *dir(builtins), *attributes(example)}
        return
    try:
        exec(code, given)
    except (antiphon.HTTPException, antiphon.WebSocketException, antiphon.MessageError):
        assert re.search("^raise ", example, re.MULTILINE)


def attributes(example: str) -> set[str]:
    """The names that belong to an object, or to the example itself."""
    found = set()
    for node in ast.walk(ast.parse(example)):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(one.name for one in node.names)}
    return found


@pytest.mark.parametrize("name", USED_MOST)
def test_a_name_that_is_used_most_has_an_example(name: str) -> None:
    assert examples(found(name)), f"help({name}) shows none"


def test_every_class_and_function_has_an_example_of_its_own_or_of_the_class_it_inherits_from() -> None:
    ours = {name: found(name) for name in public_names()}
    classes = {value for value in ours.values() if isinstance(value, type)}
    lacking = [name for name, value in ours.items() if lacks(value, classes) and not name.startswith(MADE_BY_OTHERS)]
    assert lacking == []


MADE_BY_OTHERS: Final = (
    "antiphon.hub.backends.",  # the parts of a backend: docs/howto/write-a-backend.md is their example
    "antiphon.testing.hub_contract.",  # and its suite
)


def lacks(value: object, classes: set[type]) -> bool:
    if not isinstance(value, type | types.FunctionType) or not (value.__module__ or "").startswith("antiphon"):
        return False  # a constant, or somebody else's
    if isinstance(value, type):
        shown = [value, *(base for base in value.__mro__[1:] if base in classes)]
        return not getattr(value, "_is_protocol", False) and not any(map(examples, shown))
    return not examples(value)
