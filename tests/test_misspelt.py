"""A wrong import says what to write instead, and code that only looks for a name learns that it is not there."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest

import antiphon
import antiphon.gate
from antiphon.misspelt import PUBLIC, public_names
from tests.public_names import FASTAPIS, MODULES

COMPUTED = {"antiphon.status"}
"""Their `__all__` is made of another's."""


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ("from antiphon import Websocket", "did you mean WebSocket?"),
        ("from antiphon import JWT", "write from antiphon.gate import JWT"),
        ("from antiphon import FastAPI", "write from antiphon.fastapi import FastAPI"),
        ("from antiphon.gate import App", "write from antiphon import App"),
        ("from antiphon.testing import TestClient", "write from antiphon.testclient import TestClient"),
        ("from antiphon.clients import Client", "write from antiphon.clients.runtime import Client"),
        (
            "from antiphon.observability import metrics_app",
            "write from antiphon.observability.prometheus import metrics_app",
        ),
        ("from antiphon.hub import Dependss", "did you mean from antiphon import Depends?"),
        ("from antiphon.server import WebsocketProtocol", "did you mean WebSocketProtocol?"),
        ("from antiphon.messages import caler", "did you mean Caller?"),
    ],
)
def test_a_wrong_import_says_what_to_write(wrong: str, advice: str) -> None:
    package, name = re.findall(r"(?:from|import) (\S+)", wrong)
    with pytest.raises(ImportError, match=rf"cannot import name '{name}' from '{package}': {re.escape(advice)}"):
        exec(wrong)


def test_an_attribute_says_it_too_and_whoever_only_looks_is_told_no() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'JWT': write from antiphon\.gate"):
        antiphon.JWT  # type: ignore[attr-defined]
    for package in (antiphon, antiphon.gate):
        assert not hasattr(package, "Websocket")
        assert getattr(package, "TestClient", None) is None


@pytest.mark.parametrize("name", ["Room", "_App", "__wrapped__"])
def test_a_name_that_is_like_no_other_gets_no_advice(name: str) -> None:
    with pytest.raises(ImportError, match=rf"cannot import name '{name}' from 'antiphon' \("):
        exec(f"from antiphon import {name}")


def test_a_module_of_a_package_is_no_mistake() -> None:
    code = "from antiphon.gate import jwks; from antiphon.hub import events; print(jwks.__name__, events.__name__)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["antiphon.gate.jwks", "antiphon.hub.events"]


def test_all_public_modules_are_searched() -> None:
    facades = {f"antiphon.{name}" for name in FASTAPIS if name != "fastapi"}
    assert set(PUBLIC) == {*MODULES, *facades}
    for module in set(MODULES) - COMPUTED:
        assert set(public_names(module)) == set(importlib.import_module(module).__all__), module
