"""Python clients and their use under the strictest checkers: all in one run, which reads pydantic's types only once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from antiphon.clients import runtime_py
from tests.built import CACHE
from tests.node import tool

from .test_generated import AUTH_PY, CHAT, HERE, USE_PY, checked, generated
from .test_torture import APP as TORTURE
from .test_torture import USE_PY as TORTURE_PY

CLIENTS = {"chat": (CHAT, USE_PY), "renewal": (HERE / "app.py", AUTH_PY), "torture": (TORTURE, TORTURE_PY)}


@pytest.mark.timeout(900)  # two type checkers over all clients at once
async def test_python_clients_and_their_use_are_clean_under_mypy_and_pyright(
    tmp_path: Path, other_python: Path
) -> None:
    """With the packages that a Python without antiphon has."""
    for name, (app, use) in CLIENTS.items():
        folder = tmp_path / name
        await generated("python", folder, app=app)
        (folder / "__init__.py").touch()
        (folder / "use.py").write_text(use.replace("from client import", "from .client import"))
    (tmp_path / "antiphon_client.py").write_text(runtime_py())
    options = ("--strict", "--cache-dir", str(CACHE / "typing"), "--python-executable", str(other_python))
    checked(tmp_path, sys.executable, "-m", "mypy", *options, ".")
    checked(tmp_path, *tool("pyright", "index.js"), "--pythonpath", str(other_python), *CLIENTS)
