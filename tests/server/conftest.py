"""The server's tests run on both event loops that uvicorn offers, and on both twins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from antiphon.server import backend
from antiphon.server.backend import NATIVE_TWIN, PURE_TWIN, Twin

ON_NO_TWIN = ("test_config", "test_deadlines", "test_twins")
"""Files whose tests open no connection."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] not in ON_NO_TWIN and "twin" in metafunc.fixturenames:
        metafunc.parametrize("twin", ["native", "pure"], indirect=True)


@pytest.fixture(autouse=True)
def twin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Twin:
    """Of every engine that the test makes."""
    chosen = PURE_TWIN if getattr(request, "param", None) == "pure" else NATIVE_TWIN
    if chosen is None:
        pytest.skip("the native twin was not built, or is not wanted")
    monkeypatch.setattr(backend, "twin", chosen)
    return chosen
