"""Which twin runs is chosen once, in one module."""

from __future__ import annotations

import subprocess
import sys

import pytest

from antiphon.wire import backend, frames, parser
from tests.patience import PATIENCE
from tests.wire.twins import native_twin

SHOW = "from antiphon.wire import NATIVE, Parser; print(NATIVE, Parser.__module__)"


def show(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env=environment, check=True, capture_output=True, text=True, timeout=PATIENCE
    )
    return done.stdout.strip()


def test_antiphon_pure_forces_the_readable_twin() -> None:
    assert show(ANTIPHON_PURE="1") == "False antiphon.wire.parser"


def test_the_native_twin_runs_where_it_was_built() -> None:
    if native_twin() is None:
        pytest.skip("the native twin was not built (no compiler at install)")
    assert show() == "True antiphon.wire._native"
    assert show(ANTIPHON_PURE="0") == "True antiphon.wire._native"


def test_all_names_come_from_one_twin() -> None:
    modules = {getattr(backend, name).__module__ for name in backend.__all__ if name != "NATIVE"}
    if backend.NATIVE:
        assert modules == {"antiphon.wire._native"}
    else:
        assert modules == {parser.__name__, frames.__name__}
