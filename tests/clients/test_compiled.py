"""The JavaScript in the package is made from the TypeScript beside it, by both compilers that users may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.node.compile import CLIENTS, MADE, compiled


@pytest.mark.parametrize("typescript", ["typescript", "typescript5"])
def test_the_javascript_that_is_served_is_what_the_typescript_compiles_to(tmp_path: Path, typescript: str) -> None:
    compiled(tmp_path, typescript=typescript)
    for name in MADE:
        assert (tmp_path / name).read_text() == (CLIENTS / name).read_text(), "run python -m tests.node.compile"
