"""Tests of the gate that open connections run on both twins where they ask for `twin`."""

from __future__ import annotations

import pytest

from antiphon.server import backend
from antiphon.server.backend import NATIVE_TWIN, PURE_TWIN, Twin


@pytest.fixture(params=["native", "pure"])
def twin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Twin:
    """Of every engine that the test makes."""
    chosen = PURE_TWIN if request.param == "pure" else NATIVE_TWIN
    if chosen is None:
        pytest.skip("the native twin was not built, or is not wanted")
    monkeypatch.setattr(backend, "twin", chosen)
    return chosen
