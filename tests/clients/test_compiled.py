"""The JavaScript in the package is made from the TypeScript beside it, by both compilers that users may have. The
Python client repeats some of it, and both are the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from antiphon.clients.attempts import DELAYS, Attempts
from tests.node.compile import CLIENTS, MADE, compiled


@pytest.mark.parametrize("typescript", ["typescript", "typescript5"])
def test_the_javascript_that_is_served_is_what_the_typescript_compiles_to(tmp_path: Path, typescript: str) -> None:
    compiled(tmp_path, typescript=typescript)
    for name in MADE:
        assert (tmp_path / name).read_text() == (CLIENTS / name).read_text(), "run python -m tests.node.compile"


def test_both_clients_wait_as_long_and_a_restart_is_over_before_they_wait_long() -> None:
    (printed,) = re.findall(r"^const DELAYS = \[(.*)\];", (CLIENTS / "runtime.ts").read_text(), re.MULTILINE)
    assert [int(delay.replace("_", "")) / 1000 for delay in printed.split(",")] == list(DELAYS)
    assert max(DELAYS[:6]) <= 4
    assert sum(DELAYS[:6]) > 15
    attempts = Attempts("ws://127.0.0.1/", None, None, None, {}, (), {})
    waits = [attempts.delay() for _ in range(200)]
    assert all(wait <= longest for wait, longest in zip(waits, DELAYS, strict=False))
    assert 4 < max(waits) <= DELAYS[-1]
